"""What Prometheus is told."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from velfield.service.jobs import Jobs
from velfield.service.limits import Room

BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)  # s


class Metrics(Collector):
    """Counts of this process, and what jobs and cubes are when it is asked."""

    def __init__(self, jobs: Jobs, room: Room) -> None:
        self.jobs, self.room = jobs, room
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.requests = Counter(
            "velfield_requests", "Requests that were answered", ["method", "route", "status"], registry=self.registry
        )
        self.latency = Histogram(
            "velfield_request_seconds", "From head to last byte", ["route"], buckets=BUCKETS, registry=self.registry
        )
        self.forward = Histogram(
            "velfield_forward_seconds", "Of a cube's prediction", buckets=BUCKETS, registry=self.registry
        )
        self.cells = Counter("velfield_predicted_cells", "Cells predicted", ["model"], registry=self.registry)

        self.positions = Counter("velfield_queried_positions", "Positions answered", registry=self.registry)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Gauges: jobs by state, cubes in the service."""
        jobs = GaugeMetricFamily("velfield_jobs", "Jobs", labels=["state"])
        for state, count in self.jobs.counts().items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("velfield_cubes", "Cubes received, kept or predicted", value=self.room.taken)
        yield GaugeMetricFamily("velfield_waiting", "Cubes in line, not read yet", value=self.room.waiting)
        yield GaugeMetricFamily("velfield_cubes_limit", "Cubes that there is room for", value=self.room.places)

    def text(self) -> bytes:
        """All, as Prometheus reads it."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware: counts and times every request under its route, never under its path."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note what became of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.latency.labels(route).observe(time.perf_counter() - began)


METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
