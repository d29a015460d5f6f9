"""What a store says of its halos' bias: the mass from which on they were taken, and how many there are."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import optimize

from velfield.errors import StoreError, VelfieldError
from velfield.physics.cosmology import Cosmology

MASS_RANGE = (1e8, 1e15)  # h⁻¹M⊙: where the threshold of a store that states none is sought


def least_mass(ds: xr.Dataset, cosmology: Cosmology) -> float:
    """The store's mass threshold; without one, the threshold above which the mass function has as many halos."""
    if float(ds.attrs["min_mass"]) > 0:
        return float(ds.attrs["min_mass"])
    density = halo_density(ds)
    z = float(ds.attrs["redshift"])
    low, high = MASS_RANGE
    if not cosmology.halo_density(high, z) < density < cosmology.halo_density(low, z):
        raise VelfieldError(
            f"no mass threshold gives this number of halos: halos per (Mpc/h)^3={density:.3g}, redshift={z}; "
            "paint the store with --min-mass"
        )
    lnm = optimize.brentq(
        lambda x: np.log(cosmology.halo_density(float(np.exp(x)), z) / density), np.log(low), np.log(high), xtol=1e-4
    )
    return float(np.exp(lnm))


def halo_density(ds: xr.Dataset) -> float:
    """The parent's mean number of halos per (h⁻¹Mpc)³."""
    ds.isel(box=slice(0, 0)).velfield.overdensity("halo_number")  # refuses a store without halos; reads nothing
    mean = float(ds["halo_number"].attrs["mean"])
    if not 0 < mean < np.inf:
        raise StoreError(
            f"the store's parent has no halo: mean of halo_number={mean}, min_mass={ds.attrs['min_mass']:g}; "
            "paint it again with a lower --min-mass"
        )
    return mean / float(ds.attrs["cellsize"]) ** 3
