"""Parquet as a table: one file, or a folder of parts. A block is a row group, or some small ones together.

Units and the redshift come from the metadata ``unit`` and ``description`` of a field and ``redshift`` of the schema.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block, check_names, chosen_blocks
from velfield.catalogues.table_format import BLOCK_ROWS, Column, Facts, TableReader, fetch, reading
from velfield.errors import CatalogueError
from velfield.files import storage

MAGIC = b"PAR1"
FOOTER = 64 * 1024  # bytes read from a file's end; holds the footer of most
BATCH = 64 * 1024  # rows decoded at a time
AT_ONCE = 64 * 2**20  # bytes; a block of which more is wanted is read through buffers, one for each column
BUFFER = 2 * 2**20  # bytes of one; twice a page, which writers make of some 1 MiB


class ParquetTable(TableReader):
    """A Parquet file or folder; see `velfield.catalogues.table_format.Table`."""

    format = "Parquet"

    def __init__(
        self, url: str, files: Sequence[str], sizes: Sequence[int], footers: Sequence[Any], digest: bytes
    ) -> None:
        self._digest = digest
        self.url, self.files, self.sizes, self._footers = url, tuple(files), tuple(sizes), tuple(footers)
        schema = footers[0].schema.to_arrow_schema()
        self.columns: Mapping[str, Column] = {field.name: column_of(field) for field in schema}
        self.facts = Facts(redshift=_redshift(url, schema.metadata or {}))
        for name, footer in zip(files, footers, strict=True):
            if not footer.schema.to_arrow_schema().equals(schema):
                raise CatalogueError(
                    f"parts differ in columns: file={name}, other={files[0]}; keep tables that differ in folders apart"
                )
        self._places: list[tuple[int, list[int]]] = []
        self.blocks: list[Block] = []
        for f, footer in enumerate(footers):
            for groups, nrows in _row_groups(footer):
                index = len(self.blocks)
                self._places.append((f, groups))
                self.blocks.append(
                    Block(index=index, rank=index, nrows=nrows, lower=None, upper=None, url=self.files[f])
                )

    def fingerprint(self) -> str:
        """SHA-256 of all footers, which hold ranges of values, of the sizes and of samples of the files."""
        return hashlib.sha256(self._digest + super().fingerprint().encode()).hexdigest()

    def stored_bytes(self, columns: Sequence[str], blocks: Sequence[int] | None) -> int:
        """Bytes that reading them fetches."""
        check_names(self.url, self.columns, columns)
        total = 0
        for block in chosen_blocks(self.url, self.blocks, blocks):
            f, groups = self._places[block.index]
            for group in (self._footers[f].row_group(g) for g in groups):
                chunks = [group.column(c) for c in range(group.num_columns)]
                total += sum(c.total_compressed_size for c in chunks if c.path_in_schema.split(".")[0] in columns)
        return total

    def _beyond(self, columns: Sequence[str]) -> int:
        # what is stored of the columns, or buffers of them, and for each a page as it is unpacked
        stored = max((self.stored_bytes(columns, [block.index]) for block in self.blocks), default=0)
        return min(stored, max(AT_ONCE, len(columns) * BUFFER)) + len(columns) * 2 * BUFFER

    def chunks(self, columns: Sequence[str], block: int, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Columns of a block, at most ``rows`` rows at a time: a row group is decoded once."""
        check_names(self.url, self.columns, columns)
        (chosen,) = chosen_blocks(self.url, self.blocks, [block])
        yield from self._batches(columns, chosen, rows)

    def _rows(self, columns: Sequence[str], block: Block, start: int, stop: int) -> dict[str, NDArray[Any]]:
        shapes = {name: self.columns[name].dtype for name in columns}
        out = {name: np.empty((stop - start, *dtype.shape), dtype.base) for name, dtype in shapes.items()}
        at = 0
        for batch in self._batches(columns, block, BATCH):
            n = len(next(iter(batch.values()))) if batch else 0
            first, last = max(at, start), min(at + n, stop)
            for name, values in batch.items():
                if first < last:
                    out[name][first - start : last - start] = values[first - at : last - at]
            at += n
            if at >= stop:
                break
        return out

    def _batches(self, columns: Sequence[str], block: Block, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        from pyarrow import parquet

        f, groups = self._places[block.index]
        named = self._footers[f].schema.to_arrow_schema().names
        if twice := [name for name in columns if named.count(name) > 1]:
            raise CatalogueError(f"columns of one name: file={self.files[f]}, column={twice[0]}; rename them")
        fs, path = storage.filesystem(self.files[f])
        few = self.stored_bytes(columns, [block.index]) <= AT_ONCE
        how = {"pre_buffer": True} if few else {"pre_buffer": False, "buffer_size": BUFFER}
        with (
            reading(self.files[f], "Parquet"),
            fs.open(path, "rb", cache_type="none") as file,
            parquet.ParquetFile(file, metadata=self._footers[f], **how) as table,
        ):
            for batch in table.iter_batches(batch_size=rows, row_groups=groups, columns=list(columns)):
                yield {name: _values(block, name, batch.column(name), self.columns[name]) for name in columns}


def parts(url: str) -> list[str]:
    """URLs of the Parquet files beneath a folder, by name; those that begin with . or _ are no parts."""
    fs, path = storage.filesystem(url)
    root = path.rstrip("/")
    names = sorted(fs.find(path))
    names = [n for n in names if not any(p.startswith((".", "_")) for p in n[len(root) :].strip("/").split("/"))]
    heads = fs.cat_ranges(names, [0] * len(names), [4] * len(names), on_error="return") if names else []
    return [url.rstrip("/") + name[len(root) :] for name, head in zip(names, heads, strict=True) if head == MAGIC]


def open_table(url: str, files: Sequence[str] | None = None) -> ParquetTable:
    """Open a Parquet file, or the parts of a folder as one table: their footers are read."""
    from pyarrow import parquet

    files = [url] if files is None else list(files)
    fs, path = storage.filesystem(url)
    paths = [path.rstrip("/") + name[len(url.rstrip("/")) :] for name in files]
    with reading(url, "Parquet"):
        sizes = [int(size) for size in fs.sizes(paths)]
        tails = storage.read_ranges(url, paths, [max(0, size - FOOTER) for size in sizes], sizes)
    footers, digest = [], hashlib.sha256()
    for name, size, tail in zip(files, sizes, tails, strict=True):
        with reading(name, "Parquet"):
            length = int.from_bytes(tail[-8:-4], "little") + 8
            if isinstance(tail, BaseException):
                raise tail
            if tail[-4:] != MAGIC or length > size:
                raise ValueError("its end is missing or damaged")
            if length > len(tail):
                tail = fetch(name, size - length, size)
            footers.append(parquet.read_metadata(io.BytesIO(tail)))
            digest.update(tail[-length:])
    return ParquetTable(url, files, sizes, footers, digest.digest())


def _row_groups(footer: Any) -> Iterator[tuple[list[int], int]]:
    """Row groups of one file, small ones together."""
    together: list[int] = []
    nrows = 0
    for g in range(footer.num_row_groups):
        more = footer.row_group(g).num_rows
        if together and nrows + more > BLOCK_ROWS:
            yield together, nrows
            together, nrows = [], 0
        together.append(g)
        nrows += more
    if together:
        yield together, nrows


def column_of(field: Any) -> Column:
    """The column that a field of Arrow's schema stands for; unit and description are in its metadata."""
    from pyarrow import types

    metadata = {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, v in (field.metadata or {}).items()}
    kind = field.type
    shape: tuple[int, ...] = ()
    if types.is_fixed_size_list(kind):
        shape, kind = (kind.list_size,), kind.value_type
    number = types.is_integer(kind) or types.is_floating(kind)
    dtype = np.dtype(kind.to_pandas_dtype() if number else object)
    return Column(
        dtype=np.dtype((dtype, shape)) if shape else dtype,
        unit=metadata.get("unit", metadata.get("units", "")),
        description=metadata.get("description", ""),
    )


def _values(block: Block, name: str, array: Any, column: Column) -> NDArray[Any]:
    if array.null_count:
        raise CatalogueError(
            f"values are missing: file={block.url}, block={block.index}, column={name}, nulls={array.null_count}; "
            "fill or remove these rows"
        )
    if column.dtype.shape:
        flat = array.flatten()
        if flat.null_count:
            raise CatalogueError(f"values are missing: file={block.url}, column={name}; fill or remove these rows")
        return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(-1, *column.dtype.shape)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _redshift(url: str, metadata: Mapping[bytes, bytes]) -> float | None:
    text = metadata.get(b"redshift")
    with reading(url, "Parquet"):
        return None if text is None else float(text)
