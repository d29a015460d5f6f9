"""What a reader of a table format gives: columns, blocks of rows, and what the file says of itself.

A reader knows its format and nothing of halos, units or redshifts' meaning: that is
`velfield.catalogues.table_catalogue`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block, check_names, chosen_blocks, row_range
from velfield.errors import CatalogueError, VelfieldError
from velfield.files import storage

BLOCK_ROWS = 2**20  # rows of a block where the format has none: some 30 MB of what is painted
NOT_STATED = "not stated"  # a unit that is none, where a column without one is not in ours
SAMPLE = 64 * 1024  # bytes at the beginning, the middle and the end of a file that a fingerprint covers
WHOLE = 8 * 2**20  # bytes; smaller files are covered from end to end


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: type of a value (of a row's values where it is a vector), unit ("" where unknown), meaning."""

    dtype: np.dtype[Any]
    unit: str
    description: str

    @property
    def written_unit(self) -> str:
        """The unit to be written with it; "" where there is none."""
        return "" if self.unit == NOT_STATED else self.unit


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file says of itself; None where it does not.

    Parameters
    ----------
    kind : str, optional
        ``halos`` or ``particles``.
    boxsize : float, optional
        Side of the volume [h⁻¹Mpc].
    redshift, h : float, optional
        Of the snapshot; the Hubble parameter.
    cosmology : mapping of str to float, optional
        The numbers of a cosmology, by the names of `velfield.catalogues.universe.STATED`, as far as they are stated.
    redshift_of_name : float, optional
        What the file's name says, which counts only where neither file nor user does.
    velocity, length : str, optional
        ``comoving`` or ``proper``.
    origin : tuple of float
        Corner of the volume [the positions' unit].
    lightcone : bool
        Whether the rows were seen by an observer, each at its own time; redshift and box are then not theirs.
    """

    kind: str | None = None
    boxsize: float | None = None
    redshift: float | None = None
    h: float | None = None
    cosmology: Mapping[str, float] | None = None
    redshift_of_name: float | None = None
    velocity: str | None = None
    length: str | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lightcone: bool = False


class Table(Protocol):
    """An open table, whatever the format. Holds headers only, and pickles.

    Attributes
    ----------
    url, format : str
        Where it is, and the name of the format.
    files : tuple of str
        All its files.
    columns : mapping of str to Column
        By the file's own names, in its order.
    blocks : list of Block
        Parts that are read alone.
    facts : Facts
        What the file says of itself.
    """

    url: str
    format: str
    files: tuple[str, ...]
    columns: Mapping[str, Column]
    blocks: list[Block]
    facts: Facts

    @property
    def nbytes(self) -> int:
        """Size of all its files."""

    def read(
        self, columns: Sequence[str], blocks: Sequence[int] | None, rows: tuple[int, int] | None
    ) -> dict[str, NDArray[Any]]:
        """Columns in native byte order, rows in the order of ``blocks``, or some ``rows`` of the one block."""

    def chunks(self, columns: Sequence[str], block: int, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """A block in ranges of at most ``rows`` rows, in order; an empty block may give one empty range."""

    def chunk_bytes(self, columns: Sequence[str], rows: int) -> int:
        """The most bytes that `chunks` holds at a time in any block, what it gives out included."""

    def stored_bytes(self, columns: Sequence[str], blocks: Sequence[int] | None) -> int:
        """Bytes that reading them fetches."""

    def fingerprint(self) -> str:
        """Hex SHA-256 that a copy keeps wherever it lies, and that other values change."""


class TableReader:
    """What readers of tables share: which rows are asked for, and results put together block by block.

    A reader sets the attributes of `Table` and has ``_rows``, which reads some rows of one block.
    """

    url: str
    files: tuple[str, ...]
    columns: Mapping[str, Column]
    blocks: list[Block]
    sizes: tuple[int, ...]

    def _rows(self, columns: Sequence[str], block: Block, start: int, stop: int) -> dict[str, NDArray[Any]]:
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Size of all files."""
        return sum(self.sizes)

    def read(
        self, columns: Sequence[str], blocks: Sequence[int] | None, rows: tuple[int, int] | None
    ) -> dict[str, NDArray[Any]]:
        """Columns in native byte order, rows in the order of ``blocks``, or some ``rows`` of the one block."""
        check_names(self.url, self.columns, columns)
        chosen = chosen_blocks(self.url, self.blocks, blocks)
        span = row_range(chosen, rows)
        parts = [self._rows(columns, block, *(span or (0, block.nrows))) for block in chosen]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in columns}

    def chunks(self, columns: Sequence[str], block: int, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Columns of a block, at most ``rows`` rows at a time, in order."""
        check_names(self.url, self.columns, columns)
        (chosen,) = chosen_blocks(self.url, self.blocks, [block])
        for start in range(0, chosen.nrows, rows):
            yield self._rows(columns, chosen, start, min(start + rows, chosen.nrows))

    def chunk_bytes(self, columns: Sequence[str], rows: int) -> int:
        """The most bytes that `chunks` holds at a time in any block, the range given out included."""
        most = min(rows, max((block.nrows for block in self.blocks), default=0))
        return 2 * most * self.rowbytes(columns) + self._beyond(columns)

    def rowbytes(self, columns: Sequence[str]) -> int:
        """Bytes of a row of these columns, as they are given out."""
        check_names(self.url, self.columns, columns)
        return sum(self.columns[name].dtype.itemsize for name in columns)

    def _beyond(self, columns: Sequence[str]) -> int:  # noqa: ARG002 - what is held does not always depend on it
        """Bytes that reading holds beyond the values of the range."""
        return 0

    def fingerprint(self) -> str:
        """SHA-256 of the files' sizes and of samples of them."""
        return fingerprint_of(self.files, self.sizes)


def row_blocks(url: str, nrows: int, *, first: int = 0, size: int = BLOCK_ROWS) -> list[Block]:
    """Even blocks of at most ``size`` rows, numbered from ``first``, for a table whose rows are in no order."""
    count = max(1, -(-nrows // size))
    edges = [nrows * i // count for i in range(count + 1)]
    return [
        Block(index=first + i, rank=first + i, nrows=edges[i + 1] - edges[i], lower=None, upper=None, url=url)
        for i in range(count)
    ]


def fingerprint_of(files: Sequence[str], sizes: Sequence[int]) -> str:
    """SHA-256 of all files' sizes and of samples of up to 16 of them, which are the whole of small ones."""
    digest = hashlib.sha256(repr(list(sizes)).encode())
    for i in sorted({round(i) for i in np.linspace(0, len(files) - 1, 16)}):
        size = sizes[i]
        starts = [0] if size <= WHOLE else [0, size // 2, size - SAMPLE]
        length = size if size <= WHOLE else SAMPLE
        for start in starts:
            digest.update(fetch(files[i], start, start + length))
    return digest.hexdigest()


@contextlib.contextmanager
def reading(url: str, form: str) -> Iterator[None]:
    """Turn what a library raises at a file that is not as it should be into our error."""
    try:
        yield
    except (VelfieldError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise CatalogueError(f"no such file: file={url}; {storage.did_you_mean(url)}check the path") from error
    except Exception as error:  # there is no end to what libraries raise at damaged files
        if "can't start new thread" in str(error):  # for want of memory for its stack
            raise MemoryError(str(error)) from error
        reason = " ".join(str(error).split())
        raise CatalogueError(
            f"file cannot be read as {form}: file={url}, reason={reason}; copy the file again, or make it again"
        ) from error


def no_numbers(url: str, name: str, kind: str) -> CatalogueError:
    """The error of a column that is wanted as numbers and has none."""
    return CatalogueError(
        f"not a single number a row: file={url}, column={name}, type={kind}; name another (columns=, --column)"
    )


def fetch(url: str, start: int, stop: int) -> bytes:
    """A range of a file's bytes, all of it."""
    _, path = storage.filesystem(url)
    (data,) = storage.read_ranges(url, [path], [start], [stop])
    with reading(url, "a table"):
        if isinstance(data, BaseException):
            raise data
        if len(data) < stop - start:
            raise ValueError("it has become shorter")
    return bytes(data)
