"""The boxes of a store as one parent: where each lies, and all of them as one cube."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError
from velfield.geometry.boxes import BoxLayout
from velfield.stores import cf
from velfield.stores.coordinates import AXES, by_axis
from velfield.stores.store_layout import COORDINATES, LENGTH

SEEN = ("observer", "line_of_sight")
IN_REDSHIFT_SPACE = ("halo_mass", "halo_number")


def layout_of(ds: xr.Dataset) -> BoxLayout:
    """How the parent of a store was cut."""
    cf.refuse(ds)
    return BoxLayout(**{name: ds.attrs[name] for name in ("boxsize", "boxes", "cells", "margin")})


def boxes_at(ds: xr.Dataset) -> NDArray[np.int64]:
    """The number of the box at each place (boxes, boxes, boxes) of the parent; refuses boxes that do not fill it."""
    layout, source = layout_of(ds), ds.encoding.get("source")
    places = np.rint(by_axis(ds, "origin").reshape(-1, 3) / layout.side).astype(int)
    there = set(map(tuple, places.tolist()))
    if there != {layout.index(b) for b in range(layout.nbox)}:
        raise StoreError(
            f"the boxes do not fill their parent: store={source}, boxes={len(there)} of {layout.nbox}; "
            "give the whole store"
        )
    if len(places) > len(there):
        raise StoreError(
            f"several boxes at one place: store={source}, boxes={len(places)}, places={len(there)}; "
            "take the boxes of one universe"
        )
    numbers = np.empty((layout.boxes,) * 3, dtype=np.int64)
    numbers[tuple(places.T)] = np.arange(len(places))
    return numbers


def whole(ds: xr.Dataset) -> xr.Dataset:
    """The cube of a parent, as `velfield.stores.store.FieldAccessor.whole` gives it.

    ``ds`` are the cores of its boxes, as `velfield.stores.coordinates.whole_boxes` leaves them.
    """
    numbers, layout, source = boxes_at(ds), layout_of(ds), ds.encoding.get("source")
    seen = {name: np.asarray(ds[name].values).reshape(-1, 3) for name in SEEN if name in ds.coords}
    shared = {name: values[0] for name, values in seen.items() if np.allclose(values, values[0])}
    distorted = [name for name in IN_REDSHIFT_SPACE if name in ds]
    if len(shared) < len(seen) and distorted:
        raise StoreError(
            f"the boxes are not one whole, each is seen by an observer of its own: store={source}, "
            f"variable={distorted[0]}; drop it first, with ds.drop_vars({distorted})"
        )
    made = {name: _joined(v.variable, numbers) for name, v in ds.data_vars.items() if {"box", *AXES} <= set(v.dims)}
    if other := [str(name) for name in ds.data_vars if name not in made]:
        raise StoreError(
            f"a variable that has no cells: store={source}, variable={other[0]}, "
            f"dimensions={', '.join(map(str, ds[other[0]].dims))}; drop it first, with ds.drop_vars({other})"
        )
    cells = layout.ngrid
    centres = (np.arange(cells) + 0.5) * layout.cellsize
    coords: dict[str, Any] = {
        name: (name, centres, {"units": LENGTH, "long_name": f"{name} of the cell centre in the parent"})
        for name in AXES
    }
    coords |= {name: ds[name].variable for name in ("component", "axis") if name in ds.coords}
    coords |= {name: ("axis", values, COORDINATES[name]) for name, values in {"origin": np.zeros(3), **shared}.items()}
    if "parent" in ds.coords:
        coords["parent"] = ds["parent"].variable[(0,) * ds["parent"].ndim]
    out = xr.Dataset(made, coords=coords, attrs=dict(ds.attrs) | {"boxes": 1, "cells": cells, "margin": 0})
    for name in (*AXES, *shared, "origin"):
        out[name].encoding = {"_FillValue": None}
    return out


def _joined(values: xr.Variable, numbers: NDArray[np.int64]) -> xr.Variable:
    """A variable of boxes (box, …, x, y, z) as one of the parent (…, x, y, z)."""
    values = values.transpose("box", ..., *AXES)
    parts = [values.isel(box=int(box)) for box in numbers.flat]
    for axis in reversed(AXES):
        n = len(numbers)
        parts = [xr.Variable.concat(parts[first : first + n], axis) for first in range(0, len(parts), n)]
    return parts[0].drop_encoding()
