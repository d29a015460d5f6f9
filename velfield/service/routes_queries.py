"""Routes: velocities at positions that a client sends, of a job's result or of a store."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from velfield.service.problems import documented
from velfield.service.queries import FORMS, Question, blocks
from velfield.service.receive import check_head, pieces
from velfield.service.routes_fields import StoreId
from velfield.service.routes_jobs import JobId
from velfield.service.routes_models import ALWAYS, BINARY, OF_A_BODY, SENT

router = APIRouter()
HEADER = "Velfield-Rows"
CSV = "name,x,y,z\nNGC 1,120.0,80.5,33.0\n"
ANSWER = "name,x,y,z,vx,vy,vz,flag\nNGC 1,120.0,80.5,33.0,-212.4,18.03,97.66,0\n"


class FileAnswer(StreamingResponse):
    """An open file, closed at the end, also where the client has left before it began."""

    def __init__(self, file: IO[bytes], media_type: str, headers: dict[str, str]) -> None:
        size = os.fstat(file.fileno()).st_size
        super().__init__(blocks(file), media_type=media_type, headers=headers | {"Content-Length": str(size)})
        self.file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self.file:
            await super().__call__(scope, receive, send)


def _contents(csv: str, binary: dict[str, Any], **more: int) -> dict[str, Any]:
    text = {"schema": {"type": "string", **more}, "example": csv}
    return {form: text if form == "text/csv" else binary for form in FORMS}


ASKED: dict[str, Any] = {
    "response_class": StreamingResponse,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "description": "A table with the columns x, y, z, or ra, dec, z; or numpy.savez of such arrays (N,).",
            "content": _contents(CSV, SENT, minLength=1),
        }
    },
    "responses": documented(
        *ALWAYS,
        *OF_A_BODY,
        404,
        409,
        also={
            200: {
                "description": "The same table with vx, vy, vz [km/s], flag and others added (docs/query.md); of "
                "arrays an npz of velocity (N, 3), flag (N,) and others",
                "content": _contents(ANSWER, BINARY),
                "headers": {
                    HEADER: {
                        "description": "JSON: rows, those with good velocities, and those with each meaning of flags.",
                        "schema": {"type": "string"},
                    }
                },
            }
        },
    ),
}


@router.post("/jobs/{name}/query", **ASKED)
async def job_query(request: Request, name: JobId, question: Annotated[Question, Query()]) -> StreamingResponse:
    """Velocities of a job's result at given positions: the table comes back in the same form with columns added."""

    def where(service: Any) -> tuple[str, str]:
        service.results.finished(name)
        return service.results.place(name), name

    return await _answered(request, question, where)


@router.post("/stores/{name}/query", **ASKED)
async def store_query(request: Request, name: StoreId, question: Annotated[Question, Query()]) -> StreamingResponse:
    """Velocities of a store of GET /stores at given positions; those of a field store are the true ones."""

    def where(service: Any) -> tuple[str, str]:
        return service.allowed.store(name)["url"], name

    return await _answered(request, question, where)


async def _answered(request: Request, question: Question, where: Callable[[Any], tuple[str, str]]) -> StreamingResponse:
    service = request.app.state.service
    run = asyncio.get_running_loop().run_in_executor
    store = await run(service.errands, where, service)
    async with service.queries.room.place():
        form, length = check_head(request, list(FORMS), service.limits.table)
        stream = pieces(request, length, service.limits)
        file, counts = await service.queries.answer(form, stream, question, store, run)
    service.metrics.positions.inc(counts["rows"])
    return FileAnswer(file, form, {HEADER: json.dumps(counts)})
