"""Tables as text: a line of names, then a line of numbers for each row; for catalogues that a person can look at.

Names may carry a unit, as in ``x [Mpc/h]``. Fields are parted by commas, semicolons or tabs; lines before the names
that begin with ``#`` are comments. Every number becomes the float64 next to it. To know its rows, a file is read once
when it is opened.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block, check_names, chosen_blocks
from velfield.catalogues.table_format import Column, Facts, TableReader, fetch, reading
from velfield.errors import CatalogueError
from velfield.files import storage

PIECE = 32 * 2**20  # bytes of a block: some half a million rows
NAME = re.compile(r"(.*?)\s*\[([^\]]*)\]")


@dataclass(frozen=True, kw_only=True)
class Head:
    """What the first lines of a text table say: columns, what parts them, lines and bytes before the first row."""

    columns: Mapping[str, Column]
    delimiter: str
    lines: int
    nbytes: int


class CSVTable(TableReader):
    """A text table; see `velfield.catalogues.table_format.Table`."""

    format = "CSV"

    def __init__(self, url: str, size: int, head: Head, pieces: Sequence[tuple[int, int, int]]) -> None:
        self.url, self.files, self.sizes = url, (url,), (size,)
        self.columns: Mapping[str, Column] = head.columns
        self.facts = Facts()
        self._head, self._pieces = head, list(pieces)
        self.blocks = [
            Block(index=i, rank=i, nrows=nrows, lower=None, upper=None, url=url)
            for i, (_, _, nrows) in enumerate(pieces)
        ]
        self._first_lines = head.lines + 1 + np.concatenate([[0], np.cumsum([p[2] for p in pieces], dtype=np.int64)])

    def stored_bytes(self, columns: Sequence[str], blocks: Sequence[int] | None) -> int:
        """Bytes that reading them fetches: the whole lines."""
        check_names(self.url, self.columns, columns)
        chosen = chosen_blocks(self.url, self.blocks, blocks)
        return sum(self._pieces[b.index][1] - self._pieces[b.index][0] for b in chosen)

    def _beyond(self, columns: Sequence[str]) -> int:
        # the text, a copy of it, and all values of the block side by side and one by one
        piece = max((last - first for first, last, _ in self._pieces), default=0)
        return 2 * piece + 2 * max((b.nrows for b in self.blocks), default=0) * self.rowbytes(columns)

    def chunks(self, columns: Sequence[str], block: int, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Columns of a block, at most ``rows`` rows at a time: its text is read once."""
        table = self.read(columns, [block], None)
        for start in range(0, self.blocks[block].nrows, rows):
            yield {name: values[start : start + rows] for name, values in table.items()}

    def chunk_bytes(self, columns: Sequence[str], rows: int) -> int:  # noqa: ARG002
        """The most bytes that `chunks` holds at a time: a block's text, and some 100 bytes a value while parsed."""
        most = max((block.nrows for block in self.blocks), default=0)
        text = max((last - first for first, last, _ in self._pieces), default=0)
        return text + 100 * most * len(columns)

    def _rows(self, columns: Sequence[str], block: Block, start: int, stop: int) -> dict[str, NDArray[Any]]:
        text = [name for name in columns if self.columns[name].dtype.kind != "f"]
        if text:
            raise CatalogueError(
                f"a column of text: file={self.url}, column={text[0]}; only numbers can be read, leave it out"
            )
        first, last, nrows = self._pieces[block.index]
        data = fetch(self.url, first, last)
        places = [list(self.columns).index(name) for name in columns]
        line = int(self._first_lines[block.index])
        try:
            values = np.loadtxt(
                io.BytesIO(data), delimiter=self._head.delimiter, usecols=places, ndmin=2, comments=None,
                encoding="utf-8",
            )  # fmt: skip
        except ValueError:
            values = np.empty((0, len(places)))
        # a field too many or too few somewhere goes unnoticed where it is not in a wanted column: so count them all
        if len(values) != nrows or not _rectangular(data, self._head.delimiter, nrows, len(self.columns)):
            raise _first_mistake(self.url, data, line, self._head.delimiter, list(self.columns), columns)
        return {name: np.ascontiguousarray(values[start:stop, i]) for i, name in enumerate(columns)}


def head_of(url: str, data: bytes) -> Head | None:
    """Read the names and the first row; None where this is no text table."""
    try:
        lines = data.decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:  # a letter that the end of the sample has cut is no mistake
        if len(data) - error.start > 3 or b"\0" in data:
            return None
        lines = data[: error.start].decode("utf-8-sig").splitlines(keepends=True)
    before = 0
    while before < len(lines) and lines[before].startswith("#"):
        before += 1
    if len(lines) < before + 2 or "\0" in lines[before]:
        return None
    title, row = lines[before].strip("\r\n"), lines[before + 1].strip("\r\n")
    delimiter = next((d for d in ("\t", ";", ",") if d in title), None)
    if delimiter is None:
        return None
    names, values = [n.strip().strip('"') for n in title.split(delimiter)], row.split(delimiter)
    if sum(map(_is_number, values)) < 3 or len(values) != len(names):
        return None
    if any(map(_is_number, names)) or "" in names or len(set(names)) < len(names):
        raise CatalogueError(
            f"no line of names: file={url}, line={before + 1}, found={title[:60]!r}; the first line must name columns"
        )
    units = [NAME.fullmatch(name) for name in names]
    columns = {
        unit[1] if unit else name: Column(
            dtype=np.dtype(np.float64) if _is_number(value) else np.dtype(object),
            unit=unit[2] if unit else "",
            description="",
        )
        for name, unit, value in zip(names, units, values, strict=True)
    }
    mark = 3 * data.startswith(b"\xef\xbb\xbf")  # of the byte order, which the decoder took away
    nbytes = mark + len("".join(lines[: before + 1]).encode())
    return Head(columns=columns, delimiter=delimiter, lines=before + 1, nbytes=nbytes)


def open_table(url: str, head: Head) -> CSVTable:
    """Count the rows of a text table and divide it into blocks of whole lines."""
    fs, path = storage.filesystem(url)
    with reading(url, "CSV"):
        size = int(fs.size(path))
        return CSVTable(url, size, head, list(_pieces(url, head.nbytes, size)))


def _pieces(url: str, start: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Ranges of whole lines, and how many lines they hold; empty lines at the end do not count."""
    while start < size:
        data = fetch(url, start, min(start + PIECE, size))
        if start + len(data) < size:
            data = data[: data.rfind(b"\n") + 1]
            if not data:
                raise ValueError(f"a line of more than {PIECE} bytes")
            kept = data
        else:
            kept = data.rstrip()
        if kept:
            yield start, start + len(kept), kept.count(b"\n") + (not kept.endswith(b"\n"))
        start += len(data)


def _rectangular(data: bytes, delimiter: str, nrows: int, ncolumns: int) -> bool:
    return data.count(delimiter.encode()) == nrows * (ncolumns - 1)


def _first_mistake(
    url: str, data: bytes, line: int, delimiter: str, names: Sequence[str], wanted: Sequence[str]
) -> CatalogueError:
    """The first line that is not what it should be."""
    for number, text in enumerate(data.decode("utf-8", "replace").splitlines(), start=line):
        values = text.split(delimiter)
        if len(values) != len(names):
            return CatalogueError(
                f"a line with the wrong number of fields: file={url}, line={number}, fields={len(values)}, "
                f"columns={len(names)}; mend the line"
            )
        for name, value in zip(names, values, strict=True):
            if name in wanted and not _is_number(value):
                return CatalogueError(
                    f"not a number: file={url}, line={number}, column={name}, value={value.strip()[:40]!r}; mend it"
                )
    return CatalogueError(f"file has changed while it was read: file={url}, line={line}; run again")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
