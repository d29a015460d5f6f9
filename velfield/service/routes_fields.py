"""Routes: looking at fields. Planes and coarse cubes of jobs and stores, as plain little-endian numbers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from velfield.errors import VelfieldError
from velfield.service import schemas
from velfield.service.allowed import ID
from velfield.service.problems import Problem, documented
from velfield.service.routes_jobs import JobId
from velfield.service.routes_models import ALWAYS, BINARY
from velfield.service.slices import COARSEST, FEWEST, FINEST, MOST, Source

router = APIRouter()
OCTETS = "application/octet-stream"
HEADER = "Velfield-Array"
StoreId = Annotated[str, Path(pattern=ID.pattern, examples=["0123456789abcdef"])]


class Look(BaseModel):
    """What is looked at."""

    variable: Literal[
        "velocity",
        "velocity_std",
        "velocity_flag",
        "velocity_truth",
        "velocity_error",
        "halo_number_overdensity",
        "halo_mass_overdensity",
        "matter_number_overdensity",
    ] = Field(
        description="velocity_truth is a job's input's own, velocity_error how far the result is from it; "
        "density contrasts are over the parent's mean."
    )
    box: int | None = Field(None, ge=0, le=10**9, description="Number of the box; without it the whole parent.")


class Measured(BaseModel):
    """What is measured."""

    box: int | None = Field(None, ge=0, le=10**9, description="Number of the box; without it all of them.")


class Plane(Look):
    """A plane of cells."""

    axis: Literal["x", "y", "z"] = Field(description="The plane's normal.")
    index: int = Field(ge=0, le=10**6, description="Of the plane, in cells from the corner.")
    most: int = Field(MOST, ge=FEWEST, le=MOST, description="Pixels along a side, at most; they are means of cells.")


class Block(Look):
    """All cells, or means of them."""

    most: int = Field(32, ge=COARSEST, le=FINEST, description="Cells along a side, at most.")


ABOUT = {
    HEADER: {
        "description": "JSON: shape, dims, units, cellsize (of a pixel) and origin [Mpc/h], step (cells along "
        "a pixel), low and high (how far values reach), meanings of flags.",
        "schema": {"type": "string"},
    }
}
ARRAY: dict[str, Any] = {
    "response_class": Response,
    "responses": documented(
        *ALWAYS,
        404,
        409,
        413,
        422,
        also={
            200: {
                "description": "float32, little-endian, C order; NaN where nothing is known",
                "content": {OCTETS: BINARY},
                "headers": ABOUT,
            }
        },
    ),
}


@router.get("/jobs/{name}/fields", responses=documented(*ALWAYS, 404, 409, 422))
async def job_fields(request: Request, name: JobId) -> schemas.Fields:
    """What there is to look at of a job that is done."""
    return schemas.Fields(**await _run(request, lambda s: s.slices.about(_of_job(s, name))))


@router.get("/jobs/{name}/slice", **ARRAY)
async def job_slice(request: Request, name: JobId, asked: Annotated[Plane, Query()]) -> Response:
    """A plane of a job's result, or of what it was given."""
    return _answer(*await _run(request, lambda s: s.slices.plane(_of_job(s, name), **asked.model_dump())))


@router.get("/jobs/{name}/block", **ARRAY)
async def job_block(request: Request, name: JobId, asked: Annotated[Block, Query()]) -> Response:
    """A box of a job, or all of them, in few cells: means."""
    return _answer(*await _run(request, lambda s: s.slices.block(_of_job(s, name), **asked.model_dump())))


@router.get("/jobs/{name}/measures", responses=documented(*ALWAYS, 404, 409, 413, 422))
async def job_measures(request: Request, name: JobId, asked: Annotated[Measured, Query()]) -> schemas.Measures:
    """How near a job's velocities are to the true ones of its input, where it has them, and how large they are."""
    return schemas.Measures(**await _run(request, lambda s: s.slices.measures(_of_job(s, name), asked.box)))


@router.get("/stores/{name}/fields", responses=documented(*ALWAYS, 404, 422))
async def store_fields(request: Request, name: StoreId) -> schemas.Fields:
    """What there is to look at in a store of GET /stores."""
    return schemas.Fields(**await _run(request, lambda s: s.slices.about(_of_store(s, name))))


@router.get("/stores/{name}/slice", **ARRAY)
async def store_slice(request: Request, name: StoreId, asked: Annotated[Plane, Query()]) -> Response:
    """A plane of a store."""
    return _answer(*await _run(request, lambda s: s.slices.plane(_of_store(s, name), **asked.model_dump())))


@router.get("/stores/{name}/block", **ARRAY)
async def store_block(request: Request, name: StoreId, asked: Annotated[Block, Query()]) -> Response:
    """A box of a store, or all of them, in few cells: means."""
    return _answer(*await _run(request, lambda s: s.slices.block(_of_store(s, name), **asked.model_dump())))


@router.get("/stores/{name}/measures", responses=documented(*ALWAYS, 404, 413, 422))
async def store_measures(request: Request, name: StoreId, asked: Annotated[Measured, Query()]) -> schemas.Measures:
    """How near a store's velocities are to the true ones of its input, where that is served, too."""
    return schemas.Measures(**await _run(request, lambda s: s.slices.measures(_of_store(s, name), asked.box)))


def _of_job(service: Any, name: str) -> Source:
    """A job's result and, as long as it is there, what it was given."""
    job = service.results.finished(name)
    made = service.results.place(name)
    try:
        upload = job.input.startswith("upload:")
        fields = service.uploads.place(job.input) if upload else service.allowed.resolve(job.input)
    except Problem:  # it has expired, or is allowed no longer
        fields = None
    source = Source(fields=fields, made=made)
    if fields is not None and not source.of_this_input():
        source = Source(fields=None, made=made)  # another store lies there now
    return source


def _of_store(service: Any, name: str) -> Source:
    """A store; of velocities also the field store that they were predicted from, where that is served, too."""
    about = service.allowed.store(name)
    if about["kind"] == "fields":
        return Source(fields=about["url"])
    source = Source(fields=service.allowed.input_of(about), made=about["url"])
    return source if source.of_this_input() else Source(fields=None, made=about["url"])


async def _run(request: Request, function: Callable[[Any], Any]) -> Any:
    """Read beside the loop; what is wrong with a store names nothing of this machine but what clients call it."""
    service = request.app.state.service
    try:
        return await asyncio.get_running_loop().run_in_executor(service.errands, function, service)
    except VelfieldError as error:
        names = {service.results.folder: "results", service.uploads.folder: "uploads"}
        raise Problem.of(error, names=names) from error


def _answer(values: NDArray[Any], about: dict[str, Any]) -> Response:
    told = {"shape": list(values.shape), **about}
    data = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return Response(data, media_type=OCTETS, headers={HEADER: json.dumps(told)})
