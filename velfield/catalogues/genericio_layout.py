"""GenericIO on disk: the records of one file's header, where its data lie, and the checksum.

Nothing here opens a file: bytes in, tables out. docs/catalogues.md describes the format. Counts and sizes in a header
are believed only as far as the size of the file allows.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

import fastcrc
import numpy as np
from numpy.typing import NDArray

from velfield.errors import CatalogueError

BYTE_ORDERS = {b"HACC01L\0": "<", b"HACC01B\0": ">"}  # by magic
CRC_BYTES = 8
CRC_OF_WHOLE = 2**64 - 1  # of data followed by their own trailer, the bitwise NOT of their CRC-64/XZ
LARGEST_HEADER = 2**30  # bytes; 250,000 ranks of 13 compressed columns need a sixth of it
FLOAT, SIGNED = 1, 2
AXIS_FLAGS = (4, 8, 16)  # the column is a physical coordinate along x, y, z
BLOSC = b"BLOSC"
LARGEST_BLOSC = 2**31 - 17  # bytes that one buffer can unpack to

VARIABLE = (("name", "S256", 0), ("flags", "u8", 256), ("size", "u8", 264), ("element", "u8", 272))
RANK = (("coords", "3u8", 0), ("nrows", "u8", 24), ("start", "u8", 32), ("rank", "u8", 40))
BLOCK = (("filters", "4S8", 0), ("start", "u8", 32), ("size", "u8", 40))


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the table.

    Parameters
    ----------
    name : str
        As the file has it.
    dtype : numpy.dtype
        Of one element, in native byte order; void where the file's flags and sizes name no number.
    components : int
        Elements in a row; a column of several reads as (rows, components).
    flags : int
        The file's own: 1 float, 2 signed, 4, 8, 16 physical coordinate x, y, z, 32 may hold ghosts.
    """

    name: str
    dtype: np.dtype
    components: int = 1
    flags: int = 0

    @property
    def rowbytes(self) -> int:
        """Bytes of a row, uncompressed."""
        return self.dtype.itemsize * self.components


@dataclass(frozen=True, kw_only=True, eq=False)
class Header:
    """What the header of one file says; arrays are by rank in the file (R) and by column (V).

    Parameters
    ----------
    url : str
        The file.
    order : {"<", ">"}
        Byte order, ``<`` or ``>``.
    filebytes : int
        Size of the file.
    dims : tuple of int
        Ranks of the whole job along x, y, z.
    origin, scale : tuple of float
        Corner and extent of the whole volume [h⁻¹Mpc]; a scale of 0 is unset.
    columns : tuple of Column
        In the file's order.
    coords : ndarray (R, 3)
        Place of each rank in ``dims``.
    nrows : ndarray (R,)
        Rows of each rank.
    ranks : ndarray (R,) or None
        Number of each rank in the whole job; None where the records are too short to say.
    starts, sizes : ndarray (R, V)
        Place and length of each column's stored bytes, the CRC behind them not counted.
    compressed : ndarray (R, V)
        Whether these bytes are a blosc buffer.
    digest : bytes
        SHA-256 of the header.
    """

    url: str
    order: str
    filebytes: int
    dims: tuple[int, int, int]
    origin: tuple[float, float, float]
    scale: tuple[float, float, float]
    columns: tuple[Column, ...]
    coords: NDArray[np.int64] = field(repr=False)
    nrows: NDArray[np.int64] = field(repr=False)
    ranks: NDArray[np.int64] | None = field(repr=False)
    starts: NDArray[np.int64] = field(repr=False)
    sizes: NDArray[np.int64] = field(repr=False)
    compressed: NDArray[np.bool_] = field(repr=False)
    digest: bytes = field(repr=False)


def crc64(data: bytes | memoryview, before: int = 0) -> int:
    """CRC-64/XZ, of data that follow others whose CRC is ``before``."""
    return int(fastcrc.crc64.xz(data, before))


def record(fields: tuple[tuple[str, str, int], ...], order: str, size: int) -> np.dtype:
    """Layout of a record of ``size`` bytes with those fields that lie inside it."""
    formats = {name: f"{kind[0]}{order}{kind[1:]}" if kind[0].isdigit() else order + kind for name, kind, _ in fields}
    there = [(name, at) for name, _, at in fields if at + np.dtype(formats[name]).itemsize <= size]
    return np.dtype(
        {
            "names": [name for name, _ in there],
            "formats": [formats[name] for name, _ in there],
            "offsets": [at for _, at in there],
            "itemsize": size,
        }
    )


def header_bytes(url: str, prefix: bytes, filebytes: int) -> int:
    """Length of the header with its CRC, from the file's first bytes."""
    order = BYTE_ORDERS.get(prefix[:8])
    if order is None:
        raise CatalogueError(
            f"not a GenericIO file: file={url}, first_bytes={prefix[:8]!r}; "
            "a GenericIO file begins with HACC01L or HACC01B"
        )
    stated = struct.unpack_from(order + "Q", prefix, 8)[0] + CRC_BYTES if len(prefix) >= 16 else filebytes + 1
    if not 112 + CRC_BYTES <= stated <= min(filebytes, LARGEST_HEADER):
        raise CatalogueError(
            f"header is truncated or damaged: file={url}, header_bytes={stated}, file_bytes={filebytes}; "
            "copy the file again"
        )
    return int(stated)


def parse(url: str, head: bytes, filebytes: int) -> Header:
    """Read a whole header, its CRC included, after checking it."""
    order = BYTE_ORDERS[head[:8]]
    if crc64(head) != CRC_OF_WHOLE:
        raise CatalogueError(f"header is damaged, its CRC does not match: file={url}; copy the file again")
    total, *dims = struct.unpack_from(order + "4Q", head, 16)
    nvars, varsize, varstart, nranks, ranksize, rankstart, globalsize = struct.unpack_from(order + "7Q", head, 48)
    globalsize = min(globalsize, len(head) - CRC_BYTES)
    origin, scale = [
        struct.unpack_from(order + "3d", head, at) if globalsize >= at + 24 else (0.0, 0.0, 0.0) for at in (104, 128)
    ]
    blocksize, blockstart = struct.unpack_from(order + "2Q", head, 152) if globalsize >= 168 else (0, 0)
    variables = _table(url, head, order, "variables", VARIABLE, (varstart, varsize, nvars), 272)
    ranks = _table(url, head, order, "ranks", RANK, (rankstart, ranksize, nranks), 40)
    columns = tuple(_column(url, row) for row in variables)
    if len({c.name for c in columns}) < len(columns):
        raise CatalogueError(f"two columns have the same name: file={url}; write the file with other names")
    nrows = _rows(url, ranks["nrows"], columns, total)
    if blockstart:
        blocks = _table(url, head, order, "blocks", BLOCK, (blockstart, blocksize, nranks * nvars), 48)
        starts, sizes, compressed = _stored(url, blocks.reshape(nranks, nvars), nrows, columns)
    else:
        starts, sizes, compressed = _contiguous(ranks["start"], nrows, columns)
    header = Header(
        url=url,
        order=order,
        filebytes=filebytes,
        dims=(dims[0], dims[1], dims[2]),
        origin=origin,
        scale=scale,
        columns=columns,
        coords=ranks["coords"].astype(np.int64),
        nrows=nrows,
        ranks=ranks["rank"].astype(np.int64) if ranksize >= 48 else None,
        starts=starts.astype(np.int64),
        sizes=sizes.astype(np.int64),
        compressed=compressed,
        digest=hashlib.sha256(head).digest(),
    )
    _check_fits(header, starts, sizes)
    return header


def _table(
    url: str,
    head: bytes,
    order: str,
    name: str,
    fields: tuple[tuple[str, str, int], ...],
    place: tuple[int, int, int],
    least: int,
) -> NDArray:
    start, size, count = place
    if not least <= size <= len(head) or start + size * count > len(head) - CRC_BYTES:
        raise CatalogueError(
            f"header is inconsistent: file={url}, table={name}, start={start}, record_bytes={size}, records={count}, "
            f"header_bytes={len(head)}; this is not what a GenericIO writer leaves, make the file again"
        )
    return np.frombuffer(head, record(fields, order, size), count, start)


def _printable(data: bytes) -> str:
    """Text of a file's own, with what would move a terminal's cursor or begin a new line spelled out."""
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _column(url: str, row: np.void) -> Column:
    name = _printable(bytes(row["name"]).split(b"\0")[0])
    flags, size = int(row["flags"]), int(row["size"])
    element = int(row["element"]) if "element" in (row.dtype.names or ()) else size
    if not 0 < element <= size < 2**31 or size % element:
        raise CatalogueError(
            f"column has an impossible size: file={url}, column={name}, row_bytes={size}, element_bytes={element}; "
            "make the file again"
        )
    if flags & FLOAT:
        dtype = np.dtype(f"f{element}") if element in (4, 8) else np.dtype(f"V{element}")
    else:
        kind = "i" if flags & SIGNED else "u"
        dtype = np.dtype(f"{kind}{element}") if element in (1, 2, 4, 8) else np.dtype(f"V{element}")
    return Column(name=name, dtype=dtype, components=size // element, flags=flags)


def _rows(url: str, nrows: NDArray, columns: tuple[Column, ...], total: int) -> NDArray[np.int64]:
    """Rows of each rank, small enough that no product with a row's bytes overflows."""
    rowbytes = max(1, sum(c.rowbytes for c in columns))
    largest = max((int(n) for n in nrows), default=0)
    if largest * rowbytes >= 2**62 or sum(int(n) for n in nrows) != total:
        raise CatalogueError(
            f"row counts are inconsistent: file={url}, rows={total}, rows_of_ranks={sum(int(n) for n in nrows)}, "
            f"largest_rank={largest}; make the file again"
        )
    return nrows.astype(np.int64)


def _stored(
    url: str, blocks: NDArray, nrows: NDArray[np.int64], columns: tuple[Column, ...]
) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
    """Places and sizes out of a block table, after looking at its filters."""
    filters = blocks["filters"]
    compressed = filters[..., 0] == BLOSC
    unknown = ~(compressed | (filters[..., 0] == b"")) | (filters[..., 1:] != b"").any(axis=-1)
    if unknown.any():
        r, v = np.argwhere(unknown)[0]
        names = "+".join(_printable(f) for f in filters[r, v] if f)
        raise CatalogueError(
            f"unknown filter: file={url}, rank={r} of the file, column={columns[v].name}, filter={names}; "
            "only raw and BLOSC blocks can be read"
        )
    expected = nrows[:, None] * np.array([c.rowbytes for c in columns], dtype=np.int64)
    wrong = np.where(compressed, expected > LARGEST_BLOSC, blocks["size"] != expected.astype(np.uint64))
    if wrong.any():
        r, v = np.argwhere(wrong)[0]
        raise CatalogueError(
            f"size of a block does not fit its rows: file={url}, rank={r} of the file, column={columns[v].name}, "
            f"stored_bytes={blocks['size'][r, v]}, expected={expected[r, v]}; make the file again"
        )
    return blocks["start"], blocks["size"], compressed


def _contiguous(
    start: NDArray, nrows: NDArray[np.int64], columns: tuple[Column, ...]
) -> tuple[NDArray, NDArray, NDArray[np.bool_]]:
    """Places and sizes without a block table: a rank's columns follow each other, each with its CRC."""
    sizes = (nrows[:, None] * np.array([c.rowbytes for c in columns], dtype=np.int64)).astype(np.uint64)
    before = np.zeros_like(sizes)
    before[:, 1:] = np.cumsum(sizes[:, :-1] + np.uint64(CRC_BYTES), axis=1)
    with np.errstate(over="ignore"):
        starts = start.astype(np.uint64)[:, None] + before
    starts = np.where(starts < before, np.uint64(2**64 - 1), starts)  # an absurd start wrapped around
    return starts, sizes, np.zeros(sizes.shape, dtype=bool)


def _check_fits(header: Header, starts: NDArray, sizes: NDArray) -> None:
    room = np.uint64(max(0, header.filebytes - CRC_BYTES))
    beyond = (starts > room) | (sizes > room - np.minimum(starts, room))
    if beyond.any():
        r, v = np.argwhere(beyond)[0]
        rank = r if header.ranks is None else header.ranks[r]
        raise CatalogueError(
            f"file is truncated: file={header.url}, rank={rank}, column={header.columns[v].name}, "
            f"needs_bytes={int(starts[r, v]) + int(sizes[r, v]) + CRC_BYTES}, file_bytes={header.filebytes}; "
            "copy the file again"
        )
