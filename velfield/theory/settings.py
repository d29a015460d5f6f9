"""What the rows of linear theory are called, and what each was computed with on a store.

`velfield.theory.analytic` says what they are, and computes them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from velfield.errors import VelfieldError
from velfield.stores import sight
from velfield.stores.coordinates import whole_boxes
from velfield.stores.halo_bias import halo_density, least_mass
from velfield.stores.store import cosmology_of
from velfield.theory.whole import check_whole

HALOS = ("linear_halo", "linear_halo_padded")
WIENER = "wiener"
WHOLE = "linear_whole"
NAMES = ("linear", "linear_padded", *HALOS, WIENER, WHOLE)
TRACERS = {"number": "halo_number", "mass": "halo_mass"}
HALO_SMOOTHING = 5.0  # h⁻¹Mpc, Gaussian: docs/measures.md has the scan
WHOLE_SMOOTHING = 3.5  # where more is known less smoothing is best


@dataclass(frozen=True, kw_only=True)
class _Tracers:
    """What every row was computed with.

    Parameters
    ----------
    variable : str
        The store's field whose over-density is used.
    bias : float
        Linear bias of the halos, weighted as the field is; 1 for matter.
    min_mass : float or None
        Least halo mass [h⁻¹M⊙] that the bias is for; None for matter.
    """

    variable: str
    bias: float
    min_mass: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for evaluation.json."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class LinearSettings(_Tracers):
    """What a linear row was computed with, further to what all have.

    Parameters
    ----------
    pad : int
        Side of the transform over the side of the box.
    smoothing : float
        Gaussian radius [h⁻¹Mpc]; 0 for none.
    margin : int
        Cells of the box's surroundings that are seen: those that the store has, none for a box taken as periodic.
    """

    pad: int
    smoothing: float
    margin: int


@dataclass(frozen=True, kw_only=True)
class WienerSettings(_Tracers):
    """What a Wiener row was computed with, further to what all have.

    Parameters
    ----------
    density : float
        Halos per (h⁻¹Mpc)³, for the shot noise.
    rsd : str
        How the store is seen (`velfield.stores.sight.seen`), which is undone to first order.
    margin : int
        Cells of the box's surroundings that are seen: those that the store has.
    """

    density: float
    rsd: str
    margin: int


@dataclass(frozen=True, kw_only=True)
class WholeSettings(_Tracers):
    """What a row of linear theory on the whole parent was computed with, further to what all have.

    Parameters
    ----------
    smoothing : float
        Gaussian radius [h⁻¹Mpc]; 0 for none.
    rsd : str
        How the store is seen (`velfield.stores.sight.seen`), which is undone to linear order.
    """

    smoothing: float
    rsd: str


Settings = LinearSettings | WienerSettings | WholeSettings


def settings(
    name: str, ds: xr.Dataset, *, tracer: str = "number", smoothing: float | None = None, margin: int | None = None
) -> Settings:
    """Settle what the row ``name`` means on a store.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    ds : xarray.Dataset
        A field store.
    tracer : str
        ``number`` or ``mass``: how halos are weighted in the ``linear_halo`` rows and ``linear_whole``.
    smoothing : float, optional
        Gaussian radius [h⁻¹Mpc]; by default none for matter, 5 for halos, 3.5 for ``linear_whole``. ``wiener`` needs
        none: it is refused.
    margin : int, optional
        Cells around a box that are there to be seen; by default the store's margin.
    """
    if name not in NAMES:
        raise VelfieldError(f"unknown analytic model: model={name!r}; choose from {', '.join(NAMES)}")
    if tracer not in TRACERS:
        raise VelfieldError(f"unknown tracer: tracer={tracer!r}; choose number or mass")
    if smoothing is not None and not 0 <= smoothing < np.inf:
        raise VelfieldError(f"no such smoothing: smoothing={smoothing}; give a length in h⁻¹Mpc, or 0 for none")
    if name == WIENER and (tracer != "number" or smoothing is not None):
        raise VelfieldError(
            f"the Wiener filter weighs modes by itself, and its noise is that of numbers: tracer={tracer}, "
            f"smoothing={smoothing}; leave both out"
        )
    ds = whole_boxes(ds)
    pad = 2 if name.endswith("_padded") else 1
    there = int(ds.attrs["margin"]) if margin is None else margin
    margin = there if pad > 1 or name == WIENER else 0
    variable = "matter_number" if name in ("linear", "linear_padded") else TRACERS[tracer]
    ds.isel(box=slice(0, 0)).velfield.overdensity(variable)  # refuses a store without it; no data are read
    if variable == "matter_number":
        return LinearSettings(
            variable=variable,
            bias=1.0,
            min_mass=None,
            pad=pad,
            smoothing=smoothing or 0.0,
            margin=margin,
        )
    min_mass = least_mass(ds, cosmology_of(ds))
    bias = cosmology_of(ds).effective_bias(min_mass, float(ds.attrs["redshift"]), weight=tracer)
    tracers: dict[str, Any] = {"variable": variable, "bias": bias, "min_mass": min_mass}
    if name == WIENER:
        return WienerSettings(**tracers, density=halo_density(ds), rsd=sight.seen(ds), margin=margin)
    if name == WHOLE:
        check_whole(ds)
        radius = WHOLE_SMOOTHING if smoothing is None else smoothing
        return WholeSettings(**tracers, smoothing=radius, rsd=sight.seen(ds))
    radius = HALO_SMOOTHING if smoothing is None else smoothing
    return LinearSettings(**tracers, pad=pad, smoothing=radius, margin=margin)


def check_tracer(model: str, tracer: str) -> None:
    """Refuse a weighting of halos for a model that has none to choose."""
    if tracer != "number" and model not in (*HALOS, WHOLE):
        raise VelfieldError(
            f"only halos have a tracer: model={model}, tracer={tracer}; leave it out, or name linear_halo, linear_whole"
        )
