"""A variable in one box of a store, or in its whole parent, as one cube of cells that is read a piece at a time.

A piece is what lies in one chunk of the store, mostly a box. Its cells are put together to those of a picture as soon
as it is read, so that memory follows from the picture and a few pieces, not from the cube. As a plane's chunks hold its
neighbours too, these are put together in the same go: a *layer* of planes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from velfield.service.problems import Problem

READERS = 4  # pieces in memory at a time, of all requests together
UNPACKED_BYTES = 2**32  # that one request may have read
SECONDS = 120.0  # that it may take for it
LAYER_BYTES = 2**25
SPREAD = 8  # pieces, all over the cube, that say how far values reach
SPAN = (0.5, 99.5)  # percentiles that are called so
SAMPLE = 2**18  # cells that they are taken from

Together = Literal["mean", "rms", "highest"]
Answer = TypeVar("Answer")
_turns = threading.BoundedSemaphore(READERS)


class Stretch(NamedTuple):
    """Cells in one chunk, along one axis: in which box, its cells ``first`` to ``end``, and where in the cube."""

    box: int
    first: int
    end: int
    at: int

    def part(self, first: int, end: int) -> Stretch:
        """Its own cells from ``first`` to ``end``."""
        return Stretch(self.box, self.first + first, self.first + end, self.at + first)


def stretches(boxes: int, cells: int, margin: int, chunk: int) -> tuple[Stretch, ...]:
    """A cube of ``boxes`` boxes of ``cells`` cells, along one axis; chunks begin with the margin's first cell."""
    found = []
    for box in range(boxes):
        for start in range(margin // chunk * chunk, margin + cells, chunk):
            first, end = max(start - margin, 0), min(start + chunk - margin, cells)
            found.append(Stretch(box, first, end, box * cells + first))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A cube of cells.

    Parameters
    ----------
    read : callable
        From the number of a box and cells of it along x, y and z to their values, (x, y, z) or (3, x, y, z), float32.
    numbers : ndarray (b, b, b)
        Which boxes lie where.
    along : tuple of Stretch
        The cube along any of its axes.
    components : int
        3 of a vector, else 1.
    unpacked : int
        Bytes that have to be unpacked for a piece.
    together : str
        What several cells have in common: their mean, the root of their mean square, or the highest.
    """

    read: Callable[[int, tuple[slice, ...]], NDArray[np.float32]]
    numbers: NDArray[np.int64]
    along: tuple[Stretch, ...]
    components: int
    unpacked: int
    together: Together

    @property
    def ngrid(self) -> int:
        """Cells along a side."""
        return sum(one.end - one.first for one in self.along)

    def layer(self, index: int, step: int) -> tuple[int, int]:
        """The planes that are read with plane ``index``, across any axis: from the first to before the second."""
        stretch = next(one for one in reversed(self.along) if one.at <= index)
        long = stretch.end - stretch.first
        most = max(1, LAYER_BYTES // (self.components * (-(-self.ngrid // step)) ** 2 * 4))
        most = -(-long // -(-long // most))  # as many in each
        first = (index - stretch.at) // most * most
        return stretch.at + first, stretch.at + min(first + most, long)

    def planes(self, axis: int, first: int, end: int, step: int) -> NDArray[np.float32]:
        """Planes ``first`` to ``end`` across an axis, a pixel for ``step``² cells: (x, y, z) or (3, x, y, z)."""
        stretch = next(one for one in reversed(self.along) if one.at <= first)
        some = [self.along] * 3
        some[axis] = (stretch.part(first - stretch.at, end - stretch.at),)
        return self._gather(some, [1 if d == axis else step for d in range(3)])

    def coarse(self, step: int) -> NDArray[np.float32]:
        """The whole cube, ``step``³ cells in one, the last ones being what is left."""
        return self._gather([self.along] * 3, [step] * 3)

    def span(self, step: int) -> NDArray[np.float64]:
        """How far values of pictures reach, from pieces all over the cube: see `span`."""
        pieces = list(itertools.product(self.along, repeat=3))
        chosen = np.unique(np.linspace(0, len(pieces) - 1, SPREAD).round().astype(int))
        sample = [put_together(self._piece(pieces[i]), (0, 0, 0), (1, step, step), self.together) for i in chosen]
        most = SAMPLE // len(sample)
        flat = [one.reshape(self.components, -1) for one in sample]
        return np.array(span(np.concatenate([one[:, :: -(-one.shape[1] // most)] for one in flat], axis=1)))

    def _piece(self, some: Sequence[Stretch]) -> NDArray[np.float32]:
        x, y, z = some
        return self.read(int(self.numbers[x.box, y.box, z.box]), tuple(slice(one.first, one.end) for one in some))

    def _gather(self, some: Sequence[tuple[Stretch, ...]], steps: Sequence[int]) -> NDArray[np.float32]:
        """The cells of these stretches along x, y and z, put together by ``steps``."""
        pieces = list(itertools.product(*some))
        instead = (
            "look at one box of it, or read the store itself" if self.numbers.size > 1 else "read the store itself"
        )
        if (nbytes := len(pieces) * self.unpacked) > UNPACKED_BYTES:
            raise Problem(
                413,
                f"too much to read for one picture: bytes={nbytes}, limit={UNPACKED_BYTES}",
                instead,
            )
        corner = [along[0].at for along in some]
        cells = [sum(one.end - one.first for one in along) for along in some]
        shape = [-(-n // step) for n, step in zip(cells, steps, strict=True)]
        sums = Sums((self.components, *shape), self.together)

        def take(piece: Sequence[Stretch]) -> None:
            sums.add(self._piece(piece), [one.at - at for one, at in zip(piece, corner, strict=True)], steps)

        each(take, pieces, instead)
        made = sums.result()
        return made if self.components == 3 else made[0]


def each(work: Callable[[Any], Answer], pieces: Sequence[Any], instead: str) -> list[Answer]:
    """Do the work on each piece, a few at a time; ``instead`` is what to do where that takes too long."""
    end = time.monotonic() + SECONDS

    def one(piece: Any) -> Answer:
        if time.monotonic() > end:
            said = f"too slow to read for one request: pieces={len(pieces)}, seconds={SECONDS:.0f}"
            raise Problem(413, said, instead)
        with _turns:
            return work(piece)

    pool = ThreadPoolExecutor(min(READERS, len(pieces)))
    try:
        return list(pool.map(one, pieces))
    finally:
        pool.shutdown(cancel_futures=True)


class Sums:
    """Cells of a picture, while pieces are added to them by several threads."""

    def __init__(self, shape: tuple[int, ...], together: Together) -> None:
        self.together = together
        self.total = np.full(shape, -np.inf if together == "highest" else 0, dtype=np.float32)
        self.count = np.zeros((1, *shape[1:]), dtype=np.float32)  # float32 counts to 2²⁴
        self._lock = threading.Lock()

    def add(self, values: NDArray[np.float32], at: Sequence[int], steps: Sequence[int]) -> None:
        """Add a piece that begins at cell ``at`` of what the picture shows."""
        values = values.reshape(-1, *values.shape[-3:])
        known = np.asarray(np.isfinite(values).all(axis=0, keepdims=True))
        if not known.all():
            values = np.where(known, values, np.float32(-np.inf if self.together == "highest" else 0))
        if self.together == "rms":
            values = np.square(values)
        ufunc = np.maximum if self.together == "highest" else np.add
        into: list[slice] = [slice(None)]
        total: NDArray[Any] = values
        count: NDArray[Any] = known.astype(np.float32)
        for axis, (first, step) in enumerate(zip(at, steps, strict=True), start=1):
            pixel = (first + np.arange(values.shape[axis])) // step
            into.append(slice(int(pixel[0]), int(pixel[-1]) + 1))
            if step > 1:
                edges = [int(i) for i in np.flatnonzero(np.diff(pixel, prepend=-1, append=-1))]
                total, count = _along(ufunc, total, edges, axis), _along(np.add, count, edges, axis)
        where = tuple(into)
        with self._lock:
            self.total[where] = ufunc(self.total[where], total)
            self.count[where] += count

    def result(self) -> NDArray[np.float32]:
        """The picture; NaN where nothing is known."""
        if self.together != "highest":
            self.total /= np.maximum(self.count, 1)
        if self.together == "rms":
            np.sqrt(self.total, out=self.total)
        return np.where(self.count > 0, self.total, np.float32(np.nan))


def _along(ufunc: np.ufunc, values: NDArray[Any], edges: Sequence[int], axis: int) -> NDArray[Any]:
    """`numpy.ufunc.reduceat`, which goes through the last axis cell by cell."""
    cut: list[Any] = [slice(None)] * values.ndim
    made = np.empty((*values.shape[:axis], len(edges) - 1, *values.shape[axis + 1 :]), values.dtype)
    for k, (first, end) in enumerate(itertools.pairwise(edges)):
        into, of = [*cut], [*cut]
        into[axis], of[axis] = k, slice(first, end)
        ufunc.reduce(values[tuple(of)], axis=axis, out=made[tuple(into)])
    return made


def put_together(
    values: NDArray[np.float32], at: Sequence[int], steps: Sequence[int], together: Together
) -> NDArray[np.float32]:
    """Cells (…, x, y, z) from cell ``at`` on, those of one pixel put together; (component, x, y, z)."""
    flat = values.reshape(-1, *values.shape[-3:])
    shape = [-(-(first + n) // step) for first, n, step in zip(at, flat.shape[1:], steps, strict=True)]
    sums = Sums((len(flat), *shape), together)
    sums.add(flat, at, steps)
    return sums.result()


def span(values: NDArray[Any]) -> tuple[float, float]:
    """How far values (component, cell) reach: their `SPAN`; of three components 0 and the same of the length.

    0 and 0 if all are NaN.
    """
    vector = len(values) == 3
    size = np.sqrt(np.square(values, dtype=np.float64).sum(axis=0)) if vector else values[0]
    size = size[np.isfinite(size)]
    if not size.size:
        return 0.0, 0.0
    low, high = np.percentile(size, SPAN)
    return (0.0 if vector else float(low)), float(high)
