"""From where a tracer is seen in redshift space to where it is: the inverse of s = x + n̂ (v·n̂)/(aH), along n̂.

The shift does not turn the direction in which a tracer is seen, so that x lies on the line of sight through s, at
x = s + t n̂ with g(t) = t + n̂·v(s + t n̂)/(aH) = 0. The velocity is the store's own. g is looked at in steps of half a
cell; each change of its sign holds a solution, which is closed in upon. Where matter falls together fast enough, g is
not monotone and several places are seen as one. Further away than the fastest cell shifts, g has no solution and is not
looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from velfield.answers.cells import Cells, Grid
from velfield.answers.interpolate import SEVERAL, UNSOLVED, velocity_at
from velfield.answers.reach import NOWHERE, Lines, behind, in_turn
from velfield.kernel import kernel

MAX_SHIFT = 20.0  # h⁻¹Mpc: 2000 km/s at z = 0, more than a cell of 1 h⁻¹Mpc or larger has
TOLERANCE = 1e-7  # of a cell: some 0.1 m/s
ROUNDS = 60  # of closing in; some 8 do
Line = tuple[float, float, float, float, float, float]  # where it is seen, and the direction


def real_positions(
    cells: Cells,
    seen: NDArray[np.float64],
    direction: NDArray[np.float64],
    *,
    per_velocity: float,
    observer: NDArray[np.float64] | None = None,
    max_shift: float = MAX_SHIFT,
    extrapolate: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Real-space positions of what is seen in redshift space.

    Parameters
    ----------
    cells : Cells
        Of a store.
    seen, direction : ndarray (N, 3)
        Positions in redshift space [h⁻¹Mpc], and unit vectors away from the observer.
    per_velocity : float
        Comoving shift of a velocity, 1/(aH) [h⁻¹Mpc per km/s].
    observer : ndarray (3,), optional
        Nothing is sought behind this position; None for an observer at infinity.
    max_shift : float
        Solutions further than this from where the tracer is seen [h⁻¹Mpc] are not sought.
    extrapolate : bool
        As in `velfield.answers.interpolate.trilinear`.

    Returns
    -------
    positions : ndarray (N, 3)
        [h⁻¹Mpc]: of several solutions the one nearest to where the tracer is seen; NaN where there is none.
    flag : ndarray (N,), uint8
        `SEVERAL` or `UNSOLVED`, else 0. Solutions nearer to each other than half a cell are not told apart.
    """
    count = max(1, int(np.ceil(max_shift / (cells.layout.cellsize / 2))))
    tolerance = TOLERANCE * cells.layout.cellsize
    steps = np.linspace(-max_shift, max_shift, 2 * count + 1)
    at = NOWHERE if observer is None else np.asarray(observer, dtype=np.float64)
    found, flag = np.empty(seen.shape), np.empty(len(seen), dtype=np.uint8)
    for part in in_turn(cells, seen, direction, steps, at):
        fastest = max((box.fastest for box in part.boxes), default=0.0)
        reach = per_velocity * fastest * (1 + 1e-9)  # weights are rounded
        near = steps[max(0, np.searchsorted(steps, -reach) - 1) : np.searchsorted(steps, reach, side="right") + 1]
        lines = part.lines._replace(steps=near)
        _solve(part.grid, lines, part.rows, per_velocity, tolerance, extrapolate, found, flag)
    return found, flag


@kernel
def _solve(
    grid: Grid,
    lines: Lines,
    rows: NDArray[np.int64],
    per_velocity: float,
    tolerance: float,
    extrapolate: bool,
    found: NDArray[np.float64],
    flag: NDArray[np.uint8],
) -> None:
    """`real_positions` of some rows, from samples of g at the steps along their lines."""
    seen, direction, steps, observer = lines
    v = np.empty(3)
    for i, row in enumerate(rows):
        line = seen[i, 0], seen[i, 1], seen[i, 2], direction[i, 0], direction[i, 1], direction[i, 2]
        back = behind(seen, i, observer)
        number, best = 0, np.inf
        left, right, g_left, g_right = np.nan, np.nan, np.nan, np.nan
        a, ga = np.nan, np.nan
        for step in steps:
            b = max(step, -back)
            gb = _g(grid, line, b, per_velocity, extrapolate, v)
            if np.isfinite(ga) and np.isfinite(gb) and (ga < 0) != (gb < 0):
                number += 1
                where = abs(a + ga / (ga - gb) * (b - a))
                if where < best:
                    best, left, right, g_left, g_right = where, a, b, ga, gb
            a, ga = b, gb
        t = np.nan
        if number:
            t = _close_in(grid, line, left, right, g_left, g_right, per_velocity, tolerance, extrapolate, v)
        for axis in range(3):
            found[row, axis] = seen[i, axis] + t * direction[i, axis]
        flag[row] = UNSOLVED if np.isnan(t) else SEVERAL if number > 1 else 0


@kernel
def _g(grid: Grid, line: Line, t: float, per_velocity: float, extrapolate: bool, v: NDArray[np.float64]) -> float:
    """The function g [h⁻¹Mpc] at t; NaN where the velocity is not known."""
    x, y, z, along_x, along_y, along_z = line
    velocity_at(grid, x + t * along_x, y + t * along_y, z + t * along_z, extrapolate, v)
    return float(t + per_velocity * (v[0] * along_x + v[1] * along_y + v[2] * along_z))


@kernel
def _close_in(
    grid: Grid,
    line: Line,
    a: float,
    b: float,
    ga: float,
    gb: float,
    per_velocity: float,
    tolerance: float,
    extrapolate: bool,
    v: NDArray[np.float64],
) -> float:
    """The solution between a and b, where g has different signs, by false position.

    An end that stays a second time weighs half (the Illinois rule, Dowell & Jarratt 1971). NaN where g jumps over 0, or
    is not known there.
    """
    if min(abs(ga), abs(gb)) <= tolerance:
        return a if abs(ga) < abs(gb) else b
    stayed = 0  # -1: the left end did, 1: the right one
    for _ in range(ROUNDS):
        middle = a - ga * (b - a) / (gb - ga)
        g = _g(grid, line, middle, per_velocity, extrapolate, v)
        if not abs(g) > tolerance:
            return middle if np.isfinite(g) else np.nan
        if (g < 0) == (ga < 0):  # the solution is between middle and the right end
            a, ga = middle, g
            gb = gb / 2 if stayed > 0 else gb
            stayed = 1
        else:
            b, gb = middle, g
            ga = ga / 2 if stayed < 0 else ga
            stayed = -1
    return np.nan
