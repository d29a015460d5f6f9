"""What follows from a velocity field: speed, line-of-sight component, divergence, potential, bulk flow in spheres.

Definitions are in docs/conventions.md. A value of which something is not known is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from velfield.answers.cells import ABSENT, Cells
from velfield.errors import StoreError, VelfieldError
from velfield.physics.linear import derivative, wavevectors


def speed(cells: Cells, box: int) -> NDArray[np.float32]:
    """Length of the velocity |v| (x, y, z) [km/s] in a box."""
    return np.asarray(np.sqrt((velocity(cells, box) ** 2).sum(axis=0)))


def velocity(cells: Cells, box: int) -> NDArray[np.float32]:
    """Velocity (3, x, y, z) [km/s] of a box."""
    return cells.read(box)[0][:3]


def velocity_std(cells: Cells, box: int) -> NDArray[np.float32]:
    """Error bar of the velocity (3, x, y, z) [km/s] of a box; refuses a store that has none."""
    if "velocity_std" not in cells.names:
        raise StoreError(
            f"the store has no error bars: store={cells.source}; predict with a model that gives them (train --std)"
        )
    return cells.read(box)[0][3:]


def line_of_sight(cells: Cells, box: int) -> NDArray[np.float32]:
    """Component of the velocity away from the box's observer, or along its line of sight (x, y, z) [km/s].

    NaN in a cell whose centre is where the observer is. Refuses a store that is seen by nobody.
    """
    one = cells.ds.isel(box=box)
    if "line_of_sight" in one.coords:
        direction = np.asarray(one["line_of_sight"].values, dtype=np.float64).reshape(3, 1, 1, 1)
    elif "observer" in one.coords:
        layout = cells.layout
        corner, observer = np.asarray(one["origin"].values), np.asarray(one["observer"].values)
        along = (np.arange(layout.cells) + 0.5) * layout.cellsize
        away = np.stack(np.meshgrid(*(along + start for start in corner - observer), indexing="ij"))
        length = np.sqrt((away**2).sum(axis=0))
        direction = np.divide(away, length, out=np.full_like(away, np.nan), where=length > 0)
    else:
        raise StoreError(
            f"no line of sight: store={cells.source}, rsd={cells.ds.attrs['rsd']}; only a store that is seen from "
            "somewhere, or along a direction, has one"
        )
    return np.asarray((velocity(cells, box) * direction).sum(axis=0), dtype=np.float32)


def divergence(cells: Cells, box: int) -> NDArray[np.float32]:
    """Divergence ∇·v (x, y, z) [km/s per h⁻¹Mpc] of a box: central differences of the cells on either side."""
    v = _surrounded(cells, box)
    total = np.zeros((cells.layout.cells,) * 3, dtype=np.float32)
    for axis in range(3):
        inner = np.moveaxis(v[axis], axis, 0)[:, 1:-1, 1:-1]
        total += np.moveaxis(inner[2:] - inner[:-2], 0, axis)
    total[~np.isfinite(v[0, 1:-1, 1:-1, 1:-1])] = np.nan
    return total / np.float32(2 * cells.layout.cellsize)


def _surrounded(cells: Cells, box: int) -> NDArray[np.float32]:
    """Velocity of a box and of the cells that touch its faces (3, x + 2, y + 2, z + 2); NaN elsewhere."""
    layout, inner = cells.layout, slice(1, -1)
    around = np.full((3, *(layout.cells + 2,) * 3), np.nan, dtype=np.float32)
    around[:, inner, inner, inner] = velocity(cells, box)
    for axis, side in product(range(3), (0, 1)):
        beyond = cells.places[box] * layout.cells
        beyond[axis] += layout.cells if side else -1
        (neighbour,), _ = cells.at(beyond[None])
        if neighbour != ABSENT:
            here, there = [inner] * 3, [slice(None)] * 3
            here[axis] = slice(-1, None) if side else slice(0, 1)
            there[axis] = slice(0, 1) if side else slice(-1, None)
            around[(slice(None), *here)] = velocity(cells, int(neighbour))[(slice(None), *there)]
    return around


def potential(cells: Cells) -> NDArray[np.float32]:
    """Velocity potential φ (x, y, z) [km/s h⁻¹Mpc] of a whole periodic parent: v = −∇φ, mean 0.

    In Fourier space φ = i k·v / k²: what curls, and the mean velocity, has no part in it. Some 20 bytes a cell of the
    parent are in memory, 4.4 GB for 600³. Refuses a store that is not a whole periodic parent, or has gaps.
    """
    layout = cells.layout
    if not cells.periodic or (cells.number == ABSENT).any():
        raise StoreError(
            f"no potential without a whole periodic parent: store={cells.source}, periodic={cells.periodic}, "
            f"boxes={(cells.number != ABSENT).sum()} of {layout.nbox}; ask for the divergence, which boxes have, too"
        )
    shape = (layout.ngrid,) * 3
    k = wavevectors(shape, np.full(3, layout.boxsize))
    modes: Any = None
    for axis in range(3):
        component = scipy.fft.rfftn(_whole(cells, axis))
        component *= (1j * derivative(k, shape, axis)).astype(component.dtype)
        modes = component if modes is None else np.add(modes, component, out=modes)
    for i in range(shape[0]):  # plane by plane: a whole cube of k² is never made
        k2 = k[0][i] ** 2 + k[1][0] ** 2 + k[2][0] ** 2
        modes[i] /= np.where(k2 > 0, k2, np.inf).astype(np.float32)
    return np.asarray(scipy.fft.irfftn(modes, s=shape, overwrite_x=True))


def _whole(cells: Cells, axis: int) -> NDArray[np.float32]:
    """One component of the velocity of the whole parent (x, y, z); refuses gaps."""
    layout = cells.layout
    whole = np.empty((layout.ngrid,) * 3, dtype=np.float32)
    for place in np.ndindex(cells.number.shape):
        values = velocity(cells, int(cells.number[place]))[axis]
        if not np.isfinite(values).all():
            raise StoreError(
                f"cells without a velocity: store={cells.source}, box={cells.number[place]}; a potential needs all"
            )
        whole[tuple(slice(i * layout.cells, (i + 1) * layout.cells) for i in place)] = values
    return whole


@dataclass(frozen=True, kw_only=True)
class BulkFlow:
    """Mean velocity in a sphere.

    Attributes
    ----------
    velocity : ndarray (3,)
        [km/s], over the known cells whose centres lie in the sphere, each with the same weight; NaN without any.
    cells : int
        How many these are.
    inside : float
        Their share of all cells whose centres lie in the sphere, those outside the data too; NaN without any.
    """

    velocity: NDArray[np.float64]
    cells: int
    inside: float


def bulk_flow(cells: Cells, centre: Sequence[float] | NDArray[Any], radius: float) -> BulkFlow:
    """Bulk flow in a sphere of ``radius`` [h⁻¹Mpc] around ``centre`` (3,) in the parent; only boxes it meets are read.

    A periodic parent goes on around its edges; a sphere that would meet itself is refused.
    """
    layout = cells.layout
    middle = np.asarray(centre, dtype=np.float64)
    if middle.shape != (3,) or not np.isfinite(middle).all() or not 0 < radius < np.inf:
        raise VelfieldError(
            f"no such sphere: centre={middle.tolist()}, radius={radius}; give three finite numbers and a positive one"
        )
    if cells.periodic and radius > layout.boxsize / 2:
        raise VelfieldError(
            f"a sphere that meets itself: radius={radius:g}, boxsize={layout.boxsize:g}; "
            "give at most half the side of a periodic parent"
        )
    edges = [(middle + sign * radius) / layout.cellsize - 0.5 for sign in (-1, 1)]
    axes = [np.arange(np.ceil(low), np.floor(high) + 1) for low, high in zip(*edges, strict=True)]
    square = [((along + 0.5) * layout.cellsize - x) ** 2 for along, x in zip(axes, middle, strict=True)]
    parts = [_runs(along, layout.cells) for along in axes]
    total, known, everything = np.zeros(3), 0, 0
    for x, y, z in product(*parts):
        within = square[0][x][:, None, None] + square[1][y][:, None] + square[2][z] <= radius**2
        everything += int(within.sum())
        (box,), _ = cells.at(np.array([[axes[0][x.start], axes[1][y.start], axes[2][z.start]]]))
        if box == ABSENT or not within.any():
            continue
        starts = [int(along[run.start] % layout.cells) for along, run in zip(axes, (x, y, z), strict=True)]
        inside = [slice(s, s + n) for s, n in zip(starts, within.shape, strict=True)]
        values = velocity(cells, int(box))[(slice(None), *inside)][:, within]
        values = values[:, np.isfinite(values[0])]
        total += values.sum(axis=1, dtype=np.float64)
        known += values.shape[1]
    mean = total / known if known else np.full(3, np.nan)
    return BulkFlow(velocity=mean, cells=known, inside=known / everything if everything else np.nan)


def _runs(along: NDArray[np.float64], cells: int) -> list[slice]:
    """Stretches of consecutive cells of one axis that lie in one box each."""
    edges = np.flatnonzero(np.diff(np.floor(along / cells))) + 1
    starts = [0, *edges.tolist()]
    return [slice(a, b) for a, b in zip(starts, [*edges.tolist(), len(along)], strict=True) if a < b]
