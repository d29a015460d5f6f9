"""A miniature Outer Rim: particle and halo catalogues of a universe of one's own, in the release's names and units.

`evolve` and `halos_of` give a universe in memory, `draw` its catalogues to paint from, `simulate` writes them. A
snapshot is taken at the exact a of the Outer Rim step that is nearest to the redshift asked for, because the file's
name says that step: a = 1/201 + (200/201)·(step + 1)/500. Ranks are equal cubes. docs/accuracy.md says what to expect
of the result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues import genericio
from velfield.catalogues.hacc import outer_rim_names, redshift_to_step, step_to_redshift
from velfield.catalogues.universe import RECORD
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.files.progress import Progress, Silent
from velfield.simulation.drawn import PARTICLE_MASS, DrawnTable, drawn_halos, halo_table, particle_table, rows_by_rank
from velfield.simulation.gravity import Snapshot, leapfrog, linear_density
from velfield.simulation.halos import Halos
from velfield.simulation.simulate_config import SimulateConfig
from velfield.version import __version__

__all__ = [
    "PARTICLE_MASS",
    "SimulateConfig",
    "SimulationResult",
    "SnapshotFiles",
    "draw",
    "evolve",
    "halos_of",
    "simulate",
    "step_schedule",
]

PARTITIONS = 8  # files of a catalogue, at most
BEGUN = "simulation.begun.json"


@dataclass(frozen=True, kw_only=True)
class SnapshotFiles:
    """One snapshot on disk: URLs, exact redshift and numbers."""

    step: int
    redshift: float
    halos: str
    particles: str
    nhalos: int
    nparticles: int


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """What lies at ``url``; ``already_there`` if it did before."""

    url: str
    snapshots: tuple[SnapshotFiles, ...]
    already_there: bool


def simulate(url: str, config: SimulateConfig, progress: Progress = Silent()) -> SimulationResult:  # noqa: B008
    """Write a universe's snapshots as partitioned GenericIO beneath ``url``, and ``url/simulation.json`` last.

    Interrupted and called again, it keeps the snapshots that it has written and computes gravity anew for the others;
    finished, it does nothing. Another universe at the same place is refused.
    """
    record, begun = storage.join(url, RECORD), storage.join(url, BEGUN)
    for path in (record, begun):
        if storage.exists(path):
            _check_same(url, storage.read_json(path)["parameters"], config.parameters())
    if storage.exists(record):
        return _result(url, storage.read_json(record)["snapshots"], already_there=True)
    _refuse_without_halos(config)
    written = _written_before(url, begun)
    storage.write_json(begun, {"parameters": config.parameters(), "snapshots": list(written.values())})
    if len(written) < len(config.outer_rim_steps):
        for snapshot in evolve(config, progress):
            step = redshift_to_step(snapshot.redshift)
            if step in written:
                continue
            written[step] = _write(url, snapshot, config, progress)
            storage.write_json(begun, {"parameters": config.parameters(), "snapshots": list(written.values())})
    snapshots = [written[step] for step in config.outer_rim_steps]
    about = {"velfield_version": __version__, "parameters": config.parameters(), "snapshots": snapshots}
    storage.write_json(record, about)
    storage.remove(begun)
    return _result(url, snapshots, already_there=False)


def _written_before(url: str, begun: str) -> dict[int, dict[str, Any]]:
    """What an earlier call that was interrupted says of its snapshots, by step: those whose catalogues are there."""
    said = storage.read_json(begun).get("snapshots", []) if storage.exists(begun) else []
    there = [one for one in said if all(storage.exists(storage.join(url, one[n])) for n in ("halos", "particles"))]
    return {one["step"]: one for one in there}


def _refuse_without_halos(config: SimulateConfig) -> None:
    for step in config.outer_rim_steps:
        redshift = step_to_redshift(step)
        expected = config.cosmology.halo_density(config.min_halo_mass, redshift) * config.boxsize**3
        if expected < 1:
            raise VelfieldError(
                f"too small a volume to have a halo: boxsize={config.boxsize:g}, "
                f"min_halo_mass={config.min_halo_mass:g}, redshift={redshift:.4g}, halos expected={expected:.2g}; "
                "take a larger one, lighter halos, or a later snapshot"
            )


def evolve(config: SimulateConfig, progress: Progress = Silent()) -> Iterator[Snapshot]:  # noqa: B008
    """Run the universe; yield its snapshots, earliest first."""
    progress.start("initial conditions", 1, "field")
    delta = linear_density(config.cosmology, config.boxsize, config.particles, config.seed, config.device)
    progress.advance()
    schedule = step_schedule(config)
    moving = leapfrog(
        delta,
        config.cosmology,
        config.boxsize,
        start=config.start_redshift,
        schedule=schedule,
        mesh=config.force_mesh,
    )
    del delta
    for leg in schedule:  # between two snapshots the caller reports stages of its own
        progress.start(f"gravity to z = {leg[-1]:.4g}", len(leg), "steps")
        for _ in leg:
            snapshot = next(moving)
            progress.advance()
        if snapshot is not None:  # the last step of a leg ends in one
            yield snapshot
            del snapshot
    progress.done()


def draw(
    config: SimulateConfig,
    steps: Collection[int],
    progress: Progress = Silent(),  # noqa: B008
) -> Iterator[tuple[int, dict[str, DrawnTable]]]:
    """Run the universe as far as these Outer Rim steps and yield each with its snapshot's tables, earliest first.

    Halos and particles, by kind, are what `simulate` would write, value by value. They hold the snapshot: let them go
    before the next.
    """
    _refuse_without_halos(config)
    left = set(steps)
    snapshots = evolve(config, progress)
    while left:
        snapshot = next(snapshots)
        step = redshift_to_step(snapshot.redshift)
        if step in left:
            left.remove(step)
            progress.start(f"draw halos, z = {snapshot.redshift:.4g}", 1, "snapshot")
            tables = {"halos": halo_table(snapshot, config), "particles": particle_table(snapshot, config)}
            progress.advance()
            progress.done(f"{len(tables['halos']):,} halos")
            yield step, tables
            del tables
        del snapshot  # it makes room for what comes


def halos_of(snapshot: Snapshot, config: SimulateConfig) -> Iterator[Halos]:
    """The snapshot's halos, rank by rank."""
    halos = drawn_halos(snapshot, config)
    order, ends = rows_by_rank(halos.pos, config)
    for rows in np.split(order, ends[:-1]):
        yield Halos(pos=halos.pos[rows], vel=halos.vel[rows], mass=halos.mass[rows])


def step_schedule(config: SimulateConfig) -> list[list[float]]:
    """Redshifts at the ends of the steps, for each leg that ends with a snapshot."""
    begin = 1 / (1 + config.start_redshift)
    z = [step_to_redshift(step) for step in config.outer_rim_steps]
    ends = [1 / (1 + v) for v in z]
    legs = []
    for redshift, first, last in zip(z, [begin, *ends], ends, strict=False):
        number = max(1, round(config.steps * (last - first) / (ends[-1] - begin)))
        legs.append([*(1 / np.linspace(first, last, number + 1)[1:-1] - 1).tolist(), redshift])
    return legs


def _write(url: str, snapshot: Snapshot, config: SimulateConfig, progress: Progress) -> dict[str, Any]:
    """Write one snapshot's two catalogues; return what the record says of it."""
    step = redshift_to_step(snapshot.redshift)
    names = dict(zip(("halos", "particles"), outer_rim_names(step), strict=True))
    numbers = {}
    for kind, make in (("halos", halo_table), ("particles", particle_table)):
        table = make(snapshot, config)
        progress.start(f"write {kind}, z = {snapshot.redshift:.4g}", len(table.blocks), "ranks")
        genericio.write(
            storage.join(url, names[kind]),
            _ranks(table, progress),
            dims=config.dims,
            boxsize=config.boxsize,
            partitions=min(PARTITIONS, len(table.blocks)),
        )
        numbers[f"n{kind}"] = len(table)
        del table
    return {"step": step, "redshift": snapshot.redshift, **names, **numbers}


def _ranks(table: DrawnTable, progress: Progress) -> Iterator[dict[str, NDArray[Any]]]:
    for block in table.blocks:
        yield table.read(list(table.columns), [block.index], None)
        progress.advance()


def _check_same(url: str, there: dict[str, Any], asked: dict[str, Any]) -> None:
    different = [f"{name}={there.get(name)}" for name, value in asked.items() if there.get(name) != value]
    if different:
        raise VelfieldError(
            f"another simulation is there: url={url}, {', '.join(different)}; "
            "ask for these parameters, or choose another place, or remove it"
        )


def _result(url: str, written: list[dict[str, Any]], *, already_there: bool) -> SimulationResult:
    return SimulationResult(
        url=url,
        snapshots=tuple(
            SnapshotFiles(**s | {name: storage.join(url, s[name]) for name in ("halos", "particles")}) for s in written
        ),
        already_there=already_there,
    )
