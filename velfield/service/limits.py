"""How much of everything a client may have."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

from velfield.errors import VelfieldError
from velfield.service.problems import Problem

CLIENTS = 10_000  # whose rates are remembered; the one that was quiet longest is forgotten


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a service takes.

    Parameters
    ----------
    body, upload : int
        Bytes of a cube that is answered at once, and of one that is uploaded.
    cells, upload_cells : int
        Cells of each; what a compressed body may grow to follows from them (docs/service.md).
    table, rows : int
        Bytes and rows of a table of positions.
    grid : int
        Cells along the side of a parent that is painted.
    cubes, line : int
        Cubes that are received, kept and predicted at a time, and requests that wait before their bodies are read.
    queries : int
        Tables of positions that are received and answered at a time.
    queue : int
        Jobs that wait.
    space : int
        Bytes of all uploads together.
    rate : int
        Requests a minute of one client.
    keep : float
        How long what is finished, and an upload that nobody uses, is kept [s].
    patience : float
        How long a body may take to begin with [s]; each 64 KiB that came add one second.
    """

    body: int
    upload: int
    cells: int
    upload_cells: int
    table: int
    rows: int
    grid: int
    cubes: int
    line: int
    queries: int
    queue: int
    space: int
    rate: int
    keep: float
    patience: float

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 < getattr(self, field.name) < math.inf:
                raise VelfieldError(
                    f"no such limit: {field.name}={getattr(self, field.name)}; give a number above 0 and below infinity"
                )


class Rate:
    """Requests of each client: as many at once as it may have in a minute, then as they come back."""

    def __init__(self, a_minute: int) -> None:
        self._whole = float(a_minute)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: str, now: float | None = None) -> float:
        """Count a request; returns 0, or the seconds after which there is room for one."""
        now = time.monotonic() if now is None else now
        with self._lock:
            left, then = self._left.pop(client, (self._whole, now))
            left = min(self._whole, left + (now - then) * self._whole / 60)
            taken = left >= 1
            self._left[client] = (left - 1 if taken else left, now)
            if len(self._left) > CLIENTS:
                self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) * 60 / self._whole


class Room:
    """Cubes that are in the service at a time, and a line of requests before it whose bodies are not read yet."""

    def __init__(self, places: int, line: int) -> None:
        self.places, self.line = places, line
        self.taken = self.waiting = 0
        self.seconds = 1.0  # that a cube takes, as the last ones did
        self._free = asyncio.Semaphore(places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait in line for a place, and have it for as long as the context lasts; 429 where the line is full."""
        if self._free.locked() and self.waiting >= self.line:
            wait = max(1, math.ceil(self.seconds * self.line / 2))
            raise Problem(
                429,
                f"the service is busy: cubes={self.taken}, waiting={self.waiting}",
                f"try again in {wait} s",
                headers={"Retry-After": str(wait)},
            )
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._free.release()

    def took(self, seconds: float) -> None:
        """Note how long a forward pass took."""
        self.seconds += 0.2 * (seconds - self.seconds)
