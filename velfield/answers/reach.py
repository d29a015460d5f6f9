"""Lines through a parent in parts whose boxes fit in memory: which boxes a line touches, and which go together.

A position is a line of one step, 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from velfield.answers.cells import ABSENT, Box, Cells, Grid
from velfield.errors import StoreError, VelfieldError
from velfield.kernel import kernel

NOWHERE = np.full(3, np.inf)  # an observer infinitely far away
GATHERED = 2**16  # positions at a time that are put side by side in memory
FURTHEST = 2.0**53  # cells: beyond, a float64 does not tell neighbours apart


class Lines(NamedTuple):
    """Lines through positions, and the steps along them.

    Attributes
    ----------
    pos, direction : ndarray (N, 3)
        Line i goes through pos + t direction [h⁻¹Mpc].
    steps : ndarray (n,)
        Of t, ascending.
    observer : ndarray (3,)
        A line ends at this position.
    """

    pos: NDArray[np.float64]
    direction: NDArray[np.float64]
    steps: NDArray[np.float64]
    observer: NDArray[np.float64]


class Part(NamedTuple):
    """Some lines, and what compiled loops need to look along them.

    Attributes
    ----------
    rows : ndarray (n,)
        Which ones these are of all.
    lines : Lines
        These.
    grid : Grid
        With the boxes that they touch.
    boxes : list of Box
        These boxes, whose memory is there as long as this list is.
    """

    rows: NDArray[np.int64]
    lines: Lines
    grid: Grid
    boxes: list[Box]


def in_turn(
    cells: Cells,
    pos: NDArray[np.float64],
    direction: NDArray[np.float64] | None,
    steps: NDArray[np.float64],
    observer: NDArray[np.float64],
) -> Iterator[Part]:
    """All lines, those that lie together one after the other, in parts that touch at most `Cells.at_once` boxes.

    Parameters
    ----------
    cells : Cells
        Of a store.
    pos, direction : ndarray (N, 3)
        Line i goes through pos + t direction [h⁻¹Mpc] for t from the first to the last of ``steps``; None, where the
        only step is 0.
    steps : ndarray (n,)
        Ascending, so near to each other that neighbours are at most one cell apart.
    observer : ndarray (3,)
        A line ends at this position. One that touches more boxes than may be held is a part by itself.
    """
    if pos.ndim != 2 or pos.shape[1] != 3 or (direction is not None and direction.shape != pos.shape):
        raise VelfieldError(
            f"positions of the wrong shape: positions={pos.shape}, "
            f"directions={None if direction is None else direction.shape}; give (N, 3)"
        )
    if observer.shape != (3,):
        raise VelfieldError(f"an observer of the wrong shape: observer={observer.shape}; give (3,)")
    order, nbox = _by_place(cells, pos), len(cells.places)
    where, seen, touched = np.zeros((2, nbox), np.int64), np.zeros(nbox, np.bool_), np.empty(nbox, np.int64)
    grid = Grid(cells.layout.cellsize, cells.layout.cells, cells.periodic, cells.number, where[0], where[1])
    for start in range(0, len(order), GATHERED):
        rows = order[start : start + GATHERED]
        at = np.take(pos, rows, axis=0)
        along = at if direction is None else np.take(direction, rows, axis=0)
        lines = Lines(at, along, steps, observer)
        first = 0
        while first < len(rows):
            last, count = _reach(grid, lines, first, cells.at_once, seen, touched)
            numbers = np.sort(touched[:count])
            boxes = [box for _, box in cells.several(numbers.tolist())]
            shape = (cells.layout.cells,) * 3
            where[0, numbers] = [_address(box.values, np.float32, (3 * len(cells.names), *shape)) for box in boxes]
            where[1, numbers] = [0 if box.unsure is None else _address(box.unsure, np.uint8, shape) for box in boxes]
            some = lines._replace(pos=at[first:last], direction=along[first:last])
            yield Part(rows[first:last], some, grid, boxes)
            where[:, numbers] = 0
            first = last


def _address(values: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> int:
    """Where an array lies in memory; refuses one in which compiled loops would not find what they look for."""
    if values.dtype != dtype or values.shape != shape or not values.flags.c_contiguous:
        raise StoreError(
            f"a box in memory that is not as its layout says: shape={values.shape}, dtype={values.dtype}, "
            f"wanted={shape} of {np.dtype(dtype)}; open the store again"
        )
    return int(values.ctypes.data)


def _by_place(cells: Cells, pos: NDArray[np.float64]) -> NDArray[np.int64]:
    """All rows, those of the same eight boxes together."""
    place = _places(pos, cells.layout.side, cells.layout.boxes, cells.periodic)
    return np.argsort(place.astype(np.min_scalar_type(place.max(initial=0))), kind="stable")


@kernel
def _places(pos: NDArray[np.float64], side: float, boxes: int, periodic: bool) -> NDArray[np.int64]:
    """The places (N,) between the centres of eight boxes that positions lie in; 0 for those that are beyond."""
    out = np.zeros(len(pos), np.int64)
    for i in range(len(pos)):
        place = 0
        for axis in range(3):
            step = pos[i, axis] / side + 0.5
            if not abs(step) < FURTHEST:
                place = 0
                break
            along = int(np.floor(step))
            if not 0 <= along <= boxes:
                along = along % boxes if periodic else min(max(along, 0), boxes)
            place = place * (boxes + 1) + along
        out[i] = place
    return out


@kernel
def _reach(
    grid: Grid, lines: Lines, first: int, limit: int, seen: NDArray[np.bool_], touched: NDArray[np.int64]
) -> tuple[int, int]:
    """How far lines from ``first`` on get with ``limit`` boxes, and how many these are; ``touched`` has their numbers.

    ``seen`` (nbox,) is false before and after. Between two steps a line is in the cells of both, or between them.
    """
    pos, direction, steps, observer = lines
    count, settled, last, n = 0, 0, len(pos), grid.cells
    cx, cy, cz = 2**62, 2**62, 2**62  # the first cell of boxes that are all counted …
    side = n  # … along a side: of one box, or of the eight around a place
    a0, a1, b0, b1, c0, c1 = 0, 0, 0, 0, 0, 0  # the first and the last cell of a step along each axis
    for row in range(first, len(pos)):
        inside, back = False, behind(pos, row, observer)
        for i in range(len(steps)):
            t, was, inside = max(steps[i], -back), inside, False
            x = (pos[row, 0] + t * direction[row, 0]) / grid.cellsize
            y = (pos[row, 1] + t * direction[row, 1]) / grid.cellsize
            z = (pos[row, 2] + t * direction[row, 2]) / grid.cellsize
            if not (abs(x) < FURTHEST and abs(y) < FURTHEST and abs(z) < FURTHEST):
                continue
            u0, u1 = _between(x)
            v0, v1 = _between(y)
            w0, w1 = _between(z)
            if was:  # what lies between the last step and this one counts as well
                a0, a1, b0, b1, c0, c1 = min(a0, u0), max(a1, u1), min(b0, v0), max(b1, v1), min(c0, w0), max(c1, w1)
            else:
                a0, a1, b0, b1, c0, c1 = u0, u1, v0, v1, w0, w1
            hx, hy, hz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
            if a0 >= cx and a1 < cx + side and b0 >= cy and b1 < cy + side and c0 >= cz and c1 < cz + side:
                inside = True
            elif _number(grid, hx // n, hy // n, hz // n) != ABSENT:
                inside = True
                count = _mark(grid, a0 // n, a1 // n, b0 // n, b1 // n, c0 // n, c1 // n, seen, touched, count)
                cx, cy, cz, side = hx // n * n, hy // n * n, hz // n * n, n
                px, py, pz = (hx - n // 2) // n, (hy - n // 2) // n, (hz - n // 2) // n
                if _counted(grid, px, py, pz, seen):
                    cx, cy, cz, side = px * n, py * n, pz * n, 2 * n
            a0, a1, b0, b1, c0, c1 = u0, u1, v0, v1, w0, w1
        if count > limit and row > first:
            last = row
            break
        settled = count
    for k in range(count):
        seen[touched[k]] = False
    return last, settled


@kernel
def _between(x: float) -> tuple[int, int]:
    """The first and the last cell whose centres x is between; one where it is at a centre."""
    base = np.floor(x - 0.5)
    return int(base), int(base) + (1 if x - 0.5 > base else 0)


@kernel
def _mark(
    grid: Grid,
    x0: int,
    x1: int,
    y0: int,
    y1: int,
    z0: int,
    z1: int,
    seen: NDArray[np.bool_],
    touched: NDArray[np.int64],
    count: int,
) -> int:
    """Count the boxes from place to place along x, y, z, both included, that are not counted yet."""
    for x in range(x0, x1 + 1):
        for y in range(y0, y1 + 1):
            for z in range(z0, z1 + 1):
                number = _number(grid, x, y, z)
                if number != ABSENT and not seen[number]:
                    seen[number] = True
                    touched[count] = number
                    count += 1
    return count


@kernel
def _counted(grid: Grid, x: int, y: int, z: int, seen: NDArray[np.bool_]) -> bool:
    """Whether all eight boxes from a place on are there and counted."""
    for corner in range(8):
        number = _number(grid, x + (corner >> 2), y + (corner >> 1 & 1), z + (corner & 1))
        if number == ABSENT or not seen[number]:
            return False
    return True


@kernel
def _number(grid: Grid, x: int, y: int, z: int) -> int:
    """The box at a place of the parent, `ABSENT` where there is none."""
    boxes = len(grid.number)
    if grid.periodic:
        x, y, z = x % boxes, y % boxes, z % boxes
    elif min(x, y, z) < 0 or max(x, y, z) >= boxes:
        return ABSENT
    return int(grid.number[x, y, z])


@kernel
def behind(pos: NDArray[np.float64], row: int, observer: NDArray[np.float64]) -> float:
    """How far behind a position an observer is [h⁻¹Mpc]."""
    x, y, z = pos[row, 0] - observer[0], pos[row, 1] - observer[1], pos[row, 2] - observer[2]
    return float(np.sqrt(x * x + y * y + z * z))
