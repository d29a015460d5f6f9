"""Counts, masses and momenta of tracers summed on a window of one global grid.

Cell i covers [i, i+1)·cellsize of the parent; its centre is at (i + ½)·cellsize. Windows painted apart and put side by
side are the whole, to the last bit. One pass adds number, mass and momentum together (`velfield.painting.clouds`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.arguments import POSITIONS, VELOCITIES, number, numbers, rows
from velfield.errors import VelfieldError
from velfield.painting.clouds import CELLS_PER_AXIS, NO_PERIOD, add_clouds
from velfield.painting.tracers import check_shapes


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
        cellsize = number(cellsize, "cellsize", "length")
        if not 0 < cellsize < math.inf or min(shape) < 1 or (ngrid is not None and ngrid < max(shape)):
            raise VelfieldError(
                f"no such window: cellsize={cellsize}, shape={tuple(shape)}, ngrid={ngrid}; "
                "sizes and counts must be positive, and a window no larger than its parent"
            )
        self.cellsize, self.ngrid = cellsize, ngrid
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
        period = self.ngrid or NO_PERIOD
        first = tuple(s % period if self.ngrid else s for s in self.start)
        invalid = add_clouds(
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
    period = ngrid or NO_PERIOD
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


def _check_tracers(pos: Any, vel: Any, mass: Any) -> tuple[Any, Any, Any]:
    pos = np.ascontiguousarray(rows(pos, "pos", POSITIONS))
    vel = None if vel is None else np.ascontiguousarray(rows(vel, "vel", VELOCITIES))
    mass = None if mass is None else np.ascontiguousarray(numbers(mass, "mass", "mass"))
    check_shapes(pos, vel, mass)
    if pos.dtype not in (np.float32, np.float64):
        raise VelfieldError(f"positions of the wrong type: dtype={pos.dtype}; give float32 or float64")
    return pos, vel, mass
