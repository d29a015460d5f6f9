"""A table of positions in, the same table with velocities out: ``velfield query`` (docs/query.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.answers.cells import Cells
from velfield.answers.queries import COORDINATES, check_question, counted, open_store, query_positions
from velfield.answers.real_space import MAX_SHIFT
from velfield.catalogues import units
from velfield.catalogues.table_csv import NAME
from velfield.catalogues.table_format import Column
from velfield.catalogues.table_rows import Part, Source, format_of, open_rows
from velfield.catalogues.table_text import ROWS
from velfield.catalogues.table_write import writing
from velfield.errors import CatalogueError, VelfieldError
from velfield.files.progress import Progress, Silent
from velfield.stores.store import cosmology_of

SPEED, FLAG = np.dtype(np.float32), np.dtype(np.uint8)
DEGREES = {"": 1.0, "deg": 1.0, "degree": 1.0, "degrees": 1.0, "°": 1.0, "rad": np.degrees(1.0)}


def query_table(
    store: str | xr.Dataset,
    table: str,
    out: str,
    *,
    coordinates: str = "box",
    space: str = "real",
    columns: Mapping[str, str] | Sequence[str] = (),
    extrapolate: bool = False,
    max_shift: float = MAX_SHIFT,
    prefix: str = "",
    extension: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    rows: int = ROWS,
) -> Counter[str]:
    """Add velocities to a table of positions.

    Parameters
    ----------
    store : str or xarray.Dataset
        A velocity store or field store.
    table, out : str
        URLs of a table in CSV, Parquet, FITS, HDF5 or Arrow's stream, and of the one to be made, whose name says its
        format.
    coordinates, space, extrapolate, max_shift
        As in `velfield.answers.queries.query_positions`.
    columns : mapping or sequence of str
        The table's names for x, y, z or ra, dec, z, as ``{"x": NAME}`` or ``["x=NAME"]``, ``NAME [unit]`` with a unit.
    prefix : str
        Put before the names of the columns that are added.
    extension : str, optional
        Name or number of the table in a FITS file, its group or dataset in an HDF5 file.
    overwrite : bool
        Whether ``out`` may be there.
    progress : Progress, optional
        Is told of rows.
    rows : int
        Rows at a time: 131,072 take some 20 MB, beside the rows themselves and the boxes that are kept.

    Returns
    -------
    Counter
        Rows with each of the meanings of `velfield.answers.interpolate.MEANINGS`, and ``good`` ones.
    """
    ds = store if isinstance(store, xr.Dataset) else open_store(store)
    check_question(ds, coordinates, space, max_shift)
    source = open_rows(table, extension)
    if source.format != format_of(out):
        source = open_rows(table, extension, typed=True)
    wanted = _wanted(ds, source, coordinates, columns)
    cells, told = Cells(ds), progress or Silent()
    nothing = query_positions(ds, np.empty((0, 3)), coordinates=coordinates, space=space, cells=cells)
    added = {f"{prefix}{name}": (column, key) for name, (column, key) in _added(nothing, coordinates, space).items()}
    counts: Counter[str] = Counter()
    with writing(out, source, {name: column for name, (column, _) in added.items()}, overwrite=overwrite) as writer:
        told.start("query", source.nrows or float("nan"), "rows")
        for part in source.parts(rows):
            found = query_positions(
                ds,
                _positions(part, wanted),
                coordinates=coordinates,
                space=space,
                extrapolate=extrapolate,
                max_shift=max_shift,
                cells=cells,
            )
            writer.write(part, {name: _value(found, key, column) for name, (column, key) in added.items()})
            counts.update(counted(found["flag"]))
            told.advance(len(part))
    told.done()
    return counts


def _added(
    found: Mapping[str, NDArray[Any]], coordinates: str, space: str
) -> dict[str, tuple[Column, tuple[str, int | None]]]:
    """The columns that an answer adds: what each is, and where in the answer it stands."""
    made: dict[str, tuple[Column, tuple[str, int | None]]] = {}

    def add(name: str, dtype: np.dtype[Any], unit: str, description: str, key: str, component: int | None) -> None:
        made[name] = Column(dtype=dtype, unit=unit, description=description), (key, component)

    for i, x in enumerate("xyz"):
        add(f"v{x}", SPEED, "km/s", "proper peculiar velocity", "velocity", i)
    if "velocity_std" in found:
        for i, x in enumerate("xyz"):
            add(f"std_{x}", SPEED, "km/s", f"error bar of v{x}", "velocity_std", i)
    if "v_los" in found:
        add("v_los", SPEED, "km/s", "velocity along the line of sight, away from the observer", "v_los", None)
    if coordinates == "sky" or space == "redshift":  # else it is what was given
        for i, x in enumerate("xyz"):
            add(f"{x}_real", np.dtype(np.float64), "Mpc/h", f"{x} in real space, in the parent", "position", i)
    add("flag", FLAG, "", "0 good, else a sum: docs/query.md", "flag", None)
    return made


def _value(found: Mapping[str, NDArray[Any]], key: tuple[str, int | None], column: Column) -> NDArray[Any]:
    values = found[key[0]] if key[1] is None else found[key[0]][:, key[1]]
    return np.ascontiguousarray(values, dtype=column.dtype)


def _wanted(
    ds: xr.Dataset, source: Source, coordinates: str, given: Mapping[str, str] | Sequence[str]
) -> list[tuple[str, float]]:
    """The table's columns that hold the positions, each with what turns it into our unit."""
    names = COORDINATES[coordinates]
    pairs = dict(given) if isinstance(given, Mapping) else dict(_pair(text) for text in given)
    unknown = [name for name in pairs if name not in names]
    if unknown:
        raise VelfieldError(
            f"no such name: column={unknown[0]}, coordinates={coordinates}; the names to give are {' '.join(names)}"
        )
    wanted = []
    for name in names:
        column, unit = pairs.get(name, name), ""
        if column not in source.columns and (parts := NAME.fullmatch(column)):
            column, unit = parts[1], parts[2]
        if column not in source.columns:
            other = "; ra and dec need --coordinates sky" if coordinates == "box" and "ra" in source.columns else ""
            raise CatalogueError(
                f"no such column: file={source.url}, column={column}, wanted for={name}; "
                f"the table has {', '.join(source.columns)}; say which it is (columns=, --column {name}=NAME){other}"
            )
        unit = unit or source.columns[column].unit
        wanted.append((column, _factor(ds, f"file={source.url}, column={column}", f"{coordinates} {name}", unit)))
    return wanted


def _pair(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals:
        raise VelfieldError(f"not a name and a column: column={text!r}; write it as x=NAME")
    return name.strip(), column.strip()


def _factor(ds: xr.Dataset, where: str, what: str, unit: str) -> float:
    """What turns a column into h⁻¹Mpc, comoving, or degrees."""
    if what in ("sky ra", "sky dec"):
        if unit.strip().lower() not in DEGREES:
            raise CatalogueError(f"not a unit of angle: {where}, unit={unit!r}; give degrees (deg) or rad")
        return DEGREES[unit.strip().lower()]
    if what == "sky z" or not unit:
        return 1.0
    parsed = units.parse(unit)
    proper = parsed is not None and parsed.frame == "proper"
    factor = units.factor(unit, "length", h=cosmology_of(ds).h, where=where)
    return factor * (1 + float(ds.attrs["redshift"])) if proper else factor


def _positions(part: Part, wanted: Sequence[tuple[str, float]]) -> NDArray[np.float64]:
    return np.stack([part.numbers(name) * factor for name, factor in wanted], axis=1)
