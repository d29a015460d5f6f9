"""The bytes of GenericIO files: headers and columns fetched by exact ranges over fsspec, checked and decoded."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from velfield.catalogues.genericio_layout import CRC_BYTES, CRC_OF_WHOLE, Column, Header, crc64, header_bytes, parse
from velfield.errors import CatalogueError, DamagedError, VelfieldError
from velfield.files import storage

FIRST_READ = 32 * 1024  # bytes; holds the header of any Outer Rim sub-file
RANGE = 8 * 2**20  # bytes of one request, if its columns are no longer: they are still in the cache when decoded
BATCH = 16 * RANGE  # bytes fetched at once from a file system that answers requests side by side
GAP = 64  # two ranges become one if at most a 64th of what is fetched lies between: a request costs more than that
DAMAGED = 2  # more fetches of a column whose CRC is wrong, before that is believed
SETTLED = 3.0  # s; a file untouched for so long shows any later change in its time


@dataclass(kw_only=True)
class Running:
    """CRC of a column of which one range after the other is read; ``done`` is the number of rows that it covers."""

    crc: int = 0
    done: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """One column of one block: the bytes to fetch and where their values go.

    Parameters
    ----------
    file, start, stop : int
        Which file, and the range of its bytes; with the trailing CRC unless these are some rows of raw data.
    compressed, checked : bool
        Whether the bytes are packed, and whether to check the CRC.
    column : Column
        Whose values they are.
    rank, nrows : int
        The block's number in the job and all its rows.
    rows : slice
        The wanted rows of the block.
    at : slice
        Their place among all the rows that are read.
    running : Running, optional
        The CRC so far, of a column that is read range by range.
    """

    file: int
    start: int
    stop: int
    compressed: bool
    checked: bool
    column: Column
    rank: int
    nrows: int
    rows: slice
    at: slice
    running: Running | None = None


def suffix(url: str, partition: int) -> str:
    """What a sub-file's name adds to the rank map's; in a web address a bare ``#`` would end the path."""
    return f"%23{partition}" if url.startswith(("http://", "https://")) else f"#{partition}"


def read_headers(url: str, suffixes: list[str], again: int = DAMAGED) -> list[Header]:
    """Read the headers of ``url`` + suffix, all at once where the file system can; a damaged one once more."""
    fs, path = storage.filesystem(url)
    paths = [path + s for s in suffixes]
    urls = [url + s for s in suffixes]
    prefixes = storage.read_ranges(url, paths, [0] * len(paths), [FIRST_READ] * len(paths), whole=False)
    for name, prefix in zip(urls, prefixes, strict=True):
        raise_unread(name, prefix)
    sizes = fs.sizes(paths)
    found = []
    for name, one, prefix, size in zip(urls, paths, prefixes, sizes, strict=True):
        try:
            length = header_bytes(name, prefix, size)
            rest = b"" if length <= len(prefix) else fs.cat_file(one, start=len(prefix), end=length)
            found.append(parse(name, prefix[:length] + rest, size))
        except CatalogueError:
            if again == 0 or storage.is_local(url):
                raise
            found += read_headers(url, [name[len(url) :]], again - 1)
    return found


def raise_unread(url: str, result: Any) -> None:
    """Turn what a file system gave instead of bytes into our error."""
    if isinstance(result, VelfieldError):
        raise result
    if isinstance(result, FileNotFoundError):
        meant = "" if "#" in url else storage.did_you_mean(url)
        raise CatalogueError(
            f"no such file: file={url}; {meant}check the path, and copy all of a catalogue's # files"
        ) from result
    if isinstance(result, BaseException):
        raise CatalogueError(
            f"file cannot be read: file={url}, reason={result}; check path and permissions"
        ) from result


def files_state(urls: Sequence[str]) -> object:
    """What changes when the files do; None where that cannot be told.

    On a local disk inode, size and time of all files; a time just past is no proof, for its clock may tick slowly.
    Elsewhere tag and time of the first, which a writer writes last.
    """
    fs, path = storage.filesystem(urls[0])
    if storage.is_local(urls[0]):
        stats = [os.stat(path + url[len(urls[0]) :]) for url in urls if storage.exists(url)]
        settled = len(stats) == len(urls) and all(abs(time.time() - s.st_mtime) > SETTLED for s in stats)
        return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in stats] if settled else None
    try:
        found = fs.info(path)
    except FileNotFoundError:
        return None
    state = [found.get(key) for key in ("ETag", "LastModified", "size")]
    return None if state[0] is None or state[1] is None else state


def check_part(url: str, header: Header, first: Header, listed: NDArray[np.int64], ranks: NDArray[np.int64]) -> None:
    """Refuse a sub-file that holds other ranks than the map says, or is of another run than the first."""
    if len(header.nrows) != len(listed) or not np.array_equal(np.sort(ranks), listed):
        raise CatalogueError(
            f"rank map and sub-file do not belong together: map={url}, file={header.url}, ranks_in_map={len(listed)}, "
            f"ranks_in_file={len(header.nrows)}; copy map and sub-files from one run"
        )
    if (header.columns, header.dims, header.scale) != (first.columns, first.dims, first.scale):
        raise CatalogueError(
            f"sub-files differ in columns, ranks or box: file={header.url}, other={first.url}; copy all from one run"
        )


def check_ranks(url: str, ranks: Sequence[NDArray[np.int64]]) -> None:
    """Refuse sub-files that share a rank."""
    numbers, counts = np.unique(np.concatenate(ranks), return_counts=True)
    if (counts > 1).any():
        raise CatalogueError(
            f"a rank occurs twice: file={url}, rank={numbers[counts > 1][0]}; copy map and sub-files from one run"
        )


def batches(pieces: Iterator[Piece], limit: int) -> Iterator[list[Piece]]:
    """Group pieces so that the bytes of a group stay below ``limit``, or are one piece."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if batch and size + piece.stop - piece.start > limit:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece.stop - piece.start
    if batch:
        yield batch


def check_packed(url: str, header: Header, rank: int, r: int, columns: Sequence[int]) -> None:
    """Ask compressed blocks that claim to grow more than 256-fold what they unpack to, before memory is."""
    expected = {v: int(header.nrows[r]) * header.columns[v].rowbytes for v in columns}
    asked = [v for v in columns if header.compressed[r, v] and expected[v] > 256 * int(header.sizes[r, v])]
    if not asked:
        return
    _, path = storage.filesystem(url)
    starts = [int(header.starts[r, v]) + 12 for v in asked]
    paths = [path + header.url[len(url) :]] * len(asked)
    found = storage.read_ranges(url, paths, starts, [start + 4 for start in starts])
    for v, data in zip(asked, found, strict=True):
        raise_unread(header.url, data)
        if int.from_bytes(data, "little") != expected[v]:
            raise CatalogueError(
                f"compressed block does not fit its rows: file={header.url}, rank={rank}, "
                f"column={header.columns[v].name}, bytes={int.from_bytes(data, 'little')}, expected={expected[v]}; "
                "make the file again"
            )


def fetch(url: str, headers: Sequence[Header], pieces: Iterator[Piece]) -> Iterator[tuple[Piece, NDArray]]:
    """Fetch the pieces' bytes, a batch at a time; yields each piece with its values, checked.

    Values are (rows,) or (rows, components), in the file's byte order, and where they lie raw a read-only view of what
    was fetched. A batch has 128 MiB, or 8 on a local disk, where requests gain nothing from company.
    """
    _, path = storage.filesystem(url)
    paths = [path + h.url[len(url) :] for h in headers]
    for batch in batches(pieces, RANGE if storage.is_local(url) else BATCH):
        yield from _fetch(url, paths, headers, batch)


def ranges_of(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Group pieces that are fetched in one request: neighbours, or nearly so, of up to `RANGE` bytes together."""
    ranges: list[list[Piece]] = []
    wanted = 0  # bytes of the last range that a piece asks for
    for piece in sorted(pieces, key=lambda p: (p.file, p.start)):
        last, size = ranges[-1] if ranges else [], piece.stop - piece.start
        if last and last[-1].file == piece.file and piece.stop - last[0].start <= RANGE:
            unwanted = piece.stop - last[0].start - wanted - size
            if 0 <= unwanted <= (wanted + size) // GAP:
                last.append(piece)
                wanted += size
                continue
        ranges.append([piece])
        wanted = size
    return ranges


def _fetch(
    url: str, paths: Sequence[str], headers: Sequence[Header], batch: list[Piece], again: int = DAMAGED
) -> Iterator[tuple[Piece, NDArray]]:
    """Fetch a batch and decode it; what is damaged once more, for it may have happened on the way."""
    ranges = ranges_of(batch)
    found = storage.read_ranges(
        url, [paths[r[0].file] for r in ranges], [r[0].start for r in ranges], [r[-1].stop for r in ranges]
    )
    for together in ranges:
        data = found.pop(0)
        header = headers[together[0].file]
        raise_unread(header.url, data)
        view = memoryview(data)
        for piece in together:
            try:
                values = _decode(header, piece, view[piece.start - together[0].start : piece.stop - together[0].start])
            except CatalogueError:
                if again == 0 or piece.running is not None or storage.is_local(url):
                    raise
                yield from _fetch(url, paths, headers, [piece], again - 1)
            else:
                yield piece, values


def _decode(header: Header, piece: Piece, data: memoryview) -> NDArray:
    """Check the stored bytes of a piece; returns its values."""
    where = f"file={header.url}, rank={piece.rank}, column={piece.column.name}"
    if len(data) < piece.stop - piece.start:
        raise CatalogueError(f"file has become shorter: {where}; copy the file again")
    if piece.running is not None:
        piece.running.crc, piece.running.done = crc64(data, piece.running.crc), piece.rows.stop
        damaged = piece.running.done == piece.nrows and piece.running.crc != CRC_OF_WHOLE
    else:
        damaged = piece.checked and crc64(data) != CRC_OF_WHOLE
    if damaged:
        raise DamagedError(f"data are damaged, their CRC does not match: {where}; copy the file again")
    count = piece.nrows if piece.compressed else piece.rows.stop - piece.rows.start
    raw: Any = data
    if piece.compressed:
        raw = _decompress(header, piece, data[:-CRC_BYTES], where)
    kind = piece.column.dtype.newbyteorder(header.order)  # type: ignore[arg-type]
    values = np.frombuffer(raw, kind, count * piece.column.components)
    if piece.column.components > 1:
        values = values.reshape(count, piece.column.components)
    return values[piece.rows] if piece.compressed else values


def _decompress(header: Header, piece: Piece, data: memoryview, where: str) -> bytes:
    """Undo blosc: a CRC of the raw bytes, then the buffer."""
    expected = piece.nrows * piece.column.rowbytes
    stated, _, stored = struct.unpack_from("<3I", data, 12) if len(data) >= 24 else (0, 0, 0)
    if (stated, stored) != (expected, len(data) - 8):
        raise CatalogueError(
            f"compressed block does not fit its rows: {where}, bytes={stated}, expected={expected}; make the file again"
        )
    try:
        raw = bytes(blosc.decompress(data[8:]))
    except (RuntimeError, ValueError) as error:
        raise CatalogueError(
            f"compressed block cannot be unpacked: {where}, reason={error}; copy the file again"
        ) from error
    if piece.checked and crc64(raw) != struct.unpack_from(header.order + "Q", data)[0]:
        raise CatalogueError(f"unpacked data are damaged, their CRC does not match: {where}; make the file again")
    return raw
