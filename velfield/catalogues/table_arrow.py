"""Tables as Arrow has them: rows of a record batch, and a stream of such batches (``….arrow``, ``….arrows``).

Arrow's other form, a file with an end (Feather), is refused: a stream can be read and written as it comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.table_format import Column, Facts, no_numbers, reading
from velfield.catalogues.table_parquet import column_of
from velfield.catalogues.table_text import ROWS
from velfield.errors import CatalogueError
from velfield.files import storage

MAGIC = b"\xff\xff\xff\xff"  # before each message of a stream
FEATHER = b"ARROW1"


class ArrowRows:
    """A stream of record batches; how many rows it has is known at its end."""

    format = "Arrow"
    facts = Facts()
    nrows: int | None = None

    def __init__(self, url: str) -> None:
        self.url = url
        with reading(url, "Arrow"), self._opened() as stream:
            self.schema = stream.schema
            self.columns: Mapping[str, Column] = columns_of(self.schema)
        refuse_repeated(url, self.schema, self.columns)

    def _opened(self) -> Any:
        from pyarrow import ipc

        fs, path = storage.filesystem(self.url)
        return ipc.open_stream(fs.open(path, "rb"), options=ipc.IpcReadOptions(use_threads=False))

    def parts(self, rows: int = ROWS) -> Iterator[BatchPart]:
        """The table in parts of at most ``rows`` rows, in order; each batch is looked at before it is believed."""
        with reading(self.url, "Arrow"), self._opened() as stream:
            for batch in stream:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, rows):
                    yield BatchPart(self.url, batch.slice(start, rows), ".arrow")


class BatchPart:
    """Rows of a Parquet file or a stream, as a record batch; ``end`` is that of the names of such files."""

    def __init__(self, url: str, batch: Any, end: str) -> None:
        self.raw, self._url, self._end = batch, url, end

    def __len__(self) -> int:
        return int(self.raw.num_rows)

    def numbers(self, name: str, component: int | None = None) -> NDArray[np.float64]:
        """A column, or a component of a vector one, as numbers (N,), NaN where there is none."""
        from pyarrow import compute, types

        refuse_repeated(self._url, self.raw.schema, [name])
        values = self.raw.column(name)
        if component is not None:
            values = compute.list_element(values, component)
        if not (types.is_integer(values.type) or types.is_floating(values.type)):
            raise no_numbers(self._url, name, str(values.type))
        return np.asarray(values.cast("float64", safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False))

    def column(self, name: str) -> NDArray[Any]:
        """A column as values of its type; refuses types and missing values that other formats do not have."""
        from pyarrow import types

        values = self.raw.column(name)
        kind = values.type
        if types.is_string(kind) or types.is_large_string(kind):
            return np.array(values.fill_null("").to_pylist(), dtype=object)
        if types.is_floating(kind):
            values = values.fill_null(np.nan)
        size = kind.list_size if types.is_fixed_size_list(kind) else None
        flat = values if size is None else values.flatten()
        plain = any(is_it(flat.type) for is_it in (types.is_integer, types.is_floating, types.is_boolean))
        if not plain or values.null_count or flat.null_count:
            raise CatalogueError(
                f"a column that cannot be written in another format: file={self._url}, column={name}, type={kind}, "
                f"missing={values.null_count}; let the answer's name end with {self._end}"
            )
        found = flat.to_numpy(zero_copy_only=False)
        return np.asarray(found if size is None else found.reshape(-1, size))


def refuse_repeated(url: str, schema: Any, names: Iterable[str]) -> None:
    """Refuse columns that share these names with others."""
    count = Counter(schema.names)
    twice = [name for name in names if count[name] > 1]
    if twice:
        raise CatalogueError(f"columns of one name: file={url}, column={twice[0]}; rename them")


def columns_of(schema: Any) -> dict[str, Column]:
    """The columns of a schema, by name; those of truth values are numbers to no catalogue, but values of a row."""
    from pyarrow import types

    found = {field.name: (column_of(field), types.is_boolean(field.type)) for field in schema}
    return {name: replace(column, dtype=np.dtype(bool)) if truth else column for name, (column, truth) in found.items()}
