"""A universe to simulate: what can be asked for, and the steps and ranks that follow from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from velfield.catalogues.hacc import redshift_to_step
from velfield.errors import VelfieldError
from velfield.physics.cosmology import OUTER_RIM, Cosmology

WIDEST = 10.0  # h⁻¹Mpc between particles: beyond it the cells that halos are drawn in hold clusters of clusters
MOST = 1624  # particles along a side: its cube is below 2³²
RANK_SIDE = 300.0  # h⁻¹Mpc, largest block of one rank


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """A universe to simulate.

    Parameters
    ----------
    boxsize : float
        Side of the periodic volume [h⁻¹Mpc].
    particles : int
        Particles along a side, at best not more than 3 h⁻¹Mpc apart.
    redshifts : tuple of float
        Snapshots; each is taken at the nearest Outer Rim step.
    seed : int
        Of the initial conditions and of the halos.
    cosmology : Cosmology, or one of astropy's
        Background, growth, linear power and mass function.
    min_halo_mass : float
        Least massive halo [h⁻¹M⊙]; Outer Rim's is 3.7e10, 20 particles.
    steps : int
        Time steps from the start to the last snapshot, equal in a.
    mesh : int, optional
        Cells of the force mesh along a side; as many as particles by default; a finer one has more small-scale power
        but feels the lattice.
    start_redshift : float
        Where second-order theory hands over to the steps.
    halo_scatter : float
        Variance of the number of drawn halos in a cell of 3 particle spacings beyond Poisson's, relative to the square
        of the mean; 0 is Poisson.
    device : str
        ``cpu`` or ``cuda``.
    """

    boxsize: float
    particles: int
    redshifts: tuple[float, ...]
    seed: int
    cosmology: Cosmology = OUTER_RIM
    min_halo_mass: float = 3.7e10
    steps: int = 10
    mesh: int | None = None
    start_redshift: float = 19.0
    halo_scatter: float = 0.01
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "cosmology", Cosmology.of(self.cosmology))
        if not 0 < self.boxsize < math.inf or self.particles < 8 or self.particles % 2:
            raise VelfieldError(
                f"no such volume: boxsize={self.boxsize}, particles={self.particles}; "
                "give a positive side and an even number of particles along it, 8 or more"
            )
        if self.boxsize / self.particles > WIDEST:
            raise VelfieldError(
                f"particles too far apart: boxsize={self.boxsize:g}, particles={self.particles}; "
                f"take at least {2 * math.ceil(self.boxsize / WIDEST / 2)} along the side, {WIDEST:g} h⁻¹Mpc apart"
            )
        if self.particles > MOST:
            raise VelfieldError(
                f"too many particles: particles={self.particles}; take at most {MOST} along the side, so that 32 bits "
                "number them"
            )
        if self.force_mesh < self.particles or self.force_mesh % 2 or self.steps < 1 or self.seed < 0:
            raise VelfieldError(
                f"cannot run: mesh={self.force_mesh}, particles={self.particles}, steps={self.steps}, "
                f"seed={self.seed}; the mesh must be even and no coarser than the particles, steps at least 1, "
                "the seed not negative"
            )
        if not self.redshifts or not all(0 <= z < self.start_redshift < math.inf for z in self.redshifts):
            raise VelfieldError(
                f"snapshots out of reach: redshifts={self.redshifts}, start_redshift={self.start_redshift}; "
                "give at least one, not below 0, and begin above the highest"
            )
        if not 1e10 <= self.min_halo_mass <= 1e14 or not 0 <= self.halo_scatter < math.inf:
            raise VelfieldError(
                f"no such halos: min_halo_mass={self.min_halo_mass:g}, halo_scatter={self.halo_scatter}; "
                "give a mass from 1e10 to 1e14 h⁻¹M⊙ and a scatter that is not negative"
            )
        kind = self.device.partition(":")[0]
        if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
            raise VelfieldError(f"no such device here: device={self.device}; choose cpu, or cuda where there is a GPU")

    @property
    def force_mesh(self) -> int:
        """Cells of the force mesh along a side."""
        return self.particles if self.mesh is None else self.mesh

    @property
    def outer_rim_steps(self) -> tuple[int, ...]:
        """The Outer Rim steps of the snapshots, earliest first."""
        return tuple(sorted({redshift_to_step(z) for z in self.redshifts}))

    @property
    def dims(self) -> tuple[int, int, int]:
        """Ranks along x, y, z."""
        side = max(2, math.ceil(self.boxsize / RANK_SIDE))
        return (side, side, side)

    def parameters(self) -> dict[str, Any]:
        """Everything that the result depends on, as plain values."""
        values = dataclasses.asdict(self) | {"mesh": self.force_mesh, "outer_rim_steps": list(self.outer_rim_steps)}
        del values["redshifts"], values["device"]
        return values
