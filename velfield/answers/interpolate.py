"""Velocities between the centres of cells: trilinear, across the faces of boxes, and never beyond what is known.

A position is given by its eight surrounding cell centres, whichever boxes they are in; those of weight 0 do not count.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.answers.cells import ABSENT, Cells

PART = 2**16  # positions at a time, some 20 MB
# what the flag of a velocity is made of; 0 is good
OUTSIDE, UNKNOWN, EXTRAPOLATED, UNSURE, INVALID, SEVERAL, UNSOLVED = (1 << bit for bit in range(7))
MEANINGS = {
    OUTSIDE: "outside the data",
    UNKNOWN: "a surrounding cell is not known",
    EXTRAPOLATED: "taken from the nearest known cell",
    UNSURE: "a surrounding cell is less sure",
    INVALID: "not a position",
    SEVERAL: "several real positions",
    UNSOLVED: "no real position found",
}


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
        The bits `OUTSIDE`, `UNKNOWN`, `EXTRAPOLATED`, `UNSURE`, `INVALID`.
    """
    pos = np.asarray(pos, dtype=np.float64)
    values = np.full((len(pos), 3 * len(cells.names)), np.nan)
    flag = np.zeros(len(pos), dtype=np.uint8)
    valid = np.isfinite(pos).all(axis=1)
    home = cells.holding(pos)
    flag[~valid] = INVALID
    flag[valid & (home == ABSENT)] = OUTSIDE
    rows = np.flatnonzero(home != ABSENT)
    rows = rows[np.argsort(home[rows], kind="stable")]  # positions of one box together
    for first in range(0, len(rows), PART):
        part = rows[first : first + PART]
        values[part], flag[part] = _inside(cells, pos[part], extrapolate)
    return values, flag


def _inside(cells: Cells, pos: NDArray[np.float64], extrapolate: bool) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """`trilinear` of positions that all lie in boxes of the store."""
    steps = pos / cells.layout.cellsize - 0.5
    base = np.floor(steps)
    far = steps - base
    corners = [np.array(corner) for corner in product((0, 1), repeat=3)]
    weight = np.stack([np.where(corner, far, 1 - far).prod(axis=1) for corner in corners])
    found, unsure = _gather(cells, base, corners, weight)
    needed = weight > 0
    known = np.isfinite(found[..., 0])
    values = np.zeros(found.shape[1:])
    for i in range(len(corners)):  # always in this order: the sum does not depend on how the parent is cut
        values += np.where(needed[i][:, None], found[i] * weight[i][:, None], 0)
    flag = np.zeros(len(pos), dtype=np.uint8)
    flag[(unsure & needed).any(axis=0)] |= UNSURE
    lacking = (needed & ~known).any(axis=0)
    flag[lacking] |= UNKNOWN
    values[lacking] = np.nan
    if extrapolate and lacking.any():
        distance = np.stack([((corner - far) ** 2).sum(axis=1) for corner in corners])
        nearest = np.where(needed & known, distance, np.inf).argmin(axis=0)
        helped = np.flatnonzero(lacking & (needed & known).any(axis=0))
        values[helped] = found[nearest[helped], helped]
        flag[helped] |= EXTRAPOLATED
    return values, flag


def _gather(
    cells: Cells, base: NDArray[np.float64], corners: list[NDArray[Any]], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values (8, N, 3 or 6) of surrounding cells, NaN where not known, and which are less sure; a box is read once."""
    n = len(base)
    box, place = (np.stack(both) for both in zip(*(cells.at(base + corner) for corner in corners), strict=True))
    box = np.where(weight > 0, box, ABSENT).ravel()
    place = place.ravel()
    found = np.full((len(corners) * n, 3 * len(cells.names)), np.nan, dtype=np.float32)
    unsure = np.zeros(len(corners) * n, dtype=bool)
    order = np.argsort(box, kind="stable")
    touched, starts = np.unique(box[order], return_index=True)
    which = dict(zip(touched.tolist(), np.split(order, starts[1:]), strict=True))
    which.pop(ABSENT, None)
    for number, values, doubtful in cells.several(list(which)):
        chosen = which[number]
        found[chosen] = values.reshape(len(values), -1)[:, place[chosen]].T
        if doubtful is not None:
            unsure[chosen] = doubtful.ravel()[place[chosen]]
    return found.reshape(len(corners), n, -1), unsure.reshape(len(corners), n)
