"""Windows of the parent of a field store, put together from the cores of its boxes; and of an array that is all of one.

A tile of a parent is itself a box, of another size and elsewhere: `tiles_as_boxes` makes the Dataset of such boxes, of
which all that works on a field store may be asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError
from velfield.geometry.tiles import pieces
from velfield.stores.coordinates import AXES, by_axis, whole_boxes
from velfield.stores.store import decoding
from velfield.stores.store_layout import COMPONENTS
from velfield.theory.whole import READERS, layout_of

Corner = Sequence[int]


class Parent:
    """The parent of a store whose boxes are one (`velfield.theory.whole.check_one_parent`)."""

    def __init__(self, ds: xr.Dataset) -> None:
        self.ds = ds = whole_boxes(ds)
        self.layout = layout_of(ds)
        self.periodic = bool(ds.attrs["periodic"])
        places = np.rint(by_axis(ds, "origin") / self.layout.side).astype(int)
        self._places = [(int(i), int(j), int(k)) for i, j, k in places]
        self._number = {place: box for box, place in enumerate(self._places)}

    def place(self, box: int) -> tuple[int, int, int]:
        """Where a box of the store is, in boxes."""
        return self._places[box]

    def window(self, variable: str, start: Corner, shape: Corner) -> NDArray[np.float32]:
        """A variable (x, y, z) in the cells from ``start`` on, some boxes read at a time.

        It goes on around the edges of a periodic parent; beyond those of another it is the parent's mean.
        """
        values, margin = self.ds[variable], self.layout.margin
        out = np.full(tuple(shape), values.attrs["mean"], dtype=np.float32)
        along = [
            pieces(first, length, self.layout.cells, self.layout.ngrid, periodic=self.periodic)
            for first, length in zip(start, shape, strict=True)
        ]

        def read(some: Any) -> None:
            cut: dict[str, Any] = {d: slice(margin + p.first, margin + p.end) for d, p in zip("xyz", some, strict=True)}
            into = tuple(slice(p.at, p.at + p.end - p.first) for p in some)
            x, y, z = some
            box = self._number[x.box, y.box, z.box]
            with decoding(self.ds, variable, box):
                out[into] = values.isel(cut | {"box": box}).values
            if not np.isfinite(out[into]).all():  # a chunk that is not there reads as NaN
                raise StoreError(
                    f"a box of the store has lost its data: store={self.ds.encoding.get('source')}, box={box}, "
                    f"variable={variable}; check it with velfield verify, and paint it again"
                )

        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(read, product(*along)):
                pass
        return out


def wrapped(array: Any, start: Corner, shape: Corner) -> NDArray[np.float32]:
    """What a periodic array (channel, x, y, z), in memory or of Zarr, has in the cells from ``start`` on."""
    out = np.empty((array.shape[0], *shape), dtype=np.float32)
    n = array.shape[-1]
    along = [pieces(first, length, n, n, periodic=True) for first, length in zip(start, shape, strict=True)]
    for some in product(*along):
        into = tuple(slice(p.at, p.at + p.end - p.first) for p in some)
        out[(slice(None), *into)] = array[(slice(None), *(slice(p.first, p.end) for p in some))]
    return out


def tiles_as_boxes(
    ds: xr.Dataset, windows: dict[str, NDArray[np.float32]], starts: Sequence[Corner], *, margin: int
) -> xr.Dataset:
    """Tiles of a store's parent as a field store in memory: boxes with ``margin`` cells of surroundings.

    Parameters
    ----------
    ds : xarray.Dataset
        The store: its attributes, and where it is seen from.
    windows : dict
        By variable the tiles' values (tile, x, y, z), margin included.
    starts : sequence of (3,)
        First cell of each tile's window in the parent.
    """
    side = next(iter(windows.values())).shape[-1]
    variables = {name: (("box", "x", "y", "z"), values, dict(ds[name].attrs)) for name, values in windows.items()}
    cellsize = float(ds.attrs["cellsize"])
    origin = (np.asarray(starts, dtype=np.float64) + margin) * cellsize
    coords: dict[str, Any] = dict.fromkeys(AXES, (np.arange(side) - margin + 0.5) * cellsize)
    coords = {axis: (axis, centres) for axis, centres in coords.items()}
    coords |= {"axis": ("axis", COMPONENTS), "origin": (("box", "axis"), origin)}
    for name in ("line_of_sight", "observer"):
        if name in ds.coords:  # one for all boxes
            coords[name] = (("box", "axis"), np.repeat(ds[name].values[:1], len(origin), axis=0))
    attrs = dict(ds.attrs) | {"cells": side - 2 * margin, "margin": margin}
    return xr.Dataset(variables, coords=coords, attrs=attrs)
