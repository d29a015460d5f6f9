"""Tables written again in parts, with columns added: CSV, Parquet, FITS, HDF5, Arrow.

In the format that a table came in, its columns, comments and header stay as they are; in another one the values and
types of its columns do.
"""

from __future__ import annotations

import contextlib
import csv
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues import units
from velfield.catalogues.table_arrow import ArrowRows
from velfield.catalogues.table_format import Column
from velfield.catalogues.table_hdf5_rows import HDF5Writer
from velfield.catalogues.table_rows import FORMATS, FITSRows, ParquetRows, Part, Source, format_of
from velfield.catalogues.table_text import CSVRows, texts_of
from velfield.errors import CatalogueError, VelfieldError
from velfield.files import storage

BLOCK = 2880  # bytes of a FITS file's blocks
LETTERS = {"i1": "B", "u1": "B", "i2": "I", "u2": "I", "i4": "J", "u4": "J", "i8": "K", "u8": "K", "f4": "E", "f8": "D"}
OFFSETS = {"i1": -(2**7), "u2": 2**15, "u4": 2**31, "u8": 2**63}  # of types that FITS stores as another


class Writer(Protocol):
    """A table that is being written."""

    def write(self, part: Part, added: Mapping[str, NDArray[Any]]) -> None:
        """Append rows, with the values of the added columns."""

    def close(self) -> None:
        """End the table."""


@contextlib.contextmanager
def writing(url: str, source: Source, added: Mapping[str, Column], *, overwrite: bool = False) -> Iterator[Writer]:
    """A table at ``url`` in the format of its name, there once all is written.

    Parameters
    ----------
    source : Source
        The table whose parts will be written; for another format than its own, opened with ``typed``.
    added : mapping of str to Column
        The columns to come after its own.
    overwrite : bool
        Whether a file that is there is replaced.
    """
    form = format_of(url)
    refuse_existing(url, overwrite)
    if form != source.format:
        _refuse_types(source)
    clash = [name for name in added if name in source.columns]
    if clash:
        raise CatalogueError(
            f"the table has such columns already: file={source.url}, columns={', '.join(clash)}; "
            "rename them, or give the new ones a prefix (prefix=, --prefix)"
        )
    with storage.written_aside(url) as path:
        writer = WRITERS[form](path, source, added)
        try:
            yield writer
        finally:
            writer.close()


def _refuse_types(source: Source) -> None:
    """Refuse columns that only the format has that they came in."""
    for name, column in source.columns.items():
        kind, shape = column.dtype.base, column.dtype.shape
        plain = kind.str[1:] in LETTERS or (kind.kind in "Ob" and not shape)
        if len(shape) > 1 or 0 in shape or not plain or not name:
            ends, called = [end for end, form in FORMATS.items() if form == source.format], name or "''"
            raise CatalogueError(
                f"a column that cannot be written in another format: file={source.url}, column={called}, "
                f"type={column.dtype}; " + (f"let the answer's name end with {ends[0]}" if ends else "leave it out")
            )


def refuse_existing(url: str, overwrite: bool) -> None:
    """Refuse a file that is there, unless it may be replaced."""
    if not overwrite and storage.exists(url):
        raise VelfieldError(f"the file is there already: file={url}; name another, or let it be replaced (--overwrite)")


class CSVWriter:
    """Text: numbers with the digits that bring them back."""

    def __init__(self, path: str, source: Source, added: Mapping[str, Column]) -> None:
        self._own, self._names = isinstance(source, CSVRows), list(source.columns)
        vectors = [name for name, column in source.columns.items() if column.dtype.shape]
        if vectors:
            raise CatalogueError(
                f"a column of vectors, which CSV has not: file={source.url}, column={vectors[0]}; "
                "let the answer's name end with .parquet, .fits or .h5"
            )
        titles = [f"{name} [{c.written_unit}]" if c.written_unit else name for name, c in source.columns.items()]
        self._file = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115 - `close` closes it
        delimiter = ","
        if isinstance(source, CSVRows):
            titles, delimiter = source.titles, source.delimiter
            self._file.writelines(source.comments)
        self._writer = csv.writer(self._file, delimiter=delimiter, lineterminator="\n")
        self._writer.writerow([*titles, *added])

    def write(self, part: Part, added: Mapping[str, NDArray[Any]]) -> None:
        """Append rows, with the values of the added columns."""
        more = [texts_of(values) for values in added.values()]
        if self._own:
            self._writer.writerows([*row, *new] for row, *new in zip(part.raw, *more, strict=True))
        else:
            columns = [texts_of(part.column(name)) for name in self._names]
            self._writer.writerows(zip(*columns, *more, strict=True))

    def close(self) -> None:
        """End the table."""
        self._file.close()


class ParquetWriter:
    """Parquet: units and descriptions as metadata of the fields, a row group for each part."""

    own: type = ParquetRows

    def __init__(self, path: str, source: Source, added: Mapping[str, Column]) -> None:
        import pyarrow

        self._arrow: Any = pyarrow
        new = [self._field(name, column) for name, column in added.items()]
        self._names = list(source.columns)
        self._own = isinstance(source, self.own)
        if isinstance(source, (ParquetRows, ArrowRows)) and self._own:
            schema = self._arrow.schema([*source.schema, *new], metadata=source.schema.metadata)
        else:
            schema = self._arrow.schema([*(self._field(n, c) for n, c in source.columns.items()), *new])
        self._schema = schema
        self._writer = self._begun(path, schema)

    def _begun(self, path: str, schema: Any) -> Any:
        from pyarrow import parquet

        return parquet.ParquetWriter(path, schema)

    def _field(self, name: str, column: Column) -> Any:
        base = column.dtype.base
        kind = self._arrow.string() if base.kind == "O" else self._arrow.from_numpy_dtype(base)
        if column.dtype.shape:
            kind = self._arrow.list_(kind, column.dtype.shape[0])
        about = {"unit": column.written_unit, "description": column.description}
        return self._arrow.field(name, kind, metadata={key: text for key, text in about.items() if text} or None)

    def write(self, part: Part, added: Mapping[str, NDArray[Any]]) -> None:
        """Append rows, with the values of the added columns."""
        if self._own:
            arrays = list(part.raw.columns)
        else:
            arrays = [self._array(part.column(name), self._schema.field(name).type) for name in self._names]
        arrays += [self._array(values, self._schema.field(name).type) for name, values in added.items()]
        self._writer.write_batch(self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema))

    def _array(self, values: NDArray[Any], kind: Any) -> Any:
        if values.ndim == 1:
            return self._arrow.array(values, type=kind)
        flat = self._arrow.array(values.ravel(), type=kind.value_type)
        return self._arrow.FixedSizeListArray.from_arrays(flat, type=kind)

    def close(self) -> None:
        """End the table."""
        self._writer.close()


class ArrowWriter(ParquetWriter):
    """Arrow's stream: the same, a record batch for each part."""

    own = ArrowRows

    def _begun(self, path: str, schema: Any) -> Any:
        self._file = self._arrow.OSFile(path, "wb")
        return self._arrow.ipc.new_stream(self._file, schema)

    def close(self) -> None:
        """End the table."""
        super().close()
        self._file.close()


class FITSWriter:
    """A FITS binary table, the only one of its file; the number of rows is put into its header at the end."""

    def __init__(self, path: str, source: Source, added: Mapping[str, Column]) -> None:
        from astropy.io import fits

        self._own = isinstance(source, FITSRows)
        self._names, self._source = list(source.columns), source
        known = {} if self._own else dict(source.columns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that other programs would like other names
            columns = [
                self._column(fits, name, column, self._width(name, column))
                for name, column in {**known, **added}.items()
            ]
            table = fits.BinTableHDU.from_columns(columns, nrows=0)
        self._header = _extended(source.header, table.header) if isinstance(source, FITSRows) else table.header
        self._record = np.dtype(table.columns.dtype).newbyteorder(">")
        self._rows = 0
        self._file = open(path, "wb")  # noqa: SIM115 - `close` closes it
        self._file.write(fits.PrimaryHDU().header.tostring().encode())
        self._at = self._file.tell()
        self._write_header()

    def _column(self, fits: Any, name: str, column: Column, width: int) -> Any:
        base, unit = column.dtype.base, units.plain(column.written_unit)
        if not (name.isascii() and name.isprintable() and unit.isascii() and unit.isprintable()):
            raise CatalogueError(
                f"a name or unit with letters that FITS has not: file={self._source.url}, column={name!r}, "
                f"unit={column.unit!r}; rename it, or let the answer's name end with .csv, .parquet or .h5"
            )
        letter = {"O": f"{width}A", "b": "L"}.get(base.kind) or LETTERS[base.str[1:]]
        repeat = column.dtype.shape[0] if column.dtype.shape else ""
        return fits.Column(name, f"{repeat}{letter}", unit=unit or None, bzero=OFFSETS.get(base.str[1:]))

    def _width(self, name: str, column: Column) -> int:
        """Letters of the longest text of a column, for which the table is read once."""
        if column.dtype.kind != "O":
            return 0
        texts = (text for part in self._source.parts() for text in part.column(name))
        try:
            return max((len(str(text).encode("ascii")) for text in texts), default=1) or 1
        except UnicodeEncodeError as error:
            raise CatalogueError(
                f"a text with letters that FITS has not: file={self._source.url}, column={name}, "
                f"text={error.object[:40]!r}; let the answer's name end with .csv, .parquet or .h5"
            ) from error

    def _write_header(self) -> None:
        self._header["NAXIS2"] = self._rows
        self._file.seek(self._at)
        self._file.write(self._header.tostring().encode("ascii"))

    def write(self, part: Part, added: Mapping[str, NDArray[Any]]) -> None:
        """Append rows, with the values of the added columns."""
        records = np.zeros(len(part), self._record)
        values = dict(added) if self._own else {name: part.column(name) for name in self._names} | dict(added)
        for name, column in values.items():
            records[name] = _stored(column)
        rows = records.view(np.uint8).reshape(len(part), self._record.itemsize)
        if self._own:
            before = np.ascontiguousarray(part.raw).view(np.uint8).reshape(len(part), part.raw.dtype.itemsize)
            rows = np.concatenate([before, rows], axis=1)
        self._file.write(rows.tobytes())
        self._rows += len(part)

    def close(self) -> None:
        """End the table."""
        with self._file:
            self._file.write(bytes(-self._file.tell() % BLOCK))
            self._write_header()


WRITERS: dict[str, Any] = {
    **{"CSV": CSVWriter, "Parquet": ParquetWriter, "FITS": FITSWriter},
    **{"HDF5": HDF5Writer, "Arrow": ArrowWriter},
}


def _stored(values: NDArray[Any]) -> NDArray[Any]:
    """What FITS stores of values: texts as bytes, T and F, and unsigned integers less half their range."""
    if values.dtype.kind == "O":
        return np.array([str(text).encode("ascii") for text in values], dtype=np.bytes_)
    if values.dtype.kind == "b":
        return np.where(values, ord("T"), ord("F")).astype(np.int8)
    name = values.dtype.str[1:]
    if name not in OFFSETS:
        return values
    top = 2 ** (8 * values.dtype.itemsize - 1)
    return values.view("u1") ^ np.uint8(top) if name == "i1" else (values ^ values.dtype.type(top)).view(f"i{name[1]}")


def _extended(header: Any, more: Any) -> Any:
    """The header of a table with the columns of another one added."""
    made = header.copy()
    for word in ("CHECKSUM", "DATASUM"):
        made.remove(word, ignore_missing=True)
    first = int(made["TFIELDS"])
    made["NAXIS1"] = int(made["NAXIS1"]) + int(more["NAXIS1"])
    made["TFIELDS"] = first + int(more["TFIELDS"])
    for i in range(1, int(more["TFIELDS"]) + 1):
        for word in ("TTYPE", "TFORM", "TUNIT", "TZERO"):
            if f"{word}{i}" in more:
                made[f"{word}{first + i}"] = more[f"{word}{i}"]
    return made
