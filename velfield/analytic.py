"""Linear theory on the boxes of a field store: the rows that a network is measured against.

``linear`` is the paper's FFT: the dark matter's over-density in real space, one box without its surroundings, taken as
periodic although it is not. ``linear_padded`` surrounds the box with as much empty space as it has itself, which
removes the images of the box but leaves its surroundings unknown. ``linear_halo`` and ``linear_halo_padded`` do the
same with what a survey has: halos in redshift space, smoothed and divided by their bias. ``wiener`` makes the best of
them that a linear method can: it weighs every mode by what the shot noise and the box's edges leave of it, and undoes
redshift space to first order (`velfield.wiener`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import optimize

from velfield.cosmology import Cosmology
from velfield.errors import StoreError, VelfieldError
from velfield.linear import linear_velocity
from velfield.store import cosmology_of
from velfield.wiener import Survey, wiener_velocity

HALOS = ("linear_halo", "linear_halo_padded")
WIENER = "wiener"
NAMES = ("linear", "linear_padded", *HALOS, WIENER)
TRACERS = {"number": "halo_number", "mass": "halo_mass"}
HALO_SMOOTHING = 5.0  # h⁻¹Mpc, Gaussian: docs/measures.md has the scan
MASS_RANGE = (1e8, 1e15)  # h⁻¹M⊙: where the threshold of a store that states none is sought


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """What a linear row was computed with.

    Parameters
    ----------
    variable : str
        The store's field whose over-density is used.
    pad : int
        Side of the transform over the side of the box.
    smoothing : float
        Gaussian radius [h⁻¹Mpc]; 0 for none.
    bias : float
        The over-density is divided by it.
    min_mass : float or None
        Least halo mass [h⁻¹M⊙] that the bias is for; None for matter.
    """

    variable: str
    pad: int
    smoothing: float
    bias: float
    min_mass: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for evaluation.json."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class WienerSettings:
    """What a Wiener row was computed with.

    Parameters
    ----------
    variable : str
        The store's field whose over-density is used.
    bias : float
        Linear bias of the halos.
    min_mass : float
        Least halo mass [h⁻¹M⊙] that the bias is for.
    density : float
        Halos per (h⁻¹Mpc)³, for the shot noise.
    rsd : str
        The store's redshift-space pattern, which is undone to first order.
    """

    variable: str
    bias: float
    min_mass: float
    density: float
    rsd: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for evaluation.json."""
        return asdict(self)


Settings = LinearSettings | WienerSettings


def settings(name: str, ds: xr.Dataset, *, tracer: str = "number", smoothing: float | None = None) -> Settings:
    """Settle what the row ``name`` means on a store.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    ds : xarray.Dataset
        A field store.
    tracer : str
        ``number`` or ``mass``: how halos are weighted in the ``linear_halo`` rows.
    smoothing : float, optional
        Gaussian radius [h⁻¹Mpc]; by default none for matter and 5 for halos. ``wiener`` needs none: it is refused.
    """
    if name not in NAMES:
        raise VelfieldError(f"unknown analytic model: model={name!r}; choose from {', '.join(NAMES)}")
    if tracer not in TRACERS:
        raise VelfieldError(f"unknown tracer: tracer={tracer!r}; choose number or mass")
    if smoothing is not None and not 0 <= smoothing < np.inf:
        raise VelfieldError(f"no such smoothing: smoothing={smoothing}; give a length in h⁻¹Mpc, or 0 for none")
    if name == WIENER:
        return _wiener_settings(ds, tracer, smoothing)
    pad = 2 if name.endswith("_padded") else 1
    variable = TRACERS[tracer] if name in HALOS else "matter_number"
    ds.isel(box=slice(0, 0)).velfield.overdensity(variable)  # refuses a store without it; no data are read
    if name not in HALOS:
        return LinearSettings(variable=variable, pad=pad, smoothing=smoothing or 0.0, bias=1.0, min_mass=None)
    min_mass = _least_mass(ds, cosmology_of(ds))
    return LinearSettings(
        variable=variable,
        pad=pad,
        smoothing=HALO_SMOOTHING if smoothing is None else smoothing,
        bias=cosmology_of(ds).effective_bias(min_mass, float(ds.attrs["redshift"]), weight=tracer),
        min_mass=min_mass,
    )


def reconstruct(
    name: str | Settings, ds: xr.Dataset, box: int, *, tracer: str = "number", smoothing: float | None = None
) -> NDArray[np.float32]:
    """Linear velocity (3, x, y, z) [km/s] of the core of one box, from that core alone.

    ``name`` is one of `NAMES`, or what `settings` made of it, which saves the bias integral for each further box.
    """
    how = settings(name, ds, tracer=tracer, smoothing=smoothing) if isinstance(name, str) else name
    one = ds.isel(box=box)
    delta = np.asarray(one.velfield.core(one.velfield.overdensity(how.variable)))
    if not np.isfinite(delta).all():  # a chunk that is not there reads as NaN
        raise StoreError(
            f"a box of the store has lost its data: store={ds.encoding.get('source')}, box={box}, "
            f"variable={how.variable}; check it with velfield verify, and paint it again"
        )
    if isinstance(how, WienerSettings):
        return _wiener(how, one, delta)
    velocity = linear_velocity(
        delta,
        delta.shape[0] * float(ds.attrs["cellsize"]),
        cosmology=cosmology_of(ds),
        redshift=float(ds.attrs["redshift"]),
        bias=how.bias,
        pad=how.pad,
        smoothing=how.smoothing,
    )
    return np.asarray(velocity, dtype=np.float32)


def _wiener_settings(ds: xr.Dataset, tracer: str, smoothing: float | None) -> WienerSettings:
    if tracer != "number" or smoothing is not None:
        raise VelfieldError(
            f"the Wiener filter weighs modes by itself, and its noise is that of numbers: tracer={tracer}, "
            f"smoothing={smoothing}; leave both out"
        )
    density, min_mass = _halo_density(ds), _least_mass(ds, cosmology_of(ds))
    return WienerSettings(
        variable=TRACERS[tracer],
        bias=cosmology_of(ds).effective_bias(min_mass, float(ds.attrs["redshift"]), weight=tracer),
        min_mass=min_mass,
        density=density,
        rsd=str(ds.attrs["rsd"]),
    )


def _wiener(how: WienerSettings, one: xr.Dataset, delta: NDArray[Any]) -> NDArray[np.float32]:
    """The Wiener filter on one box."""
    radial = how.rsd in ("center_radial", "random_radial")
    survey = Survey(
        boxsize=delta.shape[0] * float(one.attrs["cellsize"]),
        bias=how.bias,
        density=how.density,
        line_of_sight=one["line_of_sight"].values if how.rsd == "plane_parallel" else None,
        observer=one["observer"].values - one["origin"].values if radial else None,
    )
    return wiener_velocity(delta, survey, cosmology=cosmology_of(one), redshift=float(one.attrs["redshift"]))


def _least_mass(ds: xr.Dataset, cosmology: Cosmology) -> float:
    """The store's mass threshold; without one, the threshold above which the mass function has as many halos."""
    if float(ds.attrs["min_mass"]) > 0:
        return float(ds.attrs["min_mass"])
    density = _halo_density(ds)
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


def _halo_density(ds: xr.Dataset) -> float:
    """The parent's mean number of halos per (h⁻¹Mpc)³."""
    ds.isel(box=slice(0, 0)).velfield.overdensity("halo_number")  # refuses a store without halos; reads nothing
    return float(ds["halo_number"].attrs["mean"]) / float(ds.attrs["cellsize"]) ** 3
