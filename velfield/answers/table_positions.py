"""Which columns of a table are its positions, and how they become ours: h⁻¹Mpc in the parent, or degrees and redshift.

Names, units, frames and corners are those of painting (`velfield.catalogues.meaning`); the store stands in where a
table does not say its h or redshift. OpenCosmo's light cones have the sky as ``ra``, ``dec`` or ``phi``, ``theta`` (the
angle from the pole), and the redshift as ``redshift``, as ``fof_halo_center_a`` = 1 / (1 + z), or as ``redshift_true``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.answers.queries import COORDINATES
from velfield.catalogues import meaning, units
from velfield.catalogues.table_csv import NAME
from velfield.catalogues.table_format import NOT_STATED
from velfield.catalogues.table_rows import Part, Source
from velfield.errors import CatalogueError, VelfieldError
from velfield.physics.cosmology import LIGHT
from velfield.stores.store import cosmology_of

DEGREES = {
    **dict.fromkeys(("", "deg", "degree", "degrees", "°"), 1.0),
    **dict.fromkeys(("rad", "radian", "radians"), float(np.degrees(1.0))),
}
PURE = ("", "1", "-", "none", "redshift", "dimensionless", "unitless")  # units of a redshift
SKY = (("ra", "dec"), ("phi", "theta"))  # of a light cone, the first that are there
REDSHIFTS = ("redshift", "fof_halo_center_a", "redshift_true")


@dataclass(frozen=True, kw_only=True)
class Along:
    """One of our coordinates: a table's column, or a component of a vector one, and what it becomes.

    Parameters
    ----------
    name, column, unit : str
        Our name, and the table's with its unit, "" where nobody says.
    component : int or None
        Of a vector column.
    ours : callable
        From values as they stand (N,) to ours.
    """

    name: str
    column: str
    component: int | None
    unit: str
    ours: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def __str__(self) -> str:
        named = self.column if self.component is None else f"{self.column}[{self.component}]"
        return f"{self.name}={named}" + (f" [{self.unit}]" if self.unit else "")


def positions(part: Part, wanted: Sequence[Along]) -> NDArray[np.float64]:
    """Positions (N, 3) of some rows, as `velfield.answers.queries.query_positions` takes them."""
    return np.stack([along.ours(part.numbers(along.column, along.component)) for along in wanted], axis=1)


def columns_of(
    ds: xr.Dataset, source: Source, coordinates: str, given: Mapping[str, str] | Sequence[str]
) -> list[Along]:
    """The columns of a table that hold its positions.

    Parameters
    ----------
    ds : xarray.Dataset
        The store that is asked.
    source : Source
        The table.
    coordinates : {"box", "sky"}
        What is wanted.
    given : mapping of str to str, or sequence of str
        The table's names by ours, ``NAME``, ``NAME[0]``, ``NAME [unit]``; or texts like ``x=NAME``.
    """
    names = COORDINATES[coordinates]
    listed = list(given.items()) if isinstance(given, Mapping) else [_pair(text) for text in given]
    pairs = dict(listed)
    if len(pairs) < len(listed):
        raise VelfieldError(f"a name twice: columns={', '.join('='.join(pair) for pair in listed)}; give each once")
    unknown = [name for name in pairs if name not in names]
    if unknown:
        raise VelfieldError(
            f"no such name: column={unknown[0]}, coordinates={coordinates}; the names to give are {' '.join(names)}"
        )
    known = _known_in_the_box(ds, source) if coordinates == "box" else _known_on_the_sky(source)
    chosen = [_column(source, name, (known | pairs).get(name, name), coordinates) for name in names]
    if coordinates == "sky":
        return [_on_the_sky(source.url, *one, given=one[0] in pairs) for one in chosen]
    return _in_the_box(ds, source, chosen)


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals:
        raise VelfieldError(f"not a name and a column: column={text!r}; write it as x=NAME")
    return name.strip(), column.strip()


def _known_in_the_box(ds: xr.Dataset, source: Source) -> dict[str, str]:
    """HACC's names of positions, where the table has no x, y, z; refuses a table of another volume."""
    facts, side = source.facts, float(ds.attrs["boxsize"])
    if facts.lightcone:
        raise CatalogueError(
            f"a light cone is seen on the sky: file={source.url}, coordinates=box; ask by ra, dec and redshift "
            "(coordinates=, --coordinates sky)"
        )
    if facts.boxsize is not None and abs(facts.boxsize - side) > 1e-6 * side:
        raise CatalogueError(
            f"a table of another volume: file={source.url}, boxsize={facts.boxsize:g}, store's boxsize={side:g}; "
            "ask the store of that volume"
        )
    for choice in (("x", "y", "z"), *meaning.POSITIONS["halos"]):
        if set(choice) <= set(source.columns):
            return dict(zip(COORDINATES["box"], choice, strict=True))
    return {}


def _known_on_the_sky(source: Source) -> dict[str, str]:
    """OpenCosmo's names, of a light cone: its ``z`` would be a place."""
    if not source.facts.lightcone:
        return {}
    has = source.columns
    angles = next((pair for pair in SKY if set(pair) <= set(has)), SKY[0])
    redshift = next((name for name in REDSHIFTS if name in has), REDSHIFTS[0])
    return dict(zip(COORDINATES["sky"], (*angles, redshift), strict=True))


def _column(source: Source, name: str, reference: str, coordinates: str) -> tuple[str, str, int | None, str]:
    """Our name, the column and component that a reference means, and the unit."""
    column, component, unit = reference, None, ""
    for pattern in (meaning.REFERENCE, NAME):
        if column in source.columns or not (parts := pattern.fullmatch(reference)):
            continue
        column, unit = parts[1], parts[parts.re.groups] or ""
        component = int(parts[2]) if pattern is meaning.REFERENCE and parts[2] else None
    if column not in source.columns:
        other = "; ra and dec need --coordinates sky" if coordinates == "box" and "ra" in source.columns else ""
        raise CatalogueError(
            f"no such column: file={source.url}, column={column}, wanted for={name}; "
            f"the table has {', '.join(source.columns)}; say which it is (columns=, --column {name}=NAME){other}"
        )
    shape = source.columns[column].dtype.shape
    if (component is None) != (not shape) or (component is not None and component >= shape[0]) or len(shape) > 1:
        raise CatalogueError(
            f"not a single number a row: file={source.url}, column={reference}, type={source.columns[column].dtype}; "
            f"name another (columns=, --column), of a vector column one component, as in {name}={column}[0]"
        )
    return name, column, component, unit or source.columns[column].unit


def _in_the_box(ds: xr.Dataset, source: Source, chosen: Sequence[tuple[str, str, int | None, str]]) -> list[Along]:
    """Comoving lengths from the volume's corner, in the h and at the redshift that the table says, or the store's."""
    facts = source.facts
    parsed = {name: units.parse(unit) for name, _, _, unit in chosen}
    frames = {name: unit.frame for name, unit in parsed.items() if unit and unit.frame}
    proper = meaning.agreed_frame(source.url, frames, COORDINATES["box"], facts.length) == "proper"
    redshift = next(z for z in (facts.redshift, facts.redshift_of_name, float(ds.attrs["redshift"])) if z is not None)
    h = cosmology_of(ds).h if facts.h is None else facts.h
    made = []
    for (name, column, component, unit), corner in zip(chosen, facts.origin, strict=True):
        factor = units.factor(unit, "length", h=h, where=f"file={source.url}, column={column}") if unit else 1.0
        ours = _scaled(factor * (1 + redshift if proper else 1.0), corner)
        made.append(Along(name=name, column=column, component=component, unit=unit, ours=ours))
    return made


def _on_the_sky(url: str, name: str, column: str, component: int | None, unit: str, *, given: bool) -> Along:
    """Degrees, or a redshift."""
    stated = "" if unit == NOT_STATED else unit
    plain, where = stated.strip().lower(), f"file={url}, column={column}, unit={stated!r}"
    if name == "z":
        ours = _scaled(1.0, 0.0)
        if plain not in PURE:
            speed = units.parse(stated)
            if speed is None or {k: v for k, v in speed.powers.items() if v} != {"length": 1, "time": -1}:
                raise CatalogueError(f"not a unit of redshift: {where}; give a number, or cz in km/s")
            ours = _scaled(units.factor(stated, "speed", h=None, where=where) / LIGHT, 0.0)
        elif column == "fof_halo_center_a" and not given:
            ours = _of_scale_factor
    else:
        angle = "rad" if not plain and column in SKY[1] and not given else plain
        if angle not in DEGREES:
            raise CatalogueError(f"not a unit of angle: {where}; give degrees (deg) or rad")
        ours = _scaled(DEGREES[angle], 0.0)
        if column == "theta" and not given:
            ours = _from_the_pole(DEGREES[angle])
    return Along(name=name, column=column, component=component, unit=stated, ours=ours)


def _scaled(factor: float, zero: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda values: (values - zero) * factor


def _from_the_pole(factor: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda values: 90 - values * factor


def _of_scale_factor(values: NDArray[Any]) -> NDArray[Any]:
    return np.divide(1, values, out=np.full_like(values, np.nan), where=values > 0) - 1
