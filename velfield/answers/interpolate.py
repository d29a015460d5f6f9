"""Velocities between the centres of cells: trilinear, across the faces of boxes, and never beyond what is known.

A position is given by its eight surrounding cell centres, whichever boxes they are in; those of weight 0 do not count.
The eight are added up in one order, so that an answer depends neither on how the parent is cut nor on the positions
beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.answers.cells import ABSENT, Cells, Grid
from velfield.answers.reach import FURTHEST, NOWHERE, in_turn
from velfield.kernel import byte_at, float32_at, kernel

# what the flag of a velocity is made of; 0 is good
OUTSIDE, UNKNOWN, EXTRAPOLATED, UNSURE, INVALID, SEVERAL, UNSOLVED, IMPLAUSIBLE = (1 << bit for bit in range(8))
MEANINGS = {
    OUTSIDE: "outside the data",
    UNKNOWN: "a surrounding cell is not known",
    EXTRAPOLATED: "taken from the nearest known cell",
    UNSURE: "a surrounding cell is less sure",
    INVALID: "not a position",
    SEVERAL: "several real positions",
    UNSOLVED: "no real position found",
    IMPLAUSIBLE: "a surrounding cell is implausible",
}
Side = tuple[int, int, int, int, int, float]  # of `_side`


def trilinear(
    cells: Cells, pos: NDArray[Any], *, extrapolate: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Velocity, and error bar where there is one, at positions, with flags.

    Parameters
    ----------
    cells : Cells
        Of a store.
    pos : ndarray (N, 3)
        Positions in the parent [h⁻¹Mpc]; a periodic one goes on around its edges.
    extrapolate : bool
        Where a surrounding cell is not known, take the nearest one that is, of the same eight.

    Returns
    -------
    values : ndarray (N, 3 or 6)
        [km/s]; NaN where the position is not inside the store's boxes, or a surrounding cell is not known.
    flag : ndarray (N,), uint8
        The bits `OUTSIDE`, `UNKNOWN`, `EXTRAPOLATED`, `UNSURE`, `INVALID`, `IMPLAUSIBLE`.
    """
    pos = np.asarray(pos, dtype=np.float64)
    values = np.empty((len(pos), 3 * len(cells.names)))
    flag = np.empty(len(pos), dtype=np.uint8)
    for part in in_turn(cells, pos, None, np.zeros(1), NOWHERE):
        _trilinear(part.grid, part.lines.pos, part.rows, extrapolate, values, flag)
    return values, flag


@kernel
def _trilinear(
    grid: Grid,
    pos: NDArray[np.float64],
    rows: NDArray[np.int64],
    extrapolate: bool,
    values: NDArray[np.float64],
    flag: NDArray[np.uint8],
) -> None:
    """`trilinear` of some rows."""
    out = np.empty(values.shape[1])
    for i, row in enumerate(rows):
        flag[row] = velocity_at(grid, pos[i, 0], pos[i, 1], pos[i, 2], extrapolate, out)
        for component in range(len(out)):
            values[row, component] = out[component]


@kernel
def velocity_at(grid: Grid, x: float, y: float, z: float, extrapolate: bool, out: NDArray[np.float64]) -> int:
    """The first values (3 or 6) of a position, into ``out``, and its flag; the boxes that it touches are held.

    Cells of a box that is not held count as not known.
    """
    if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z)):
        out[:] = np.nan
        return INVALID
    sx, sy, sz = _side(grid, x / grid.cellsize), _side(grid, y / grid.cellsize), _side(grid, z / grid.cellsize)
    home = _number(grid, sx[0], sy[0], sz[0])
    if home == ABSENT:
        out[:] = np.nan
        return OUTSIDE
    inside = sx[1] == sx[3] and sy[1] == sy[3] and sz[1] == sz[3] and sx[2] < sx[4] and sy[2] < sy[4] and sz[2] < sz[4]
    held = grid.values[home] != 0
    if inside and held and sx[5] > 0 and sy[5] > 0 and sz[5] > 0 and grid.unsure[home] == 0:  # most are here
        _in_one_box(grid.values[home], grid.cells, sx[2], sy[2], sz[2], sx[5], sy[5], sz[5], out)
        if np.isfinite(out[0]):
            return 0
    return _sum(grid, sx, sy, sz, extrapolate, out)


@kernel
def _side(grid: Grid, x: float) -> Side:
    """Along an axis: the place of the box that holds x, place and cell on either side of it, and how far it is between.

    A place is negative where the parent does not go on.
    """
    if not abs(x) < FURTHEST:
        return ABSENT, 0, 0, 0, 0, 0.0
    n, boxes = grid.cells, len(grid.number)
    base = np.floor(x - 0.5)
    box = int(base) // n
    cell, other, next_cell = int(base) - box * n, box, int(base) - box * n + 1
    if next_cell == n:
        other, next_cell = box + 1, 0
    if grid.periodic:
        box, other = box % boxes, other % boxes
    else:
        box, other = box if 0 <= box < boxes else ABSENT, other if 0 <= other < boxes else ABSENT
    return other if np.floor(x) > base else box, box, cell, other, next_cell, x - 0.5 - base


@kernel
def _number(grid: Grid, x: int, y: int, z: int) -> int:
    """The box at places along the axes, `ABSENT` where there is none."""
    return int(grid.number[x, y, z]) if x >= 0 and y >= 0 and z >= 0 else ABSENT


@kernel
def _in_one_box(
    values: int, n: int, i: int, j: int, k: int, fx: float, fy: float, fz: float, out: NDArray[np.float64]
) -> None:
    """What `_sum` gives where all eight cells are in one box and known."""
    x, y, z = 1 - fx, 1 - fy, 1 - fz
    at = (i * n + j) * n + k
    for component in range(len(out)):
        total = float32_at(values, at) * (x * y * z) + float32_at(values, at + 1) * (x * y * fz)
        total += float32_at(values, at + n) * (x * fy * z)
        total += float32_at(values, at + n + 1) * (x * fy * fz)
        total += float32_at(values, at + n * n) * (fx * y * z)
        total += float32_at(values, at + n * n + 1) * (fx * y * fz)
        total += float32_at(values, at + n * n + n) * (fx * fy * z)
        total += float32_at(values, at + n * n + n + 1) * (fx * fy * fz)
        out[component] = total
        at += n * n * n


@kernel
def _sum(grid: Grid, sx: Side, sy: Side, sz: Side, extrapolate: bool, out: NDArray[np.float64]) -> int:
    """The eight cells around a position added up into ``out``, and the flag."""
    out[:] = 0
    flag = 0
    for corner in range(8):
        box, cell, weight, _ = _corner(grid, sx, sy, sz, corner)
        if weight == 0:
            continue
        if box == ABSENT or grid.values[box] == 0:
            flag |= UNKNOWN
            continue
        if grid.unsure[box] != 0:
            flag |= byte_at(grid.unsure[box], cell)
        if np.isfinite(float32_at(grid.values[box], cell)):
            for component in range(len(out)):
                out[component] += float32_at(grid.values[box], component * grid.cells**3 + cell) * weight
        else:
            flag |= UNKNOWN
    if flag & UNKNOWN:
        out[:] = np.nan
        if extrapolate:
            flag |= _nearest(grid, sx, sy, sz, out)
    return flag


@kernel
def _nearest(grid: Grid, sx: Side, sy: Side, sz: Side, out: NDArray[np.float64]) -> int:
    """The nearest known one of the eight cells around a position into ``out``, if there is one, and its flag."""
    least, flag = np.inf, 0
    for corner in range(8):
        box, cell, weight, square = _corner(grid, sx, sy, sz, corner)
        if weight == 0 or square >= least or box == ABSENT or grid.values[box] == 0:
            continue
        if np.isfinite(float32_at(grid.values[box], cell)):
            least, flag = square, EXTRAPOLATED
            for component in range(len(out)):
                out[component] = float32_at(grid.values[box], component * grid.cells**3 + cell)
    return flag


@kernel
def _corner(grid: Grid, sx: Side, sy: Side, sz: Side, corner: int) -> tuple[int, int, float, float]:
    """Box and cell of one of the eight, its weight, and the square of its distance [cells]."""
    a, b, c = corner & 4, corner & 2, corner & 1
    box = _number(grid, sx[3] if a else sx[1], sy[3] if b else sy[1], sz[3] if c else sz[1])
    cell = (sx[4] if a else sx[2]) * grid.cells + (sy[4] if b else sy[2])
    cell = cell * grid.cells + (sz[4] if c else sz[2])
    fx, fy, fz = sx[5], sy[5], sz[5]
    weight = (fx if a else 1 - fx) * (fy if b else 1 - fy) * (fz if c else 1 - fz)
    x, y, z = (1 if a else 0) - fx, (1 if b else 0) - fy, (1 if c else 0) - fz
    return box, cell, weight, x * x + y * y + z * z
