"""A table of positions in, the same table with velocities out: ``velfield query`` (docs/query.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.answers.asked import Asked
from velfield.answers.cells import Cells
from velfield.answers.queries import answer, check_question, counted, open_store
from velfield.answers.real_space import MAX_SHIFT
from velfield.answers.table_positions import columns_of, positions
from velfield.catalogues.table_format import Column
from velfield.catalogues.table_rows import format_of, open_rows
from velfield.catalogues.table_text import ROWS
from velfield.catalogues.table_write import writing
from velfield.files.progress import Progress, Silent
from velfield.stores.store_layout import LENGTH

SPEED, FLAG = np.dtype(np.float32), np.dtype(np.uint8)


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
        URLs of a table in GenericIO, CSV, Parquet, FITS, HDF5 (OpenCosmo's, too) or Arrow's stream, and of the one to
        be made, whose name says its format: any of these but GenericIO.
    coordinates, space, extrapolate, max_shift
        As in `velfield.answers.queries.query_positions`.
    columns : mapping or sequence of str
        The table's names for x, y, z or ra, dec, z, as ``{"x": NAME}`` or ``["x=NAME"]``, ``NAME [unit]`` with a unit,
        ``NAME[0]`` a component of a vector column. By default these, or what a simulation calls them
        (`velfield.answers.table_positions`).
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
    wanted = columns_of(ds, source, coordinates, columns)
    cells, told = Cells(ds), progress or Silent()
    nothing = answer(ds, np.empty((0, 3)), coordinates=coordinates, space=space, cells=cells)
    added = {f"{prefix}{name}": (column, key) for name, (column, key) in _added(nothing, coordinates, space).items()}
    counts: Counter[str] = Counter()
    asked = Asked(ds, f"file={table}", stated=all(along.unit for along in wanted))
    with writing(out, source, {name: column for name, (column, _) in added.items()}, overwrite=overwrite) as writer:
        told.start("query", source.nrows or float("nan"), "rows")
        for part in source.parts(rows):
            given = positions(part, wanted)
            found = answer(
                ds,
                given,
                coordinates=coordinates,
                space=space,
                extrapolate=extrapolate,
                max_shift=max_shift,
                cells=cells,
            )
            writer.write(part, {name: _value(found, key, column) for name, (column, key) in added.items()})
            counts.update(counted(found["flag"]))
            told.advance(len(part))
            if coordinates == "box":
                asked.add(given)
        asked.check(f"state the unit, as --column 'x={wanted[0].column} [kpc/h]' (columns=)")
    plain = all(along.column == along.name for along in wanted)
    told.done("" if plain or columns else f"positions in {', '.join(map(str, wanted))}")
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
            add(f"{x}_real", np.dtype(np.float64), LENGTH, f"{x} in real space, in the parent", "position", i)
    add("flag", FLAG, "", "0 good, else a sum: docs/query.md", "flag", None)
    return made


def _value(found: Mapping[str, NDArray[Any]], key: tuple[str, int | None], column: Column) -> NDArray[Any]:
    values = found[key[0]] if key[1] is None else found[key[0]][:, key[1]]
    return np.ascontiguousarray(values, dtype=column.dtype)
