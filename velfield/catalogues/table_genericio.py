"""GenericIO as a table: HACC's units, and what HACC's files say of themselves; by blocks, and row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues import genericio, hacc
from velfield.catalogues.blocks import Block
from velfield.catalogues.table_format import Column, Facts, no_numbers
from velfield.catalogues.table_text import ROWS


class GenericIOTable:
    """A GenericIO file, plain or partitioned; see `velfield.catalogues.table_format.Table`."""

    format = "GenericIO"

    def __init__(self, gio: genericio.GenericIO) -> None:
        self._gio = gio
        self.url, self.files, self.nbytes = gio.url, gio.files, gio.nbytes
        self.columns: Mapping[str, Column] = {name: _meaning(column) for name, column in gio.columns.items()}
        self.blocks = [_from_corner(block, gio.origin) for block in gio.blocks]
        names = set(self.columns)
        halos = any(set(n) <= names for n in (hacc.CENTRES, hacc.MEANS)) or hacc.HALO_MASS in names
        particles = set(hacc.POSITIONS) <= names and not halos
        self.facts = Facts(
            kind="halos" if halos else "particles" if particles else None,
            boxsize=gio.boxsize,
            redshift_of_name=hacc.redshift_of_name(gio.url),
            velocity="comoving",
            origin=gio.origin,
        )

    def read(
        self, columns: Sequence[str], blocks: Sequence[int] | None, rows: tuple[int, int] | None
    ) -> dict[str, NDArray[Any]]:
        """Columns as they are stored; see `genericio.GenericIO.read`."""
        return self._gio.read(columns, blocks, rows)

    def chunks(self, columns: Sequence[str], block: int, rows: int) -> Iterator[dict[str, NDArray[Any]]]:
        """Columns of a block, at most ``rows`` rows at a time, in order; see `genericio.GenericIO.chunks`."""
        return self._gio.chunks(columns, block, rows)

    def chunk_bytes(self, columns: Sequence[str], rows: int) -> int:
        """The most bytes that `chunks` holds at a time in any block."""
        return self._gio.chunk_bytes(columns, rows)

    def stored_bytes(self, columns: Sequence[str], blocks: Sequence[int] | None) -> int:
        """Bytes that reading them fetches."""
        return self._gio.stored_bytes(columns, blocks)

    def fingerprint(self) -> str:
        """SHA-256 of the headers and of some stored CRCs; see `genericio.GenericIO.fingerprint`."""
        return self._gio.fingerprint()


def open_table(url: str) -> GenericIOTable:
    """Open a GenericIO file; unchanged headers are not read again in the same process."""
    return GenericIOTable(genericio.open_again(url))


class GenericIORows:
    """The rows of a GenericIO file in global rank order; see `velfield.catalogues.table_rows.Source`.

    Of a compressed rank the columns are unpacked whole, and its rows given out in parts.
    """

    format = "GenericIO"

    def __init__(self, url: str) -> None:
        self._table = open_table(url)
        self.url, self.facts = self._table.url, self._table.facts
        self.nrows: int | None = sum(block.nrows for block in self._table.blocks)
        self.columns: Mapping[str, Column] = {
            name: dataclasses.replace(column, unit=_ascii(column)) for name, column in self._table.columns.items()
        }

    def parts(self, rows: int = ROWS) -> Iterator[GenericIOPart]:
        """The table in parts of at most ``rows`` rows, in order."""
        for block in self._table.blocks:
            for table in self._table.chunks(list(self.columns), block.index, rows):
                part = GenericIOPart(self, table)
                if len(part):
                    yield part


class GenericIOPart:
    """Rows of a GenericIO file, as arrays by name."""

    def __init__(self, source: GenericIORows, table: dict[str, NDArray[Any]]) -> None:
        self.raw, self._source = table, source

    def __len__(self) -> int:
        return len(next(iter(self.raw.values()), ()))

    def numbers(self, name: str, component: int | None = None) -> NDArray[np.float64]:
        """A column, or a component of it, as numbers (N,)."""
        dtype = self._source.columns[name].dtype
        if dtype.base.kind not in "fiu":
            raise no_numbers(self._source.url, name, str(dtype))
        values = self.raw[name] if component is None else self.raw[name][:, component]
        return values.astype(np.float64)

    def column(self, name: str) -> NDArray[Any]:
        """A column as it is stored, in native byte order."""
        return self.raw[name]


def _ascii(column: Column) -> str:
    """A unit in letters that every format has, which says of a speed that it is comoving."""
    return {hacc.LENGTH: "Mpc/h", hacc.MASS: "Msun/h", hacc.SPEED: "comoving km/s", "1": ""}.get(
        column.unit, column.unit
    )


def _meaning(column: genericio.Column) -> Column:
    unit, description = hacc.COLUMNS.get(column.name, ("", ""))
    dtype = column.dtype if column.components == 1 else np.dtype((column.dtype, (column.components,)))
    return Column(dtype=dtype, unit=unit, description=description)


def _from_corner(block: Block, origin: tuple[float, float, float]) -> Block:
    if block.lower is None or block.upper is None or not any(origin):
        return block
    lower, upper = ((x - a, y - b, z - c) for (x, y, z) in (block.lower, block.upper) for (a, b, c) in [origin])
    return dataclasses.replace(block, lower=lower, upper=upper)
