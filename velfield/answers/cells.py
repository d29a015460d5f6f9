"""The velocity cells of a store by their places on the parent's grid, read box by box as they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError, VelfieldError
from velfield.kernel import kernel
from velfield.stores.coordinates import AXES, by_axis, cells_along, in_order
from velfield.stores.store_layout import EMPTY, IMPLAUSIBLE, KNOWLEDGE
from velfield.theory.whole import READERS, layout_of

KEPT_BYTES = 2**28  # of boxes that are kept, as positions that lie together ask for them again
ABSENT = -1  # no box of the store is there
UNSURE = 1  # of velocity_flag: filled from neighbours, or predicted without all of its context
NOTHING = 2  # of velocity_flag: not known
LESS_SURE, DOUBTED = 1 << 3, 1 << 7  # of `Box.unsure`: UNSURE and IMPLAUSIBLE of `velfield.answers.interpolate`


class Box(NamedTuple):
    """A box in memory.

    Attributes
    ----------
    values : ndarray (3 or 6, x, y, z), float32
        Velocity and, where there is one, its error bar [km/s]; all of them are NaN in a cell that is not known.
    unsure : ndarray (x, y, z), uint8, or None
        `LESS_SURE` and `DOUBTED` of each cell; None where that is not said.
    fastest : float
        The largest speed of a known cell [km/s].
    """

    values: NDArray[np.float32]
    unsure: NDArray[np.uint8] | None
    fastest: float


class Grid(NamedTuple):
    """What compiled loops need of a store: how its parent is cut, and where in memory the boxes are.

    Attributes
    ----------
    cellsize : float
        [h⁻¹Mpc]
    cells : int
        Along a box's side.
    periodic : bool
        Whether the parent goes on around its edges.
    number : ndarray (boxes, boxes, boxes)
        As of `Cells`.
    values, unsure : ndarray (nbox,)
        Addresses of what `Box` has of each; 0 where there is nothing, or the box is not held.
    """

    cellsize: float
    cells: int
    periodic: bool
    number: NDArray[np.int64]
    values: NDArray[np.int64]
    unsure: NDArray[np.int64]


class Cells:
    """Velocities of a field store or velocity store, its margin left out; a box is read when it is wanted, and kept.

    A cell is known where its velocity is finite and its `velocity_flag`, if the store has one, is 0 or 1, whatever bits
    are beside; where it is 1 it is less sure: filled from its neighbours, or predicted without all of its context. So
    is one without a tracer around; one that is flagged as implausible is doubted. Safe for threads.

    Parameters
    ----------
    ds : xarray.Dataset
        As `velfield.stores.store.open_fields` or `open_velocity` gives it: all boxes, or some of them, or some of their
        cells; the others are not known.
    kept_bytes : int
        Of boxes kept in memory; beside them `READERS` boxes are held while they are read.

    Attributes
    ----------
    places : ndarray (nbox, 3)
        Place of each of the store's boxes along the parent's axes.
    number : ndarray (boxes, boxes, boxes)
        The store's box at each place of the parent, `ABSENT` where there is none.
    names : tuple of str
        ``velocity``, and ``velocity_std`` where the store has it.
    source : str or None
        URL of the store, where it was opened from one.
    """

    def __init__(self, ds: xr.Dataset, kept_bytes: int = KEPT_BYTES) -> None:
        if "velocity" not in ds:
            raise StoreError(
                f"the store has no velocities: store={ds.encoding.get('source')}; paint it with --particles, or name a "
                "velocity store"
            )
        self.ds = in_order(ds)
        self.source = ds.encoding.get("source")
        self.layout = layout_of(ds)
        self.periodic = bool(ds.attrs["periodic"])
        self.names = tuple(name for name in ("velocity", "velocity_std") if name in ds)
        self.places, self.number = self._places()
        numbers = [cells_along(axis, self.ds, self.ds) for axis in AXES]
        self._there = tuple(slice(max(along[0], 0), max(along[-1] + 1, 0)) for along in numbers)  # of a box's cells
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[int, Box] = OrderedDict()
        self._lock = threading.Lock()

    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        layout = self.layout
        corners = by_axis(self.ds, "origin") / layout.side
        places = np.rint(corners).astype(np.int64)
        number = np.full((layout.boxes,) * 3, ABSENT, dtype=np.int64)
        inside = ((places >= 0) & (places < layout.boxes)).all()
        if not inside or np.abs(corners - places).max(initial=0) > 1e-6:  # origins are products of floats
            raise StoreError(
                f"boxes that do not lie on their parent's grid: store={self.source}, side={layout.side:g}; "
                "make it again"
            )
        number[tuple(places.T)] = np.arange(len(places))
        if (number >= 0).sum() != len(places):
            raise VelfieldError(
                f"several boxes at one place: store={self.source}, boxes={len(places)}, places={(number >= 0).sum()}; "
                "take the boxes of one universe"
            )
        return places, number

    def read(self, box: int) -> Box:
        """A box, from memory where it is kept."""
        with self._lock:
            if box in self._kept:
                self._kept.move_to_end(box)
                return self._kept[box]
        made = self._read(box)
        with self._lock:
            self._kept[box] = made
            while len(self._kept) > 1 and sum(kept.values.nbytes for kept in self._kept.values()) > self._kept_bytes:
                self._kept.popitem(last=False)
        return made

    def several(self, boxes: Sequence[int]) -> Iterator[tuple[int, Box]]:
        """Boxes, in order; some are read side by side."""
        with self._lock:
            there = len(boxes) == 1 or all(box in self._kept for box in boxes)
        if there:
            for box in boxes:
                yield box, self.read(box)
            return
        with ThreadPoolExecutor(READERS) as pool:
            for first in range(0, len(boxes), READERS):
                window = boxes[first : first + READERS]
                yield from zip(window, pool.map(self.read, window), strict=True)

    @property
    def at_once(self) -> int:
        """How many boxes may be held at a time: those that could be kept, at least eight."""
        return max(8, self._kept_bytes // (4 * 3 * len(self.names) * self.layout.cells**3))

    def _read(self, box: int) -> Box:
        one = self.ds.isel(box=box)
        core = one.velfield.core(one[[*self.names, *(["velocity_flag"] if "velocity_flag" in one else [])]])
        shape = (self.layout.cells,) * 3  # whatever the store's arrays have: loops find their way by it
        values = np.full((3 * len(self.names), *shape), np.nan, dtype=np.float32)
        for first, name in zip(range(0, len(values), 3), self.names, strict=True):
            values[first : first + 3, *self._there] = core[name]
        flag = np.zeros(0, dtype=np.uint8)
        if "velocity_flag" in core:
            flag = np.full(shape, NOTHING, dtype=np.uint8)
            given = np.asarray(core["velocity_flag"])
            flag[self._there] = np.where(np.isfinite(given), given, NOTHING)  # joins fill gaps with NaN
        square = _settle(values.reshape(len(values), -1), flag.reshape(-1))
        return Box(values, _doubts(flag) if flag.size else None, float(np.sqrt(square)))

    def holding(self, pos: NDArray[np.float64]) -> NDArray[np.int64]:
        """The box (N,) that holds each position (N, 3) [h⁻¹Mpc] of the parent, `ABSENT` where there is none."""
        return self.at(np.floor(pos / self.layout.cellsize))[0]

    def at(self, cell: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Box (N,), `ABSENT` where there is none, and place in the box (N,) of cells (N, 3) of the parent's grid."""
        layout = self.layout
        n = layout.ngrid
        known = np.isfinite(cell).all(axis=1) & (np.abs(cell) < 2**53).all(axis=1)
        if not self.periodic:
            known &= ((cell >= 0) & (cell < n)).all(axis=1)
        whole = np.mod(np.where(known[:, None], cell, 0), n).astype(np.int64)
        place, local = np.divmod(whole, layout.cells)
        box = np.where(known, self.number[place[:, 0], place[:, 1], place[:, 2]], ABSENT)
        return box, (local[:, 0] * layout.cells + local[:, 1]) * layout.cells + local[:, 2]


def _doubts(flag: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`Box.unsure` of cells with these flags (x, y, z)."""
    there = flag & KNOWLEDGE != KNOWLEDGE  # what is lost reads as 255
    unsure = (flag & KNOWLEDGE == UNSURE) | (flag & EMPTY > 0)
    return np.asarray(there * (LESS_SURE * unsure + DOUBTED * (flag & IMPLAUSIBLE > 0)), dtype=np.uint8)


@kernel
def _settle(values: NDArray[np.float32], flag: NDArray[np.uint8]) -> float:
    """Let no value (components, cells) of a cell be that is not known; the largest square of a known speed."""
    largest = 0.0
    for cell in range(values.shape[1]):
        known = len(flag) == 0 or flag[cell] & KNOWLEDGE <= UNSURE
        for component in range(len(values)):
            known = known and np.isfinite(values[component, cell])
        square = 0.0
        for component in range(len(values)):
            if not known:
                values[component, cell] = np.nan
            elif component < 3:
                square += np.float64(values[component, cell]) ** 2
        largest = max(largest, square)
    return largest


def shared(ds: xr.Dataset, name: str) -> NDArray[np.float64] | None:
    """The `observer` [h⁻¹Mpc] or `line_of_sight` (3,) that all boxes of a store share; None where there is none."""
    if name not in ds.coords:
        return None
    found = by_axis(ds, name).reshape(-1, 3)
    return found[0] if len(found) and np.allclose(found, found[0]) else None
