"""A snapshot's catalogues in memory: the ranks, columns and values of the release, made as they are asked for.

`velfield.simulation.simulate.simulate` writes these tables, `velfield.simulation.simulate.draw` gives them to be
painted without a file in between: either way the same rows in the same order, so that the same fields are painted from
them. A table holds the snapshot or its halos as they came, and the order of their rows by rank, 4 bytes each; columns
are made range by range.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block
from velfield.catalogues.hacc import COLUMNS, outer_rim_names, redshift_to_step
from velfield.catalogues.table_format import Column, Facts, TableReader
from velfield.catalogues.universe import UNWRITTEN
from velfield.errors import VelfieldError
from velfield.kernel import kernel
from velfield.simulation.gravity import Snapshot
from velfield.simulation.halos import Halos, find_halos, virial_dispersion
from velfield.simulation.simulate_config import SimulateConfig
from velfield.version import __version__

PARTICLE_MASS = 1.85e9  # h⁻¹M⊙, Outer Rim's: a halo's fof_halo_count is its mass in these
PART = 2**20  # rows whose ranks are worked out at a time

Rows = NDArray[np.uint32]
# values of a column: of rows as the snapshot has them, of which the first has this number in the order of the ranks
Values = Callable[[Rows, int], NDArray[Any]]


class DrawnTable(TableReader):
    """Halos or particles of a snapshot in memory; see `velfield.catalogues.table_format.Table`, but for pickling.

    Parameters
    ----------
    kind : str
        ``halos`` or ``particles``.
    snapshot : Snapshot
        Whose redshift and side it has.
    config : SimulateConfig
        What the snapshot was made with.
    pos : ndarray (N, 3)
        Positions [h⁻¹Mpc], by which rows are dealt to the ranks.
    values : mapping of str to callable
        By the release's names, in its order.
    """

    format = "drawn"
    files = ()

    def __init__(
        self, kind: str, snapshot: Snapshot, config: SimulateConfig, pos: NDArray[Any], values: Mapping[str, Values]
    ) -> None:
        step = redshift_to_step(snapshot.redshift)
        self.url = UNWRITTEN + dict(zip(("halos", "particles"), outer_rim_names(step), strict=True))[kind]
        self._values = values
        self._order, self._ends = rows_by_rank(pos, config)
        none = self._order[:0]
        self.columns: Mapping[str, Column] = {
            name: Column(dtype=of(none, 0).dtype, unit=COLUMNS[name][0], description=COLUMNS[name][1])
            for name, of in values.items()
        }
        self.blocks = _blocks(self.url, self._ends, config)
        self.sizes = (len(pos) * self.rowbytes(list(values)),)
        self.facts = Facts(kind=kind, boxsize=config.boxsize, redshift=snapshot.redshift, velocity="comoving")
        about = {"parameters": config.parameters(), "step": step, "kind": kind, "velfield_version": __version__}
        self._digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def stored_bytes(self, columns: Sequence[str], blocks: Sequence[int] | None) -> int:
        """Bytes of these columns: nothing is fetched, they are made."""
        chosen = self.blocks if blocks is None else [self.blocks[b] for b in blocks]
        return self.rowbytes(columns) * sum(block.nrows for block in chosen)

    def fingerprint(self) -> str:
        """SHA-256 of all that the values follow from but the device, on which their rounding depends."""
        return self._digest

    def _rows(self, columns: Sequence[str], block: Block, start: int, stop: int) -> dict[str, NDArray[Any]]:
        first = int(self._ends[block.index]) - block.nrows
        rows = self._order[first + start : first + stop]
        return {name: self._values[name](rows, first + start) for name in columns}


def halo_table(snapshot: Snapshot, config: SimulateConfig) -> DrawnTable:
    """The snapshot's halos, with the columns of the release; velocities are comoving: proper = a · column."""
    halos = drawn_halos(snapshot, config)
    a = np.float32(1 / (1 + snapshot.redshift))

    def dispersion(rows: Rows, _: int) -> NDArray[np.float32]:
        proper = virial_dispersion(halos.mass[rows], config.cosmology, snapshot.redshift)
        return (proper / (1 / (1 + snapshot.redshift))).astype(np.float32)

    values: dict[str, Values] = {
        "fof_halo_count": lambda rows, _: np.floor(halos.mass[rows] / PARTICLE_MASS).astype(np.int32),
        "fof_halo_tag": lambda rows, first: np.arange(first, first + len(rows), dtype=np.int64),
        "fof_halo_mass": lambda rows, _: halos.mass[rows],
    }
    for kind in ("center", "mean"):
        values |= {f"fof_halo_{kind}_{x}": _component(halos.pos, i) for i, x in enumerate("xyz")}
    values |= {f"fof_halo_mean_v{x}": _component(halos.vel, i, a) for i, x in enumerate("xyz")}
    values["fof_halo_vel_disp"] = dispersion
    return DrawnTable("halos", snapshot, config, halos.pos, values)


def particle_table(snapshot: Snapshot, config: SimulateConfig) -> DrawnTable:
    """The snapshot's particles, with the columns of the release; velocities are comoving: proper = a · column."""
    a = np.float32(1 / (1 + snapshot.redshift))
    values: dict[str, Values] = {x: _component(snapshot.pos, i) for i, x in enumerate("xyz")}
    values |= {f"v{x}": _component(snapshot.vel, i, a) for i, x in enumerate("xyz")}
    values["id"] = lambda rows, _: rows.astype(np.int64)
    return DrawnTable("particles", snapshot, config, snapshot.pos, values)


def drawn_halos(snapshot: Snapshot, config: SimulateConfig) -> Halos:
    """The snapshot's halos, in the order in which they are drawn."""
    return find_halos(
        snapshot,
        config.cosmology,
        min_mass=config.min_halo_mass,
        scatter=config.halo_scatter,
        seed=config.seed,
        device=config.device,
    )


def rows_by_rank(pos: NDArray[Any], config: SimulateConfig) -> tuple[Rows, NDArray[np.int64]]:
    """Rows of each rank's cube, z running fastest, one rank after the other; and where each rank's rows end."""
    if len(pos) >= 2**32:
        raise VelfieldError(f"too many halos for 32 bits to number: halos={len(pos)}; take heavier ones")
    rank = np.empty(len(pos), dtype=np.uint16)
    number = math.prod(config.dims)
    counts = np.zeros(number, dtype=np.int64)
    for start in range(0, len(pos), PART):
        part = rank[start : start + PART]
        part[:] = 0
        for axis, n in enumerate(config.dims):
            edges = np.arange(1, n) * (config.boxsize / n)
            block = np.searchsorted(edges, pos[start : start + PART, axis].astype(np.float64), side="right")
            part[:] = part * np.uint16(n) + block.astype(np.uint16)
        counts += np.bincount(part, minlength=number)
    ends = np.cumsum(counts)
    order = np.empty(len(pos), dtype=np.uint32)
    _deal(rank, ends - counts, order)
    return order, ends


def _component(vectors: NDArray[np.float32], axis: int, divisor: np.float32 | None = None) -> Values:
    def values(rows: Rows, _: int) -> NDArray[np.float32]:
        return vectors[rows, axis] if divisor is None else vectors[rows, axis] / divisor

    return values


def _blocks(url: str, ends: NDArray[np.int64], config: SimulateConfig) -> list[Block]:
    """A block for each rank, with the corners of its cube."""
    side = [config.boxsize / n for n in config.dims]
    counts = np.diff(ends, prepend=0)
    blocks = []
    for rank, (i, j, k) in enumerate(np.ndindex(config.dims)):
        lower = (i * side[0], j * side[1], k * side[2])
        upper = (lower[0] + side[0], lower[1] + side[1], lower[2] + side[2])
        blocks.append(Block(index=rank, rank=rank, nrows=int(counts[rank]), lower=lower, upper=upper, url=url))
    return blocks


@kernel
def _deal(rank, places, order):
    """Put the rows of each rank, in their order, from its place in ``places`` on, which is moved."""
    for row in range(len(rank)):
        order[places[rank[row]]] = row
        places[rank[row]] += 1
