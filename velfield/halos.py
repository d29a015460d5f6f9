"""Halos of a miniature universe: density peaks where particles resolve them, a conditional mass function below.

The heavy halos sit on the highest peaks of the smoothed density and have, by rank, the masses that the mass function
asks for. All others are drawn particle by particle: a particle is a parcel of matter, and the density around it says
which fraction of it belongs to halos of mass M. The fraction is the global mass function times the ratio of the
conditional to the unconditional excursion-set result (Mo & White 1996; Ahn et al. 2015, arXiv:1407.2637), normalised
so that the average over all particles is the global mass function itself. Halos then lie where matter lies, move as it
moves, and inherit its velocity dispersion, which makes the fingers of God.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from velfield.cosmology import Cosmology
from velfield.gravity import Snapshot, deposit

BARRIER, RISE, POWER = 0.707, 0.485, 0.615  # barrier √a δ_c [1 + β (a δ_c²/S)^−γ] (Sheth, Mo & Tormen 2001)
DELTA_C = 1.68647  # linear density contrast of a collapsing sphere, Einstein–de Sitter
PEAK_PARTICLES = 8.0  # halos of more particles than this are peaks, lighter ones are drawn
CELL = 2.0  # cells of the conditional mass function, in particle spacings
JITTER = 0.3  # rms distance of a drawn halo from its particle along an axis, in local particle spacings
SMOOTH = 0.8  # Gaussian smoothing of the peaks' density, in particle spacings


@dataclass(frozen=True, kw_only=True)
class Halos:
    """Halos at one time.

    Attributes
    ----------
    pos : ndarray (N, 3), float32
        Positions [h⁻¹Mpc, comoving] in [0, boxsize).
    vel : ndarray (N, 3), float32
        Velocities [km/s, proper peculiar].
    mass : ndarray (N,), float32
        Friends-of-friends masses [h⁻¹M⊙].
    """

    pos: NDArray[np.float32]
    vel: NDArray[np.float32]
    mass: NDArray[np.float32]


def find_halos(
    snapshot: Snapshot, cosmology: Cosmology, *, min_mass: float, scatter: float, seed: int, device: str = "cpu"
) -> Halos:
    """Draw all halos above ``min_mass`` [h⁻¹M⊙].

    Parameters
    ----------
    scatter : float
        Variance of the number of drawn halos in a cell beyond Poisson's, relative to the square of the mean.
    """
    rng = np.random.default_rng([seed, round(1e6 * snapshot.redshift)])
    n, size = round(len(snapshot.pos) ** (1 / 3)), snapshot.boxsize
    split = max(min_mass, PEAK_PARTICLES * cosmology.mean_matter_density * (size / n) ** 3)
    pos = torch.from_numpy(snapshot.pos.T.copy()).to(device)
    heavy = _peaks(snapshot, pos, cosmology, split)
    if split <= min_mass:
        return heavy
    cells = max(1, int(n / CELL))
    density = deposit(pos, size, cells).cpu().numpy() * (cells / n) ** 3
    light = _drawn(snapshot, density, cosmology, (min_mass, split), scatter, rng)
    both = ((getattr(heavy, f), getattr(light, f)) for f in ("pos", "vel", "mass"))
    return Halos(**dict(zip(("pos", "vel", "mass"), (np.concatenate(pair) for pair in both), strict=True)))


def conditional_fraction(
    mass: NDArray[Any], overdensity: NDArray[Any], cell_mass: float, cosmology: Cosmology, redshift: float
) -> NDArray[np.float64]:
    """Mass function in matter of a given density, relative to the global one.

    Parameters
    ----------
    mass : ndarray (M,)
        Halo masses [h⁻¹M⊙].
    overdensity : ndarray (D,)
        1 + δ of the cell.
    cell_mass : float
        Mass of a cell of mean density [h⁻¹M⊙].

    Returns
    -------
    ndarray (D, M)
        f(M | δ) / f(M), per unit of mass; 0 where the cell does not hold the halo.
    """
    density = np.asarray(overdensity)[:, None]
    # linear density contrast from the non-linear one (Mo & White 1996, equation 18)
    linear = 1.68647 - 1.35 * density ** (-2 / 3) - 1.12431 * density**-0.5 + 0.78785 * density**-0.58661
    s = _variance(np.asarray(mass), cosmology, redshift)[None]
    s_cell = _variance(cell_mass * density, cosmology, redshift)
    return _first_crossing(s, s_cell, linear) / _first_crossing(s, np.zeros(1), np.zeros(1))


def _first_crossing(s: NDArray[Any], s_cell: NDArray[Any], linear: NDArray[Any]) -> NDArray[np.float64]:
    """Rate per dS √2π, at variance s, of random walks from (s_cell, linear) that first cross the barrier of ellipsoidal collapse.

    Sheth & Tormen 2002, equation 7: the barrier in a Taylor series about s.
    """
    left = np.where(s > s_cell, s - s_cell, np.inf)
    term = np.sqrt(BARRIER) * DELTA_C * RISE * (s / (BARRIER * DELTA_C**2)) ** POWER  # the part that rises with s
    height = np.sqrt(BARRIER) * DELTA_C + term - linear
    series = height.copy()
    step = np.where(s > s_cell, -left / s, 0)
    for n in range(5):
        term = term * (POWER - n) / (n + 1) * step
        series = series + term
    return np.abs(series) * left**-1.5 * np.exp(-(height**2) / (2 * left)) * (linear < DELTA_C)


def virial_dispersion(mass: NDArray[Any], cosmology: Cosmology, redshift: float) -> NDArray[np.float64]:
    """One-dimensional velocity dispersion of matter in a halo [km/s] (Evrard et al. 2008), its mass taken as M200."""
    return 1082.9 * (cosmology.E(redshift) * np.asarray(mass, dtype=float) / 1e15) ** 0.3361


def _variance(mass: NDArray[Any], cosmology: Cosmology, redshift: float) -> NDArray[np.float64]:
    """σ²(M) of the linear density."""
    lnm = np.linspace(np.log(1e8), np.log(1e19), 400)
    radius = (3 * np.exp(lnm) / (4 * np.pi * cosmology.mean_matter_density)) ** (1 / 3)
    return np.exp(np.interp(np.log(mass), lnm, 2 * np.log(cosmology.sigma(radius, redshift))))


def _peaks(snapshot: Snapshot, pos: Tensor, cosmology: Cosmology, min_mass: float) -> Halos:
    """Halos on the highest local maxima of the density, heaviest first."""
    n, size = round(len(snapshot.pos) ** (1 / 3)), snapshot.boxsize
    grid = n
    density = _smooth(deposit(pos, size, grid))
    around = functional.pad(density[None, None], (1,) * 6, mode="circular")
    top = density == functional.max_pool3d(around, 3, stride=1)[0, 0]
    cells = top.flatten().nonzero().flatten()
    height = density.flatten()[cells]
    wanted = cosmology.halo_density(min_mass, snapshot.redshift) * size**3
    order = torch.argsort(height, descending=True, stable=True)[: round(wanted)]
    cells = cells[order]
    vel = []
    for a in range(3):
        weight = torch.from_numpy(snapshot.vel[:, a].copy()).to(pos.device)
        vel.append((_smooth(deposit(pos, size, grid, weight)).flatten()[cells] / height[order]).cpu().numpy())
    where = _vertices(density, cells) * (size / grid)
    lnm = np.linspace(np.log(min_mass), np.log(1e16), 2000)
    dn = cosmology.mass_function(np.exp(lnm), snapshot.redshift)
    above = np.concatenate((np.cumsum(((dn[1:] + dn[:-1]) / 2)[::-1])[::-1], [0])) * (lnm[1] - lnm[0]) * size**3
    rank = np.arange(len(cells)) + 0.5
    return Halos(
        pos=_wrapped(where.cpu().numpy(), size),
        vel=np.stack(vel, axis=1).astype(np.float32),
        mass=np.exp(np.interp(-rank, -above, lnm)).astype(np.float32),
    )


def _smooth(grid: Tensor) -> Tensor:
    """The grid after a Gaussian of ``SMOOTH`` cells."""
    n = grid.shape[0]
    full = torch.exp(-0.5 * (2 * np.pi * SMOOTH * torch.fft.fftfreq(n, device=grid.device)) ** 2)
    modes = torch.fft.rfftn(grid) * full[:, None, None] * full[None, :, None] * full[None, None, : n // 2 + 1]
    return torch.fft.irfftn(modes, s=(n, n, n))


def _vertices(density: Tensor, cells: Tensor) -> Tensor:
    """Places of the maxima (N, 3) in cells: the vertex of a parabola along each axis."""
    n = density.shape[0]
    index = torch.stack((cells // n**2, cells // n % n, cells % n), dim=1)
    middle = density.flatten()[cells]
    place = index.double()
    for axis in range(3):
        side = []
        for by in (-1, 1):
            near = index.clone()
            near[:, axis] = (near[:, axis] + by) % n
            side.append(density[near[:, 0], near[:, 1], near[:, 2]])
        curvature = (2 * middle - side[0] - side[1]).clamp(min=1e-30)
        place[:, axis] += ((side[1] - side[0]) / (2 * curvature)).clamp(-0.5, 0.5)
    return place


def _drawn(
    snapshot: Snapshot,
    density: NDArray[Any],
    cosmology: Cosmology,
    limits: tuple[float, float],
    scatter: float,
    rng: np.random.Generator,
) -> Halos:
    """Halos with masses within ``limits``, drawn on the particles by the density of their cells."""
    size, cells = snapshot.boxsize, density.shape[0]
    spacing = size / round(len(snapshot.pos) ** (1 / 3))
    index = np.zeros(len(snapshot.pos), dtype=np.int32)
    for a in range(3):  # deposit() centres cells at whole multiples of their side
        index = index * cells + np.rint(snapshot.pos[:, a] * (cells / size)).astype(np.int32) % cells
    edges = np.linspace(np.log(1e-2), np.log(1e4), 400)
    which = np.searchsorted(edges, np.log(np.maximum(density, 1e-30)).ravel()).clip(1, len(edges) - 1)[index]
    middle = np.exp(np.concatenate((edges[:1], (edges[1:] + edges[:-1]) / 2)))
    lnm = np.linspace(np.log(limits[0]), np.log(limits[1]), 200)
    cell_mass = cosmology.mean_matter_density * (size / cells) ** 3
    ratio = conditional_fraction(np.exp(lnm), middle, cell_mass, cosmology, snapshot.redshift)
    share = np.bincount(which, minlength=len(middle)) / len(which)
    wanted = cosmology.mass_function(np.exp(lnm), snapshot.redshift) * spacing**3  # a particle, dlnM
    table = ratio * (wanted / (share @ ratio))
    below = np.concatenate(
        (np.zeros((len(middle), 1)), np.cumsum((table[:, 1:] + table[:, :-1]) / 2, axis=1) * (lnm[1] - lnm[0])), axis=1
    )
    rate = below[:, -1]
    gamma = rng.gamma(1 / scatter, scatter, density.size).astype(np.float32)[index] if scatter > 0 else 1.0
    number = rng.poisson(rate.astype(np.float32)[which] * gamma)
    parent = np.repeat(np.arange(len(number)), number)
    # one inverse for all densities: the number of the density plus the share of its halos below M rises throughout
    rising = (below / np.maximum(rate, 1e-300)[:, None] + np.arange(len(middle))[:, None]).ravel()
    drawn = np.interp(which[parent] + rng.random(len(parent)), rising, np.tile(lnm, len(middle)))
    jitter = rng.standard_normal((len(parent), 3), dtype=np.float32)
    jitter *= (JITTER * spacing * np.maximum(density.ravel()[index[parent]], 1) ** (-1 / 3))[:, None]
    return Halos(
        pos=_wrapped(snapshot.pos[parent] + jitter, size),
        vel=snapshot.vel[parent],
        mass=np.exp(drawn).astype(np.float32),
    )


def _wrapped(pos: NDArray[Any], boxsize: float) -> NDArray[np.float32]:
    """Positions as float32 in [0, boxsize)."""
    pos = np.mod(pos, boxsize).astype(np.float32)
    pos[pos >= boxsize] = 0
    return pos
