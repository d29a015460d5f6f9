"""Routes: is it alive, what is there, and cubes that are answered at once."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse

from velfield.errors import VelfieldError
from velfield.service import schemas
from velfield.service.cubes import Asked, Cube, boxed, fingerprint_of, read_npz, spec_of
from velfield.service.npz import packed
from velfield.service.problems import Problem, documented
from velfield.service.receive import NPZ, receive
from velfield.stores import store
from velfield.version import __version__

router = APIRouter()
BINARY = {"schema": {"type": "string", "format": "binary"}}
SENT = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
BODY = {
    "requestBody": {
        "required": True,
        "description": "numpy.savez of halo_number, halo_mass, matter_number, or those of them that the model needs: "
        "cubes (x, y, z) of counts and masses per cell. Or of halo_number_overdensity, …: value / mean - 1, "
        "with the mean in the query.",
        "content": {NPZ: SENT},
    }
}
ALWAYS = (401, 403, 421, 429)  # of the guard
OF_A_BODY = (408, 411, 413, 415, 422)  # that is too slow, of no length, too large, of another type, senseless


@router.get("/health", responses=documented(421, 403))
async def health() -> schemas.Health:
    """Say that the service is alive."""
    return schemas.Health(version=__version__)


@router.get(
    "/ready",
    response_model=schemas.Ready,
    responses=documented(421, 403, also={503: {"model": schemas.Ready, "description": "Something is amiss"}}),
)
async def ready(request: Request) -> Any:
    """Whether models are loaded, the state can be written, jobs are run and the scheduler answers."""
    service = request.app.state.service
    run = asyncio.get_running_loop().run_in_executor
    parts = {
        "models": bool(service.models.by_name),
        "state": await run(service.errands, service.writable),
        "runner": service.runner.alive(),
        "scheduler": await run(service.errands, service.reachable),
    }
    answer = schemas.Ready(ready=all(parts.values()), **parts)
    return JSONResponse(answer.model_dump(), 200 if answer.ready else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses=documented(*ALWAYS, also={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}),
)
async def metrics(request: Request) -> Response:
    """Counts for Prometheus."""
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/models", responses=documented(*ALWAYS))
async def models(request: Request) -> schemas.ModelCards:
    """All models that are served."""
    served = request.app.state.service.models.by_name.values()
    return schemas.ModelCards(models=[_card(one) for one in served])


@router.get("/models/{name}", responses=documented(*ALWAYS, 404, 422))
async def model(request: Request, name: str) -> schemas.ModelCard:
    """What a model takes, what it was trained on, and what it reached."""
    return _card(request.app.state.service.models.get(name))


@router.get("/limits", responses=documented(*ALWAYS))
async def limits(request: Request) -> schemas.LimitsCard:
    """How much a client may send."""
    return schemas.LimitsCard(**dataclasses.asdict(request.app.state.service.limits))


@router.get("/stores", responses=documented(*ALWAYS))
async def stores(request: Request) -> schemas.StoreCards:
    """The stores beneath what the operator allowed: field stores, which a job may name, and velocity stores."""
    service = request.app.state.service
    found = await asyncio.get_running_loop().run_in_executor(service.errands, service.allowed.stores)
    return schemas.StoreCards(stores=[schemas.StoreCard(**about) for about in found])


@router.post(
    "/predict/{name}",
    response_class=Response,
    openapi_extra=BODY,
    responses=documented(
        *ALWAYS,
        *OF_A_BODY,
        404,
        also={
            200: {
                "description": "npz of velocity (3, x, y, z), float32 [km/s]; velocity_std where the model has it, and "
                "velocity_flag (x, y, z) where any cell is flagged (docs/store.md)",
                "content": {NPZ: BINARY},
                "headers": {
                    "Velfield-Notes": {
                        "description": "JSON list: in what the cube differs from the model's training.",
                        "schema": {"type": "string"},
                    },
                    "Velfield-Implausible": {
                        "description": "JSON string: what cannot be right, of an answer accepted as implausible.",
                        "schema": {"type": "string"},
                    },
                },
            }
        },
    ),
)
async def predict(request: Request, name: str, cube: Annotated[Asked, Query()]) -> Response:
    """Velocities of one small cube, at once.

    The cube is an isolated box, as if it were the one box of a field store that `velfield predict` is given; with a
    margin, its inner part is, and the rest are surroundings.
    """
    service = request.app.state.service
    served, limits = service.models.get(name), service.limits
    if cube.margin < served.model.context:
        raise Problem(
            422,
            f"fewer surroundings than the model needs: margin={cube.margin}, context={served.model.context}",
            f"send a cube with at least {served.model.context} cells around the box, and say margin=…",
        )
    run = asyncio.get_running_loop().run_in_executor
    async with service.room.place():
        body = await receive(request, NPZ, limits.body, limits)
        ds = await run(service.errands, _opened, body, cube, limits.cells)
        del body
        try:
            made, notes, why = await service.forward.run(lambda: served.predict(ds, cube.accept))
        except VelfieldError as error:
            raise Problem.of(error, names={served.url: served.name}) from error
        service.metrics.cells.labels(served.name).inc(ds.attrs["cells"] ** 3)
        data = await run(service.errands, packed, made)
    heads = {"Velfield-Notes": json.dumps(notes)} | ({} if why is None else {"Velfield-Implausible": json.dumps(why)})
    return Response(data, media_type=NPZ, headers=heads)


def _opened(body: bytes, cube: Cube, most_cells: int) -> Any:
    """The field store of one box that a body stands for."""
    arrays = read_npz(io.BytesIO(body), cube, most_cells)
    spec = spec_of(cube, arrays, fingerprint_of(cube, hashlib.sha256(body)))
    return store.fields_in_memory(spec, boxed(cube, arrays))


def _card(served: Any) -> schemas.ModelCard:
    return schemas.ModelCard(**served.card())
