"""GenericIO, the file format of HACC simulations: reading over fsspec, and writing.

Pure format: columns, ranks and numbers as they are stored. What they mean is in `velfield.catalogues.catalogue`, the
records of a header in `velfield.catalogues.genericio_layout`, fetching and decoding in
`velfield.catalogues.genericio_read`. Only the wanted columns of the wanted blocks are fetched.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block, check_names, chosen_blocks, row_range
from velfield.catalogues.genericio_layout import CRC_BYTES, Column, Header
from velfield.catalogues.genericio_read import (
    BATCH,
    Piece,
    Running,
    check_packed,
    check_part,
    check_ranks,
    fetch,
    files_state,
    read_headers,
    suffix,
)
from velfield.catalogues.genericio_write import write
from velfield.errors import CatalogueError
from velfield.files import storage

__all__ = ["Block", "Column", "GenericIO", "open", "open_again", "write"]


class GenericIO:
    """An open catalogue file; a partitioned one is one object. Holds headers only, and pickles."""

    def __init__(
        self, url: str, headers: Sequence[Header], ranks: Sequence[NDArray[np.int64]], *, cartesian: bool, top: Header
    ) -> None:
        first = headers[0]
        self.url = url
        self.headers = tuple(headers)
        self.columns: dict[str, Column] = {c.name: c for c in first.columns}
        self.dims, self.origin, self.scale = first.dims, first.origin, first.scale
        self.boxsize = first.scale[0] if first.scale[0] > 0 and len(set(first.scale)) == 1 else None
        everything = self.headers if first is top else (top, *self.headers)
        self.files = tuple(h.url for h in everything)
        self.nbytes = sum(h.filebytes for h in everything)
        places = sorted((int(rank), f, r) for f, of_file in enumerate(ranks) for r, rank in enumerate(of_file))
        self._places = [(f, r) for _, f, r in places]
        self.blocks = [self._block(i, *place, cartesian=cartesian) for i, place in enumerate(places)]
        self.nrows = sum(b.nrows for b in self.blocks)

    def _block(self, index: int, rank: int, f: int, r: int, *, cartesian: bool) -> Block:
        header = self.headers[f]
        lower = upper = None
        if cartesian and min(header.scale) > 0 and min(header.dims) > 0:
            sides = np.array(header.scale) / header.dims
            low = np.array(header.origin) + header.coords[r] * sides
            lower, upper = _triple(low), _triple(low + sides)
        return Block(index=index, rank=rank, nrows=int(header.nrows[r]), lower=lower, upper=upper, url=header.url)

    def read(
        self,
        columns: Sequence[str] | None = None,
        blocks: Sequence[int] | None = None,
        rows: tuple[int, int] | None = None,
        *,
        check: bool = True,
    ) -> dict[str, NDArray]:
        """Read columns, rows in the order of ``blocks``.

        Parameters
        ----------
        columns : sequence of str, optional
            All by default.
        blocks : sequence of int, optional
            Places in ``self.blocks``; all by default, which is global rank order.
        rows : (start, stop), optional
            A range of rows within the one block given. Of uncompressed data just these bytes are fetched, and the CRC,
            which covers the whole block, is not checked.
        check : bool
            Whether to check the CRCs.

        Returns
        -------
        dict of str to ndarray (rows,), or (rows, components) for vector columns
            In native byte order.
        """
        names = list(self.columns) if columns is None else list(columns)
        check_names(self.url, self.columns, names)
        chosen = chosen_blocks(self.url, self.blocks, blocks)
        inside = row_range(chosen, rows)
        span = None if inside is None else slice(*inside)
        order = {name: v for v, name in enumerate(self.columns)}
        for block in chosen:
            f, r = self._places[block.index]
            check_packed(self.url, self.headers[f], block.rank, r, [order[name] for name in names])
        total = sum(b.nrows for b in chosen) if span is None else span.stop - span.start
        out = {name: _empty(self, self.columns[name], total) for name in names}
        for piece, values in fetch(self.url, self.headers, self._pieces(names, chosen, span, check)):
            out[piece.column.name][piece.at] = values
        return out

    def chunks(self, columns: Sequence[str] | None, block: int, rows: int) -> Iterator[dict[str, NDArray]]:
        """Read one block in ranges of at most ``rows`` rows, each byte once, as `read` does; arrays may be read-only.

        The CRC covers a whole column: it is checked with the last range, so that what a caller made of the ranges
        counts only when the iteration has ended. A compressed block is read whole and given out in ranges.

        Raises
        ------
        DamagedError
            With the last range, where a CRC does not match.
        """
        names = list(self.columns) if columns is None else list(columns)
        check_names(self.url, self.columns, names)
        (chosen,) = chosen_blocks(self.url, self.blocks, [block])
        f, r = self._places[chosen.index]
        if chosen.nrows == 0 or self.headers[f].compressed[r].any():
            whole = self.read(names, [block])
            for start in range(0, max(chosen.nrows, 1), rows):
                yield {name: values[start : start + rows] for name, values in whole.items()}
            return
        running = {name: Running() for name in names}
        for start in range(0, chosen.nrows, rows):
            span = slice(start, min(start + rows, chosen.nrows))
            pieces = self._pieces(names, [chosen], span, check=True, running=running)
            found = {p.column.name: _native(values) for p, values in fetch(self.url, self.headers, pieces)}
            yield {name: found[name] for name in names}

    def chunk_bytes(self, columns: Sequence[str], rows: int) -> int:
        """The most bytes that `chunks` holds at a time in any block: a range, and a copy where bytes must be swapped.

        Of a compressed block that is all of its values, and a batch of its stored bytes.
        """
        check_names(self.url, self.columns, columns)
        rowbytes = sum(self.columns[name].rowbytes for name in columns)
        packed = [h.nrows[h.compressed.any(axis=1)] for h in self.headers]
        most_packed = max((int(n.max()) for n in packed if len(n)), default=0)
        most = max((b.nrows for b in self.blocks), default=0)
        largest = max((self.columns[name].rowbytes for name in columns), default=0)
        as_it_lies = all(np.dtype(h.order + "f8").isnative for h in self.headers) and largest <= 4
        batch = max(BATCH, most_packed * largest)
        return max((2 - as_it_lies) * min(rows, most) * rowbytes, most_packed * rowbytes + batch if most_packed else 0)

    def stored_bytes(self, columns: Sequence[str] | None = None, blocks: Sequence[int] | None = None) -> int:
        """Bytes that `read` fetches for these columns and blocks."""
        check_names(self.url, self.columns, columns or ())
        wanted = [v for v, name in enumerate(self.columns) if columns is None or name in columns]
        places = [self._places[b.index] for b in chosen_blocks(self.url, self.blocks, blocks)]
        return sum(int(self.headers[f].sizes[r, wanted].sum()) + CRC_BYTES * len(wanted) for f, r in places)

    def fingerprint(self) -> str:
        """SHA-256 of the headers and of the stored CRCs of each file's first and last block with rows.

        The same for a copy elsewhere or under another name; another for other values in these blocks.
        """
        fs, path = storage.filesystem(self.url)
        asked = []
        for header in self.headers:
            filled = np.flatnonzero(header.nrows)
            ends = header.starts + header.sizes
            name = path + header.url[len(self.url) :]
            asked += [(name, int(end)) for r in sorted({*filled[:1], *filled[-1:]}) for end in ends[r]]
        trailers = fs.cat_ranges(
            [a[0] for a in asked], [a[1] for a in asked], [a[1] + CRC_BYTES for a in asked], on_error="raise"
        )
        digest = hashlib.sha256()
        for part in (*(h.digest for h in self.headers), struct.pack("<Q", self.nrows), *trailers):
            digest.update(part)
        return digest.hexdigest()

    def _pieces(
        self,
        names: Sequence[str],
        chosen: Sequence[Block],
        span: slice | None,
        check: bool,
        running: Mapping[str, Running] | None = None,
    ) -> Iterator[Piece]:
        order = {name: v for v, name in enumerate(self.columns)}
        at = 0
        for block in chosen:
            f, r = self._places[block.index]
            header = self.headers[f]
            rows = slice(0, block.nrows) if span is None else span
            upto = at + rows.stop - rows.start
            for name in sorted(set(names), key=order.__getitem__):
                v, column = order[name], self.columns[name]
                start, size = int(header.starts[r, v]), int(header.sizes[r, v])
                packed = bool(header.compressed[r, v])
                part = span is not None and not packed and rows.stop - rows.start < block.nrows
                first, last = start, start + size + CRC_BYTES
                if part:
                    first, last = start + rows.start * column.rowbytes, start + rows.stop * column.rowbytes
                    if running is not None and rows.stop == block.nrows:
                        last += CRC_BYTES
                yield Piece(
                    file=f, start=first, stop=last, compressed=packed, checked=check and not part, column=column,
                    rank=block.rank, nrows=block.nrows, rows=rows, at=slice(at, upto),
                    running=running[name] if running and part else None,
                )  # fmt: skip
            at = upto


def open(url: str) -> GenericIO:
    """Open a plain or partitioned GenericIO file.

    Parameters
    ----------
    url : str
        Any fsspec URL or path. Of a partitioned catalogue it is the rank map, whose data lie in ``url#0`` and so on.

    Raises
    ------
    CatalogueError
        Where a file is missing, truncated, damaged, or no GenericIO file; names it.
    """
    url = os.fspath(url)
    (top,) = read_headers(url, [""])
    names = {c.name for c in top.columns}
    alone = [np.arange(len(top.nrows)) if top.ranks is None else top.ranks]
    # Ranks without a topology are stored as N×1×1, which then says nothing about space.
    spatial = top.dims[0] == 1 or top.dims[1:] != (1, 1)
    plain = GenericIO(url, [top], alone, cartesian=spatial, top=top)
    if not {"$rank", "$partition"} <= names:
        check_ranks(url, alone)
        return plain
    for name in ("$rank", "$partition"):
        if plain.columns[name].components != 1 or plain.columns[name].dtype.kind not in "iu":
            raise CatalogueError(
                f"rank map with other than one whole number a row: file={url}, column={name}, "
                f"type={plain.columns[name].dtype}, components={plain.columns[name].components}; make the file again"
            )
    table = plain.read(["$rank", "$partition"])
    parts = np.unique(table["$partition"])
    headers = read_headers(url, [suffix(url, int(p)) for p in parts])
    listed = [np.sort(table["$rank"][table["$partition"] == p]).astype(np.int64) for p in parts]
    ranks = [there if h.ranks is None else h.ranks for h, there in zip(headers, listed, strict=True)]
    for header, there, of_file in zip(headers, listed, ranks, strict=True):
        check_part(url, header, headers[0], there, of_file)
    check_ranks(url, ranks)
    return GenericIO(url, headers, ranks, cartesian={"$x", "$y", "$z"} <= names, top=top)


_opened: dict[str, tuple[object, GenericIO]] = {}  # by url, with the state its files were in


def open_again(url: str) -> GenericIO:
    """Open as `open` does, but take the headers from memory where the files are as they were."""
    url = os.fspath(url)
    state, gio = _opened.get(url, (None, None))
    if gio is None or state is None or state != files_state(gio.files):
        gio = open(url)
        if len(_opened) >= 16:
            _opened.clear()
        _opened[url] = (files_state(gio.files), gio)
    return gio


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return (x, y, z)


def _native(values: NDArray) -> NDArray:
    """Values in native byte order and aligned, as compiled loops want them; the same array if they are."""
    if not values.dtype.isnative:
        return values.astype(values.dtype.newbyteorder("="))
    return values if values.flags.aligned else values.copy()


def _empty(gio: GenericIO, column: Column, total: int) -> NDArray:
    try:
        return np.empty((total, column.components) if column.components > 1 else total, column.dtype)
    except (MemoryError, ValueError) as error:
        raise CatalogueError(
            f"column does not fit in memory: file={gio.url}, column={column.name}, rows={total}; read fewer blocks"
        ) from error
