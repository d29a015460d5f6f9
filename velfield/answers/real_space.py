"""From where a tracer is seen in redshift space to where it is: the inverse of s = x + n̂ (v·n̂)/(aH), along n̂.

The shift does not turn the direction in which a tracer is seen, so that x lies on the line of sight through s, at
x = s + t n̂ with g(t) = t + n̂·v(s + t n̂)/(aH) = 0. The velocity is the store's own. g is looked at in steps of half a
cell; each change of its sign holds a solution, which is closed in upon. Where matter falls together fast enough, g is
not monotone and several places are seen as one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.answers.cells import Cells
from velfield.answers.interpolate import SEVERAL, UNSOLVED, trilinear

MAX_SHIFT = 20.0  # h⁻¹Mpc: 2000 km/s at z = 0, more than a cell of 1 h⁻¹Mpc or larger has
AT_ONCE = 2**16  # velocities at a time
TOLERANCE = 1e-7  # of a cell: some 0.1 m/s
ROUNDS = 60  # of closing in; some 8 do


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
    steps = np.linspace(-max_shift, max_shift, 2 * count + 1)
    found = np.full(seen.shape, np.nan)
    flag = np.zeros(len(seen), dtype=np.uint8)
    valid = np.isfinite(seen).all(axis=1) & np.isfinite(direction).all(axis=1)
    flag[~valid] = UNSOLVED
    rows = np.flatnonzero(valid)
    rows = rows[np.argsort(cells.holding(seen[rows]), kind="stable")]  # lines of sight that lie together
    size = max(1, AT_ONCE // len(steps))
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        line = _Lines(cells, seen[part], direction[part], per_velocity, extrapolate)
        back = np.full(len(part), np.inf) if observer is None else ((seen[part] - observer) ** 2).sum(axis=1) ** 0.5
        t, flag[part] = _solve(line, np.maximum(steps, -back[:, None]))
        found[part] = seen[part] + t[:, None] * direction[part]
    return found, flag


class _Lines:
    """The function g along some lines of sight."""

    def __init__(
        self, cells: Cells, seen: NDArray[Any], direction: NDArray[Any], per_velocity: float, extrapolate: bool
    ) -> None:
        self.cells, self.seen, self.direction = cells, seen, direction
        self.per_velocity, self.extrapolate = per_velocity, extrapolate
        self.tolerance = TOLERANCE * cells.layout.cellsize

    def __call__(self, rows: NDArray[np.int64], t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Value of g [h⁻¹Mpc] at t (n, …) on the lines ``rows`` (n,); NaN where the velocity is not known."""
        shape = t.shape
        t = t.reshape(len(rows), -1)
        direction = self.direction[rows][:, None, :]
        pos = (self.seen[rows][:, None, :] + t[..., None] * direction).reshape(-1, 3)
        velocity = trilinear(self.cells, pos, extrapolate=self.extrapolate)[0][:, :3].reshape(*t.shape, 3)
        return np.asarray(t + self.per_velocity * (velocity * direction).sum(axis=-1)).reshape(shape)


def _solve(line: _Lines, t: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """The solution nearest to 0 on each line, from samples at ``t`` (n, steps); NaN without one."""
    rows = np.arange(len(t))
    g = line(rows, t)
    below, above = g[:, :-1], g[:, 1:]
    crossing = np.isfinite(below) & np.isfinite(above) & ((below < 0) != (above < 0))
    share = np.divide(below, below - above, out=np.zeros_like(below), where=crossing)
    where = t[:, :-1] + share * (t[:, 1:] - t[:, :-1])
    nearest = np.where(crossing, np.abs(where), np.inf).argmin(axis=1)
    number = crossing.sum(axis=1)
    solved = np.flatnonzero(number > 0)
    at = nearest[solved]
    out = np.full(len(t), np.nan)
    out[solved] = _close_in(
        line, solved, t[solved, at], t[solved, at + 1], g[solved, at].copy(), g[solved, at + 1].copy()
    )
    flag = np.where(np.isnan(out), UNSOLVED, np.where(number > 1, SEVERAL, 0))
    return out, flag.astype(np.uint8)


def _close_in(
    line: _Lines,
    rows: NDArray[np.int64],
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    ga: NDArray[np.float64],
    gb: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Solutions between a and b, where g has different signs, by false position.

    An end that stays a second time weighs half (the Illinois rule, Dowell & Jarratt 1971). Each line is left alone once
    it has its solution, so that none depends on the others. NaN where g jumps over 0, or is not known there.
    """
    best = np.where(np.abs(ga) < np.abs(gb), a, b)
    moving = np.flatnonzero(np.minimum(np.abs(ga), np.abs(gb)) > line.tolerance)
    stayed = np.zeros(len(rows))  # -1: the left end did, 1: the right one
    for _ in range(ROUNDS):
        if not len(moving):
            break
        left, right, gl, gr, last = (of[moving] for of in (a, b, ga, gb, stayed))
        middle = left - gl * (right - left) / (gr - gl)
        g = line(rows[moving], middle)
        best[moving] = middle
        to_right = (g < 0) == (gl < 0)  # the solution is between middle and right
        a[moving], ga[moving] = np.where(to_right, middle, left), np.where(to_right, g, np.where(last < 0, gl / 2, gl))
        b[moving], gb[moving] = np.where(to_right, right, middle), np.where(to_right, np.where(last > 0, gr / 2, gr), g)
        stayed[moving] = np.where(to_right, 1, -1)
        best[moving[~np.isfinite(g)]] = np.nan
        moving = moving[np.abs(g) > line.tolerance]
    best[moving] = np.nan
    return best
