"""Units that UDUNITS knows, which the CF conventions want of NetCDF: megaparsec and kilogram, without h.

UDUNITS, and with it the CF checkers, cf-units and Iris, knows neither h nor the mass of the Sun, which the units of
stores are made of (`velfield.stores.store_layout.LENGTH`). So values are divided by h, and a solar mass is so many kg.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from velfield.errors import StoreError
from velfield.physics.cosmology import Cosmology
from velfield.stores.store_layout import DENSITIES, LENGTH, MASS, unit_of_today

SUN = "1.98841e30 kg"  # IAU 2015 resolution B3: GM of the Sun, over CODATA's G; masses in kg would not fit into float32
GRADIENT, POTENTIAL = "km littleh / (s Mpc)", "km Mpc / (s littleh)"
UNITS = {  # a unit of ours: UDUNITS's, and the power of h that a value is multiplied by
    LENGTH: ("megaparsec", -1),
    MASS: (SUN, -1),
    DENSITIES["1"]: ("megaparsec-3", 3),
    DENSITIES[MASS]: (f"{SUN} megaparsec-3", 2),
    GRADIENT: ("km s-1 megaparsec-1", 1),
    POTENTIAL: ("km megaparsec s-1", -1),
}
OF_ATTRIBUTES = {"boxsize": LENGTH, "cellsize": LENGTH, "min_mass": MASS}


def unit_and_factor(unit: str, h: float) -> tuple[str, float]:
    """How UDUNITS writes a unit of ours but for h, and by what values in ours are multiplied."""
    name, power = UNITS.get(unit_of_today(unit), (unit, 0))
    return name, h**power


def refuse(ds: xr.Dataset) -> None:
    """Refuse what `converted` gave where a store is wanted."""
    if isinstance(ds.attrs.get("boxsize"), str):
        raise StoreError(
            f"a store in the units of CF, which is no store any more: boxsize={ds.attrs['boxsize']}; take the dataset "
            "that open_fields or open_velocity gave, and call cf() last"
        )


def attributes(attrs: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """A store's root attributes for NetCDF: lengths and masses are text with their unit, so that none is mistaken."""
    h = Cosmology.from_dict(json.loads(attrs["cosmology"])).h
    made = {name: int(value) if isinstance(value, bool) else value for name, value in attrs.items()}
    for name, of in OF_ATTRIBUTES.items():
        if name in made:
            unit, factor = unit_and_factor(of, h)
            made[name] = f"{float(made[name]) * factor:.15g} {unit}"
    return made | {
        "title": f"{what}, redshift {float(attrs['redshift']):.6g}",
        "history": f"velfield {attrs['velfield_version']}: lengths and masses divided by h = {h:g}",
        "comment": "lengths are comoving; multiply lengths in megaparsec by h to have them in megaparsec / h",
    }


def converted(ds: xr.Dataset) -> xr.Dataset:
    """The dataset of a store as `velfield.stores.store.FieldAccessor.cf` gives it."""
    refuse(ds)
    h = Cosmology.from_dict(json.loads(ds.attrs["cosmology"])).h
    made = {}
    for name, variable in ds.variables.items():
        unit, factor = unit_and_factor(str(variable.attrs.get("units", "")), h)
        if factor != 1.0:
            made[name] = (variable * np.asarray(factor, dtype=variable.dtype)).to_base_variable()
            made[name].encoding = dict(variable.encoding)
            means = {"mean": variable.attrs["mean"] * factor} if "mean" in variable.attrs else {}
            made[name].attrs = variable.attrs | {"units": unit} | means
    out = ds.assign_coords({name: v for name, v in made.items() if name in ds.coords})
    out = out.assign({name: v for name, v in made.items() if name not in ds.coords})
    return out.assign_attrs(attributes(ds.attrs, what=f"velfield {ds.attrs['velfield_kind']} store"))
