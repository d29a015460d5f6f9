"""Counts, masses and momenta of tracers summed on a window of one global grid, and velocities from these sums.

Cell i covers [i, i+1)·cellsize of the parent; its centre is at (i + ½)·cellsize. The cell of a position follows from
integers on the parent's grid, so it does not depend on the window that asks: windows painted apart and put side by
side are the whole, to the last bit. One pass adds number, mass and momentum together: a cell's sums lie side by side,
so that a tracer touches one cache line a row of its cloud, and lines are asked for some tracers ahead. The rate is
bound by the traffic of these lines (docs/scaling.md). The kernels release the GIL and use one thread each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.kernel import add_scaled, kernel, prefetch

CELLS_PER_AXIS = {"ngp": 1, "cic": 2, "tsc": 3}  # over which an assignment spreads a tracer
_OUTSIDE, _INVALID = -(2**60), -(2**61)  # places on an axis that are none
LARGEST_CELL = 2.0**52  # beyond it neighbouring float64 lie further apart than cells do
_NO_PERIOD = 2**60
_BATCH = 256  # tracers located before they are added: with their weights 10 kB, in the first-level cache
_AHEAD = 8  # tracers between asking for a cache line and adding to it


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


class Canvas:
    """Sums of number, mass and momentum on a window of the parent's grid, to which tracers are added bit by bit.

    Parameters
    ----------
    cellsize : float
        Side of a cell [h⁻¹Mpc].
    start : (int, int, int)
        Global index of the window's first cell; may be negative.
    shape : (int, int, int)
        Cells of the window along each axis; at most ``ngrid``.
    ngrid : int, optional
        Cells along the side of a periodic parent, where a position at the parent's side is the position 0. Without it
        space has no period.
    assignment : {"ngp", "cic", "tsc"}
        Nearest grid point, cloud in cell or triangular-shaped cloud: over 1, 2 or 3 cells an axis, by the distance to
        their centres (Hockney & Eastwood 1981).
    mass, momentum : bool
        Whether these are summed beside the number.
    """

    def __init__(
        self,
        *,
        cellsize: float,
        start: tuple[int, int, int],
        shape: tuple[int, int, int],
        ngrid: int | None = None,
        assignment: str = "ngp",
        mass: bool = False,
        momentum: bool = False,
    ) -> None:
        if assignment not in CELLS_PER_AXIS:
            raise VelfieldError(f"unknown assignment: assignment={assignment!r}; choose ngp, cic or tsc")
        if not 0 < cellsize < math.inf or min(shape) < 1 or (ngrid is not None and ngrid < max(shape)):
            raise VelfieldError(
                f"no such window: cellsize={cellsize}, shape={tuple(shape)}, ngrid={ngrid}; "
                "sizes and counts must be positive, and a window no larger than its parent"
            )
        self.cellsize, self.ngrid = float(cellsize), ngrid
        self.start, self.shape = start, shape
        self.mass, self.momentum = mass, momentum
        self._cells = CELLS_PER_AXIS[assignment]
        # a cell's sums lie side by side: one cache line for all of a tracer's; clouds are never cut at the edge
        fields = 1 + mass + 3 * momentum
        self._padded = np.zeros((*(n + 2 * (self._cells - 1) for n in shape), fields))

    def add(self, pos: NDArray[Any], vel: NDArray[Any] | None = None, mass: NDArray[Any] | None = None) -> None:
        """Add tracers, in order: positions (N, 3) [h⁻¹Mpc], velocities (N, 3) [km/s], masses (N,) [h⁻¹M⊙].

        Positions are float32 or float64 and, with ``ngrid``, any periodic image. What misses the window is left out.
        """
        pos, vel, mass = _check_tracers(pos, vel, mass)
        if (vel is not None, mass is not None) != (self.momentum, self.mass):
            raise VelfieldError(
                f"tracers do not fit the canvas: vel={vel is not None}, mass={mass is not None}, canvas has "
                f"momentum={self.momentum}, mass={self.mass}; give what it sums"
            )
        period = self.ngrid or _NO_PERIOD
        first = tuple(s % period if self.ngrid else s for s in self.start)
        invalid = _add(
            self._padded,
            pos,
            np.empty((0, 3), dtype=np.float32) if vel is None else vel,
            np.empty(0, dtype=np.float32) if mass is None else mass,
            self.cellsize,
            first,
            period,
            (0,) * self._cells,
            (0,) * self.mass,
            (0,) * self.momentum,
        )
        if invalid:
            raise VelfieldError(
                f"positions that are no place on the grid: tracers={invalid} of {len(pos)}, cellsize={self.cellsize}; "
                "remove rows that are not finite"
            )

    @property
    def sums(self) -> NDArray[np.float64]:
        """(nx, ny, nz, fields): number, then mass, then momentum, as far as they are summed. A view."""
        margin = self._cells - 1
        return self._padded[tuple(slice(margin, margin + n) for n in self.shape)]


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
    """Sum number, mass and momentum of tracers on a window of the parent's grid: one `Canvas` for all of them.

    Parameters
    ----------
    pos, vel, mass : ndarray
        As in `Canvas.add`; what is not given is not summed.
    cellsize, start, ngrid, assignment
        As of `Canvas`.
    shape : (int, int, int)
        Cells of the window along each axis; may exceed ``ngrid``, then cells repeat.
    """
    period = ngrid or _NO_PERIOD
    once = (min(shape[0], period), min(shape[1], period), min(shape[2], period))
    canvas = Canvas(
        cellsize=cellsize,
        start=start,
        shape=once,
        ngrid=ngrid,
        assignment=assignment,
        mass=mass is not None,
        momentum=vel is not None,
    )
    canvas.add(pos, vel, mass)
    sums = canvas.sums
    if once != tuple(shape):
        sums = sums[np.ix_(*(np.arange(n) % period for n in shape))]
    return split_sums(sums, mass=mass is not None, momentum=vel is not None)


def split_sums(sums: NDArray[np.float64], *, mass: bool, momentum: bool) -> Painted:
    """Sums (nx, ny, nz, fields) of a `Canvas` as one array for each quantity."""
    return Painted(
        number=np.ascontiguousarray(sums[..., 0]),
        mass=np.ascontiguousarray(sums[..., 1]) if mass else None,
        momentum=np.ascontiguousarray(np.moveaxis(sums[..., -3:], -1, 0)) if momentum else None,
    )


def cloud_along_axis(
    x: NDArray[Any], cellsize: float, start: int, width: int, ngrid: int | None, cells: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places (cells, N) of the tracers' clouds along one axis, from ``start`` on, and the shares (cells, N) of each.

    A place is in [0, width), −1 for none; with ``ngrid`` the axis has that period, and ``width`` is at most as long.
    """
    place, share = np.empty((cells, len(x)), np.int64), np.empty((cells, len(x)))
    _clouds(place, share, x, cellsize, start, width, ngrid or _NO_PERIOD, cells)
    return place, share


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
    pos = np.ascontiguousarray(pos)
    vel = None if vel is None else np.ascontiguousarray(vel)
    mass = None if mass is None else np.ascontiguousarray(mass)
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
    if not abs(u) < LARGEST_CELL:
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
            if at < 0 and first > _OUTSIDE and period < _NO_PERIOD:
                at += period
            if at >= width:
                at = at - period if period < _NO_PERIOD and at - period >= 0 else -1
            place[c, p] = at if 0 <= at < width else -1
            share[c, p] = weights[c]


@kernel
def _locate_all(place, offset, x, cellsize, below, width, period, half, cells):
    """Places of a batch, axes in turn, as `_place` gives them; how many of them need `_place` itself, how many reach.

    Without branches and in the order in which the numbers lie, so that the compiler makes vectors of it.
    """
    wrap = float(period) if period < _NO_PERIOD else 0.0
    lowest = 0.0 if period < _NO_PERIOD else -LARGEST_CELL
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
def _add(sums, pos, vel, mass, cellsize, start, period, cloud, with_mass, with_vel):
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
