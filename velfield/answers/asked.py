"""What the positions of a question say of their unit: those that cannot be h⁻¹Mpc in the parent are refused.

A periodic parent goes on around its edges, but a position is wrapped only where it lies next to it, at most a side
outside: further away it is in another unit, as kpc, and a velocity found there would look good and mean nothing.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.geometry.extent import Extent


def beyond_images(pos: NDArray[np.float64], boxsize: float) -> NDArray[np.bool_]:
    """Which positions (N, 3) lie more than a side outside the parent; not those that are not finite."""
    return np.asarray(((pos < -boxsize) | (pos >= 2 * boxsize)).any(axis=1))


class Asked:
    """The positions of a question, all its parts together.

    Parameters
    ----------
    ds : xarray.Dataset
        The store that is asked.
    what : str
        What holds the positions, as ``name=value``, for errors.
    stated : bool
        Whether they say their unit: then as few of them as one likes may lie in a corner of the parent.
    """

    def __init__(self, ds: xr.Dataset, what: str, *, stated: bool) -> None:
        self.boxsize, self.periodic = float(ds.attrs["boxsize"]), bool(ds.attrs["periodic"])
        self.what, self.stated = what, stated
        self.extent, self.beyond = Extent(), 0

    def add(self, pos: NDArray[np.float64]) -> None:
        """Positions (N, 3) [h⁻¹Mpc]."""
        self.extent |= Extent.of(pos)
        self.beyond += int((beyond_images(pos, self.boxsize) & np.isfinite(pos).all(axis=1)).sum())

    def check(self, way_out: str) -> None:
        """Refuse positions of which most lie beyond the parent's images, or that fill a unit box, or Gpc."""
        found, side = self.extent, self.boxsize
        where = f"{self.what}, rows={found.rows}, boxsize={side:g}"
        if self.periodic and found.rows > 1 and 2 * self.beyond > found.rows:
            reach = f"from {min(found.lower):.6g} to {max(found.upper):.6g}"
            unit = "kpc or kpc/h" if 300 < found.span / side < 3000 else "another unit"
            raise VelfieldError(
                f"positions far outside the volume: {where}, {self.beyond} rows more than a side outside, {reach}; "
                f"they may be in {unit}: {way_out}"
            )
        if not self.stated and found.in_a_corner(side) and (unit_of := found.unit(side)):
            raise VelfieldError(
                f"positions that fill a corner of the volume: {where}, span={found.span:.6g}; "
                f"they may be in {unit_of[0]}, or else say that they are in Mpc/h: {way_out}"
            )
