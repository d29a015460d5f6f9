"""What went wrong, for a client: RFC 9457's problem document, in one sentence each of what is wrong and what to do."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from velfield.errors import ImplausibleError, VelfieldError

MEDIA_TYPE = "application/problem+json"
LONGEST = 2000  # characters of a message
NEIGHBOUR = re.compile(r"did you mean .*\? ")  # names a file of this machine that the client did not
LOG = logging.getLogger("velfield.service")
TO_DO = {404: "see /openapi.json for what there is", 405: "see /openapi.json for the methods that there are"}


class ProblemDocument(BaseModel):
    """What went wrong."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Too Many Requests"])
    status: int = Field(examples=[429])
    error: str = Field(examples=["the service is busy: cubes=16"])
    what_to_do: str = Field(examples=["try again in 4 s"])


class Problem(Exception):
    """Something that a client can mend: status, what is wrong, what to do."""

    def __init__(self, status: int, error: str, what_to_do: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status, self.error, self.what_to_do, self.headers = status, error, what_to_do, dict(headers or {})

    @classmethod
    def of(cls, error: VelfieldError, status: int = 422, names: Mapping[str, str] | None = None) -> Problem:
        """One of our own errors; ``names`` are what the client calls places on this machine."""
        text = hidden(str(error), names or {})
        if isinstance(error, ImplausibleError):
            text = text.replace("--accept implausible", 'accept=["implausible"]')
        what, semicolon, to_do = text.rpartition("; ")
        return cls(status, what, to_do) if semicolon else cls(status, text, "change the request")

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "error": self.error,
            "what_to_do": self.what_to_do,
        }

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.document(), self.status, headers=self.headers, media_type=MEDIA_TYPE)


def hidden(text: str, names: Mapping[str, str]) -> str:
    """A message with what the client calls them in place of this machine's places, longest first; not a whole file.

    Names that lie beside a path that is not there are left out.
    """
    for place in sorted(names, key=len, reverse=True):
        text = text.replace(place, names[place])
    return " ".join(NEIGHBOUR.sub("", text).split())[:LONGEST]


def documented(*statuses: int, also: dict[int | str, dict[str, Any]] | None = None) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these problems, and other answers."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {**(also or {}), **{n: {"description": HTTPStatus(n).phrase, "content": content} for n in statuses}}


def answer_problems(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Have every error of an application with these routes answered in this way; no traceback leaves the service."""

    @app.exception_handler(Problem)
    async def problem(_request: Request, error: Problem) -> JSONResponse:
        return error.response()

    @app.exception_handler(VelfieldError)
    async def ours(_request: Request, error: VelfieldError) -> JSONResponse:
        return Problem.of(error).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        return of_validation(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        what, status, headers = str(error.detail).lower(), error.status_code, dict(error.headers or {})
        matches = [(route, route.matches(request.scope)[0]) for route in routes]
        same = [route for route, match in matches if match is not Match.NONE]
        if (
            status == 404 and same and all(match is not Match.FULL for _, match in matches)
        ):  # the page's files, asked for what is none
            what, status = "method not allowed", 405
        if status == 405:  # a route names its own method alone, others may have the same path
            headers["Allow"] = ", ".join(sorted({m for route in same for m in getattr(route, "methods", None) or ()}))
        return Problem(status, what, TO_DO.get(status, "change the request"), headers).response()

    @app.exception_handler(Exception)
    async def bug(_request: Request, error: Exception) -> JSONResponse:
        return of_a_bug(error).response()


def of_validation(errors: Any) -> Problem:
    """What pydantic found, the first of it."""
    first = errors[0]
    loc = first["loc"][1:] if first["loc"] and first["loc"][0] in ("query", "body", "path") else first["loc"]
    where = ".".join(map(str, loc))
    return Problem(
        422,
        f"not as the API has it: {where or 'request'}: {first['msg'].lower()}",
        "see /openapi.json for its form and examples",
    )


def of_a_bug(error: BaseException) -> Problem:
    """An error that is ours: the traceback goes to the log, its number to the client."""
    number = uuid.uuid4().hex[:8]
    LOG.error("error %s", number, exc_info=error)
    return Problem(500, f"the service failed: number={number}", "tell its operator the number, which is in the log")
