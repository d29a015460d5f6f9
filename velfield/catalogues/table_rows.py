"""Tables row by row with all their columns, text and missing values too, so that they can be written again as they are.

The readers of catalogues (`velfield.catalogues.table_format`) give numbers alone and refuse a row that has none; here a
part of a table stays as its own format has it, and columns are taken out of it as they are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues import table_arrow, table_fits, table_hdf5, table_parquet
from velfield.catalogues.genericio_layout import BYTE_ORDERS
from velfield.catalogues.table_arrow import ArrowRows, BatchPart, columns_of, refuse_repeated
from velfield.catalogues.table_format import Column, Facts, no_numbers, reading
from velfield.catalogues.table_genericio import GenericIORows
from velfield.catalogues.table_hdf5_rows import HDF5Rows
from velfield.catalogues.table_text import ROWS, CSVRows
from velfield.errors import CatalogueError, VelfieldError
from velfield.files import storage

FORMATS = {
    **{".csv": "CSV", ".parquet": "Parquet", ".pq": "Parquet", ".fits": "FITS", ".fit": "FITS"},
    **{".h5": "HDF5", ".hdf5": "HDF5", ".arrow": "Arrow", ".arrows": "Arrow"},
}


class Part(Protocol):
    """Some rows of a table; ``raw`` is what its own format has."""

    raw: Any

    def __len__(self) -> int: ...

    def numbers(self, name: str, component: int | None = None) -> NDArray[np.float64]:
        """A column, or a component of a vector one, as numbers (N,), NaN where there is none."""

    def column(self, name: str) -> NDArray[Any]:
        """A column as values of its type, texts as objects, for a table of another format."""


class Source(Protocol):
    """An open table: ``columns`` by name, their types those that `Part.column` gives, and what it says of itself."""

    url: str
    format: str
    columns: Mapping[str, Column]
    nrows: int | None
    facts: Facts

    def parts(self, rows: int = ROWS) -> Iterator[Part]:
        """The table in parts of at most ``rows`` rows, in order."""


def format_of(url: str) -> str:
    """The format that the end of a name stands for."""
    end = url[url.rfind(".") :].lower() if "." in url else ""
    if end not in FORMATS:
        raise VelfieldError(f"no such form of a table: file={url}; let its name end with {', '.join(FORMATS)}")
    return FORMATS[end]


def open_rows(url: str, table: str | None = None, *, typed: bool = False) -> Source:
    """Open a table in GenericIO, CSV, Parquet, FITS, HDF5 or Arrow's stream.

    Parameters
    ----------
    url : str
        A file, or a folder of Parquet files; of a partitioned GenericIO file the rank map.
    table : str, optional
        Name or number of the FITS extension, or the HDF5 file's group or dataset.
    typed : bool
        Whether the table will be written in another format, where each column needs a type and a name of its own: a
        CSV is then read once to settle them.
    """
    fs, path = storage.filesystem(url)
    if fs.isdir(path):
        return ParquetRows(url, typed=typed)
    with reading(url, "a table"):
        head = bytes(fs.cat_file(path, start=0, end=8))[:8]
    if head.startswith(table_fits.MAGIC):
        return FITSRows(url, table)
    if head.startswith(table_hdf5.MAGIC):
        return HDF5Rows(url, table)
    if table is not None:
        raise VelfieldError(f"the file holds one table only: file={url}, table={table}; leave it out")
    if head.startswith(table_parquet.MAGIC):
        return ParquetRows(url, typed=typed)
    if head in BYTE_ORDERS:
        return GenericIORows(url)
    if head.startswith(table_arrow.MAGIC):
        return ArrowRows(url)
    if head.startswith(table_arrow.FEATHER):
        raise CatalogueError(f"Arrow's form with an end (Feather): file={url}; write a stream (pyarrow.ipc.new_stream)")
    if b"\0" in head:
        raise CatalogueError(f"not a table that is answered: file={url}; name one in a form that is (docs/query.md)")
    return CSVRows(url, typed=typed)


class ParquetRows:
    """A Parquet file, or a folder of them."""

    format = "Parquet"

    def __init__(self, url: str, *, typed: bool) -> None:
        files = table_parquet.parts(url) if storage.is_folder(url) else [url]
        if not files:
            raise CatalogueError(f"no Parquet files in this folder: file={url}; check the path")
        opened = table_parquet.open_table(url, files)
        self.url, self.files, self.facts = url, files, opened.facts
        self.nrows: int | None = sum(block.nrows for block in opened.blocks)
        with self._opened(files[0]) as first:
            self.schema = first.schema_arrow
        self.columns: Mapping[str, Column] = columns_of(self.schema)
        if typed:
            refuse_repeated(url, self.schema, self.columns)

    def _opened(self, file: str) -> Any:
        from pyarrow import parquet

        fs, path = storage.filesystem(file)
        return parquet.ParquetFile(fs.open(path, "rb"))

    def parts(self, rows: int = ROWS) -> Iterator[BatchPart]:
        """The table in parts of at most ``rows`` rows, in order."""
        for file in self.files:
            with reading(file, "Parquet"), self._opened(file) as table:
                for batch in table.iter_batches(batch_size=rows):
                    yield BatchPart(self.url, batch, ".parquet")


class FITSRows:
    """A binary table extension of a FITS file, without columns of variable length."""

    format = "FITS"

    def __init__(self, url: str, table: str | None) -> None:
        self._table = table_fits.open_table(url, table)
        self.url, self.header, self.facts = url, self._table.header, self._table.facts
        self.nrows: int | None = int(self.header["NAXIS2"])
        if int(self.header.get("PCOUNT", 0)):
            raise CatalogueError(f"columns of variable length: file={url}; only rows of fixed length are answered")
        titles = {self.header[f"TTYPE{i}"]: i for i in range(1, self.header["TFIELDS"] + 1)}
        self._kinds = {name: str(self.header[f"TFORM{i}"]).strip()[-1:] for name, i in titles.items()}
        self._missing = {name: self.header.get(f"TNULL{i}") for name, i in titles.items()}
        self.columns: Mapping[str, Column] = {
            name: replace(column, dtype=np.dtype(bool)) if self._kinds[name] == "L" else column
            for name, column in self._table.columns.items()
        }

    def parts(self, rows: int = ROWS) -> Iterator[FITSPart]:
        """The table in parts of at most ``rows`` rows, in order."""
        nrows = int(self.header["NAXIS2"])
        for start in range(0, nrows, rows):
            records = self._table.records(start, min(start + rows, nrows))
            yield FITSPart(self._table, records, self._kinds, self._missing)


class FITSPart:
    """Rows of a FITS table, as big-endian records."""

    def __init__(
        self,
        table: table_fits.FITSTable,
        records: NDArray[Any],
        kinds: Mapping[str, str],
        missing: Mapping[str, int | None],
    ) -> None:
        self.raw, self._table, self._kinds, self._missing = records, table, kinds, missing

    def __len__(self) -> int:
        return len(self.raw)

    def numbers(self, name: str, component: int | None = None) -> NDArray[np.float64]:
        """A column, or a component of a vector one, as numbers (N,), NaN where there is none."""
        if self._table.columns[name].dtype.base.kind not in "fiu":
            raise no_numbers(self._table.url, name, self._kinds[name])
        found = self._table.scaled(name, self.raw).astype(np.float64)
        missing = self._missing[name]
        found = found if missing is None else np.where(self.raw[name] == missing, np.nan, found)
        return found if component is None else found[:, component]

    def column(self, name: str) -> NDArray[Any]:
        """A column as values of its type; refuses types and missing values that other formats do not have."""
        raw, kind, missing = self.raw[name], self._kinds[name], self._missing[name]
        gaps = 0 if missing is None else int((raw == missing).sum())
        if kind not in "LBIJKEDA" or gaps or raw.ndim > (1 if kind in "LA" else 2):
            raise CatalogueError(
                f"a column that cannot be written in another format: file={self._table.url}, column={name}, "
                f"type={kind}, missing={gaps}; let the answer's name end with .fits"
            )
        if kind == "A":
            return np.array([text.decode("ascii", "replace").rstrip() for text in raw.tolist()], dtype=object)
        if kind == "L":
            return np.asarray(raw == ord("T"))
        found = self._table.scaled(name, self.raw)
        return found.astype(found.dtype.newbyteorder("="))
