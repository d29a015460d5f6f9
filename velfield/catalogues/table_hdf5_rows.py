"""HDF5 tables row by row with all their columns, and written again with columns added.

In its own format a table stays where it is in its file, and so does all that is beside it. Another table becomes
columns at the top of a file, with the attributes ``unit`` and ``description``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues import table_hdf5
from velfield.catalogues.table_format import Column, no_numbers, reading
from velfield.catalogues.table_text import ROWS
from velfield.errors import CatalogueError
from velfield.files.hdf5_file import HDF5File

if TYPE_CHECKING:
    from velfield.catalogues.table_rows import Part, Source


class HDF5Rows:
    """A table in an HDF5 file: `velfield.catalogues.table_hdf5` says what is one."""

    format = "HDF5"

    def __init__(self, url: str, table: str | None) -> None:
        opened = table_hdf5.open_table(url, table)
        self.url, self.place, self.facts = url, opened.place, opened.facts
        self.nrows: int | None = sum(block.nrows for block in opened.blocks)
        self.columns: Mapping[str, Column] = {
            name: replace(column, dtype=_typed(column.dtype)) for name, column in opened.columns.items()
        }

    def parts(self, rows: int = ROWS) -> Iterator[HDF5Part]:
        """The table in parts of at most ``rows`` rows, in order."""
        with table_hdf5.opened(self.url) as root:
            for start in range(0, self.nrows or 0, rows):
                yield HDF5Part(self, root[self.place.path], slice(start, min(start + rows, self.nrows or 0)))


class HDF5Part:
    """Rows of an HDF5 table: records, or columns that are read as they are asked for, while it is gone through."""

    def __init__(self, source: HDF5Rows, node: Any, rows: slice) -> None:
        self._source, self._rows = source, rows
        with reading(source.url, "HDF5"):
            self.raw: Any = node[rows] if source.place.records else node

    def __len__(self) -> int:
        return int(self._rows.stop - self._rows.start)

    def _stored(self, name: str) -> NDArray[Any]:
        with reading(self._source.url, "HDF5"):
            return np.asarray(self.raw[name] if self._source.place.records else self.raw[name][self._rows])

    def numbers(self, name: str, component: int | None = None) -> NDArray[np.float64]:
        """A column, or a component of a vector one, as numbers (N,), NaN where there is none."""
        dtype = self._source.columns[name].dtype
        if dtype.base.kind not in "fiu":
            raise no_numbers(self._source.url, name, str(dtype))
        found = self._stored(name)
        return (found if component is None else found[:, component]).astype(np.float64)

    def column(self, name: str) -> NDArray[Any]:
        """A column as values of its type; refuses types that other formats do not have."""
        dtype, found = self._source.columns[name].dtype, self._stored(name)
        if dtype.kind != "O":
            return found.astype(dtype.base)
        if found.ndim > 1 or not all(isinstance(value, bytes | str) for value in found.tolist()):
            raise CatalogueError(
                f"a column that cannot be written in another format: file={self._source.url}, column={name}, "
                f"type={found.dtype}, dimensions={found.ndim}; let the answer's name end with .h5"
            )
        return np.array([v.decode(errors="replace") if isinstance(v, bytes) else v for v in found], dtype=object)


class HDF5Writer:
    """HDF5: the file as it was with columns added, or columns at its top."""

    def __init__(self, path: str, source: Source, added: Mapping[str, Column]) -> None:
        import h5py

        self._source, self._rows = source, 0
        self._own = isinstance(source, HDF5Rows)
        self._text = h5py.string_dtype()
        columns = dict(added) if self._own else {**source.columns, **added}
        wrong = [name for name in columns if "/" in name or name == "."]
        if wrong:
            raise CatalogueError(
                f"a name that HDF5 has not: file={source.url}, column={wrong[0]}; rename it, or let the answer's name "
                "end with .csv, .parquet or .fits"
            )
        self._written = HDF5File(path)
        self._file = h5py.File(self._written, "w", track_order=True)
        node, records = self._file, None
        if isinstance(source, HDF5Rows):
            with table_hdf5.opened(source.url) as root:
                _copy(root, self._file, source.place.path if source.place.records else "")
                if source.place.records:
                    records = _extended(root[source.place.path], self._file, added)
            node = self._file[source.place.path]
        self._records = records
        self._columns = {} if records else {name: self._made(node, name, column) for name, column in columns.items()}

    def _made(self, node: Any, name: str, column: Column) -> Any:
        kind, shape = self._text if column.dtype.kind == "O" else column.dtype.base, column.dtype.shape
        made = node.create_dataset(name, shape=(0, *shape), maxshape=(None, *shape), dtype=kind, chunks=True)
        made.attrs.update({k: v for k, v in (("unit", column.written_unit), ("description", column.description)) if v})
        return made

    def write(self, part: Part, added: Mapping[str, NDArray[Any]]) -> None:
        """Append rows, with the values of the added columns."""
        rows = slice(self._rows, self._rows + len(part))
        try:
            self._append(part, added, rows)
        finally:
            self._written.check()
        self._rows = rows.stop

    def _append(self, part: Part, added: Mapping[str, NDArray[Any]], rows: slice) -> None:
        if self._records is not None:
            records = np.zeros(len(part), self._records.dtype)
            for name in part.raw.dtype.names:
                records[name] = part.raw[name]
            for name, values in added.items():
                records[name] = values
            self._records[rows] = records
            return
        own = {} if self._own else {name: part.column(name) for name in self._source.columns}
        for name, values in (own | dict(added)).items():
            if values.dtype.kind == "O" and "\0" in "".join(map(str, values)):
                raise CatalogueError(
                    f"a text with a zero byte, which HDF5 has not: file={self._source.url}, column={name}; "
                    "let the answer's name end with .csv or .parquet"
                )
            self._columns[name].resize(rows.stop, axis=0)
            self._columns[name][rows] = values

    def close(self) -> None:
        """End the table."""
        try:
            self._file.close()
        finally:
            self._written.close()


def _typed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that values of a column are given out as: texts as objects, half precision as single."""
    if dtype.kind in "SUO":
        return np.dtype(object)
    return np.dtype((np.float32, dtype.shape)) if dtype.base == np.float16 else dtype


def _copy(source: Any, made: Any, but: str) -> None:
    """Copy a group with all that is in it, but not the dataset at this path."""
    made.attrs.update(source.attrs)
    for name, node in source.items():
        if but.startswith(f"{node.name}/"):
            _copy(node, made.create_group(name), but)
        elif node.name != but:
            source.copy(name, made)


def _extended(old: Any, made: Any, added: Mapping[str, Column]) -> Any:
    """An empty dataset of the same records, packed in the same way, with fields added."""
    fields = [(name, old.dtype[name]) for name in old.dtype.names] + [(name, c.dtype) for name, c in added.items()]
    how = {"chunks": old.chunks and True, "compression": old.compression, "shuffle": old.shuffle or None}
    dataset = made.create_dataset(old.name, shape=old.shape, dtype=fields, **{k: v for k, v in how.items() if v})
    dataset.attrs.update(old.attrs)
    return dataset
