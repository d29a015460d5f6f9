"""Halos of a miniature universe: density peaks where particles resolve them, a conditional mass function below.

The heavy halos sit on the highest peaks of the density and have, by rank, the masses that the mass function asks for.
All others are drawn particle by particle: a particle is a parcel of matter, and the density around it says which
fraction of it belongs to halos of mass M. That fraction is the global mass function times the ratio of the conditional
to the unconditional rate of excursion sets with an ellipsoidal barrier (Sheth & Tormen 2002; the hybrid with an
empirical mass function is Ahn et al. 2015, arXiv:1407.2637). Two things are then set to what is known: the average over
all particles is the global mass function, and a power of the density, one for each mass, gives the halos the
large-scale bias b(M), measured against the matter of this very box. Halos so lie where matter lies and move as it
moves; its velocity dispersion makes their fingers of God.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from velfield.physics.cosmology import Cosmology
from velfield.simulation.gravity import Snapshot, deposit

DELTA_C = 1.68647  # linear density contrast of a collapsing sphere, Einstein–de Sitter
BARRIER, RISE, POWER = 0.707, 0.485, 0.615  # barrier √a δ_c [1 + β (a δ_c²/S)^−γ] (Sheth, Mo & Tormen 2001)
PEAK_PARTICLES = 50  # heavier halos are peaks: of lighter ones the peaks of noise are too many (b = 1.8, not 2.2)
CELL = 3  # particle spacings along the cell of the conditional mass function: holds halos up to the peaks'
LARGE = 20.0  # h⁻¹Mpc, Gaussian radius of the scales on which bias is set: k < 0.07 h/Mpc
JITTER = 0.3  # rms distance of a drawn halo from its particle along an axis, in local particle spacings
HEAVIEST = 1e16  # h⁻¹M⊙; there is none above
PART = 2**20  # particles or halos at a time


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
    pos = torch.from_numpy(snapshot.pos).to(device).T
    heavy = _peaks(snapshot, pos, cosmology, split)
    if split <= min_mass:
        return heavy
    cells = max(1, n // CELL)
    density = deposit(pos, size, cells).cpu().numpy() * (cells / n) ** 3
    del pos
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
    """√2π times the rate at which random walks from (s_cell, linear) first cross the ellipsoidal barrier at s.

    Sheth & Tormen 2002, equation 7: the barrier as a Taylor series about s.
    """
    left = np.where(s > s_cell, s - s_cell, np.inf)
    term = np.sqrt(BARRIER) * DELTA_C * RISE * (s / (BARRIER * DELTA_C**2)) ** POWER  # the part that rises with s
    height = np.sqrt(BARRIER) * (DELTA_C - linear) + term  # as the mass function's split of peak and background
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
    """Halos on the highest local maxima of the density on the particles' own grid, heaviest first."""
    n, size = round(len(snapshot.pos) ** (1 / 3)), snapshot.boxsize
    density = deposit(pos, size, n)
    cells = _maxima(density)
    mass = _ranked(cosmology, snapshot.redshift, min_mass, size**3)
    order = torch.argsort(density.flatten()[cells], descending=True, stable=True)[: len(mass)]
    cells = cells[order]
    number = density.flatten()[cells]
    vel = [
        (deposit(pos, size, n, torch.from_numpy(snapshot.vel[:, a].copy()).to(pos.device)).flatten()[cells] / number)
        for a in range(3)
    ]
    return Halos(
        pos=_wrapped((_vertices(density, cells) * (size / n)).cpu().numpy(), size),
        vel=torch.stack(vel, dim=1).cpu().numpy(),
        mass=mass[: len(cells)].astype(np.float32),
    )


def _maxima(density: Tensor) -> Tensor:
    """Cells, by their number, as dense as any beside them."""
    around = functional.pad(density[None, None], (1,) * 6, mode="circular")
    top = (density == functional.max_pool3d(around, 3, stride=1)[0, 0]) & (density > 0)
    return top.flatten().nonzero().flatten()


def _ranked(cosmology: Cosmology, redshift: float, min_mass: float, volume: float) -> NDArray[np.float64]:
    """Masses of the halos above ``min_mass`` in a volume, heaviest first: n(> the i-th) · volume = i + ½."""
    lnm = np.linspace(np.log(min_mass), np.log(HEAVIEST), 2000)
    dn = cosmology.mass_function(np.exp(lnm), redshift) * volume
    above = np.append(np.cumsum(((dn[1:] + dn[:-1]) / 2)[::-1])[::-1], 0) * (lnm[1] - lnm[0])
    return np.exp(np.interp(-(np.arange(round(above[0])) + 0.5), -above, lnm))


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
    """Halos with masses within ``limits``, drawn on the particles by the density of their cells.

    Particles and halos are gone through in parts, in their order, so that no more is held than the halos; the random
    numbers are the same however large the parts are.
    """
    size, n, number = snapshot.boxsize, density.shape[0], len(snapshot.pos)
    spacing = size / round(number ** (1 / 3))
    edges = np.linspace(np.log(1e-2), np.log(1e4), 400)  # of ln(1 + δ)
    bins = np.exp((edges[1:] + edges[:-1]) / 2)
    bin_of = np.searchsorted(edges, np.log(np.maximum(density, 1e-30)).ravel()).clip(1, len(edges) - 1) - 1
    large = _large_scale(density, size).ravel()
    taken, response = np.zeros(len(bins), dtype=np.int64), np.zeros(len(bins))
    for part in _parts(number):
        cell = _cells(snapshot.pos[part], n, size)
        taken += np.bincount(bin_of[cell], minlength=len(bins))
        np.add.at(response, bin_of[cell], large[cell])  # one after the other, as one sum would
    share, response = taken / number, response / number
    lnm = np.linspace(np.log(limits[0]), np.log(limits[1]), 200)
    cell_mass = cosmology.mean_matter_density * (size / n) ** 3
    table = conditional_fraction(np.exp(lnm), bins, cell_mass, cosmology, snapshot.redshift)
    response = response / response.sum()  # of matter as a whole it is 1: what follows is a bias
    table = table * _tilt(table, share, response, bins, cosmology.halo_bias(np.exp(lnm), snapshot.redshift))
    table *= cosmology.mass_function(np.exp(lnm), snapshot.redshift) * spacing**3 / (share @ table)
    below = np.pad(np.cumsum((table[:, 1:] + table[:, :-1]) / 2, axis=1) * (lnm[1] - lnm[0]), ((0, 0), (1, 0)))
    rate = below[:, -1]
    extra = rng.gamma(1 / scatter, scatter, density.size) if scatter > 0 else np.ones(density.size)
    drawn = []
    for part in _parts(number):
        cell = _cells(snapshot.pos[part], n, size)
        halos = rng.poisson(rate[bin_of[cell]] * extra[cell])
        drawn.append(np.repeat(np.arange(part.start, part.stop, dtype=np.uint32), halos))
    parent = np.concatenate(drawn)
    del drawn
    pos, mass = np.empty((len(parent), 3), dtype=np.float32), np.empty(len(parent), dtype=np.float32)
    # one inverse for all densities: the number of the bin plus the share of its halos below M rises throughout
    rising = (below / np.maximum(rate, 1e-300)[:, None] + np.arange(len(bins))[:, None]).ravel()
    for part in _parts(len(parent)):
        which = bin_of[_cells(snapshot.pos[parent[part]], n, size)]
        lnm_drawn = np.interp(which + rng.random(len(which)), rising, np.tile(lnm, len(bins)))
        mass[part] = np.exp(lnm_drawn)
    for part in _parts(len(parent)):
        at = snapshot.pos[parent[part]]
        within = np.maximum(bins[bin_of[_cells(at, n, size)]], 1)
        offset = rng.standard_normal(at.shape, dtype=np.float32)
        offset *= (JITTER * spacing * within ** (-1 / 3)).astype(np.float32)[:, None]
        pos[part] = _wrapped(at + offset, size)
    return Halos(pos=pos, vel=snapshot.vel[parent], mass=mass)


def _parts(number: int) -> Iterator[slice]:
    for start in range(0, number, PART):
        yield slice(start, min(start + PART, number))


def _cells(pos: NDArray[np.float32], n: int, boxsize: float) -> NDArray[np.int32]:
    """Numbers of the cells that positions (N, 3) are in; `deposit` centres cells at whole multiples of their side."""
    cell = np.zeros(len(pos), dtype=np.int32)
    for axis in range(3):
        cell = cell * n + np.rint(pos[:, axis] * (n / boxsize)).astype(np.int32) % n
    return cell


def _large_scale(density: NDArray[Any], boxsize: float) -> NDArray[np.float64]:
    """The density contrast smoothed with a Gaussian of ``LARGE``."""
    n = density.shape[0]
    window = np.exp(-0.5 * (2 * np.pi / boxsize * LARGE * np.fft.fftfreq(n, 1 / n)) ** 2)
    modes = np.fft.rfftn(density - density.mean()) * window[:, None, None] * window[:, None] * window[: n // 2 + 1]
    return np.fft.irfftn(modes, s=density.shape, axes=(0, 1, 2))


def _tilt(
    table: NDArray[Any], share: NDArray[Any], response: NDArray[Any], density: NDArray[Any], bias: NDArray[Any]
) -> NDArray[np.float64]:
    """(1 + δ)^p of each density bin and mass (D, M), with the p that gives the halos of each mass their bias.

    ``response`` is each bin's part in the correlation of matter with the large-scale density; halos that take the
    share t of the bins' matter have the bias Σ t·response / Σ t·share.
    """
    low, high = np.full(len(bias), -10.0), np.full(len(bias), 10.0)
    for _ in range(40):
        p = (low + high) / 2
        tilt = density[:, None] ** p
        more = response @ (table * tilt) < bias * (share @ (table * tilt))
        low, high = np.where(more, p, low), np.where(more, high, p)
    return tilt


def _wrapped(pos: NDArray[Any], boxsize: float) -> NDArray[np.float32]:
    """Positions as float32 in [0, boxsize)."""
    pos = np.mod(pos, boxsize).astype(np.float32)
    pos[pos >= boxsize] = 0
    return pos
