"""The whole periodic parent of a field store: put together from its boxes, and kept while it is used box by box."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError, VelfieldError
from velfield.stores.coordinates import by_axis, whole_boxes
from velfield.stores.joined import boxes_at
from velfield.stores.joined import layout_of as layout_of
from velfield.stores.store import contrast, decoding

READERS = 8  # boxes read at once: hides the latency of object storage
READ_BYTES = 2**28  # of what they hold together, or one of them
KEPT_BYTES = 2**31  # of whole parents that a process keeps for further boxes


class Cache:
    """Arrays that are made once and kept while they are used, the latest ones, up to ``nbytes``; safe for threads.

    The latest is kept however large it is.
    """

    def __init__(self, nbytes: int = KEPT_BYTES) -> None:
        self.nbytes = nbytes
        self._kept: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """What was made for ``key``, or is made now; others wait meanwhile, so that nothing is made twice."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
                self._kept[key].flags.writeable = False
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(a.nbytes for a in self._kept.values()) > self.nbytes:
                self._kept.popitem(last=False)
            return self._kept[key]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()


def check_whole(ds: xr.Dataset) -> None:
    """Refuse a store whose boxes are not one periodic parent, seen in one way."""
    out = "name linear_halo_padded or wiener, which take one box at a time"
    if not ds.attrs["periodic"]:
        raise VelfieldError(f"no whole to take: store={ds.encoding.get('source')}, periodic=False; {out}")
    check_one_parent(ds, out)


def check_one_parent(ds: xr.Dataset, out: str) -> None:
    """Refuse a store whose boxes are not one parent, periodic or not, seen in one way; ``out`` says what to do."""
    ds = whole_boxes(ds)
    attrs, source = ds.attrs, ds.encoding.get("source")
    if attrs["rsd"] == "center_radial" or attrs["observer_per_box"]:
        raise VelfieldError(
            f"the boxes are not one whole, each is seen by an observer of its own: store={source}, rsd={attrs['rsd']}, "
            f"observer_per_box={bool(attrs['observer_per_box'])}; {out}"
        )
    boxes_at(ds)


def whole_cube(ds: xr.Dataset, variable: str, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Over-density (x, y, z) of the whole parent, from the cores of its boxes; `reading_bytes` beside it.

    ``out``, float32, need not be contiguous; by default a new array.
    """
    ds = whole_boxes(ds)
    check_whole(ds)
    layout = layout_of(ds)
    whole = np.empty((layout.ngrid,) * 3, dtype=np.float32) if out is None else out
    places = np.rint(ds["origin"].values / layout.cellsize).astype(int)
    each = reading_bytes(ds, variable, readers=1)

    def fill(one: tuple[int, tuple[slice, ...]]) -> None:
        box, cut = one
        core = read_overdensity(ds, variable, box, 0, cut)
        whole[tuple(slice(p + c.start, p + c.stop) for p, c in zip(places[box], cut, strict=True))] = core

    with ThreadPoolExecutor(max(1, min(READERS, READ_BYTES // each))) as pool:
        for _ in pool.map(fill, product(range(layout.nbox), product(_cuts(ds, variable), repeat=3))):
            pass
    return whole


def reading_bytes(ds: xr.Dataset, variable: str, readers: int = READERS) -> int:
    """The most bytes that `whole_cube` holds beside the cube, which a process may keep for what it makes next.

    A chunk's cells six times for each that reads: encoded, decoded, cut out, over the mean, less one, and checked.
    """
    side = min(max(cut.stop - cut.start for cut in _cuts(ds, variable)) + 2 * int(ds.attrs["margin"]), ds.sizes["x"])
    each = 6 * 4 * side**3
    return each * max(1, min(readers, READ_BYTES // each))


def _cuts(ds: xr.Dataset, variable: str) -> list[slice]:
    """How the core of a box is cut along an axis by the chunks in which it lies."""
    margin, cells, size = int(ds.attrs["margin"]), int(ds.attrs["cells"]), ds.sizes["x"]
    chunk = int(ds[variable].encoding.get("preferred_chunks", {}).get("x", size))
    edges = [0, *(edge for edge in range(chunk - margin, cells, chunk) if edge > 0), cells]
    return [slice(first, end) for first, end in pairwise(edges)]


def read_overdensity(
    ds: xr.Dataset, variable: str, box: int, margin: int, cut: Sequence[slice] = (slice(None),) * 3
) -> NDArray[np.float32]:
    """Over-density (x, y, z) of one box, its core and ``margin`` cells around it; refuses one that lost its data.

    Beyond the edge of a parent that is not periodic, where nothing is known, it is 0. Of ``cut`` alone, if it is given.
    """
    ds = whole_boxes(ds)
    one = ds[variable].isel(box=box)
    outer = int(ds.attrs["margin"]) - margin
    inner = slice(outer, outer + int(ds.attrs["cells"]) + 2 * margin)
    wanted = {dim: range(ds.sizes[dim])[inner][along] for dim, along in zip("xyz", cut, strict=True)}
    one = one.isel({dim: slice(along.start, along.stop) for dim, along in wanted.items()})
    with decoding(ds, variable, box):
        delta = np.asarray(contrast(one))
    if not np.isfinite(delta).all():  # a chunk that is not there reads as NaN
        raise StoreError(
            f"a box of the store has lost its data: store={ds.encoding.get('source')}, box={box}, "
            f"variable={variable}; check it with velfield verify, and paint it again"
        )
    known = inside_parent(ds, box, margin)
    return delta if known is None else np.where(known[tuple(cut)], delta, np.float32(0))


def windows(whole: NDArray[Any], ds: xr.Dataset, box: int, margin: int) -> NDArray[Any]:
    """What a box and ``margin`` cells around it have of a whole (…, x, y, z), which goes on around its edges."""
    n = _ngrid(ds)
    x, y, z = (np.mod(along, n) for along in _indices(ds, box, margin))
    return np.asarray(whole[..., x[:, None, None], y[:, None], z])


def inside_parent(ds: xr.Dataset, box: int, margin: int) -> NDArray[np.bool_] | None:
    """Which cells (x, y, z) of a box and ``margin`` cells around it the parent has; None if it is periodic."""
    if ds.attrs["periodic"]:
        return None
    n = _ngrid(ds)
    x, y, z = ((along >= 0) & (along < n) for along in _indices(ds, box, margin))
    return np.asarray(x[:, None, None] & y[:, None] & z)


def seen_from_parent(ds: xr.Dataset, box: int, margin: int) -> list[NDArray[np.float64]]:
    """Where along each axis [h⁻¹Mpc] the cells of a box and its surroundings are for the observer in `observer`.

    A tracer is shifted where it lies in the parent, and a periodic parent is then wrapped around its edges; but
    ``center_radial`` shifts the images that are nearest to the box.
    """
    cells = _indices(ds, box, margin)
    if ds.attrs["periodic"] and ds.attrs["rsd"] != "center_radial":
        cells = [np.mod(along, _ngrid(ds)) for along in cells]
    return [np.asarray((along + 0.5) * float(ds.attrs["cellsize"]), dtype=np.float64) for along in cells]


def knowledge(ds: xr.Dataset, box: int, context: int) -> NDArray[np.uint8]:
    """What is known of each cell (x, y, z) of a box: 0 it and ``context`` cells around it, 1 it, 2 nothing.

    What lies outside a parent that is not periodic is not known.
    """
    known = inside_parent(ds, box, 0)
    if known is None:
        return np.zeros((int(ds.attrs["cells"]),) * 3, dtype=np.uint8)
    n = _ngrid(ds)
    x, y, z = ((along >= context) & (along < n - context) for along in _indices(ds, box, 0))
    around = x[:, None, None] & y[:, None] & z
    return np.where(known, np.where(around, 0, 1), 2).astype(np.uint8)


def _ngrid(ds: xr.Dataset) -> int:
    """Cells along the parent's side; boxes need not divide it, as tiles do not."""
    return int(np.rint(float(ds.attrs["boxsize"]) / float(ds.attrs["cellsize"])))


def _indices(ds: xr.Dataset, box: int, margin: int) -> list[NDArray[np.int64]]:
    """Cells of a box and its surroundings along each axis, on the parent's grid and beyond it."""
    first = np.rint(by_axis(ds, "origin")[box] / float(ds.attrs["cellsize"])).astype(int) - margin
    return [np.arange(int(ds.attrs["cells"]) + 2 * margin) + start for start in first]
