"""Routes: uploads, jobs and their results."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import ValidationError
from starlette.responses import FileResponse, JSONResponse

from velfield.service import schemas
from velfield.service.cubes import Cube
from velfield.service.paint import FORMS
from velfield.service.problems import documented, of_validation
from velfield.service.receive import JSON, NPZ, check_head, pieces, receive
from velfield.service.routes_models import ALWAYS, BINARY, BODY, OF_A_BODY, SENT

router = APIRouter()
LARGEST_REQUEST = 2**14  # bytes of what asks for a job
JobId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", examples=[schemas.JOB_ID])]


def _asked() -> dict[str, Any]:
    """The schema of a request, its parts where OpenAPI has them: a job's status names them, too."""
    made = schemas.JobRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    made.pop("$defs")
    return made


ASKED: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": _asked()}},
    }
}


@router.post(
    "/uploads",
    status_code=201,
    response_model=schemas.Uploaded,
    openapi_extra=BODY,
    responses=documented(
        *ALWAYS,
        *OF_A_BODY,
        507,
        also={200: {"model": schemas.Uploaded, "description": "The same is there"}},
    ),
)
async def upload(request: Request, cube: Annotated[Cube, Query()]) -> Any:
    """Leave a cube, for jobs. It is kept while jobs use it."""
    service = request.app.state.service
    async with service.upload_room.place():
        _, length = check_head(request, [NPZ], service.limits.upload)
        stream = pieces(request, length, service.limits)
        name, cells, new = await service.uploads.take(cube, length, stream, service.errands)
    return JSONResponse(schemas.Uploaded(input=name, cells=cells).model_dump(), 201 if new else 200)


@router.post(
    "/catalogues",
    status_code=201,
    response_model=schemas.UploadedCatalogue,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "A table of halos, as `velfield paint` reads it: positions, velocities, masses.",
            "content": dict.fromkeys(FORMS, SENT),
        }
    },
    responses=documented(
        *ALWAYS,
        *OF_A_BODY,
        507,
        also={200: {"model": schemas.UploadedCatalogue, "description": "The same is there"}},
    ),
)
async def upload_catalogue(request: Request) -> Any:
    """Leave a catalogue of halos, for jobs. It is kept while jobs use it, and read when one is asked for."""
    service = request.app.state.service
    async with service.upload_room.place():
        _, length = check_head(request, FORMS, service.limits.upload)
        stream = pieces(request, length, service.limits)
        name, new = await service.uploads.take_catalogue(length, stream, service.errands)
    return JSONResponse(schemas.UploadedCatalogue(input=name).model_dump(), 201 if new else 200)


@router.post(
    "/jobs",
    status_code=202,
    response_model=schemas.JobStatus,
    openapi_extra=ASKED,
    responses=documented(
        *ALWAYS,
        *OF_A_BODY,
        404,
        503,
        also={200: {"model": schemas.JobStatus, "description": "The same job is there"}},
    ),
)
async def submit(request: Request) -> Any:
    """Ask for a whole store, a catalogue or an upload to be predicted. The same request is the same job."""
    service = request.app.state.service
    body = await receive(request, JSON, LARGEST_REQUEST, service.limits)
    try:
        asked = schemas.JobRequest.model_validate_json(body)
    except ValidationError as error:
        raise of_validation(error.errors()) from error
    run = asyncio.get_running_loop().run_in_executor
    arguments = (asked.model, asked.input, asked.average, asked.isolated, asked.paint)
    job = await run(service.errands, service.runner.asked, *arguments)
    job.accept = list(asked.accept)
    job, new = await run(service.errands, service.jobs.submit, job)
    return _answer(service, job, 202 if new else 200)


@router.get("/jobs", responses=documented(*ALWAYS))
async def jobs(request: Request) -> schemas.JobStatuses:
    """All jobs that are kept, the oldest first."""
    service = request.app.state.service
    return schemas.JobStatuses(jobs=[schemas.status_of(job, service.limits.keep) for job in service.jobs.all()])


@router.get("/jobs/{name}", responses=documented(*ALWAYS, 404, 422))
async def job(request: Request, name: JobId) -> schemas.JobStatus:
    """How far a job is."""
    service = request.app.state.service
    return schemas.status_of(service.jobs.get(name), service.limits.keep)


@router.post("/jobs/{name}/cancel", responses=documented(*ALWAYS, 404, 422))
async def cancel(request: Request, name: JobId) -> schemas.JobStatus:
    """Cancel a job that waits or runs; nothing changes of one that is over."""
    service = request.app.state.service
    run = asyncio.get_running_loop().run_in_executor
    found = await run(service.errands, service.jobs.cancel, name)
    if found.state == "cancelling":
        await run(service.errands, service.runner.interrupt)
    return schemas.status_of(found, service.limits.keep)


@router.delete("/jobs/{name}", responses=documented(*ALWAYS, 404, 409, 422))
async def remove(request: Request, name: JobId) -> schemas.JobStatus:
    """Remove a job that is over, with its result; answers with what it was."""
    service = request.app.state.service
    service.jobs.over(name)
    await asyncio.get_running_loop().run_in_executor(service.errands, service.results.remove, name)
    return schemas.status_of(service.jobs.forget(name), service.limits.keep)


@router.get(
    "/jobs/{name}/result/velocity.{kind}",
    response_class=FileResponse,
    responses=documented(
        *ALWAYS,
        400,
        404,
        409,
        413,
        422,
        also={
            200: {
                "description": "npz of velocity (box, 3, x, y, z) [km/s]; NetCDF with the coordinates, too",
                "content": {NPZ: BINARY, "application/x-netcdf": BINARY},
            },
            206: {"description": "A part, as Range asks", "content": {NPZ: BINARY, "application/x-netcdf": BINARY}},
            416: {"description": "No such part", "content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    ),
)
async def result(request: Request, name: JobId, kind: Literal["npz", "nc"]) -> Any:
    """The whole result of a job as one file, if it is not too large."""
    service = request.app.state.service
    path = await asyncio.get_running_loop().run_in_executor(service.errands, service.results.file, name, kind)
    media_type = NPZ if kind == "npz" else "application/x-netcdf"
    return FileResponse(path, media_type=media_type, filename=f"velocity-{name[:8]}.{kind}")


@router.head("/jobs/{name}/store/{key:path}", response_class=FileResponse, include_in_schema=False)
@router.get(
    "/jobs/{name}/store/{key:path}",
    response_class=FileResponse,
    responses=documented(
        *ALWAYS,
        400,
        404,
        409,
        422,
        also={
            200: {"description": "An object of the store", "content": {"application/octet-stream": BINARY, JSON: {}}},
            206: {"description": "A part, as Range asks", "content": {"application/octet-stream": BINARY, JSON: {}}},
            416: {"description": "No such part", "content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    ),
)
async def store_object(request: Request, name: JobId, key: str) -> Any:
    """An object of the result's Zarr store: `xarray.open_zarr("http://…/jobs/ID/store")` asks for them."""
    service = request.app.state.service
    path = await asyncio.get_running_loop().run_in_executor(service.errands, service.results.object, name, key)
    return FileResponse(path, media_type=JSON if key.endswith("zarr.json") else "application/octet-stream")


def _answer(service: Any, found: Any, status: int) -> JSONResponse:
    content = json.loads(schemas.status_of(found, service.limits.keep).model_dump_json())
    return JSONResponse(content, status, headers={"Location": f"/jobs/{found.id}"} if status == 202 else None)
