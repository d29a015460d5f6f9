"""What people pass from Python, as plain arrays in our units: quantities, masked arrays, labelled arrays, tables.

A number without a unit is in ours. Units that come with it (astropy, unyt, the attribute ``units`` of a DataArray) are
converted, never dropped; a masked value is a missing one, NaN; a DataArray goes by the names of its dimensions.
Nothing of these libraries is imported unless an argument is theirs (docs/conventions.md, "From Python").
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.errors import VelfieldError

POSITIONS = dict.fromkeys("xyz", "length")
VELOCITIES = dict.fromkeys(("vx", "vy", "vz"), "speed")
SKY = {"ra": "angle", "dec": "angle", "z": "redshift"}
UNITS = {  # of what we take, as astropy writes them, and as we do
    "length": ("Mpc / littleh", "h⁻¹Mpc"),
    "speed": ("km / s", "km/s"),
    "mass": ("solMass / littleh", "h⁻¹M⊙"),
    "wavenumber": ("littleh / Mpc", "h Mpc⁻¹"),
    "number density": ("littleh^3 / Mpc^3", "(h⁻¹Mpc)⁻³"),
    "angle": ("deg", "degrees"),
    "redshift": ("redshift", "a plain number"),
    "number": ("", "a plain number"),
}
AXES = ("axis", "component", "xyz", "coord", "coordinate")  # what the dimension of x, y, z is called
FUTURE = -1e-6  # rounding of a = 1
SPARSE = 0.2  # mean over scatter, from which on cells that are nowhere below 0 are no contrast
FEW = 64  # cells that tell nothing


def numbers(
    value: Any, name: str, quantity: str = "number", *, h: float | None = None, dims: Sequence[str] = ()
) -> NDArray[Any]:
    """An argument as an array of real numbers in our unit, NaN where it is masked; an ndarray of numbers as it is.

    Parameters
    ----------
    value : array_like
        ndarray, list, Quantity, masked array, DataArray, column of a table.
    name : str
        What the argument is called, for errors.
    quantity : str
        What it is, one of `UNITS`; or "any", which stays in its own unit.
    h : float, optional
        Hubble parameter, for lengths and masses in units without it.
    dims : sequence of str
        Names of the dimensions of a DataArray, in the order that is wanted.
    """
    if type(value) is np.ndarray and value.dtype.kind in "fiu":
        return value
    if type(value) in (int, float):
        return np.asarray(value)
    if _is(value, "xarray", "DataArray"):
        return _labelled(value, name, quantity, h, dims)
    if _is(value, "pandas", "Series"):
        value = _of_pandas(value, name)
    if isinstance(value, list | tuple) and _any_with_unit(value):
        value = _together(value, name)
    plain, mask, unit = _parts(value, name)
    found = _real(plain, name)
    if mask is not None and np.any(mask):
        found = np.where(mask, np.nan, found.astype(np.result_type(found, np.float32), copy=False))
    return found if unit is None else _converted(found, unit, name, quantity, h)


def number(value: Any, name: str, quantity: str = "number", *, h: float | None = None) -> float:
    """A single number in our unit."""
    found = numbers(value, name, quantity, h=h)
    if found.shape not in ((), (1,)):
        raise VelfieldError(f"not a single number: {name} has the shape {found.shape}; give one")
    return float(found.reshape(()))


def rows(value: Any, name: str, columns: Mapping[str, str], *, h: float | None = None) -> NDArray[Any]:
    """Rows (N, columns) of numbers in our units: an array, or a table with columns of these names, in any order.

    The shape of an array is not looked at.

    Parameters
    ----------
    value : array_like (N, columns), or table
        A structured array, astropy's Table, a DataFrame, a Dataset or a mapping goes by its names; a DataArray by
        those of its dimensions and by the labels along `AXES`.
    columns : mapping of str to str
        Their names, and what each is, of `UNITS`.
    """
    named = _columns_of(value)
    if named is not None:
        missing = [column for column in columns if column not in named]
        if missing:
            raise VelfieldError(
                f"columns are missing: {name} has {', '.join(map(str, named))}, not {', '.join(missing)}; "
                f"name them {', '.join(columns)}"
            )
        parts = [np.atleast_1d(numbers(value[c], f"{name}[{c!r}]", q, h=h)) for c, q in columns.items()]
        if len({part.shape for part in parts}) > 1 or parts[0].ndim != 1:
            raise VelfieldError(f"columns of different shapes: {name}={[p.shape for p in parts]}; give (N,) for each")
        return np.stack(parts, axis=1)
    dims: tuple[Any, ...] = ()
    if _is(value, "xarray", "DataArray"):
        value = _rows_by_dims(value, name, tuple(columns))
        dims = value.dims
    kinds = set(columns.values())
    return numbers(value, name, kinds.pop() if len(kinds) == 1 else "number", h=h, dims=dims)


def overdensity(value: Any, name: str, mask: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """A density contrast (x, y, z), value / mean − 1; counts, masses and 1 + δ are refused.

    Most of space is emptier than the mean, so of a contrast some cells are below 0, in any box cut out of a larger
    volume, too. Counts, masses and 1 + δ have none there, and a mean that is large beside their scatter (by `SPARSE`,
    from a count of 0.04 a cell on), or are whole numbers. A mean that is not 0, or cells below −1 as Gaussian fields
    have, are nothing to refuse.
    """
    found = numbers(value, name, dims=("x", "y", "z"))
    looked = found if mask is None or mask.shape != found.shape else found[mask]
    if not looked.size:
        return found
    least, most = float(np.fmin.reduce(looked, axis=None)), float(np.fmax.reduce(looked, axis=None))
    counts = looked.dtype.kind in "iu" and (least, most) != (0, 0)
    if not counts and not (looked.size > FEW and least >= 0 and 0 < most < np.inf):
        return found
    mean, scatter = float(np.nanmean(looked, dtype=np.float64)), float(np.nanstd(looked, dtype=np.float64))
    counts = counts or bool((looked == np.floor(looked)).all())
    if not counts and mean <= SPARSE * scatter:
        return found
    raise VelfieldError(
        f"not a density contrast: {name} goes from {least:.6g} to {most:.6g}, mean={mean:.6g}"
        f"{', in whole numbers' if counts else ''}; give value / mean - 1, with the mean of the whole volume"
    )


def marks(value: Any, name: str, dims: Sequence[str]) -> NDArray[np.bool_]:
    """Which cells count, true or false; a masked one does not."""
    if _is(value, "xarray", "DataArray"):
        value = _ordered(value, name, dims).data
    found = np.asarray(np.ma.filled(value, False) if isinstance(value, np.ma.MaskedArray) else value)
    if found.dtype.kind not in "biu":
        raise VelfieldError(f"not a mask: {name} is {found.dtype}, shape={found.shape}; give truth values")
    return found.astype(bool)


def redshift_of(value: Any, name: str = "redshift") -> float:
    """The redshift of a snapshot: one finite number from 0 on."""
    found = number(value, name, "redshift")
    if not FUTURE <= found < np.inf:
        raise VelfieldError(f"no such redshift: {name}={found:g}; give a number from 0 on")
    return found


def redshifts(value: Any, name: str = "redshift") -> NDArray[np.float64]:
    """Redshifts at which a universe is asked for, in the past or the future; NaN where one of several is missing."""
    found = numbers(value, name, "redshift").astype(np.float64)
    wrong = ~(found > -1) | (found == np.inf)
    if found.ndim:
        wrong &= ~np.isnan(found)
    if wrong.any():
        raise VelfieldError(f"no such redshift: {name}={float(found[wrong].flat[0]):g}; give finite numbers above -1")
    return found


def is_sky(value: Any) -> bool:
    """Whether this is a SkyCoord."""
    return _is(value, "astropy.coordinates", "SkyCoord")


def sky(
    value: Any, *, redshift: Any = None, h: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Right ascension, declination (N,) [degrees, ICRS], and of redshift and comoving distance [h⁻¹Mpc] the one given.

    Its distance, where it has one, is taken as comoving; ``redshift`` (N,), or one for all, is given beside a SkyCoord
    without a distance. A masked coordinate is NaN.
    """
    from_units = type(value.data).__name__.startswith("UnitSpherical")
    if from_units == (redshift is None):
        what = "neither a distance nor a redshift" if from_units else "both a distance and a redshift"
        raise VelfieldError(
            f"not a place: the SkyCoord has {what}; give redshift= beside it, or a SkyCoord with comoving distances"
        )
    icrs = value.icrs
    ra, dec = (np.atleast_1d(numbers(angle, n, "angle")) for angle, n in ((icrs.ra, "ra"), (icrs.dec, "dec")))
    if ra.ndim != 1:
        raise VelfieldError(f"positions of the wrong shape: SkyCoord={ra.shape}; give (N,)")
    ra, dec = ra.astype(np.float64), dec.astype(np.float64)
    if from_units:
        z = numbers(redshift, "redshift", "redshift").astype(np.float64)
        if z.shape not in ((), (1,), ra.shape):
            raise VelfieldError(
                f"not a redshift for each position: redshift={z.shape}, SkyCoord={ra.shape}; give (N,), or one for all"
            )
        return ra, dec, np.broadcast_to(z, ra.shape).copy(), None
    distance = np.atleast_1d(numbers(icrs.distance, "distance", "length", h=h)).astype(np.float64)
    return ra, dec, None, distance


def has_unit(value: Any) -> bool:
    """Whether numbers say their unit themselves."""
    if (named := _columns_of(value)) is not None:
        return any(has_unit(value[name]) for name in named)
    if _is(value, "xarray", "DataArray"):
        return bool(value.attrs.get("units", value.attrs.get("unit"))) or has_unit(value.data)
    return is_sky(value) or (isinstance(value, list | tuple) and _any_with_unit(value)) or _unit(value) is not None


def _is(value: Any, module: str, kind: str) -> bool:
    """Whether this is an object of a library; one that is not imported has none."""
    there = sys.modules.get(module)
    made = None if there is None else getattr(there, kind, None)
    return made is not None and isinstance(value, made)


def _unit(value: Any) -> Any:
    """The unit that an object carries, None where it has none."""
    if isinstance(value, type) or _is(value, "pandas", "DataFrame") or _is(value, "pandas", "Series"):
        return None
    unit = getattr(value, "unit", None)
    return getattr(value, "units", None) if unit is None else unit


def _any_with_unit(values: Sequence[Any]) -> bool:
    """Whether some of a list's items, or of the lists in it, carry units."""
    for value in values:
        nested = isinstance(value, list | tuple) and _any_with_unit(value)
        if nested or (not isinstance(value, Real | str | list | tuple) and _unit(value) is not None):
            return True
    return False


def _together(values: Sequence[Any], name: str) -> Any:
    """A list of quantities as one."""
    try:
        return import_module("astropy.units").Quantity([_quantity(value, name) for value in values])
    except (ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise VelfieldError(
            f"quantities that are not of one kind: {name}, because {reason}; give one array with one unit"
        ) from error


def _quantity(value: Any, name: str) -> Any:
    return _together(value, name) if isinstance(value, list | tuple) else value


def _parts(value: Any, name: str) -> tuple[Any, Any, Any]:
    """Values, which are masked, and the unit."""
    mask, unit, plain = None, _unit(value), value
    if _is(value, "astropy.utils.masked", "Masked"):
        mask, plain = value.mask, value.unmasked
    elif isinstance(value, np.ma.MaskedArray):
        mask, plain = np.ma.getmaskarray(value), np.asarray(np.ma.getdata(value))
    elif value is np.ma.masked:
        return np.nan, None, None
    if _is(plain, "astropy.units", "Quantity"):
        return plain.value, mask, unit
    if unit is not None and hasattr(value, "to_astropy"):  # unyt's
        try:
            made = value.to_astropy()
        except Exception as error:  # of the units that it has and astropy has not
            raise _foreign(name, unit) from error
        return made.value, mask, made.unit
    if unit is not None and not isinstance(unit, str) and not _is(unit, "astropy.units", "UnitBase"):
        raise _foreign(name, unit)
    if isinstance(unit, str) and not unit:
        unit = None
    return plain, mask, unit


def _foreign(name: str, unit: Any) -> VelfieldError:
    return VelfieldError(
        f"a unit of another library: {name} is in {str(unit)!r}; give an astropy Quantity, or numbers in our units"
    )


def _real(plain: Any, name: str) -> NDArray[Any]:
    """Real numbers; None among them is a missing one."""
    try:
        found = np.asarray(plain)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise VelfieldError(f"not an array of numbers: {name}, because {reason}; give an array of numbers") from error
    if found.dtype.kind in "fiu":
        return found
    if found.dtype.kind == "O" and found.size:
        values = [np.nan if _missing(item) else item for item in found.ravel().tolist()]
        if all(isinstance(item, Real) and not isinstance(item, bool | np.bool_) for item in values):
            return np.array(values, dtype=np.float64).reshape(found.shape)
    kind = {"c": "complex", "b": "truth values", "U": "text", "S": "text"}.get(found.dtype.kind, str(found.dtype))
    raise VelfieldError(f"not an array of real numbers: {name} is {kind}, shape={found.shape}; give real numbers")


def _missing(item: Any) -> bool:
    return item is None or item is np.ma.masked or type(item).__name__ == "NAType"


def _of_pandas(value: Any, name: str) -> Any:
    """A column with NaN where values are missing."""
    if value.dtype.kind in "fiu" and value.hasnans:
        return value.to_numpy(dtype=np.float64, na_value=np.nan)
    return _real(value.to_numpy(), name)


def _converted(found: NDArray[Any], unit: Any, name: str, quantity: str, h: float | None) -> NDArray[Any]:
    """Values in our unit; those of "any" quantity stay in their own."""
    if quantity == "any":
        return found
    u, cu = import_module("astropy.units"), import_module("astropy.cosmology.units")
    text, ours = UNITS[quantity]
    said = unit
    with u.add_enabled_units(cu):
        if isinstance(unit, str):
            try:  # h is never the hour
                unit = u.Unit(re.sub(r"\bh(?=\b|[-⁻^*0-9])", "littleh", unit))
            except (ValueError, TypeError) as error:
                raise VelfieldError(
                    f"not a unit that is understood: {name} is in {said!r}; give an astropy Quantity, or plain numbers "
                    f"in our unit ({ours})"
                ) from error
        how = [] if h is None else cu.with_H0(100 * h * u.km / u.s / u.Mpc)
        if quantity == "redshift":
            if unit.is_equivalent(u.km / u.s):
                return np.asarray((u.Quantity(found, unit) / import_module("astropy.constants").c).to_value(""))
            how = [*cu.dimensionless_redshift()]
        try:
            made = np.asarray(u.Quantity(found, unit, copy=False).to_value(u.Unit(text), equivalencies=how))
        except u.UnitConversionError as error:
            known = cu.with_H0(70 * u.km / u.s / u.Mpc)
            if h is None and quantity not in ("redshift", "number") and unit.is_equivalent(u.Unit(text), known):
                raise VelfieldError(
                    f"the Hubble parameter is not known here: {name} is in {str(said)!r}; give it in {text} "
                    f"(astropy.cosmology.units), or as plain numbers in {ours}"
                ) from error
            raise VelfieldError(
                f"a unit of the wrong kind: {name} is in {str(said)!r}, wanted is a {quantity}; give it in {ours}"
            ) from error
        if h is not None and quantity in ("length", "mass") and not unit.is_equivalent(u.Unit(text)):
            warnings.warn(
                f"h={h:g} is applied: {name} is in {str(said)!r}, without h, and becomes {ours}; write "
                f"'{said} / littleh' where the numbers have their h already",
                stacklevel=2,
            )
        return made


def _labelled(value: Any, name: str, quantity: str, h: float | None, dims: Sequence[str]) -> NDArray[Any]:
    """A DataArray in the order of its dimensions' names, in the unit that its attributes say."""
    value = _ordered(value, name, dims)
    found = numbers(np.asarray(value.data) if _dask(value.data) else value.data, name, quantity, h=h)
    unit = value.attrs.get("units", value.attrs.get("unit"))
    plain = unit is None or str(unit).strip() in ("", "1", "-") or _unit(value.data) is not None
    return found if plain else _converted(found, str(unit), name, quantity, h)


def _ordered(value: Any, name: str, dims: Sequence[str]) -> Any:
    """A DataArray in the order of its dimensions' names; without names one of a single dimension, or of none."""
    if set(value.dims) != set(dims) and not (not dims and value.ndim <= 1):
        raise VelfieldError(
            f"dimensions of other names: {name} has {', '.join(map(str, value.dims)) or 'none'}; "
            + (f"name them {', '.join(dims)}" if dims else "give a plain array")
        )
    for dim in set("xyz") & set(dims):
        _check_even(value, name, dim)
    return value.transpose(*dims) if dims else value


def _dask(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "dask"


def _check_even(value: Any, name: str, dim: str) -> None:
    """Refuse cells that do not follow each other evenly, forwards."""
    if dim not in value.coords or value.sizes[dim] < 2 or value[dim].dtype.kind not in "fiu":
        return
    steps = np.diff(np.asarray(value[dim].values, dtype=np.float64))
    if not (steps > 0).all() or np.ptp(steps) > 1e-3 * steps.mean():
        raise VelfieldError(
            f"cells that are not in even steps: {name}, {dim} goes from {float(value[dim][0]):g} to "
            f"{float(value[dim][-1]):g} in steps of {steps.min():g} to {steps.max():g}; "
            f"sort them (.sortby({dim!r})), and take neighbouring ones"
        )


def _columns_of(value: Any) -> list[Any] | None:
    """Names of the columns of something that has them."""
    if isinstance(value, Mapping) or _is(value, "xarray", "Dataset"):
        return list(value)
    if _is(value, "pandas", "DataFrame"):
        return list(value.columns)
    if _is(value, "astropy.table", "Table"):
        return list(value.colnames)
    names = getattr(getattr(value, "dtype", None), "names", None)
    return None if names is None else list(names)


def _rows_by_dims(value: Any, name: str, labels: Sequence[str]) -> Any:
    """A DataArray (points, axis): the dimension of x, y, z by its name or its labels, and in their order."""
    said = {
        dim: [str(label) for label in value[dim].values.tolist()]
        for dim in value.dims
        if dim in value.coords and value[dim].dtype.kind in "UOS"
    }
    letters = [label[-1] for label in labels]  # of vx, vy, vz those of x, y, z
    labels = next((given for given in (labels, letters) if any(set(s) == set(given) for s in said.values())), labels)
    axes = [dim for dim in value.dims if set(said.get(dim, ())) == set(labels) or str(dim).lower() in AXES]
    if value.ndim != 2 or len(axes) != 1 or value.sizes[axes[0]] != len(labels):
        raise VelfieldError(
            f"dimensions of other names: {name} has {', '.join(f'{d}={n}' for d, n in value.sizes.items())}; "
            f"call that of {', '.join(labels)} axis"
        )
    axis = axes[0]
    if axis in said:
        if set(said[axis]) != set(labels):
            raise VelfieldError(f"other labels: {name}, {axis}={', '.join(said[axis])}; label them {', '.join(labels)}")
        value = value.isel({axis: [said[axis].index(label) for label in labels]})
    return value.transpose(..., axis)
