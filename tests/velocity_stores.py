"""Small field and velocity stores whose velocity is a given function of the position in the parent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from small_store import spec_of

from velfield.files import shards
from velfield.geometry.boxes import BoxLayout
from velfield.stores import store, store_layout

SIDE = 120.0  # h⁻¹Mpc


def centres(layout: BoxLayout, box: int) -> NDArray[np.float64]:
    """Cell centres (3, x, y, z) of a box's window in the parent, where a periodic parent goes on."""
    axes = [(np.arange(layout.shape[0]) + start + 0.5) * layout.cellsize for start in layout.start(box)]
    return np.array(np.meshgrid(*axes, indexing="ij"))


def in_memory(
    velocity: Callable[[NDArray[Any]], NDArray[Any]], *, boxes: int = 2, cells: int = 6, margin: int = 0, **changes: Any
) -> xr.Dataset:
    """A field store of a velocity (3, …) [km/s] of positions (3, …) [h⁻¹Mpc], never written."""
    layout = BoxLayout(boxsize=SIDE, boxes=boxes, cells=cells, margin=margin)
    edit = changes.pop("edit", lambda _: None)
    spec = spec_of(layout, **{"observer": None, "rsd": "none", "redshift": 0.0} | changes)
    made = store_layout.field_layout(spec)
    arrays: dict[str, Any] = {
        "velocity": np.stack([velocity(centres(layout, b)) for b in range(layout.nbox)]).astype("f4"),
        "velocity_flag": np.zeros((layout.nbox, *layout.shape), "u1"),
    }
    edit(arrays)
    variables = {name: (("box", *made.variables[name].dims), arrays[name]) for name in arrays}
    coords = {name: (coord.dims, coord.values) for name, coord in made.coords.items()}
    return xr.Dataset(variables, coords=coords, attrs=dict(made.attrs))


def written(url: str, velocity: Callable[[NDArray[Any]], NDArray[Any]], *, std: float | None = None, **how: Any) -> str:
    """A velocity store at ``url``, with an error bar of ``std`` [km/s] everywhere where one is given."""
    ds = in_memory(velocity, **how)
    layout = store_layout.velocity_layout(
        ds, model={"name": "test", "error_bars": std is not None}, source="fields", fingerprint="f", prediction={}
    )
    shards.create(url, layout)
    arrays = {name: ds.velfield.core(ds[name]).values for name in ("velocity", "velocity_flag")}
    if std is not None:
        arrays["velocity_std"] = np.full_like(arrays["velocity"], std)
    shards.publish(url, layout, shards.write_boxes(url, layout, range(layout.nbox), arrays))
    store.open_velocity(url, chunks=None)
    return url
