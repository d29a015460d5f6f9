"""Velocities of cells from the sums of their tracers, empty cells from their neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.kernel import kernel


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
