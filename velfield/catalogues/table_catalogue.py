"""A catalogue over a table of any format: the one place where units, the scale factor and checks are applied."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block, chosen_blocks
from velfield.catalogues.meaning import Meaning, Source
from velfield.catalogues.table_format import Column, Table
from velfield.errors import CatalogueError, VelfieldError
from velfield.geometry.extent import Extent
from velfield.kernel import kernel
from velfield.painting.tracers import NAMES, Tracers, bring_inside, check_reach, check_tracers

PART = 2**17  # rows: of six float32 columns 3 MB

Item = TypeVar("Item")


class TableCatalogue:
    """Halos or particles in a table; see `velfield.catalogues.catalogue.Catalogue`."""

    def __init__(
        self, table: Table, meaning: Meaning, *, redshift: float | None, boxsize: float | None, outside: str
    ) -> None:
        self._table = table
        self.meaning = meaning
        self.url, self.format, self.files, self.nbytes = table.url, table.format, table.files, table.nbytes
        self.columns: Mapping[str, Column] = table.columns
        self.kind = meaning.kind
        self.blocks: list[Block] = table.blocks
        self.redshift, self.boxsize, self.outside = redshift, boxsize, outside
        self.cosmology = table.facts.cosmology or {}
        self._first_rows = np.concatenate([[0], np.cumsum([b.nrows for b in self.blocks], dtype=np.int64)])

    def __repr__(self) -> str:
        side = "boxsize not stated" if self.boxsize is None else f"boxsize {self.boxsize:g} h⁻¹Mpc"
        redshift = "redshift not stated" if self.redshift is None else f"redshift {self.redshift:.4g}"
        return f"<velfield.Catalogue: {len(self):,} {self.kind}, {side}, {redshift}; {self.format}, {self.url}>"

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 that other values change; see the format's own."""
        return self._table.fingerprint()

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def read(
        self,
        columns: Sequence[str] | None = None,
        blocks: Sequence[int] | None = None,
        rows: tuple[int, int] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Columns as they are stored, rows in the order of the blocks, or some ``rows`` of the one block."""
        return self._table.read(list(self.columns) if columns is None else columns, blocks, rows)

    def stored_bytes(self, columns: Sequence[str] | None = None, blocks: Sequence[int] | None = None) -> int:
        """Bytes that reading these columns of these blocks fetches."""
        return self._table.stored_bytes(list(self.columns) if columns is None else columns, blocks)

    def tracer_columns(self, *, velocities: bool = True, masses: bool = True) -> list[str]:
        """The columns that `tracers` reads; refuses what it would refuse before it reads."""
        self._scales(velocities)
        return list(dict.fromkeys(source.column for source in self._sources(velocities, masses).values()))

    def tracers(
        self,
        blocks: Sequence[int] | None = None,
        rows: tuple[int, int] | None = None,
        *,
        velocities: bool = True,
        masses: bool = True,
    ) -> Tracers:
        """Positions, proper peculiar velocities and masses, each row checked.

        Parameters
        ----------
        blocks, rows : optional
            As in `read`.
        velocities, masses : bool
            Whether they are wanted. Comoving velocities need the redshift: proper is a times them.
        """
        names = self.tracer_columns(velocities=velocities, masses=masses)
        table = self._table.read(names, blocks, rows)
        parts = chosen_blocks(self.url, self.blocks, blocks)
        found = self._tracers(table, [(part, *(rows or (0, part.nrows))) for part in parts], velocities, masses)
        if len(parts) == len(self.blocks) and rows is None:
            check_reach(found.extent, boxsize=self.boxsize, where=f"file={self.url}")
        return found

    def chunks(self, block: int, *, rows: int, velocities: bool = True, masses: bool = True) -> Iterator[Tracers]:
        """A block's tracers, in order, fetched by ``rows`` rows at a time; the next are fetched while the caller works.

        What is fetched is given out in parts of at most `PART` rows, small enough to stay in the processor's cache from
        the first look at them to the last. Where a checksum covers the whole block, as in GenericIO, a `DamagedError`
        may come as late as with the last.
        """
        (chosen,) = chosen_blocks(self.url, self.blocks, [block])
        names = self.tracer_columns(velocities=velocities, masses=masses)
        start = 0
        for table in _one_ahead(self._table.chunks(names, block, rows)):
            fetched = len(table[names[0]])
            for first in range(0, fetched, PART):
                part = {name: values[first : first + PART] for name, values in table.items()}
                stop = min(first + PART, fetched)
                yield self._tracers(part, [(chosen, start + first, start + stop)], velocities, masses)
            start += fetched

    def chunk_bytes(self, rows: int, *, velocities: bool = True, masses: bool = True) -> int:
        """The most bytes that `chunks` holds at a time in any block.

        The part that the caller has and the next one, the columns that they are made of, and those that come next.
        """
        names = self.tracer_columns(velocities=velocities, masses=masses)
        most = min(rows, max((block.nrows for block in self.blocks), default=0))
        of_a_row = 8 * (3 + 3 * velocities + (masses and self.kind == "halos"))  # float64 at the widest
        of_columns = sum(self.columns[name].dtype.itemsize for name in names)
        return 2 * min(most, PART) * of_a_row + most * of_columns + self._table.chunk_bytes(names, rows)

    def _tracers(
        self,
        table: Mapping[str, NDArray[Any]],
        parts: Sequence[tuple[Block, int, int]],
        velocities: bool,
        masses: bool,
    ) -> Tracers:
        """What columns as stored mean; ``parts`` are the blocks, and the rows of each, that they hold."""
        sources = self._sources(velocities, masses)
        scale = self._scales(velocities)
        pos = _columns(table, [sources[name] for name in NAMES[:3]], scale["length"])
        if any(self._table.facts.origin):
            pos -= np.asarray(self._table.facts.origin, dtype=pos.dtype)
        vel = _columns(table, [sources[name] for name in NAMES[3:6]], scale["speed"]) if velocities else None
        mass = _columns(table, [sources["mass"]], 1.0)[:, 0] if "mass" in sources else None
        found = Tracers(pos=pos, vel=vel, mass=mass, extent=Extent.of(pos))
        self._check(found, parts, [source.column for source in sources.values()])
        return bring_inside(found, boxsize=self.boxsize, outside=self.outside)

    def _sources(self, velocities: bool, masses: bool) -> dict[str, Source]:
        """Where positions and what else is wanted come from."""
        halos = self.kind == "halos"
        names = NAMES[:3] + (NAMES[3:6] if velocities else ()) + (NAMES[6:] if masses and halos else ())
        missing = [name for name in names if name not in self.meaning.sources]
        if missing:
            raise CatalogueError(
                f"missing columns: file={self.url}, kind={self.kind}, missing={' '.join(missing)}; "
                f"say which they are (columns=, --{self.kind[:-1]}-column {missing[0]}=NAME), "
                f"the file has {', '.join(self.columns)}"
            )
        return {name: self.meaning.sources[name] for name in names}

    def _scales(self, velocities: bool) -> dict[str, float]:
        """What turns the file's frame into comoving lengths and proper velocities."""
        frame = self.meaning.velocity if velocities else "proper"
        if frame is None and self.redshift != 0:
            raise VelfieldError(
                f"it is not said whether velocities are comoving or proper: file={self.url}, redshift={self.redshift}; "
                f"give velocity (--{self.kind[:-1]}-velocity on the command line)"
            )
        if self.redshift is None and "comoving" in (frame, None):
            raise VelfieldError(
                f"velocities need the redshift, which the files do not hold: file={self.url}, redshift=None; "
                "give redshift (--redshift on the command line)"
            )
        if self.redshift is None and self.meaning.length == "proper":
            raise VelfieldError(
                f"proper lengths need the redshift: file={self.url}, redshift=None; give redshift (--redshift)"
            )
        a = 1 / (1 + (self.redshift or 0.0))
        return {
            "speed": a if frame == "comoving" else 1.0,
            "length": 1 / a if self.meaning.length == "proper" else 1.0,
        }

    def _check(self, tracers: Tracers, parts: Sequence[tuple[Block, int, int]], columns: list[str]) -> None:
        """Look at every row, a block at a time, so that an error names the block."""
        names = columns[:3] + (columns[3:6] if tracers.vel is not None else list(NAMES[3:6])) + columns[-1:]
        at = 0
        for block, start, stop in parts:
            part = slice(at, at + stop - start)
            check_tracers(
                Tracers(
                    pos=tracers.pos[part],
                    vel=None if tracers.vel is None else tracers.vel[part],
                    mass=None if tracers.mass is None else tracers.mass[part],
                ),
                boxsize=self.boxsize,
                where=f"file={block.url}, rank={block.rank}",
                first_row=int(self._first_rows[block.index]) + start,
                names=names,
                outside=self.outside,
                whole=stop - start == len(self),
            )
            at = part.stop


def _columns(table: Mapping[str, NDArray[Any]], sources: Sequence[Source], scale: float) -> NDArray[Any]:
    """Columns side by side, in our units."""
    columns = [table[s.column] if s.component is None else table[s.column][:, s.component] for s in sources]
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1:
        shapes = ", ".join(f"{s.column}={column.shape}" for s, column in zip(sources, columns, strict=True))
        raise CatalogueError(f"columns that are not of the same rows: {shapes}; give one number a row, for all rows")
    kind = np.result_type(*columns)
    kind = kind if kind in (np.float32, np.float64) else np.dtype(np.float64)
    factors = np.array([source.factor * scale for source in sources], dtype=kind)
    found = np.empty((len(columns[0]), len(columns)), dtype=kind)
    if len(columns) == 3:
        x, y, z = (np.ascontiguousarray(column, dtype=kind) for column in columns)
        _side_by_side(x, y, z, factors, found)
    else:
        with np.errstate(over="ignore"):  # infinity is refused with its row
            for i, column in enumerate(columns):
                np.multiply(column, factors[i], out=found[:, i], casting="unsafe")
    return found


@kernel
def _side_by_side(x, y, z, factors, found):
    for i in range(len(found)):
        found[i, 0], found[i, 1], found[i, 2] = x[i] * factors[0], y[i] * factors[1], z[i] * factors[2]


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield items, the next being made in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item
