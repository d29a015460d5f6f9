"""Writing GenericIO: one rank in memory at a time, files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from velfield.catalogues.genericio_layout import (
    AXIS_FLAGS,
    BLOCK,
    BLOSC,
    CRC_BYTES,
    FLOAT,
    LARGEST_BLOSC,
    RANK,
    SIGNED,
    VARIABLE,
    Column,
    crc64,
    record,
)
from velfield.errors import CatalogueError
from velfield.files import storage

GLOBAL_BYTES, VARIABLE_BYTES, RANK_BYTES, BLOCK_BYTES = 168, 280, 48, 48
POSITIONS = {f"{stem}{axis}": i for stem in ("", "fof_halo_center_") for i, axis in enumerate("xyz")}
"""The columns that HACC marks as physical coordinates, and their axes."""


def write(
    url: str,
    ranks: Iterable[Mapping[str, NDArray]],
    *,
    dims: tuple[int, int, int],
    boxsize: float,
    partitions: int = 0,
    compress: bool = False,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    positions: Mapping[str, int] = POSITIONS,
) -> tuple[str, ...]:
    """Write a catalogue as GenericIO.

    Parameters
    ----------
    url : str
        Where to; with ``partitions`` the rank map, beside which ``url#0`` and so on hold the data.
    ranks : iterable of {str: ndarray}
        The rows of each rank (rows,) or (rows, components), in rank order: the place of a rank in ``dims`` has z
        running fastest. Taken one at a time, so that a generator needs memory for one rank only.
    dims : tuple of int
        Ranks along x, y, z.
    boxsize : float
        Side of the volume [h⁻¹Mpc].
    partitions : int
        Number of sub-files, over which the ranks are dealt in turn; 0 writes one plain file.
    compress : bool
        Pack each column of each rank with blosc where that makes it smaller.
    origin : tuple of float
        Corner of the volume [h⁻¹Mpc].
    positions : mapping of str to int
        Columns marked as physical coordinates, and their axis; those that are not there are ignored.

    Returns
    -------
    tuple of str
        The files written. They appear when all rows are written, the rank map last.
    """
    nranks = int(np.prod(dims))
    if min(dims) < 1 or not 0 <= partitions <= nranks or not boxsize > 0:
        raise CatalogueError(
            f"no such layout: dims={tuple(dims)}, partitions={partitions}, boxsize={boxsize}; dims and boxsize must be "
            "positive, with at most one partition a rank"
        )
    files = max(1, partitions)
    suffixes = [f"#{p}" for p in range(partitions)] or [""]
    layout = [list(range(p, nranks, files)) for p in range(files)]
    with _published(url, [*suffixes, ""] if partitions else suffixes) as parts:
        writers = [
            _FileWriter(part, of_file, dims, origin, boxsize, compress, positions)
            for part, of_file in zip(parts, layout, strict=False)
        ]
        columns = _write_ranks(url, writers, ranks, nranks)
        for writer in writers:
            writer.finish(columns)
        if partitions:
            _write_map(parts[-1], dims, layout, compress)
    return tuple(url + s for s in ([*suffixes, ""] if partitions else suffixes))


def _write_ranks(
    url: str, writers: Sequence[_FileWriter], ranks: Iterable[Mapping[str, NDArray]], nranks: int
) -> tuple[Column, ...]:
    columns: tuple[Column, ...] | None = None
    count = 0
    for rank, table in enumerate(ranks):
        arrays = {name: np.asarray(values) for name, values in table.items()}
        found = tuple(_column(url, name, values, writers[0].positions) for name, values in arrays.items())
        columns = columns or found
        lengths = {len(values) for values in arrays.values()}
        if found != columns or len(lengths) != 1:
            raise CatalogueError(
                f"rank does not fit the ranks before it: file={url}, rank={rank}, rows={sorted(lengths)}, "
                f"columns={', '.join(arrays)}; all ranks need the same columns and types, all columns the same rows"
            )
        if rank < nranks:
            writers[rank % len(writers)].add(columns, arrays, lengths.pop())
        count += 1
    if columns is None or count != nranks:
        raise CatalogueError(f"wrong number of ranks: file={url}, ranks={count}, expected={nranks}; dims say how many")
    return columns


def _column(url: str, name: str, values: NDArray, positions: Mapping[str, int]) -> Column:
    kind, size = values.dtype.kind, values.dtype.itemsize
    known = size in (4, 8) if kind == "f" else kind in "iu"
    if not known or values.ndim not in (1, 2) or not 0 < len(name.encode()) < 256:
        raise CatalogueError(
            f"column cannot be written: file={url}, column={name}, dtype={values.dtype}, shape={values.shape}; "
            "columns are (rows,) or (rows, components) of integers, float32 or float64"
        )
    flags = {"f": FLOAT | SIGNED, "i": SIGNED, "u": 0}[kind]
    if name in positions:
        flags |= AXIS_FLAGS[positions[name]]
    components = values.shape[1] if values.ndim == 2 else 1
    return Column(name=name, dtype=values.dtype.newbyteorder("="), components=components, flags=flags)


class _FileWriter:
    """One file: room for the header first, then the ranks as they come, then the header."""

    def __init__(
        self,
        file: IO[bytes],
        ranks: Sequence[int],
        dims: tuple[int, int, int],
        origin: tuple[float, float, float],
        scale: float,
        compress: bool,
        positions: Mapping[str, int],
    ) -> None:
        self.file, self.ranks, self.dims, self.origin, self.scale = file, ranks, dims, origin, scale
        self.compress, self.positions = compress, positions
        self.rows: list[int] = []
        self.blocks: list[tuple[bytes, int, int]] = []  # filter, start, size; rank by rank

    def header_bytes(self, columns: Sequence[Column]) -> int:
        """Length of the header without its CRC."""
        n, v = len(self.ranks), len(columns)
        return GLOBAL_BYTES + v * VARIABLE_BYTES + n * RANK_BYTES + (n * v * BLOCK_BYTES if self.compress else 0)

    def add(self, columns: Sequence[Column], table: Mapping[str, NDArray], rows: int) -> None:
        """Append the rows of the next rank."""
        if not self.rows:
            self.file.seek(self.header_bytes(columns) + CRC_BYTES)
        for column in columns:
            values = np.ascontiguousarray(table[column.name], dtype=column.dtype.newbyteorder("<"))
            raw = memoryview(values.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
            packed = self._packed(raw, column.dtype.itemsize) if self.compress else None
            data = raw if packed is None else packed
            self.blocks.append((b"" if packed is None else BLOSC, self.file.tell(), len(data)))
            self.file.write(data)
            self.file.write(_trailer(data))
        self.rows.append(rows)

    def finish(self, columns: Sequence[Column]) -> None:
        """Write the header."""
        n, v, size = len(self.ranks), len(columns), self.header_bytes(columns)
        rankstart = GLOBAL_BYTES + v * VARIABLE_BYTES
        tables = (v, VARIABLE_BYTES, GLOBAL_BYTES, n, RANK_BYTES, rankstart, GLOBAL_BYTES)
        blocks = (BLOCK_BYTES, rankstart + n * RANK_BYTES) if self.compress else (0, 0)
        head = struct.pack("<8s5Q", b"HACC01L", size, sum(self.rows), *self.dims)
        head += struct.pack("<7Q6d2Q", *tables, *self.origin, *[self.scale] * 3, *blocks)
        variables = [(c.name.encode(), c.flags, c.rowbytes, c.dtype.itemsize) for c in columns]
        starts = [start for _, start, _ in self.blocks[::v]]
        coords = [tuple(int(i) for i in np.unravel_index(rank, self.dims)) for rank in self.ranks]
        ranks = list(zip(coords, self.rows, starts, self.ranks, strict=True))
        head += np.array(variables, record(VARIABLE, "<", VARIABLE_BYTES)).tobytes()
        head += np.array(ranks, record(RANK, "<", RANK_BYTES)).tobytes()
        if self.compress:
            stored = [((name, b"", b"", b""), start, length) for name, start, length in self.blocks]
            head += np.array(stored, record(BLOCK, "<", BLOCK_BYTES)).tobytes()
        self.file.seek(0)
        self.file.write(head + _trailer(head))

    def _packed(self, raw: memoryview, element: int) -> bytes | None:
        """CRC of the values and their blosc buffer, or None where that is no smaller."""
        if not 0 < len(raw) <= LARGEST_BLOSC:
            return None
        buffer = blosc.compress(raw, b"blosclz", 9, blosc.SHUFFLE, typesize=element)  # in every build of blosc
        packed = struct.pack("<Q", crc64(raw)) + buffer
        return packed if len(packed) < len(raw) else None


def _trailer(data: bytes | memoryview) -> bytes:
    return struct.pack("<Q", crc64(data) ^ (2**64 - 1))


def _write_map(file: IO[bytes], dims: tuple[int, int, int], layout: Sequence[Sequence[int]], compress: bool) -> None:
    nranks = sum(len(of_file) for of_file in layout)
    rank = np.arange(nranks, dtype=np.int32)
    coords = np.array(np.unravel_index(rank, dims), dtype=np.int32)
    table = {
        "$rank": rank,
        "$partition": rank % np.int32(len(layout)),
        "$x": coords[0],
        "$y": coords[1],
        "$z": coords[2],
    }
    writer = _FileWriter(file, [0], (1, 1, 1), (0.0, 0.0, 0.0), 0.0, compress, {})
    columns = tuple(_column("rank map", name, values, {}) for name, values in table.items())
    writer.add(columns, table, nranks)
    writer.finish(columns)


@contextlib.contextmanager
def _published(url: str, suffixes: Sequence[str]) -> Iterator[list[IO[bytes]]]:
    """Open a part file for each of ``url`` + suffix; without an error in between they get their names, in this order.

    On a local disk a part lies beside its target and is renamed; elsewhere it lies in a temporary folder and is put.
    What stands at ``url`` goes first, so that an old rank map never points at new data.
    """
    fs, path = storage.filesystem(url)
    local = storage.is_local(url)
    if fs.isdir(path):
        raise CatalogueError(f"a folder stands where the file should be: file={url}; choose another name")
    if local:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = "" if local else stack.enter_context(tempfile.TemporaryDirectory())
        token = uuid.uuid4().hex[:8]
        names = [f"{path}{s}.{token}.part" if local else f"{folder}/{i}" for i, s in enumerate(suffixes)]
        if local:
            stack.callback(_remove, names)
        parts: list[IO[bytes]] = [stack.enter_context(open(name, "wb")) for name in names]
        yield parts
        for part in parts:
            part.flush()
            os.fsync(part.fileno())
            part.close()
        if len(suffixes) > 1 and fs.exists(path):
            fs.rm_file(path)
        for name, suffix in zip(names, suffixes, strict=True):
            if local:
                os.replace(name, path + suffix)
            else:
                fs.put_file(name, path + suffix)


def _remove(names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.remove(name)
