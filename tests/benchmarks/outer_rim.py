"""Write catalogues of Outer Rim's shape: its volume, ranks, sub-files, names and columns, at a density that fits.

python tests/benchmarks/outer_rim.py DIR [--particles 2e8] [--halos 2e6] [--step 499] [--dims 12 10 10] [--files 110]

Particles are a lattice moved by the Zel'dovich approximation in Outer Rim's cosmology, so that they cluster on large
scales and flow as linear theory says; a lattice point has a place of its own in its cell. Each rank holds what lies in
its volume, in no order, and is made apart from all others, so memory is that of a few ranks. Halos are particles drawn
with the bias of their mass function. Velocities are stored comoving, as HACC does. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates
from scipy.optimize import brentq

from velfield.catalogues import genericio
from velfield.catalogues.hacc import outer_rim_names, step_to_redshift
from velfield.files import storage
from velfield.files.progress import Terminal
from velfield.physics.cosmology import OUTER_RIM
from velfield.simulation.gravity import displacements, linear_density

MESH = 192  # of the linear density; 15.6 h⁻¹Mpc for the whole volume
HEAVIEST = 1e16  # h⁻¹M⊙


@dataclass(frozen=True, kw_only=True)
class Universe:
    """What all ranks share."""

    boxsize: float
    dims: tuple[int, int, int]
    lattice: int
    shift: np.ndarray  # (3, MESH, MESH, MESH) [h⁻¹Mpc]
    delta: np.ndarray  # (MESH, MESH, MESH), linear
    speed: float  # comoving velocity of a displacement [km/s per h⁻¹Mpc]
    halos: float  # a particle's chance to be one, where the density is the mean
    bias: float  # Lagrangian
    masses: tuple[np.ndarray, np.ndarray]  # share of the halos that are lighter, and log mass
    seed: int


def universe(particles: float, halos: float, step: int, boxsize: float, dims: tuple[int, int, int], seed: int):
    """Draw the linear density and what follows from it."""
    redshift = step_to_redshift(step)
    growth = OUTER_RIM.growth(redshift) / OUTER_RIM.growth(0.0)
    linear = linear_density(OUTER_RIM, boxsize, MESH, seed)
    shift = displacements(linear, boxsize)[0].view(3, MESH, MESH, MESH).numpy() * np.float32(growth)
    delta = torch.fft.irfftn(linear, s=(MESH,) * 3).numpy() * np.float32(growth)
    lattice = round(particles ** (1 / 3))
    number = halos / boxsize**3
    least = brentq(lambda m: np.log(OUTER_RIM.halo_density(10**m, redshift) / number), 9, 15.5)
    bias = OUTER_RIM.effective_bias(10**least, redshift, weight="number") - 1
    points = np.random.default_rng(seed).uniform(0, MESH, (3, 10**6))
    between = map_coordinates(delta, points, order=1, mode="grid-wrap")  # as the particles see it
    logs = np.linspace(least, np.log10(HEAVIEST), 300)
    above = np.array([OUTER_RIM.halo_density(10**m, redshift) for m in logs[:-1]] + [0.0])
    share = 1 - above / above[0]
    kept = np.concatenate([[True], np.diff(np.maximum.accumulate(share)) > 0])
    return Universe(
        boxsize=boxsize,
        dims=dims,
        lattice=lattice,
        shift=shift,
        delta=delta,
        speed=float(OUTER_RIM.aH(redshift) * OUTER_RIM.growth_rate(redshift) * (1 + redshift)),
        halos=halos / lattice**3 / float(np.exp(bias * between).mean()),
        bias=float(bias),
        masses=(share[kept], logs[kept]),
        seed=seed,
    )


def hashed(index: np.ndarray, seed: int) -> np.ndarray:
    """Four numbers in [0, 1) for each lattice point, the same whoever asks (SplitMix64)."""
    numbers = []
    with np.errstate(over="ignore"):
        for k in range(4):
            z = index.astype(np.uint64) * np.uint64(4) + np.uint64(k + 1) + (np.uint64(seed) << np.uint64(40))
            z = z * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            numbers.append((z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))
    return np.stack(numbers)


def rank_of(u: Universe, rank: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Particles and halos of a rank."""
    place = np.array(np.unravel_index(rank, u.dims))
    sides = u.boxsize / np.array(u.dims)
    low, high = place * sides, (place + 1) * sides
    step, reach = u.boxsize / u.lattice, float(np.abs(u.shift).max())
    along = [
        np.arange(np.floor((a - reach) / step), np.ceil((b + reach) / step)) for a, b in zip(low, high, strict=True)
    ]
    along = [np.unique(np.mod(a, u.lattice)).astype(np.int64) for a in along]
    grid = [g.ravel() for g in np.meshgrid(*along, indexing="ij")]
    index = (grid[0] * u.lattice + grid[1]) * u.lattice + grid[2]
    drawn = hashed(index, u.seed)
    start = np.stack([(g + r) * step for g, r in zip(grid, drawn, strict=False)])
    at = start / (u.boxsize / MESH)
    moved = np.stack([map_coordinates(axis, at, order=1, mode="grid-wrap") for axis in u.shift])
    pos = np.mod(start + moved, u.boxsize).astype(np.float32)
    pos[pos >= u.boxsize] = 0
    inside = np.flatnonzero(np.all((pos >= low[:, None]) & (pos < high[:, None]), axis=0))
    inside = np.random.default_rng([u.seed, rank]).permutation(inside)
    pos, vel, index = pos[:, inside], (moved[:, inside] * u.speed).astype(np.float32), index[inside]
    table = dict(zip("xyz", pos, strict=True)) | {f"v{x}": v for x, v in zip("xyz", vel, strict=True)} | {"id": index}
    density = map_coordinates(u.delta, at[:, inside], order=1, mode="grid-wrap")
    chosen = np.flatnonzero(drawn[3, inside] < u.halos * np.exp(u.bias * density))
    share = drawn[3, inside[chosen]] / (u.halos * np.exp(u.bias * density[chosen]))
    mass = (10 ** PchipInterpolator(*u.masses)(share)).astype(np.float32)
    halos = {
        "fof_halo_count": np.maximum(20, mass / 1.85e9).astype(np.int32),
        "fof_halo_tag": index[chosen],
        "fof_halo_mass": mass,
        **{f"fof_halo_center_{x}": p[chosen] for x, p in zip("xyz", pos, strict=True)},
        **{f"fof_halo_mean_{x}": p[chosen] for x, p in zip("xyz", pos, strict=True)},
        **{f"fof_halo_mean_v{x}": v[chosen] for x, v in zip("xyz", vel, strict=True)},
        "fof_halo_vel_disp": np.full(len(chosen), 300, np.float32),
    }
    return table, halos


_shared: list[Universe] = []


def _rank(rank: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return rank_of(_shared[0], rank)


def make(folder: str, u: Universe, *, files: int, step: int, processes: int = 2) -> tuple[int, int]:
    """Write both catalogues; returns the numbers of particles and of halos."""
    halo_name, particle_name = outer_rim_names(step)
    halos: list[dict[str, np.ndarray]] = []
    count = 0
    nranks = int(np.prod(u.dims))
    _shared[:] = [u]

    def particles() -> Iterator[dict[str, np.ndarray]]:
        nonlocal count
        with ProcessPoolExecutor(processes) as pool, Terminal() as progress:  # forked: they have the universe
            progress.start("write", nranks, "ranks")
            for first in range(0, nranks, 8 * processes):  # a few ahead, not all
                for table, of_rank in pool.map(_rank, range(first, min(first + 8 * processes, nranks))):
                    halos.append(of_rank)
                    count += len(table["x"])
                    yield table
                    progress.advance()

    where = {"dims": u.dims, "boxsize": u.boxsize, "partitions": files}
    genericio.write(storage.join(folder, particle_name), particles(), **where)
    genericio.write(storage.join(folder, halo_name), halos, **where)
    return count, sum(len(h["fof_halo_tag"]) for h in halos)


def main() -> None:
    """Write the catalogues."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--particles", type=float, default=2e8)
    parser.add_argument("--halos", type=float, default=2e6)
    parser.add_argument("--step", type=int, default=499)
    parser.add_argument("--boxsize", type=float, default=3000.0, help="h⁻¹Mpc")
    parser.add_argument("--dims", type=int, nargs=3, default=(12, 10, 10), help="ranks along x, y, z")
    parser.add_argument("--files", type=int, default=110, help="sub-files")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    u = universe(args.particles, args.halos, args.step, args.boxsize, tuple(args.dims), args.seed)
    particles, halos = make(args.folder, u, files=args.files, step=args.step)
    print(f"{particles:,} particles and {halos:,} halos in {time.monotonic() - began:.0f} s: {args.folder}")  # noqa: T201
    sys.exit(0 if particles == u.lattice**3 else 1)


if __name__ == "__main__":
    main()
