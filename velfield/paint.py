"""Counts, masses and momenta of tracers summed on a window of one global grid, and velocities from these sums.

Cell i covers [i, i+1)·cellsize of the parent; its centre is at (i + ½)·cellsize. The cell of a position follows from
integers on the parent's grid, so it does not depend on the window that asks: windows painted apart and put side by
side are the whole, to the last bit. One pass adds everything; a tracer that misses the window costs some 4 ns. The
rate is bound by memory, not by arithmetic: some 20 million tracers a second and thread (NGP, random order, 60³ cells).
The kernels release the GIL and use one thread each; the peak of memory is twice the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.kernel import kernel

CELLS_PER_AXIS = {"ngp": 1, "cic": 2, "tsc": 3}  # over which an assignment spreads a tracer
_OUTSIDE, _INVALID = -(2**62), -(2**62) + 1  # places on an axis that are none
_LARGEST_CELL = 2.0**52  # beyond it neighbouring float64 lie further apart than cells do
_NO_PERIOD = 2**60
_BATCH = 1024  # tracers located before they are added: 56 kB, in the second-level cache


@dataclass(frozen=True, kw_only=True)
class Painted:
    """Sums over the tracers in each cell of a window; nothing is divided.

    Attributes
    ----------
    number : ndarray (nx, ny, nz), float64
        Number of tracers.
    mass : ndarray (nx, ny, nz), float64, or None
        Sum of their masses, in the unit that was given.
    momentum : ndarray (3, nx, ny, nz), float64, or None
        Sum of their velocities [km/s], each tracer counting once whatever its mass.
    """

    number: NDArray[np.float64]
    mass: NDArray[np.float64] | None
    momentum: NDArray[np.float64] | None


def paint(
    pos: NDArray[Any],
    vel: NDArray[Any] | None = None,
    mass: NDArray[Any] | None = None,
    *,
    cellsize: float,
    start: tuple[int, int, int],
    shape: tuple[int, int, int],
    ngrid: int | None = None,
    assignment: str = "ngp",
) -> Painted:
    """Sum number, mass and momentum of tracers on a window of the parent's grid.

    Parameters
    ----------
    pos : ndarray (N, 3)
        Positions in the parent [h⁻¹Mpc], float32 or float64; with ``ngrid`` any periodic image.
    vel : ndarray (N, 3), optional
        Velocities [km/s].
    mass : ndarray (N,), optional
        Masses [h⁻¹M⊙].
    cellsize : float
        Side of a cell [h⁻¹Mpc].
    start : (int, int, int)
        Global index of the window's first cell; may be negative.
    shape : (int, int, int)
        Cells of the window along each axis; may exceed ``ngrid``, then cells repeat.
    ngrid : int, optional
        Cells along the side of a periodic parent, where a position at the parent's side is the position 0. Without it
        space has no period.
    assignment : {"ngp", "cic", "tsc"}
        Nearest grid point, cloud in cell or triangular-shaped cloud: over 1, 2 or 3 cells an axis, by the distance to
        their centres (Hockney & Eastwood 1981).
    """
    pos, vel, mass = _check_tracers(pos, vel, mass)
    if assignment not in CELLS_PER_AXIS:
        raise VelfieldError(f"unknown assignment: assignment={assignment!r}; choose ngp, cic or tsc")
    if not 0 < cellsize < math.inf or min(shape) < 1 or (ngrid is not None and ngrid < 1):
        raise VelfieldError(
            f"no such window: cellsize={cellsize}, shape={tuple(shape)}, ngrid={ngrid}; "
            "sizes and counts must be positive"
        )
    period = ngrid or _NO_PERIOD
    once = [min(n, period) for n in shape]
    cells = CELLS_PER_AXIS[assignment]
    fields = 1 + (mass is not None) + 3 * (vel is not None)
    # a cell's sums lie side by side: one cache line for all of a tracer's
    sums = np.zeros((*(n + 2 * (cells - 1) for n in once), fields))
    first = tuple(s % period if ngrid else s for s in start)
    invalid = _add(sums, pos, vel, mass, float(cellsize), first, period, cells)
    if invalid:
        raise VelfieldError(
            f"positions that are no place on the grid: tracers={invalid} of {len(pos)}, cellsize={cellsize}; "
            "remove rows that are not finite"
        )
    sums = sums[tuple(slice(cells - 1, cells - 1 + n) for n in once)]
    if once != list(shape):
        sums = sums[np.ix_(*(np.arange(n) % period for n in shape))]
    return Painted(
        number=np.ascontiguousarray(sums[..., 0]),
        mass=None if mass is None else np.ascontiguousarray(sums[..., 1]),
        momentum=None if vel is None else np.ascontiguousarray(np.moveaxis(sums[..., -3:], -1, 0)),
    )


def fill_velocity(
    momentum: NDArray[np.float64],
    number: NDArray[np.float64],
    flag_outside: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Divide momentum by number; give empty cells the mean velocity of their neighbours.

    An empty cell takes the mean of those of its 26 neighbours whose velocity is known. Cells are filled in sweeps, all
    of a sweep from what was known before it, so neither order nor memory layout matters.

    Parameters
    ----------
    momentum : ndarray (3, nx, ny, nz)
        Sum of the velocities in each cell [km/s].
    number : ndarray (nx, ny, nz)
        Number of tracers in each cell.
    flag_outside : bool ndarray (nx, ny, nz), optional
        Cells outside a parent that is not periodic: they get NaN and are nobody's source.

    Returns
    -------
    velocity : ndarray (3, nx, ny, nz), float32
        Mean velocity [km/s].
    flag : ndarray (nx, ny, nz), uint8
        0 measured, 1 from neighbours, 2 outside.
    """
    if momentum.shape != (3, *number.shape) or (flag_outside is not None and flag_outside.shape != number.shape):
        raise VelfieldError(
            f"shapes do not fit: momentum={momentum.shape}, number={number.shape}, "
            f"flag_outside={None if flag_outside is None else flag_outside.shape}; give (3, x, y, z) and (x, y, z)"
        )
    outside = np.zeros(number.shape, dtype=bool) if flag_outside is None else np.asarray(flag_outside, dtype=bool)
    known = (number > 0) & ~outside
    velocity = np.full(momentum.shape, np.nan)
    np.divide(momentum, number, out=velocity, where=known)
    empty = np.argwhere(~known & ~outside)
    while len(empty):
        values, found = _mean_of_neighbours(velocity, known, empty)
        if not found.any():
            raise VelfieldError(
                f"no tracer to take a velocity from: empty cells={len(empty)} of {number.size}; "
                "paint more tracers or larger cells"
            )
        cells = tuple(empty[found].T)
        velocity[(slice(None), *cells)] = values[found].T
        known[cells] = True
        empty = empty[~found]
    flag = np.where(outside, 2, (number <= 0).astype(np.uint8)).astype(np.uint8)
    return velocity.astype(np.float32), flag


def _check_tracers(pos: Any, vel: Any, mass: Any) -> tuple[Any, Any, Any]:
    pos = np.asarray(pos)
    vel = None if vel is None else np.asarray(vel)
    mass = None if mass is None else np.asarray(mass)
    n = len(pos) if pos.ndim else 0
    if pos.shape != (n, 3) or (vel is not None and vel.shape != (n, 3)) or (mass is not None and mass.shape != (n,)):
        raise VelfieldError(
            f"tracers' shapes do not fit: pos={pos.shape}, vel={None if vel is None else vel.shape}, "
            f"mass={None if mass is None else mass.shape}; give (N, 3), (N, 3) and (N,)"
        )
    if pos.dtype not in (np.float32, np.float64):
        raise VelfieldError(f"positions of the wrong type: dtype={pos.dtype}; give float32 or float64")
    return pos, vel, mass


@kernel
def _place(x, cellsize, start, period, cells, width):
    """First cell of the tracer's cloud, counted from the window's first, and how far into a cell it lies.

    The place is in (−cells, width), of its periodic images the highest there.
    """
    u = x / cellsize
    if not abs(u) < _LARGEST_CELL:
        return _INVALID, 0.0
    # L / (L / n) may round to just below n: boxsize must still be 0
    if period * (1.0 - 4.5e-16) <= u < period:
        u = float(period)
    if cells == 2:
        u -= 0.5
    i = math.floor(u)
    place = i - start - (1 if cells == 3 else 0)
    if period < _NO_PERIOD:
        if place < 0:
            place += period
        if place < 0 or place >= period:
            place %= period
        if place >= width:
            place -= period
    return (place if -cells < place < width else _OUTSIDE), u - i


@kernel
def _weights(offset, cells):
    """Shares of the cloud's cells, from how far into its cell (CIC: past a centre) the tracer lies, in cells."""
    if cells == 2:
        return 1.0 - offset, offset, 0.0
    d = offset - 0.5
    return 0.5 * (0.5 - d) ** 2, 0.75 - d * d, 0.5 * (0.5 + d) ** 2


@kernel
def _locate(found, pos, first, cellsize, start, period, cells, shape):
    """Fill ``found`` with a batch's tracers that reach the window; return how many, and how many have no place."""
    tracer, place, offset = found
    n = invalid = 0
    for p in range(first, min(first + len(tracer), len(pos))):
        x, dx = _place(pos[p, 0], cellsize, start[0], period, cells, shape[0])
        y, dy = (x, dx) if x <= _INVALID else _place(pos[p, 1], cellsize, start[1], period, cells, shape[1])
        z, dz = (y, dy) if y <= _INVALID else _place(pos[p, 2], cellsize, start[2], period, cells, shape[2])
        if z <= _INVALID:
            invalid += z == _INVALID
            continue
        tracer[n] = p
        place[n, 0], place[n, 1], place[n, 2] = x, y, z
        offset[n, 0], offset[n, 1], offset[n, 2] = dx, dy, dz
        n += 1
    return n, invalid


@kernel
def _add_points(sums, found, n, mass, vel):
    """Add tracers to the one cell each lies in."""
    tracer, place, _ = found
    v = sums.shape[3] - 3
    for t in range(n):
        p, i, j, k = tracer[t], place[t, 0], place[t, 1], place[t, 2]
        sums[i, j, k, 0] += 1.0
        if mass is not None:
            sums[i, j, k, 1] += mass[p]
        if vel is not None:
            sums[i, j, k, v] += vel[p, 0]
            sums[i, j, k, v + 1] += vel[p, 1]
            sums[i, j, k, v + 2] += vel[p, 2]


@kernel
def _fill_row(row, weights, p, cells, mass, vel):
    """Tracer p's number, mass and velocity times its shares of the cells along z."""
    fields = len(row) // cells
    for c in range(cells):
        cell = c * fields
        row[cell] = weights[c]
        if mass is not None:
            row[cell + 1] = weights[c] * mass[p]
        if vel is not None:
            for axis in range(3):
                row[cell + fields - 3 + axis] = weights[c] * vel[p, axis]


@kernel
def _add_rows(flat, corner, strides, row, wx, wy, cells):
    """Add one cloud's rows along z, the first of which begins at ``corner``."""
    for a in range(cells):
        for b in range(cells):
            w = wx[a] * wy[b]
            first = np.uint64(corner + a * strides[0] + b * strides[1])  # unsigned: no test for indices from the end
            for i in range(len(row)):
                flat[first + np.uint64(i)] += w * row[i]


@kernel
def _add_clouds(sums, row, found, n, period, cells, mass, vel):
    """Add tracers with all the periodic images of their clouds that reach the window."""
    tracer, place, offset = found
    _, ny, nz, fields = sums.shape
    flat, strides, margin = sums.reshape(sums.size), (ny * nz * fields, nz * fields, fields), cells - 1
    for t in range(n):
        wx, wy = _weights(offset[t, 0], cells), _weights(offset[t, 1], cells)
        _fill_row(row, _weights(offset[t, 2], cells), tracer[t], cells, mass, vel)
        for x in range(place[t, 0] + margin, -1, -period):
            for y in range(place[t, 1] + margin, -1, -period):
                for z in range(place[t, 2] + margin, -1, -period):
                    corner = x * strides[0] + y * strides[1] + z * strides[2]
                    _add_rows(flat, corner, strides, row, wx, wy, cells)


@kernel
def _add(sums, pos, vel, mass, cellsize, start, period, cells):
    """Add all tracers in order; return how many have no valid position (these are left out).

    ``sums`` has ``cells − 1`` cells of margin on every side of the window, so that a cloud is never cut. Tracers are
    first located, then added, a batch at a time: the short second loop has many cache misses under way at once.
    """
    nx, ny, nz, fields = sums.shape
    shape = (nx - 2 * cells + 2, ny - 2 * cells + 2, nz - 2 * cells + 2)
    found = np.empty(_BATCH, np.int64), np.empty((_BATCH, 3), np.int64), np.empty((_BATCH, 3))
    row = np.empty(cells * fields)
    invalid = 0
    for first in range(0, len(pos), _BATCH):
        n, bad = _locate(found, pos, first, cellsize, start, period, cells, shape)
        invalid += bad
        if cells == 1:
            _add_points(sums, found, n, mass, vel)
        else:
            _add_clouds(sums, row, found, n, period, cells, mass, vel)
    return invalid


@kernel
def _mean_of_neighbours(velocity, known, empty):
    """Mean of the known velocities among the 26 neighbours of each cell (M, 3), and whether there is any (M,)."""
    nx, ny, nz = known.shape
    values = np.zeros((len(empty), 3))
    found = np.zeros(len(empty), np.bool_)
    for m in range(len(empty)):
        x, y, z = empty[m]
        count = 0
        for i in range(max(x - 1, 0), min(x + 2, nx)):
            for j in range(max(y - 1, 0), min(y + 2, ny)):
                for k in range(max(z - 1, 0), min(z + 2, nz)):
                    if known[i, j, k]:
                        count += 1
                        for axis in range(3):
                            values[m, axis] += velocity[axis, i, j, k]
        if count > 0:
            values[m] /= count
            found[m] = True
    return values, found
