"""The service put together: what it is made of, and its routes."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from velfield.service import apart, routes_fields, routes_jobs, routes_models, routes_queries
from velfield.service.allowed import Allowed
from velfield.service.auth import Guard
from velfield.service.jobs import Job, Jobs
from velfield.service.limits import Limits, Room
from velfield.service.metrics import Measured, Metrics
from velfield.service.models import Forward, Models
from velfield.service.paint import Paint
from velfield.service.problems import Problem, ProblemDocument, answer_problems
from velfield.service.queries import Queries
from velfield.service.receive import JSON
from velfield.service.results import Results
from velfield.service.slices import Slices
from velfield.service.uploads import Uploads
from velfield.version import __version__

LOG = logging.getLogger("velfield.service")
PAGE = Path(__file__).with_name("page")
SEEN = 5.0  # how long it is taken for known whether the scheduler answers [s]
OFTEN = 60.0  # between two sweeps of what has expired, at most [s]
ABOUT = """Peculiar velocities from tracers: models to choose from, small cubes answered at once, whole stores as jobs,
velocities at the positions of a table.

Errors are `application/problem+json` with `error` (what is wrong) and `what_to_do`. Where the service has tokens, send
`Authorization: Bearer TOKEN`."""


class JobRunner(Protocol):
    """What runs jobs; `velfield.service.runner.Runner` does so on Dask."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End; what runs goes on after the next start."""

    def alive(self) -> bool:
        """Whether it runs."""

    def asked(self, model: str, given: str, average: int, isolated: bool, paint: Paint | None) -> Job:
        """The job that a request stands for."""

    def interrupt(self) -> None:
        """Look up from the job that runs."""


@dataclass(kw_only=True)
class Service:
    """All parts of a service, for its routes.

    Parameters
    ----------
    folder : str
        A folder of this machine for jobs, results and uploads.
    """

    models: Models
    allowed: Allowed
    limits: Limits
    folder: str
    tokens: Sequence[str] = ()
    scheduler: Callable[[], bool] = lambda: True
    runner: JobRunner = field(init=False)

    def __post_init__(self) -> None:
        self.jobs = Jobs(os.path.join(self.folder, "jobs"), self.limits)
        self.uploads = Uploads(os.path.join(self.folder, "uploads"), self.limits)
        self.results = Results(os.path.join(self.folder, "results"), self.jobs)
        self.queries = Queries(os.path.join(self.folder, "queries"), self.limits)
        self.slices = Slices()
        self.room = Room(self.limits.cubes, self.limits.line)
        self.upload_room = Room(self.limits.cubes, self.limits.line)  # one that comes slowly takes no cube's place
        self.metrics = Metrics(self.jobs, self.room)
        self.forward = Forward(self._took)
        self._seen = -SEEN, False
        self.errands = ThreadPoolExecutor(4, thread_name_prefix="velfield-errand")

    def writable(self) -> bool:
        """Whether its folder can be written to."""
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(b"0")
                file.flush()
        except OSError:
            return False
        return True

    def reachable(self) -> bool:
        """Whether the scheduler answers, or did so a moment ago: anybody may ask."""
        then, answers = self._seen
        if time.monotonic() - then > SEEN:
            answers = self.scheduler()
            self._seen = time.monotonic(), answers
        return answers

    def sweep(self) -> None:
        """Remove what has expired."""
        for name in self.jobs.expired():
            with suppress(Problem):  # it was removed, or asked for again, a moment ago
                self.jobs.over(name)
                self.results.remove(name)
                self.jobs.forget(name)
        self.results.sweep()
        self.uploads.sweep(self.jobs.inputs())

    def _took(self, seconds: float) -> None:
        self.room.took(seconds)
        self.metrics.forward.observe(seconds)


def create_app(service: Service) -> FastAPI:
    """The ASGI application; its runner starts and ends with it."""

    async def sweeping() -> None:
        while True:
            try:
                await asyncio.get_running_loop().run_in_executor(service.errands, service.sweep)
            except OSError as error:  # a disk that is full now may not be so later
                LOG.warning("what has expired was not removed: %s", error)
            await asyncio.sleep(min(OFTEN, service.limits.keep / 4))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        apart.begin()
        service.runner.start()
        sweeper = asyncio.create_task(sweeping())
        try:
            yield
        finally:
            sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await sweeper
            await asyncio.get_running_loop().run_in_executor(None, service.runner.stop)
            service.forward.close()
            service.queries.close()
            service.errands.shutdown(wait=True, cancel_futures=True)

    app = FastAPI(
        title="velfield",
        version=__version__,
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,  # they would load their scripts from another host
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    routers = [part.router for part in (routes_models, routes_jobs, routes_fields, routes_queries)]
    answer_problems(app, [route for router in routers for route in router.routes])
    for router in routers:
        app.include_router(router)
    page = [path for path in PAGE.rglob("*") if path.is_file()] if (PAGE / "index.html").is_file() else []
    if page:
        app.mount("/", StaticFiles(directory=PAGE, html=True))
    free = ["/" + path.relative_to(PAGE).as_posix() for path in page]
    app.add_middleware(Guard, tokens=service.tokens, rate=service.limits.rate, free=free)
    app.add_middleware(Measured, metrics=service.metrics)
    _describe(app, list(service.models.by_name), secured=bool(service.tokens))
    return app


def _describe(app: FastAPI, models: list[str], *, secured: bool) -> None:
    """Add to OpenAPI what all routes share: the problem document, the models' names, the scheme of tokens."""
    original = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            made = original()
            parts = made.setdefault("components", {})
            parts.setdefault("schemas", {})["ProblemDocument"] = ProblemDocument.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which nothing here answers with
                parts["schemas"].pop(name, None)
            for path in ("/models/{name}", "/predict/{name}"):
                for operation in made["paths"][path].values():
                    of_path = next(one for one in operation["parameters"] if one["in"] == "path")
                    of_path["schema"]["enum"] = models
            asked = copy.deepcopy(routes_jobs.ASKED)
            form = asked["requestBody"]["content"][JSON]["schema"]
            form["properties"]["model"]["enum"] = models
            form["examples"] = [example | {"model": models[0]} for example in form["examples"]]
            made["paths"]["/jobs"]["post"] |= asked
            if secured:
                parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
                for path, methods in made["paths"].items():
                    if path not in ("/health", "/ready"):
                        for operation in methods.values():
                            operation["security"] = [{"token": []}]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
