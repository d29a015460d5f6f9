"""Where a predicted velocity field is wrong: the error against local density, distance to the edge, and halo count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DENSE = 3.0  # 1 + δ: cells above it are also measured together
DENSITY = np.array([0, 0.1, 0.3, 0.6, 1, 1.7, 3, 6, np.inf])  # edges in 1 + δ
DEPTH = np.array([0, 5, 10, 20, 30, 40, 50, 75, 100, 150, np.inf])  # edges in h⁻¹Mpc from the nearest face
HALOS = np.array([0, 1, 2, 4, 8, 16, 32, 64, np.inf])  # edges in halos of a cell
DENSE_NAMES = {"rms_dense": "rms", "cos_dense": "cos_theta", "cells_dense": "cells"}


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Values in bins, NaN where a bin is empty; ``edges`` has one more than there are bins, lower edge included."""

    edges: NDArray[np.float64]
    values: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Tracers:
    """What is known of a box's cells (x, y, z) besides velocities; None where it is not.

    ``density`` is 1 + δ against the parent's mean, ``halos`` the number of halos in the cell.
    """

    density: NDArray[np.floating] | None = None
    halos: NDArray[np.floating] | None = None


def by_place(
    predicted: NDArray[np.floating],
    true: NDArray[np.floating],
    usable: NDArray[np.bool_],
    cellsize: float | None,
    tracers: Tracers,
) -> dict[str, Bins | float]:
    """Errors of velocities (3, x, y, z) [km/s] over the ``usable`` cells, by what is known of their places.

    ``error_by_density``, ``error_by_depth`` and ``error_by_halos`` hold rms [km/s], mean cos θ and cells of each bin;
    with a density also ``rms_dense``, ``cos_dense`` and ``cells_dense``, over cells of δ > 2.
    """
    p, t = predicted[:, usable].astype(np.float64), true[:, usable].astype(np.float64)
    square = ((p - t) ** 2).mean(axis=0)
    lengths = np.sqrt((p * p).sum(0) * (t * t).sum(0))
    cos = np.divide((p * t).sum(0), lengths, out=np.full_like(lengths, np.nan), where=lengths > 0)
    found: dict[str, Bins | float] = {}
    if cellsize is not None:
        found["error_by_depth"] = _binned(depth(true.shape[1:], cellsize)[usable], DEPTH, square, cos)
    if tracers.halos is not None:
        found["error_by_halos"] = _binned(tracers.halos[usable], HALOS, square, cos)
    if tracers.density is not None:
        density = tracers.density[usable]
        found["error_by_density"] = _binned(density, DENSITY, square, cos)
        dense = _binned(density, np.array([np.nextafter(DENSE, np.inf), np.inf]), square, cos).values
        found |= {name: float(dense[full][0]) for name, full in DENSE_NAMES.items()}
    return found


def depth(shape: tuple[int, ...], cellsize: float) -> NDArray[np.float64]:
    """Distance of each cell's centre (x, y, z) to the nearest face of the box [h⁻¹Mpc]."""
    x, y, z = (np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) * cellsize for n in shape)
    return np.minimum(np.minimum(x[:, None, None], y[None, :, None]), z[None, None, :])


def _binned(
    where: NDArray[np.floating], edges: NDArray[np.float64], square: NDArray[np.float64], cos: NDArray[np.float64]
) -> Bins:
    n = len(edges) - 1
    place = np.searchsorted(edges, where, side="right") - 1
    inside = (place >= 0) & (place < n)
    angled = inside & np.isfinite(cos)

    def mean(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        count = np.bincount(place[chosen], minlength=n)
        total = np.bincount(place[chosen], values[chosen], minlength=n)
        return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)

    cells = np.bincount(place[inside], minlength=n).astype(np.float64)
    return Bins(
        edges=edges, values={"rms": np.sqrt(mean(square, inside)), "cos_theta": mean(cos, angled), "cells": cells}
    )
