"""Where a task's time goes: named stages, shown on Dask's dashboard and counted for the receipts and the report.

``with stage("read", nbytes=n, rows=m):`` inside a task is enough. Its seconds go to Dask's fine performance metrics
and, with bytes and rows, to the sums of the task that runs. A stage within a stage counts only once, in the inner one.
Outside a task nothing is kept.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from distributed import get_worker
from distributed.metrics import context_meter

Sums = dict[str, dict[str, float]]  # stage: {"seconds", "bytes", "rows"}

_sums: ContextVar[Sums | None] = ContextVar("velfield_stages", default=None)


@dataclass(kw_only=True)
class Stage:
    """A stage that runs; bytes and rows may be added until it ends."""

    nbytes: float = 0
    rows: float = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a task took: its stages' sums, all its seconds, and its process's peak of memory so far [bytes]."""

    stages: Sums
    seconds: float
    worker: str
    peak_memory: int


@contextmanager
def stage(name: str, *, nbytes: float = 0, rows: float = 0) -> Iterator[Stage]:
    """Count the time spent inside as the stage ``name``, with the bytes and rows that went through it."""
    this = Stage(nbytes=nbytes, rows=rows)
    try:
        with context_meter.meter(name) as meter:
            yield this
    finally:
        if this.nbytes:
            context_meter.digest_metric(name, this.nbytes, "bytes")
        sums = _sums.get()
        if sums is not None:
            add(sums, {name: {"seconds": meter.delta, "bytes": this.nbytes, "rows": this.rows}})


def so_far() -> Sums:
    """The sums of the task that runs, rounded for a receipt; empty outside one."""
    return {
        name: {what: round(value, 6) if what == "seconds" else int(value) for what, value in sums.items()}
        for name, sums in (_sums.get() or {}).items()
    }


def add(total: Sums, part: Mapping[str, Mapping[str, float]]) -> None:
    """Add sums to sums."""
    for name, values in part.items():
        into = total.setdefault(name, {"seconds": 0.0, "bytes": 0, "rows": 0})
        for what, value in values.items():
            into[what] = into.get(what, 0) + value


def measured(task: Callable[..., Any], *arguments: Any) -> tuple[Any, Measured]:
    """Run a task on a worker; return its result and what it took."""
    sums: Sums = {}
    token = _sums.set(sums)
    began = perf_counter()
    try:
        result = task(*arguments)
    finally:
        _sums.reset(token)
    return result, Measured(
        stages=sums, seconds=perf_counter() - began, worker=_worker_name(), peak_memory=peak_memory()
    )


def peak_memory() -> int:
    """The most memory that this process has had [bytes].

    ``ru_maxrss`` alone would do but for one thing: on Linux a new process starts with its parent's.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _worker_name() -> str:
    try:
        return str(get_worker().address)
    except ValueError:  # not on a worker
        return f"{socket.gethostname()}:{os.getpid()}"
