"""A miniature universe's dark matter: Gaussian initial conditions, second-order displacements, particle-mesh steps.

Particles start on a lattice, displaced by second-order Lagrangian theory (2LPT). Time is the linear growth D, and
the particles carry dx/dD, which the theory leaves nearly constant. A step is drift, kick, drift with one force
between; the kick's weight is the one with which the particles follow 2LPT exactly as long as it holds (BullFrog:
Rampf, List & Hahn 2024, arXiv:2409.19049; FastPM's weight, Feng et al. 2016, does so for the Zel'dovich
approximation). So ten steps are enough, and linear growth is exact on large scales however few they are.

Forces come from a periodic mesh: cloud in cell, one Fourier transform to the density, three back. Everything is
torch and runs as it stands on a CPU or a CUDA device. Noise is drawn on the CPU from numpy's generator, so a seed
means the same universe everywhere; on a CPU the result is the same to the last bit whatever the number of threads.
Particles keep the order of their lattice, x slowest: neighbours in the array are neighbours at the beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import integrate
from torch import Tensor
from torch.nn import functional

from velfield.physics.cosmology import Cosmology

CHUNK = 1 << 16  # particles at a time on the mesh: their corners and weights stay in a CPU's cache


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The particles at one time, in the order of their lattice.

    Attributes
    ----------
    pos : ndarray (N, 3), float32
        Positions [h⁻¹Mpc, comoving] in [0, boxsize).
    vel : ndarray (N, 3), float32
        Velocities [km/s, proper peculiar].
    redshift : float
        Exact redshift of the snapshot.
    boxsize : float
        Side of the periodic box [h⁻¹Mpc].
    """

    pos: NDArray[np.float32]
    vel: NDArray[np.float32]
    redshift: float
    boxsize: float


def linear_density(cosmology: Cosmology, boxsize: float, ngrid: int, seed: int, device: str = "cpu") -> Tensor:
    """Modes (n, n, n/2+1) of a Gaussian density contrast, linearly grown to z = 0; numpy's forward convention."""
    noise = np.random.default_rng(seed).standard_normal((ngrid,) * 3, dtype=np.float32)
    modes = torch.fft.rfftn(torch.from_numpy(noise).to(device))
    # |k|² comes in whole multiples of the fundamental mode's: P(k) is wanted for few numbers, not for every mode
    square = torch.arange(3 * (ngrid // 2) ** 2 + 1, dtype=torch.float64)
    power = cosmology.linear_power(2 * np.pi / boxsize * square.sqrt().numpy(), 0.0)
    amplitude = torch.from_numpy(np.sqrt(power * (ngrid / boxsize) ** 3)).float().to(device)
    kx, ky, kz = _wavenumbers(ngrid, device)
    return modes * amplitude[(kx * kx + ky * ky + kz * kz).round().long()]


def displacements(delta: Tensor, boxsize: float) -> tuple[Tensor, Tensor]:
    """First- and second-order Lagrangian displacements, each (3, n³) [h⁻¹Mpc], of the linear density at z = 0.

    A particle of the lattice point q is at q + D ψ₁ + E ψ₂, where E → −3/7 D² (`second_growth`); e.g. Bouchet et al.
    1995.
    """
    n = delta.shape[0]
    k = [2 * np.pi / boxsize * w for w in _wavenumbers(n, delta.device)]
    inverse = 1 / (k[0] ** 2 + k[1] ** 2 + k[2] ** 2)
    inverse[0, 0, 0] = 0

    def real(modes: Tensor) -> Tensor:
        return torch.fft.irfftn(modes, s=(n, n, n))

    def gradient(potential: Tensor) -> Tensor:
        out = torch.empty((3, n**3), device=delta.device)
        for a in range(3):
            out[a] = real(1j * _odd(k[a], n) * potential).flatten()
        return out

    potential = -delta * inverse
    xx, yy, zz = (real(-k[a] * k[a] * potential) for a in range(3))
    source = xx * yy + yy * zz + zz * xx
    del xx, yy, zz
    for a, b in ((0, 1), (1, 2), (2, 0)):
        source -= real(-_odd(k[a], n) * _odd(k[b], n) * potential) ** 2
    second = torch.fft.rfftn(source).neg_().mul_(inverse)
    del source
    first = gradient(potential).neg_()
    del potential
    return first, gradient(second)


def second_growth(cosmology: Cosmology, redshifts: Sequence[float]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Second-order growth E and dE/dD at each redshift; E = −3/7 D² while matter dominates."""

    def slope(lna: float, y: NDArray[Any]) -> list[float]:
        z = np.exp(-lna) - 1
        matter = cosmology.omega_m * (1 + z) ** 3 / cosmology.E(z) ** 2
        return [y[1], -(2 - 1.5 * matter) * y[1] + 1.5 * matter * (y[0] - cosmology.growth(z) ** 2)]

    z = np.asarray(redshifts, dtype=float)
    lna, d = -np.log1p(z), np.array([cosmology.growth(v) for v in z])
    first = -np.log(1000.0)
    begin = -3 / 7 * cosmology.growth(999.0) ** 2
    order = np.argsort(lna)
    solved = integrate.solve_ivp(
        slope, (first, lna.max()), [begin, 2 * begin], t_eval=lna[order], rtol=1e-8, atol=1e-14
    )
    e, de = solved.y[:, np.argsort(order)]
    return e, de / (d * np.array([cosmology.growth_rate(v) for v in z]))


def leapfrog(
    delta: Tensor, cosmology: Cosmology, boxsize: float, *, start: float, schedule: Sequence[Sequence[float]], mesh: int
) -> Iterator[Snapshot | None]:
    """Move the particles through time; yield a snapshot at the end of each leg, and None after each step before it.

    Parameters
    ----------
    delta : Tensor (n, n, n/2+1)
        Modes of the linear density at z = 0 (`linear_density`); there will be n³ particles.
    start : float
        Redshift of the beginning, where the particles are where 2LPT has them.
    schedule : sequence of sequences of float
        For each leg the redshifts at the ends of its steps, the last of them the snapshot's.
    mesh : int
        Cells of the force mesh along a side.
    """
    z = [start, *(z for leg in schedule for z in leg)]
    d = [cosmology.growth(v) for v in z]
    e, de = second_growth(cosmology, z)
    pos, vel = _begin(delta, boxsize, d[0], float(e[0]), float(de[0]))
    del delta  # it makes room for what comes
    ends = set(np.cumsum([len(leg) for leg in schedule]).tolist())
    for i in range(1, len(z)):
        half = (d[i] - d[i - 1]) / 2
        middle = d[i - 1] + half
        target = (e[i - 1] + de[i - 1] * half) / middle - middle  # second-order part of what the force drives dx/dD to
        keep = float((de[i] - target) / (de[i - 1] - target))
        _drift(pos, vel, half, boxsize)
        vel *= keep
        _kick(pos, vel, (1 - keep) / middle, boxsize, mesh)
        _drift(pos, vel, half, boxsize)
        if i not in ends:
            yield None
            continue
        speed = cosmology.aH(z[i]) * cosmology.growth_rate(z[i]) * d[i]  # a dD/dt [km/s per h⁻¹Mpc]
        yield Snapshot(
            pos=np.ascontiguousarray(pos.T.cpu().numpy()),
            vel=np.ascontiguousarray((vel * speed).T.cpu().numpy()),
            redshift=z[i],
            boxsize=boxsize,
        )


def deposit(pos: Tensor, boxsize: float, mesh: int, weight: Tensor | None = None) -> Tensor:
    """Cloud-in-cell sums (mesh, mesh, mesh) of particles at ``pos`` (3, N) [h⁻¹Mpc], on cells centred at i·cellsize."""
    sums = torch.zeros(mesh**3, device=pos.device)
    for part in range(0, pos.shape[1], CHUNK):
        cells, share = _corners(pos[:, part : part + CHUNK].contiguous(), boxsize, mesh)
        if weight is not None:
            share = share * weight[part : part + CHUNK]
        sums.index_add_(0, cells.flatten(), share.flatten())
    return sums.view(mesh, mesh, mesh)


def force(density: Tensor, boxsize: float) -> Tensor:
    """−∇∇⁻²δ (n³, 3) [h⁻¹Mpc] on the cells of a density in units of its mean.

    It is divided by one cloud's Fourier window, of the two that deposit and readout put on it: on a mesh as fine as
    the lattice that leaves the least error in velocity; two of them amplify the lattice's own forces.
    """
    n = density.shape[0]
    k = [2 * np.pi / boxsize * w for w in _wavenumbers(n, density.device)]
    potential = torch.fft.rfftn(density)
    for w in k:
        potential *= torch.sinc(w * (boxsize / n / 2 / np.pi)) ** -2
    square = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    square[0, 0, 0] = 1
    potential *= 1j / square
    out = torch.empty((n**3, 3), device=density.device)
    for a in range(3):
        out[:, a] = torch.fft.irfftn(_odd(k[a], n) * potential, s=(n, n, n)).flatten()
    return out


def _begin(delta: Tensor, boxsize: float, d: float, e: float, de: float) -> tuple[Tensor, Tensor]:
    """Positions and dx/dD (3, n³) of 2LPT at growth d."""
    n = delta.shape[0]
    first, second = displacements(delta, boxsize)
    lattice = torch.arange(n, device=delta.device) * (boxsize / n)
    pos = torch.stack(torch.meshgrid(lattice, lattice, lattice, indexing="ij")).view(3, -1)
    for a in range(3):
        pos[a] += d * first[a] + e * second[a]
    _wrap(pos, boxsize)
    return pos, first.add_(second, alpha=de)


def _drift(pos: Tensor, vel: Tensor, growth: float, boxsize: float) -> None:
    pos.add_(vel, alpha=growth)
    _wrap(pos, boxsize)


def _wrap(pos: Tensor, boxsize: float) -> None:
    """Bring positions into [0, boxsize) in place; −1e-9 + boxsize rounds to boxsize, which is 0."""
    pos.remainder_(boxsize)
    pos[pos >= boxsize] = 0


def _kick(pos: Tensor, vel: Tensor, weight: float, boxsize: float, mesh: int) -> None:
    # the mean is known: summing the mesh would round differently with the number of threads
    field = force(deposit(pos, boxsize, mesh) * (mesh**3 / pos.shape[1]), boxsize)
    for part in range(0, pos.shape[1], CHUNK):
        cells, share = _corners(pos[:, part : part + CHUNK], boxsize, mesh)
        at = functional.embedding_bag(cells.T.contiguous(), field, per_sample_weights=share.T.contiguous(), mode="sum")
        vel[:, part : part + CHUNK].add_(at.T, alpha=weight)


def _corners(pos: Tensor, boxsize: float, mesh: int) -> tuple[Tensor, Tensor]:
    """The eight cells (8, N) of each particle's cloud and their shares."""
    x = pos * (mesh / boxsize)
    floor = x.floor()
    above = x - floor
    low = floor.to(torch.int32 if mesh**3 < 2**31 else torch.int64) % mesh
    cell = torch.stack((low, (low + 1) % mesh))  # (2, 3, N)
    share = torch.stack((1 - above, above))
    cells = ((cell[:, None, 0] * mesh + cell[None, :, 1]) * mesh)[:, :, None] + cell[None, None, :, 2]
    shares = (share[:, None, 0] * share[None, :, 1])[:, :, None] * share[None, None, :, 2]
    return cells.view(8, -1), shares.view(8, -1)


def _wavenumbers(n: int, device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Wavenumbers along x, y and the halved z, in units of the fundamental mode, shaped to broadcast."""
    full = torch.fft.fftfreq(n, 1 / n, device=device)
    return full[:, None, None], full[None, :, None], torch.fft.rfftfreq(n, 1 / n, device=device)[None, None, :]


def _odd(k: Tensor, n: int) -> Tensor:
    """The wavenumbers with the Nyquist frequency's set to zero, where i k is not defined for a real field."""
    return torch.where(k.abs() >= k.abs().max(), 0, k) if n % 2 == 0 else k
