"""How the halos of a field store are seen: in real space, along an axis, from an observer, or nobody knows from where.

In words as ``random_radial``, ``plane_parallel along x`` or ``observed from an observer``: pattern, and what was given
with it. What matters of them to a model is `kind`: halos that were observed along an axis look like those that velfield
moved along it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError
from velfield.physics.redshift_space import AXES

REAL = "none"
CENTRES = "center_radial"  # each box from its own
OBSERVER = "from an observer"
UNKNOWN = "from an unknown direction"
RADIAL = (CENTRES, OBSERVER)


def seen(ds: xr.Dataset) -> str:
    """Pattern and view of a field store; refuses one whose lines of sight were dropped."""
    pattern = str(ds.attrs["rsd"])
    if pattern == "observed" and "observer" in ds.coords:
        return f"{pattern} {OBSERVER}"
    if pattern == "observed" and "line_of_sight" not in ds.coords:
        return f"{pattern} {UNKNOWN}"
    if pattern not in ("observed", "plane_parallel"):
        return pattern
    along = _along(ds)
    return pattern if (pattern, along) == ("plane_parallel", "along z") else f"{pattern} {along}"


def view(words: str, one: xr.Dataset) -> dict[str, Any]:
    """The ``line_of_sight`` or the ``observer`` (3,) of one box of a store that is `seen` so; neither where none is."""
    if is_along(words):
        return {"line_of_sight": _coordinate(one, "line_of_sight")}
    return {"observer": _coordinate(one, "observer")} if kind(words) in RADIAL else {}


def kind(words: str) -> str:
    """What of `seen` matters to a model: `REAL`, ``along x``, `CENTRES`, `OBSERVER` or `UNKNOWN`."""
    pattern, _, view = words.partition(" ")
    if pattern == "random_radial":
        return OBSERVER
    if pattern == "plane_parallel":
        return view or "along z"
    return view if pattern == "observed" else pattern


def axis(words: str) -> int | None:
    """Number of the axis that `seen` has as the line of sight; None without one, or along no axis."""
    along = kind(words).removeprefix("along ")
    return list(AXES).index(along) if along in AXES else None


def is_along(words: str) -> bool:
    """Whether there is a line of sight that all boxes, or each of them, are seen along."""
    return kind(words).startswith("along ")


def _along(ds: xr.Dataset) -> str:
    sights = _coordinate(ds, "line_of_sight").reshape(-1, 3)
    if not len(sights):  # of no box: nothing contradicts what was said of all
        sights = np.array([AXES.get(ds.attrs.get("line_of_sight", "z"), AXES["z"])])
    for name, unit in AXES.items():
        if np.allclose(np.abs(sights), unit):  # the way makes no difference to what is seen
            return f"along {name}"
    if np.allclose(sights, sights[0]):
        return f"along ({', '.join(f'{value:.4g}' for value in sights[0])})"
    return "along a line of sight for each box"


def _coordinate(ds: xr.Dataset, name: str) -> NDArray[np.float64]:
    if name not in ds.coords:
        raise StoreError(
            f"the store has lost a coordinate: store={ds.encoding.get('source')}, rsd={ds.attrs['rsd']}, "
            f"coordinate={name}; open it again, and keep it"
        )
    return np.asarray(ds[name].values, dtype=np.float64)
