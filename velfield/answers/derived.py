"""What follows from a velocity field: speed, line-of-sight component, divergence, potential, bulk flow in spheres.

Definitions are in docs/conventions.md. A value of which something is not known is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from velfield.answers.cells import ABSENT, Cells
from velfield.errors import StoreError, VelfieldError
from velfield.files.progress import Progress, Silent
from velfield.kernel import kernel
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


def bulk_flows(cells: Cells, spheres: NDArray[np.float64], progress: Progress | None = None) -> list[BulkFlow]:
    """Bulk flows in spheres, rows of x, y, z in the parent and radius (N, 4) [h⁻¹Mpc].

    Only boxes that a sphere meets are read, each once for all spheres. A periodic parent goes on around its edges; a
    sphere that would meet itself is refused. ``progress`` is told of boxes.
    """
    _check_spheres(cells, spheres)
    square = spheres[:, 3] ** 2
    near = [
        np.stack([_squares(cells, spheres, axis, i).min(axis=1) for i in range(len(cells.number))]) for axis in range(3)
    ]
    x, y, z = (along[place] for along, place in zip(near, cells.places.T, strict=True))
    meets = x + y + z <= square  # (nbox, N)
    boxes = np.flatnonzero(meets.any(axis=1)).tolist()
    total, known = np.zeros((len(spheres), 3)), np.zeros(len(spheres), dtype=np.int64)
    told = progress or Silent()
    told.start("bulk flow", len(boxes), "boxes")
    for box, read in cells.several(boxes):
        rows = np.flatnonzero(meets[box])
        sides = [_squares(cells, spheres[rows], axis, place) for axis, place in enumerate(cells.places[box])]
        for row, *along in zip(rows, *sides, strict=True):
            known[row] += _add_inside(read.values, *along, square[row], total[row])
        told.advance()
    told.done()
    flows = []
    for sphere, velocity, number in zip(spheres, total, known.tolist(), strict=True):
        everything = _count(*(_all_squares(cells, sphere, axis) for axis in range(3)), sphere[3] ** 2)
        mean = velocity / number if number else np.full(3, np.nan)
        flows.append(BulkFlow(velocity=mean, cells=number, inside=number / everything if everything else np.nan))
    return flows


def _check_spheres(cells: Cells, spheres: NDArray[np.float64]) -> None:
    """Refuse what is no sphere, or one that meets itself."""
    for *centre, radius in spheres.tolist():
        if not np.isfinite(centre).all() or not 0 < radius < np.inf:
            raise VelfieldError(
                f"no such sphere: centre={centre}, radius={radius}; give three finite numbers and a positive one"
            )
        if cells.periodic and radius > cells.layout.boxsize / 2:
            raise VelfieldError(
                f"a sphere that meets itself: radius={radius:g}, boxsize={cells.layout.boxsize:g}; "
                "give at most half the side of a periodic parent"
            )


def _squares(cells: Cells, spheres: NDArray[np.float64], axis: int, place: int) -> NDArray[np.float64]:
    """Squared distance along an axis (N, cells) of spheres' centres to the cells of the boxes at a place."""
    layout = cells.layout
    along = (place * layout.cells + np.arange(layout.cells) + 0.5) * layout.cellsize - spheres[:, axis, None]
    return (along - layout.boxsize * np.rint(along / layout.boxsize) if cells.periodic else along) ** 2


def _all_squares(cells: Cells, sphere: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """The same for all cells that there could be in the sphere, beyond the parent too if it is not periodic."""
    layout, (centre, radius) = cells.layout, (sphere[axis], sphere[3])
    if cells.periodic:
        return np.concatenate([_squares(cells, sphere[None], axis, i)[0] for i in range(layout.boxes)])
    low, high = ((centre + sign * radius) / layout.cellsize - 0.5 for sign in (-1, 1))
    return ((np.arange(np.ceil(low), np.floor(high) + 1) + 0.5) * layout.cellsize - centre) ** 2


@kernel
def _add_inside(
    values: NDArray[np.float32],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    z: NDArray[np.float64],
    square: float,
    total: NDArray[np.float64],
) -> int:
    """Add the velocities of known cells with x + y + z ≤ ``square``, and count them."""
    number = 0
    vx, vy, vz = 0.0, 0.0, 0.0
    for i in range(len(x)):
        for j in range(len(y)):
            if x[i] + y[j] <= square:
                for k in range(len(z)):
                    if x[i] + y[j] + z[k] <= square and np.isfinite(values[0, i, j, k]):
                        vx, vy, vz = vx + values[0, i, j, k], vy + values[1, i, j, k], vz + values[2, i, j, k]
                        number += 1
    total[0], total[1], total[2] = total[0] + vx, total[1] + vy, total[2] + vz
    return number


@kernel
def _count(x: NDArray[np.float64], y: NDArray[np.float64], z: NDArray[np.float64], square: float) -> int:
    """How many x + y + z are at most ``square``."""
    number = 0
    for i in range(len(x)):
        for j in range(len(y)):
            if x[i] + y[j] <= square:
                for k in range(len(z)):
                    number += x[i] + y[j] + z[k] <= square
    return number
