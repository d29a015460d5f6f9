"""Fields that are compared cell by cell, brought into one order by their labels: xarray's, duck-typed.

Two arrays of the same shape need not have the same cells: one may be reversed, cropped elsewhere, or of other boxes.
Where both have coordinates, these decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError

AXES = ("x", "y", "z")
NEAR = 1e-3  # of a cell
SAME = "give the same cells of both (xarray.align), or arrays without coordinates that are in the same order"


def matched(fields: Mapping[str, Any], cellsize: float | None) -> dict[str, Any]:
    """The same fields, those with coordinates in one order: boxes, components and cells as in the first that has them.

    Parameters
    ----------
    fields : mapping
        By name arrays or DataArrays (box, [component,] x, y, z). What has no coordinate along a dimension is taken as
        it stands.
    cellsize : float or None
        Side of a cell [h⁻¹Mpc], which coordinates along x, y and z must agree with.

    Raises
    ------
    VelfieldError
        Where two fields are of different cells, components or boxes, or cells are left out.
    """
    found = dict(fields)
    for dim in ("box", "component", *AXES):
        labels = {name: of for name, values in found.items() if (of := _labels(values, dim)) is not None}
        if not labels:
            continue
        first, wanted = next(iter(labels.items()))
        for name, of in labels.items():
            order = _order(of, wanted, dim, name, first)
            if not np.array_equal(order, np.arange(len(order))):
                found[name] = found[name].isel({dim: order})
        if dim == "box":
            continue
        ascending = np.argsort(wanted, kind="stable")
        if not np.array_equal(ascending, np.arange(len(ascending))):
            found = {name: _taken(values, dim, ascending) for name, values in found.items()}
        if dim in AXES:
            _check_spacing(wanted[ascending], dim, first, cellsize)
    return found


def _labels(values: Any, dim: str) -> NDArray[Any] | None:
    """The labels along a dimension; None where there are none."""
    if dim not in getattr(values, "dims", ()) or dim not in values.coords or values[dim].dims != (dim,):
        return None
    labels = np.asarray(values[dim].values)
    return labels if labels.dtype.kind in "fiu" else np.array([str(label) for label in labels], dtype=object)


def _order(of: NDArray[Any], wanted: NDArray[Any], dim: str, name: str, first: str) -> NDArray[np.int64]:
    """Which of the labels ``of`` come in which order, so that they are those ``wanted``."""
    here, there = np.argsort(of, kind="stable"), np.argsort(wanted, kind="stable")
    if len(of) != len(wanted) or not _same(of[here], wanted[there]):
        raise VelfieldError(
            f"fields of different {'boxes' if dim == 'box' else 'components' if dim == 'component' else 'cells'}: "
            f"{dim} of {first}={_range(wanted)}, {dim} of {name}={_range(of)}; {SAME}"
        )
    if _same(of, wanted):
        return np.arange(len(of))
    twice = wanted[there][1:][wanted[there][1:] == wanted[there][:-1]]
    if len(twice):
        raise VelfieldError(
            f"the same label twice, in different orders: {dim} of {first} and {name}={twice[0]}; {SAME}"
        )
    order = np.empty(len(of), dtype=np.int64)
    order[there] = here
    return order


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Whether labels are equal, those that are numbers to a part of their least distance."""
    if a.dtype == object or b.dtype == object:
        return bool((a == b).all())
    least = np.diff(np.sort(b)).min(initial=1.0)
    return bool((np.abs(a - b) <= NEAR * least).all())


def _taken(values: Any, dim: str, order: NDArray[np.int64]) -> Any:
    """Values in another order along a dimension; those that do not have it, or not so long, as they are."""
    dims = getattr(values, "dims", ("box", *(("component",) if values.ndim == 5 else ()), *AXES))
    if dim not in dims or values.shape[dims.index(dim)] != len(order):
        return values
    return values.isel({dim: order}) if hasattr(values, "dims") else values.take(order, axis=dims.index(dim))


def _check_spacing(places: NDArray[Any], dim: str, name: str, cellsize: float | None) -> None:
    """Refuse cells (ascending) that do not lie side by side, or are not of the size that is said."""
    if places.dtype == object or len(places) < 2:
        return
    steps = np.diff(places)
    wanted = float(steps.min()) if cellsize is None else cellsize
    wrong = ~(np.abs(steps - wanted) <= NEAR * wanted)
    if wrong.any():
        raise VelfieldError(
            f"cells that do not lie side by side: {dim} of {name}={places[wrong.argmax()]:g} and "
            f"{places[wrong.argmax() + 1]:g}, cellsize={wanted:g}; measure all cells of a box, or give the cellsize "
            "that these have"
        )


def _range(labels: NDArray[Any]) -> str:
    """Labels, for people."""
    if not len(labels):
        return "none"
    first, last = (f"{one:g}" if labels.dtype != object else one for one in (labels[0], labels[-1]))
    return f"{len(labels)} from {first} to {last}"
