"""What the coordinates of an opened store say of its arrays, held against what its attributes say.

An opened store is an xarray Dataset, and xarray crops, reverses, transposes, joins and averages it. Coordinates follow
these; attributes (``cells``, ``margin``, ``cellsize``, a variable's ``mean``) do not. So whoever takes a store's arrays
by position asks here first: `in_order` gives them back in the order of the schema, whatever order they came in, or
refuses what is no part of the store, and `whole_boxes` also refuses what is a part only.

Cells must be neighbours. Every third cell cannot be told from averages over three: both have the same coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import StoreError
from velfield.stores import cf
from velfield.stores.store_layout import COMPONENTS, VARIABLES

AXES = ("x", "y", "z")
ORDER = ("box", "component", "axis", *AXES)  # of dimensions
VECTORS = ("velocity", "velocity_std")
OF_BOXES = ("origin", "parent", "split")  # coordinates that say which boxes these are
NEEDED = ("boxsize", "boxes", "cells", "cellsize", "margin", "periodic", "redshift", "rsd", "cosmology")
NEAR = 1e-3  # of a cell: how far coordinates are rounded that somebody made float32
AGAIN = "take the store as it was opened, and {} what you compute from it"


class _Said(NamedTuple):
    """What a store's attributes say of the cells of its boxes."""

    source: str | None
    cellsize: float
    cells: int
    margin: int


def in_order(ds: xr.Dataset) -> xr.Dataset:
    """An opened store, or a part of it, in the order of the schema: dimensions, cells, components and axes.

    Parameters
    ----------
    ds : xarray.Dataset
        A field store or velocity store as it was opened, or what xarray's selections, reorderings and joins made of it.

    Returns
    -------
    xarray.Dataset
        The same numbers: with a dimension ``box``, its known variables (box, component, x, y, z), cells ascending along
        x, y and z and without gaps, ``component`` and ``axis`` x, y, z. ``ds`` itself where it is so already. It may
        lack boxes, cells at the boxes' faces, and ``origin``, which `by_axis` asks for.

    Raises
    ------
    StoreError
        Where coordinates are missing, or not those of the store's cells, components or boxes.
    """
    said = _said_of(ds)
    made = ds if "box" in ds.dims else _with_box(ds, said)
    orders: dict[str, Any] = {}
    for axis in AXES:
        numbers = _numbers(made, axis, said)
        if axis not in made.dims:
            raise StoreError(
                f"one plane of cells: store={said.source}, {axis}={_shown(made[axis].values)}, cells={said.cells}; "
                f"take a slice of several cells along {axis}"
            )
        orders[axis] = _ascending(numbers)
    for name in VARIABLES:
        if name in made.data_vars:
            _check_dimensions(made[name], said)
    if "component" in {dim for name in VECTORS if name in made.data_vars for dim in made[name].dims}:
        orders["component"] = _of_labels(made, "component", said)
    if "axis" in made.dims:
        orders["axis"] = _of_labels(made, "axis", said)
    orders = {dim: order for dim, order in orders.items() if order is not None}
    if orders:
        made = made.isel(orders)
    _check_boxes(made, said)
    if any(_unlike(v.dims) for v in made.variables.values()):
        made = made.transpose(*(dim for dim in ORDER if dim in made.dims), ...)
    return made


def whole_boxes(ds: xr.Dataset) -> xr.Dataset:
    """As `in_order`; refuses boxes that lack some of their cells or of their margin."""
    made, said = in_order(ds), _said_of(ds)
    for axis in AXES:
        numbers = _numbers(made, axis, said)
        if len(numbers) != said.cells + 2 * said.margin:
            raise StoreError(
                f"boxes that lack cells: store={said.source}, cells along {axis}={len(numbers)} "
                f"({numbers[0]} to {numbers[-1]}), the store's cells={said.cells}, margin={said.margin}; "
                f"{AGAIN.format('crop')}"
            )
    return made


def as_written(ds: xr.Dataset) -> xr.Dataset:
    """The same store; refuses one whose arrays are not in the order, or not as complete, as they are written in."""
    if whole_boxes(ds) is not ds:
        raise StoreError(
            f"a store whose arrays are in another order: store={ds.encoding.get('source')}, "
            f"dimensions={', '.join(map(str, ds.dims))}; paint or predict it again, or query it"
        )
    return ds


def cells_along(axis: str, of: xr.Dataset | xr.DataArray, ds: xr.Dataset) -> NDArray[np.int64]:
    """The numbers of the cells that ``of`` has along an axis, from the box's own corner on: negative in a margin.

    Refuses coordinates that are not those of neighbouring cells of the opened store ``ds``.
    """
    return _numbers(of, axis, _said_of(ds))


def check_values(values: xr.DataArray, ds: xr.Dataset) -> dict[str, NDArray[np.int64]]:
    """The numbers of the cells along x, y and z of a variable of an opened store; refuses what is no part of it."""
    said = _said_of(ds)
    numbers = {axis: _numbers(values, axis, said) for axis in AXES}
    strange = set(values.dims) - set(ORDER)
    if strange or ("box" not in values.dims and not any(name in values.coords for name in OF_BOXES)):
        _refuse_dimensions(values, said)
    _check_parent(values, ds.attrs, said)
    return numbers


def check_attributes(ds: xr.Dataset) -> None:
    """Refuse a Dataset that has lost what a store says of itself, or never said it."""
    lost = [name for name in NEEDED if name not in ds.attrs]
    if lost:
        raise StoreError(
            f"a dataset without a store's attributes: missing={', '.join(lost)}; open the store with open_fields or "
            "open_velocity, and keep its attributes (xarray.set_options(keep_attrs=True))"
        )


def by_axis(ds: xr.Dataset, name: str) -> NDArray[np.float64]:
    """The ``origin``, ``observer`` or ``line_of_sight`` of boxes (box, 3), or of one (3,), as x, y, z."""
    said = _said_of(ds)
    if name not in ds.coords or "axis" not in ds[name].dims:
        raise _nowhere(said, name)
    values, order = ds[name], _of_labels(ds, "axis", said)
    values = values if order is None else values.isel(axis=order)
    return np.asarray(values.transpose(..., "axis").values, dtype=np.float64)


def _said_of(ds: xr.Dataset) -> _Said:
    cf.refuse(ds)
    check_attributes(ds)
    attrs, source = ds.attrs, ds.encoding.get("source")
    try:
        found = _Said(source, float(attrs["cellsize"]), int(attrs["cells"]), int(attrs["margin"]))
        possible = 0 < found.cellsize < np.inf and found.cells > 0 and found.margin >= 0
    except (TypeError, ValueError, OverflowError):
        possible = False
    if not possible:
        said = ", ".join(f"{name}={attrs[name]!r}" for name in ("cellsize", "cells", "margin"))
        raise StoreError(f"attributes that no store has: store={source}, {said}; open the store again")
    return found


def _numbers(of: xr.Dataset | xr.DataArray, axis: str, said: _Said) -> NDArray[np.int64]:
    """As `cells_along`."""
    if axis not in of.coords or of[axis].dims not in ((axis,), ()):
        along = f", {axis} along={', '.join(map(str, of[axis].dims))}" if axis in of.coords else ""
        raise StoreError(
            f"a store without the places of its cells: store={said.source}, missing coordinate={axis}{along}; "
            f"keep x, y and z as they were when it was opened"
        )
    try:
        places = np.atleast_1d(np.asarray(of[axis].values)).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError):
        places = np.full(1, np.nan)
    if not len(places):
        raise StoreError(f"no cells: store={said.source}, cells along {axis}=0; {AGAIN.format('select from')}")
    at, numbers = np.sort(places), np.rint(places / said.cellsize - 0.5)
    with np.errstate(invalid="ignore"):
        centred = np.abs(places / said.cellsize - 0.5 - numbers) <= NEAR
        wrong = ~(centred & (numbers >= -said.margin) & (numbers < said.cells + said.margin))
        steps = np.diff(at) / said.cellsize
    text = f"cellsize={said.cellsize:g}, cells={said.cells}, margin={said.margin}"
    if wrong.any():
        value = _shown(of[axis].values.flat[wrong.argmax()])
        spacing = f", spacing={np.median(steps) * said.cellsize:g}" if len(steps) else ""
        raise StoreError(
            f"{axis} is not at the centres of the store's cells: store={said.source}, {axis}={value}{spacing}, "
            f"{text}; {AGAIN.format('coarsen, interpolate or shift')}"
        )
    if (steps < 0.5).any():
        raise StoreError(
            f"the same cells twice: store={said.source}, {axis}={at[steps.argmin()]:g}, {text}; join boxes along box, "
            f"and along {axis} only cells that are not there yet"
        )
    if (steps > 1.5).any():
        raise StoreError(
            f"cells are left out, or averaged over: store={said.source}, {axis}={at[steps.argmax()]:g} and "
            f"{at[steps.argmax() + 1]:g}, {text}; {AGAIN.format('coarsen or thin out')}"
        )
    if len(numbers) == 1 and axis in of.dims and said.cells > 1:
        raise StoreError(
            f"one cell, which may be an average: store={said.source}, {axis}={at[0]:g}, {text}; take several cells "
            f"along {axis}"
        )
    return numbers.astype(np.int64)


def _ascending(numbers: NDArray[np.int64]) -> slice | NDArray[np.int64] | None:
    """What brings numbers into order: nothing, a mirror image, or their places."""
    if (np.diff(numbers) > 0).all():
        return None
    return slice(None, None, -1) if (np.diff(numbers) < 0).all() else np.argsort(numbers)


def _of_labels(ds: xr.Dataset, dim: str, said: _Said) -> NDArray[np.int64] | None:
    """What brings ``component`` or ``axis`` into the order x, y, z; None where it is."""
    found = [str(label) for label in ds[dim].values] if dim in ds.dims and dim in ds.coords else []
    wanted = list(COMPONENTS)
    if sorted(found) != wanted:
        raise StoreError(
            f"{dim} is not x, y and z: store={said.source}, {dim}={', '.join(found) or 'without labels'}; keep all "
            "three with their labels, in any order"
        )
    return None if found == wanted else np.array([found.index(label) for label in wanted])


def _unlike(dims: tuple[Any, ...]) -> bool:
    """Whether dimensions are in another order than the schema's."""
    known = [ORDER.index(dim) for dim in dims if dim in ORDER]
    return known != sorted(known)


def _with_box(ds: xr.Dataset, said: _Said) -> xr.Dataset:
    """One box, which has lost its dimension, with it."""
    if not any(name in ds.coords for name in OF_BOXES):  # as after a sum over boxes
        raise _nowhere(said)
    own = [name for name in ds.coords if name not in ORDER and set(ds[name].dims) <= {"axis"}]
    return ds.reset_coords(own).expand_dims("box").set_coords(own)


def _check_dimensions(values: xr.DataArray, said: _Said) -> None:
    wanted = {"box", *AXES, *(("component",) if values.name in VECTORS else ())}
    if set(values.dims) != wanted:
        _refuse_dimensions(values, said)
    if values.dtype.kind not in "fiu":
        raise StoreError(
            f"a variable that is no real number: store={said.source}, variable={values.name}, dtype={values.dtype}; "
            "take the store as it was opened"
        )


def _refuse_dimensions(values: xr.DataArray, said: _Said) -> None:
    wanted = ("box", *(("component",) if values.name in VECTORS else ()), *AXES)
    raise StoreError(
        f"other dimensions than the store's: store={said.source}, variable={values.name}, "
        f"dimensions={', '.join(map(str, values.dims))}, the store's={', '.join(wanted)}; "
        f"{AGAIN.format('join or reduce')}"
    )


def _check_boxes(ds: xr.Dataset, said: _Said) -> None:
    """Refuse boxes that are not where a parent's cells are, or of several parents."""
    _check_parent(ds, ds.attrs, said)
    if "origin" not in ds.coords:  # a selection of variables loses it; who needs it asks for it
        return
    if set(ds["origin"].dims) != {"box", "axis"}:
        raise _nowhere(said)
    corners = np.asarray(ds["origin"].values, dtype=np.float64) / said.cellsize
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(corners - np.rint(corners)) <= NEAR)
    if wrong.any():
        raise StoreError(
            f"boxes that do not lie on their parent's cells: store={said.source}, "
            f"origin={_shown(corners[wrong][0] * said.cellsize)}, cellsize={said.cellsize:g}; keep the origin that the "
            "store was opened with"
        )


def _check_parent(of: xr.Dataset | xr.DataArray, attrs: Mapping[str, Any], said: _Said) -> None:
    found = {str(one) for one in np.atleast_1d(of["parent"].values)} if "parent" in of.coords else set()
    wanted = attrs.get("parent") or min(found, default="")
    if other := found - {wanted}:
        raise StoreError(
            f"boxes of another universe: store={said.source}, parent={min(other)}, the store's parent={wanted}; take "
            "the boxes of one store at a time"
        )


def _nowhere(said: _Said, name: str = "origin") -> StoreError:
    return StoreError(
        f"boxes that do not say where they lie: store={said.source}, missing coordinate={name}; keep it, with its "
        "dimensions box and axis, as it was when the store was opened"
    )


def _shown(value: Any) -> str:
    """A value of a coordinate, for people."""
    value = np.asarray(value).reshape(-1)[0] if np.size(value) else value
    return f"{value:g}" if isinstance(value, float | np.floating | int | np.integer) else str(value)
