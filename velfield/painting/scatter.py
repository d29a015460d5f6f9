"""Tracers that lie all over a parent: sums by sorting, and the passes over tracers that painting a block needs.

A canvas pays for every cell it covers; where cells are many and tracers few, as in a range of an unsorted catalogue,
the tracers are sorted by cell instead and equal cells are added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.kernel import kernel
from velfield.painting.clouds import CELLS_PER_AXIS, LARGEST_CELL, cloud_along_axis
from velfield.painting.tracers import check_shapes


@dataclass(frozen=True, kw_only=True)
class Patch:
    """Sums in some cells of a box's window.

    ``cells`` (n,) are their places in the flattened window, each once; ``sums`` (n, fields) are number, then mass
    [h⁻¹M⊙], then momentum [km/s × number], as far as they are painted; float64.
    """

    cells: NDArray[np.int64]
    sums: NDArray[np.float64]


def patches(
    boxes: BoxLayout,
    ngrid: int | None,
    assignment: str,
    pos: NDArray[Any],
    vel: NDArray[Any] | None,
    mass: NDArray[Any] | None,
) -> Iterator[tuple[int, Patch]]:
    """Patches of all boxes that tracers reach, box by box; arguments as of `velfield.painting.paint.Canvas`."""
    cells, sums = _by_cell(boxes, ngrid, assignment, pos, vel, mass)
    width = boxes.shape[0]
    axes = [_windows(boxes, ngrid, axis) for axis in cells]
    box_of, cell_of, row_of = [], [], []
    for x, y, z in product(*axes):
        rows = np.flatnonzero((x[0] >= 0) & (y[0] >= 0) & (z[0] >= 0))
        box_of.append((x[0][rows] * boxes.boxes + y[0][rows]) * boxes.boxes + z[0][rows])
        cell_of.append((x[1][rows] * width + y[1][rows]) * width + z[1][rows])
        row_of.append(rows)
    box, cell, row = np.concatenate(box_of), np.concatenate(cell_of), np.concatenate(row_of)
    order = np.argsort(box, kind="stable")
    found, first = np.unique(box[order], return_index=True)
    for number, part in zip(found, np.split(order, first[1:]), strict=True):
        yield int(number), Patch(cells=cell[part], sums=sums[row[part]])


def merge(parts: Sequence[Patch]) -> Patch:
    """One patch of several, in which each cell occurs once."""
    cells = np.concatenate([p.cells for p in parts])
    order = np.argsort(cells, kind="stable")
    found, sums = _add_equal(cells[order], np.concatenate([p.sums for p in parts])[order])
    return Patch(cells=found, sums=sums)


def filled(sums: NDArray[np.float64], first: int, ny: int, nz: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cells of a part of a window that hold tracers, and their sums (n, fields).

    ``sums`` (x, y, z, fields) is the part; its first cell is number ``first`` of a window of (…, ``ny``, ``nz``) cells.
    """
    cells, values = _filled(sums, first, ny, nz)
    return cells, values


def add_patch(sums: NDArray[np.float64], patch: Patch) -> None:
    """Add a patch to the sums (cells of the window, fields) of its box."""
    cells = patch.cells
    fits = patch.sums.shape == (len(cells), sums.shape[1])
    if not fits or (len(cells) and not (cells.min() >= 0 and cells.max() < len(sums))):
        raise VelfieldError(
            f"a patch that does not fit its box: cells={int(cells.min(initial=0))} to {int(cells.max(initial=0))} of "
            f"{len(sums)}, sums={patch.sums.shape} for {(len(cells), sums.shape[1])}"
        )
    _add_patch(sums, cells, patch.sums)


def bounds(pos: NDArray[Any], cellsize: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest cell along each axis, as float64 (3,) and (3,)."""
    flat, width = np.ascontiguousarray(pos).ravel(), 3 * 256  # NumPy is fast where the last axis is long
    whole = len(flat) // width * width
    with np.errstate(invalid="ignore"):  # a NaN is carried on to where it is told
        many, few = flat[:whole].reshape(-1, width), flat[whole:].reshape(-1, 3)
        low = np.concatenate([many.min(0, initial=np.inf).reshape(-1, 3), few]).min(0).astype(np.float64)
        high = np.concatenate([many.max(0, initial=-np.inf).reshape(-1, 3), few]).max(0).astype(np.float64)
    largest = LARGEST_CELL * cellsize
    if not max(abs(low).max(), abs(high).max()) < largest:
        raise VelfieldError(
            f"positions that are no place on the grid: tracers={int(np.count_nonzero(~(abs(pos) < largest).all(1)))} "
            f"of {len(pos)}, cellsize={cellsize}; remove rows that are not finite"
        )
    return np.floor(low / cellsize), np.floor(high / cellsize)


def shifts(pos: NDArray[Any], seen: NDArray[np.float64], limit: float) -> tuple[float, int]:
    """The furthest that a tracer was carried [h⁻¹Mpc], and how many further than ``limit``."""
    check_shapes(pos, seen)
    square, count = _shifts(pos, seen, limit * limit)
    return float(np.sqrt(square)), int(count)


def faster(vel: NDArray[Any], speed: float) -> NDArray[np.bool_]:
    """Which tracers are faster than ``speed`` [km/s]."""
    check_shapes(vel)
    return np.asarray(_faster(vel, speed * speed))


def near(pos: NDArray[Any], centre: ArrayLike, distance: float, period: float) -> NDArray[np.bool_]:
    """Which tracers lie within ``distance`` of ``centre`` along every axis; ``period`` 0 is none."""
    check_shapes(pos)
    x, y, z = np.asarray(centre, dtype=np.float64)
    return np.asarray(_near(pos, np.array([x, y, z]), distance, period))


def own_boxes(pos: NDArray[Any], boxes: BoxLayout, periodic: bool) -> NDArray[np.int64]:
    """Codes ((i + 1) w + j + 1) w + k + 1, w = boxes + 2, of the boxes that tracers lie in; 0 or w − 1 is outside."""
    check_shapes(pos)
    occupied = np.zeros((boxes.boxes + 2,) * 3, dtype=np.bool_)
    _occupy(occupied, pos, boxes.cellsize, boxes.ngrid, boxes.cells, periodic)
    return np.flatnonzero(occupied)


def _by_cell(
    boxes: BoxLayout,
    ngrid: int | None,
    assignment: str,
    pos: NDArray[Any],
    vel: NDArray[Any] | None,
    mass: NDArray[Any] | None,
) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
    """Cells on the parent's grid that tracers touch, along each axis, and their sums (n, fields)."""
    cells = CELLS_PER_AXIS[assignment]
    first = 0 if ngrid else -boxes.margin
    side = ngrid or boxes.ngrid + 2 * boxes.margin
    place, share = zip(
        *(cloud_along_axis(pos[:, axis], boxes.cellsize, first, side, ngrid, cells) for axis in range(3)), strict=True
    )
    ids, weights = np.empty((cells**3, len(pos)), np.int64), np.empty((cells**3, len(pos)))
    for n, (a, b, c) in enumerate(product(range(cells), repeat=3)):
        x, y, z = place[0][a], place[1][b], place[2][c]
        ids[n] = np.where((x >= 0) & (y >= 0) & (z >= 0), (x * side + y) * side + z, -1)
        weights[n] = share[0][a] * share[1][b] * share[2][c]
    columns = [np.ones(len(pos))]
    columns += [] if mass is None else [mass]
    columns += [] if vel is None else list(vel.T)
    order = np.argsort(ids, axis=None, kind="stable")
    values = np.empty((ids.size, len(columns)))
    for n, column in enumerate(columns):
        values[:, n] = (weights * column).ravel()[order]
    found, sums = _add_equal(ids.ravel()[order], values)
    filled = (found >= 0) & (sums[:, 0] != 0)
    found, sums = found[filled], sums[filled]
    return [found // side**2 + first, found // side % side + first, found % side + first], sums


def _add_equal(keys: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sums of the rows of ``values`` whose keys, in order, are equal."""
    if len(keys) == 0:
        return keys, values
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(values, first, axis=0)


def _windows(
    boxes: BoxLayout, ngrid: int | None, cell: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Along one axis: the boxes whose windows hold each cell, and its place there; −1 where there is none.

    A cell is in the window of its own box and, where there are margins, of some around it.
    """
    width = boxes.shape[0]
    spread = -(-boxes.margin // boxes.cells)
    found = []
    for step in range(-spread, spread + 1):
        box = cell // boxes.cells + step
        place = cell - box * boxes.cells + boxes.margin
        box = box % boxes.boxes if ngrid else box
        inside = (place >= 0) & (place < width) & (box >= 0) & (box < boxes.boxes)
        found.append((np.where(inside, box, -1), place))
    return found


@kernel
def _filled(sums, first, ny, nz):
    count = 0
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            for k in range(sums.shape[2]):
                count += sums[i, j, k, 0] != 0
    cells, values = np.empty(count, np.int64), np.empty((count, sums.shape[3]))
    n = 0
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            for k in range(sums.shape[2]):
                if sums[i, j, k, 0] != 0:
                    cells[n] = first + (i * ny + j) * nz + k
                    for field in range(sums.shape[3]):
                        values[n, field] = sums[i, j, k, field]
                    n += 1
    return cells, values


@kernel
def _add_patch(sums, cells, values):
    for n in range(len(cells)):
        for field in range(sums.shape[1]):
            sums[cells[n], field] += values[n, field]


@kernel
def _shifts(pos, seen, limit):
    furthest, count = 0.0, 0
    for p in range(len(pos)):
        x, y, z = seen[p, 0] - pos[p, 0], seen[p, 1] - pos[p, 1], seen[p, 2] - pos[p, 2]
        square = x * x + y * y + z * z
        furthest = max(furthest, square)
        count += square > limit
    return furthest, count


@kernel
def _faster(vel, limit):
    fast = np.empty(len(vel), np.bool_)
    for p in range(len(vel)):
        x, y, z = np.float64(vel[p, 0]), np.float64(vel[p, 1]), np.float64(vel[p, 2])
        fast[p] = x * x + y * y + z * z > limit
    return fast


@kernel
def _near(pos, centre, distance, period):
    found = np.empty(len(pos), np.bool_)
    for p in range(len(pos)):
        inside = True
        for axis in range(3):
            away = abs(pos[p, axis] - centre[axis])
            if period > 0:
                away = away % period
                away = min(away, period - away)
            inside &= away <= distance
        found[p] = inside
    return found


@kernel
def _occupy(occupied, pos, cellsize, ngrid, cells, periodic):
    n = occupied.shape[0] - 2
    place = np.empty(3, np.int64)
    for p in range(len(pos)):
        for axis in range(3):
            u = pos[p, axis] / cellsize
            if periodic and ngrid * (1.0 - 4.5e-16) <= u < ngrid:  # as `paint` does: boxsize is 0
                u = 0.0
            box = np.int64(np.floor(u)) // cells
            place[axis] = box % n if periodic else min(max(box, -1), n)
        occupied[place[0] + 1, place[1] + 1, place[2] + 1] = True
