"""The cells that a tracer's cloud covers, and their shares of it: the loops beneath painting, compiled.

The cell of a position follows from integers on the parent's grid, so it does not depend on the window that asks:
windows painted apart and put side by side are the whole, to the last bit. A cell's sums lie side by side, so that a
tracer touches one cache line a row of its cloud, and lines are asked for some tracers ahead. The rate is bound by the
traffic of these lines (docs/scaling.md). The kernels release the GIL and use one thread each.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.kernel import add_scaled, kernel, prefetch

CELLS_PER_AXIS = {"ngp": 1, "cic": 2, "tsc": 3}  # over which an assignment spreads a tracer
_OUTSIDE, _INVALID = -(2**60), -(2**61)  # places on an axis that are none
LARGEST_CELL = 2.0**52  # beyond it neighbouring float64 lie further apart than cells do
NO_PERIOD = 2**60
_BATCH = 256  # tracers located before they are added: with their weights 10 kB, in the first-level cache
_AHEAD = 8  # tracers between asking for a cache line and adding to it


def cloud_along_axis(
    x: NDArray[Any], cellsize: float, start: int, width: int, ngrid: int | None, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places (cells, N) of the tracers' clouds along one axis, from ``start`` on, and the shares (cells, N) of each.

    A place is in [0, width), −1 for none; with ``ngrid`` the axis has that period, and ``width`` is at most as long.
    """
    place, share = np.empty((cells, len(x)), np.int64), np.empty((cells, len(x)))
    _clouds(place, share, x, cellsize, start, width, ngrid or NO_PERIOD, cells)
    return place, share


@kernel
def _place(x, cellsize, start, period, cells, width):
    """First cell of the tracer's cloud, counted from the window's first, and how far into a cell it lies.

    The place is in (−cells, width), of its periodic images the highest there.
    """
    u = x / cellsize
    if not abs(u) < LARGEST_CELL:
        return _INVALID, 0.0
    # L / (L / n) may round to just below n: boxsize must still be 0
    if period * (1.0 - 4.5e-16) <= u < period:
        u = float(period)
    if cells == 2:
        u -= 0.5
    i = math.floor(u)
    place = i - start - (1 if cells == 3 else 0)
    if period < NO_PERIOD:
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
    if cells == 1:
        return 1.0, 0.0, 0.0
    if cells == 2:
        return 1.0 - offset, offset, 0.0
    d = offset - 0.5
    return 0.5 * (0.5 - d) ** 2, 0.75 - d * d, 0.5 * (0.5 + d) ** 2


@kernel
def _clouds(place, share, x, cellsize, start, width, period, cells):
    for p in range(len(x)):
        first, offset = _place(x[p], cellsize, start, period, cells, width)
        weights = _weights(offset, cells)
        for c in range(cells):
            at = first + c if first > _OUTSIDE else -1
            if at < 0 and first > _OUTSIDE and period < NO_PERIOD:
                at += period
            if at >= width:
                at = at - period if period < NO_PERIOD and at - period >= 0 else -1
            place[c, p] = at if 0 <= at < width else -1
            share[c, p] = weights[c]


@kernel
def _locate_all(place, offset, x, cellsize, below, width, period, half, cells):
    """Places of a batch, axes in turn, as `_place` gives them; how many of them need `_place` itself, how many reach.

    Without branches and in the order in which the numbers lie, so that the compiler makes vectors of it.
    """
    wrap = float(period) if period < NO_PERIOD else 0.0
    lowest = 0.0 if period < NO_PERIOD else -LARGEST_CELL
    top, near_top = float(period), period * (1.0 - 4.5e-16)
    strange = reach = 0
    for q in range(len(x)):
        u = x[q] / cellsize
        u = top if (near_top <= u) & (u < top) else u
        u = u - half
        i = np.floor(u)
        at = i - below[q]
        at = at + wrap if at < 0.0 else at
        strange += 0 if (lowest <= at) & (at < top) & (at < LARGEST_CELL) else 1
        at = at - wrap if at >= width[q] else at
        reach += 1 if (at > -cells) & (at < width[q]) else 0
        place[q] = at
        offset[q] = u - i
    return strange, reach


@kernel
def _locate(found, flat_pos, first, cellsize, start, period, cells, shape, along):
    """Fill ``found`` with a batch's tracers that reach the window; return how many, and how many have no place."""
    tracer, place, offset = found
    count = min(len(tracer), len(flat_pos) // 3 - first)
    x = flat_pos[3 * first : 3 * (first + count)]
    below, width = along
    half = 0.5 if cells == 2 else 0.0
    strange, reach = _locate_all(place, offset, x, cellsize, below, width, period, half, float(cells))
    if strange == 0 and reach == 3 * count:
        for q in range(count):
            tracer[q] = first + q
        return count, 0
    if strange:
        for q in range(3 * count):
            at, offset[q] = _place(x[q], cellsize, start[q % 3], period, cells, shape[q % 3])
            place[q] = float(at)
    n = invalid = 0
    for q in range(count):
        at = place[3 * q : 3 * q + 3]
        tracer[n] = first + q
        invalid += (at[0] == _INVALID) | (at[1] == _INVALID) | (at[2] == _INVALID)
        reaches = True
        for axis in range(3):
            reaches &= (at[axis] > -cells) & (at[axis] < shape[axis])
            place[3 * n + axis], offset[3 * n + axis] = at[axis], offset[3 * q + axis]
        n += 1 if reaches else 0
    return n, invalid


# What is summed is told to the kernels by the lengths of tuples: they are part of the types, so that the compiler knows
# them, leaves out what is not summed and unrolls the clouds, and machine code is kept on disk for each.
@kernel
def _values(vel, mass, p, with_mass, with_vel):
    """What a tracer adds to a cell that has all of it."""
    if len(with_mass) > 0:
        if len(with_vel) > 0:
            return 1.0, np.float64(mass[p]), np.float64(vel[p, 0]), np.float64(vel[p, 1]), np.float64(vel[p, 2])
        return 1.0, np.float64(mass[p])
    if len(with_vel) > 0:
        return 1.0, np.float64(vel[p, 0]), np.float64(vel[p, 1]), np.float64(vel[p, 2])
    return (1.0,)


@kernel
def _ask_for(flat, at, row, plane, fields, cloud):
    """Ask for the cache lines of a cloud; one holds 8 numbers."""
    cells = len(cloud)
    for a in range(cells):
        for b in range(cells):
            first = at + a * plane + b * row
            for line in range(0, cells * fields, 8):
                prefetch(flat, first + line)
            prefetch(flat, first + cells * fields - 1)


@kernel
def _add_cloud(flat, corner, row, plane, offset, values, cloud):
    """Add one cloud, all of which lies in the window."""
    cells = len(cloud)
    wx, wy, wz = _weights(offset[0], cells), _weights(offset[1], cells), _weights(offset[2], cells)
    for a in range(cells):
        for b in range(cells):
            w, at = wx[a] * wy[b], corner + a * plane + b * row
            for c in range(cells):
                add_scaled(flat, at + c * len(values), w * wz[c], values)


@kernel
def _add_images(flat, place, row, plane, offset, values, period, cloud):
    """Add one cloud at all its periodic images that reach a window about as wide as its parent."""
    margin = len(cloud) - 1
    for x in range(int(place[0]) + margin, -1, -period):
        for y in range(int(place[1]) + margin, -1, -period):
            for z in range(int(place[2]) + margin, -1, -period):
                _add_cloud(flat, x * plane + y * row + z * len(values), row, plane, offset, values, cloud)


@kernel
def add_clouds(sums, pos, vel, mass, cellsize, start, period, cloud, with_mass, with_vel):
    """Add all tracers in order; return how many have no valid position (these are left out).

    ``sums`` has ``cells − 1`` cells of margin on every side of the window, so that a cloud is never cut. Tracers are
    first located, then added, a batch at a time: so it is known early which cache lines will be needed.
    """
    cells = len(cloud)
    fields = 1 + len(with_mass) + 3 * len(with_vel)
    _, ny, nz, _ = sums.shape
    shape = (sums.shape[0] - 2 * cells + 2, ny - 2 * cells + 2, nz - 2 * cells + 2)
    flat, row, plane, margin = sums.reshape(sums.size), nz * fields, ny * nz * fields, cells - 1
    flat_pos = pos.reshape(pos.size)
    found = np.empty(_BATCH, np.int64), np.empty(3 * _BATCH), np.empty(3 * _BATCH)
    tracer, place, offset = found
    corner, along = np.empty(_BATCH, np.int64), (np.empty(3 * _BATCH), np.empty(3 * _BATCH))
    for q in range(3 * _BATCH):
        along[0][q] = start[q % 3] + (1 if cells == 3 else 0)
        along[1][q] = shape[q % 3]
    alone = max(shape) + margin <= period  # no tracer has two images that reach the window
    invalid = 0
    for first in range(0, len(pos), _BATCH):
        n, bad = _locate(found, flat_pos, first, cellsize, start, period, cells, shape, along)
        invalid += bad
        for t in range(n):
            x, y, z = place[3 * t] + margin, place[3 * t + 1] + margin, place[3 * t + 2] + margin
            corner[t] = int(x * plane + y * row + z * fields)
        for t in range(n):
            _ask_for(flat, corner[min(t + _AHEAD, n - 1)], row, plane, fields, cloud)
            values = _values(vel, mass, tracer[t], with_mass, with_vel)
            if alone:
                _add_cloud(flat, corner[t], row, plane, offset[3 * t : 3 * t + 3], values, cloud)
            else:
                at, inside = place[3 * t : 3 * t + 3], offset[3 * t : 3 * t + 3]
                _add_images(flat, at, row, plane, inside, values, period, cloud)
    return invalid
