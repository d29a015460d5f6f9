"""A miniature Outer Rim: particle and halo catalogues of a universe of one's own, in the release's names and units.

`evolve` and `halos_of` give a universe in memory, `simulate` writes one. A snapshot is taken at the exact a of the
Outer Rim step that is nearest to the redshift asked for, because the file's name says that step:
a = 1/201 + (200/201)·(step + 1)/500. Ranks are equal cubes. docs/accuracy.md says what to expect of the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield import genericio, storage
from velfield.errors import VelfieldError
from velfield.gravity import Snapshot, leapfrog, linear_density
from velfield.hacc import outer_rim_names, redshift_to_step, step_to_redshift
from velfield.halos import Halos, find_halos, virial_dispersion
from velfield.progress import Progress, Silent
from velfield.simulate_config import SimulateConfig
from velfield.universe import RECORD
from velfield.version import __version__

__all__ = [
    "PARTICLE_MASS",
    "SimulateConfig",
    "SimulationResult",
    "SnapshotFiles",
    "evolve",
    "halos_of",
    "simulate",
    "step_schedule",
]

PARTICLE_MASS = 1.85e9  # h⁻¹M⊙, Outer Rim's: a halo's fof_halo_count is its mass in these
PARTITIONS = 8  # files of a catalogue, at most
BEGUN = "simulation.begun.json"
Table = dict[str, NDArray[Any]]


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

    Interrupted, it begins again; finished, it does nothing. Another universe at the same place is refused.
    """
    record, begun = storage.join(url, RECORD), storage.join(url, BEGUN)
    for path in (record, begun):
        if storage.exists(path):
            _check_same(url, storage.read_json(path)["parameters"], config.parameters())
    if storage.exists(record):
        return _result(url, storage.read_json(record)["snapshots"], already_there=True)
    _refuse_without_halos(config)
    storage.write_json(begun, {"parameters": config.parameters()})
    written = [_write(url, snapshot, config, progress) for snapshot in evolve(config, progress)]
    about = {"velfield_version": __version__, "parameters": config.parameters(), "snapshots": written}
    storage.write_json(record, about)
    storage.remove(begun)
    return _result(url, written, already_there=False)


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
    for leg in schedule:  # between two snapshots the caller reports stages of its own
        progress.start(f"gravity to z = {leg[-1]:.4g}", len(leg), "steps")
        for _ in leg:
            snapshot = next(moving)
            progress.advance()
        if snapshot is not None:  # the last step of a leg ends in one
            yield snapshot
    progress.done()


def halos_of(snapshot: Snapshot, config: SimulateConfig) -> Iterator[Halos]:
    """The snapshot's halos, rank by rank."""
    halos = find_halos(
        snapshot,
        config.cosmology,
        min_mass=config.min_halo_mass,
        scatter=config.halo_scatter,
        seed=config.seed,
        device=config.device,
    )
    for rows in _by_rank(halos.pos, config):
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


def _by_rank(pos: NDArray[Any], config: SimulateConfig) -> Iterator[NDArray[np.int64]]:
    """Rows of each rank's cube, z running fastest."""
    rank = np.zeros(len(pos), dtype=np.uint16)
    for axis, n in enumerate(config.dims):
        edges = np.arange(1, n) * (config.boxsize / n)
        block = np.searchsorted(edges, pos[:, axis].astype(np.float64), side="right")
        rank = rank * np.uint16(n) + block.astype(np.uint16)
    order = np.argsort(rank, kind="stable")
    ends = np.cumsum(np.bincount(rank, minlength=math.prod(config.dims)))
    yield from np.split(order, ends[:-1])


def _write(url: str, snapshot: Snapshot, config: SimulateConfig, progress: Progress) -> dict[str, Any]:
    """Write one snapshot's two catalogues; return what the record says of it."""
    step = redshift_to_step(snapshot.redshift)
    names = outer_rim_names(step)
    ranks = math.prod(config.dims)
    numbers = []
    tables = (_halo_tables(snapshot, config), _particle_tables(snapshot, config))
    for name, label, columns in zip(names, ("halos", "particles"), tables, strict=True):
        progress.start(f"write {label}, z = {snapshot.redshift:.4g}", ranks, "ranks")
        count = 0

        def counted(columns: Iterator[Table] = columns) -> Iterator[Table]:
            nonlocal count
            for table in columns:
                count += len(next(iter(table.values())))
                yield table
                progress.advance()

        genericio.write(
            storage.join(url, name),
            counted(),
            dims=config.dims,
            boxsize=config.boxsize,
            partitions=min(PARTITIONS, ranks),
        )
        numbers.append(count)
    return {
        "step": step,
        "redshift": snapshot.redshift,
        "halos": names[0],
        "particles": names[1],
        "nhalos": numbers[0],
        "nparticles": numbers[1],
    }


def _halo_tables(snapshot: Snapshot, config: SimulateConfig) -> Iterator[Table]:
    """Columns of the release's halo catalogues; its velocities are comoving: proper = a · column."""
    a = 1 / (1 + snapshot.redshift)
    first = 0
    for halos in halos_of(snapshot, config):
        places = {f"fof_halo_{kind}_{x}": halos.pos[:, i] for kind in ("center", "mean") for i, x in enumerate("xyz")}
        dispersion = virial_dispersion(halos.mass, config.cosmology, snapshot.redshift)
        yield {
            "fof_halo_count": np.floor(halos.mass / PARTICLE_MASS).astype(np.int32),
            "fof_halo_tag": np.arange(first, first + len(halos.mass), dtype=np.int64),
            "fof_halo_mass": halos.mass,
            **places,
            **{f"fof_halo_mean_v{x}": halos.vel[:, i] / np.float32(a) for i, x in enumerate("xyz")},
            "fof_halo_vel_disp": (dispersion / a).astype(np.float32),
        }
        first += len(halos.mass)


def _particle_tables(snapshot: Snapshot, config: SimulateConfig) -> Iterator[Table]:
    """Columns of the release's particle files; its velocities are comoving: proper = a · column."""
    a = np.float32(1 / (1 + snapshot.redshift))
    for rows in _by_rank(snapshot.pos, config):
        pos, vel = snapshot.pos[rows], snapshot.vel[rows] / a
        yield {
            **{x: pos[:, i] for i, x in enumerate("xyz")},
            **{f"v{x}": vel[:, i] for i, x in enumerate("xyz")},
            "id": rows.astype(np.int64),
        }


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
