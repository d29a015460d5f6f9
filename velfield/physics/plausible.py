"""What velocities can be, and what counts of a complete catalogue can be: linear theory's bounds, with their reasons.

A wrong redshift, a wrong unit or a survey that is taken for a complete catalogue gives numbers that look like any
others. They are held against what a ΛCDM universe allows; docs/prediction.md has each bound's chance of a false alarm.

Velocities: linear theory gives one component's rms σ_v over all modes, an upper bound of what a finite volume holds.

Counts: a cube of side s of a complete catalogue holds N̄ tracers with the relative variance ξ̄ = b² σ²(s), in redshift
space with Kaiser's factor, beside the shot noise 1/N̄. It is empty with the probability of the negative binomial
distribution, P₀ = (1 + N̄ ξ̄)^(−1/ξ̄), which counts of galaxies and halos follow; so a cube can be chosen that a complete
catalogue leaves empty once in 10⁹. Over the blocks of a volume the relative counts scatter with variance ξ̄ + 1/N̄; a
volume that a survey fills in part scatters many times more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from velfield.physics.cosmology import Cosmology

FASTEST = 5000.0  # km/s: beyond it no cell of any simulation; the fastest halos have some 4000 in clusters that merge
RMS = 2.5  # σ_v that the rms of a component may reach: linear theory on unsmoothed, nonlinear matter reaches 1.5
FAST_SHARE = 1e-4  # of cells that may be beyond `FASTEST`
NEVER = 1e-9  # chance that a cube of a complete catalogue, of the side that is looked at, holds no tracer
EMPTY_SHARE = 1e-3  # of cells in the middle of such a cube: by Markov's inequality one complete catalogue in 10⁶
TOLERANCE = 2.0  # how far linear theory may be off for the variance of counts: bias, nonlinear growth
FALSE_ALARM = 1e-9  # chance that the counts of a complete catalogue scatter more, at one size of blocks
LEAST_COUNT = 10.0  # mean of a block: below it the scatter of counts is not that of Gaussian fields
LINEAR = 0.25  # largest ξ̄ of blocks, for the same reason
FAR_SHARE = 0.1  # of cells far from a training: of an over-density with std 1, beyond 10 std are at most 1/11 (Markov)


@dataclass(frozen=True, kw_only=True)
class VelocitySums:
    """Sums over predicted cells, which are added up over boxes.

    Parameters
    ----------
    cells : int
        Cells whose velocity is known.
    squares : tuple of 3 float
        Σv² of each component [km²/s²].
    fast : int
        Cells beyond `FASTEST`.
    lost : int
        Cells whose velocity should be known, and is not finite.
    """

    cells: int
    squares: tuple[float, float, float]
    fast: int
    lost: int

    @classmethod
    def of(cls, velocity: NDArray[Any], known: NDArray[np.bool_]) -> VelocitySums:
        """The sums of velocities (3, x, y, z) [km/s] in the cells (x, y, z) that should be known."""
        there = known & np.isfinite(velocity).all(axis=0)
        values = velocity[:, there].astype(np.float64)
        x, y, z = (values**2).sum(axis=1).tolist()
        fast = int(((values**2).sum(axis=0) > FASTEST**2).sum())
        cells = int(there.sum())
        return cls(cells=cells, squares=(x, y, z), fast=fast, lost=int(known.sum()) - cells)

    @classmethod
    def total(cls, parts: Sequence[VelocitySums]) -> VelocitySums:
        """The sums of all parts, in their order."""
        x, y, z = (float(sum(part.squares[axis] for part in parts)) for axis in range(3))
        cells, fast, lost = (sum(getattr(part, name) for part in parts) for name in ("cells", "fast", "lost"))
        return cls(cells=cells, squares=(x, y, z), fast=fast, lost=lost)

    @property
    def rms(self) -> tuple[float, float, float]:
        """Of each component [km/s]; 0 without a cell."""
        x, y, z = (float(np.sqrt(square / max(self.cells, 1))) for square in self.squares)
        return x, y, z

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for receipts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VelocitySums:
        """Rebuild what `to_dict` wrote."""
        x, y, z = map(float, values["squares"])
        return cls(cells=values["cells"], squares=(x, y, z), fast=values["fast"], lost=values["lost"])

    def faults(self, sigma_v: float) -> list[str]:
        """What about them cannot be, as ``name=value`` with its bound; ``sigma_v`` is linear theory's [km/s]."""
        found = []
        if max(self.rms) > RMS * sigma_v:
            rms = ", ".join(f"{value:.0f}" for value in self.rms)
            found.append(
                f"rms of vx, vy, vz={rms} km/s, at most={RMS * sigma_v:.0f} km/s ({RMS:g} σ_v of linear theory)"
            )
        if self.fast > FAST_SHARE * self.cells:
            share = f"{100 * self.fast / self.cells:.2g} %"
            found.append(f"cells beyond {FASTEST:.0f} km/s={share}, at most={100 * FAST_SHARE:g} %")
        if self.lost:
            found.append(f"cells without a finite velocity={self.lost}, at most=0")
        return found


@dataclass(frozen=True, kw_only=True)
class Tracers:
    """Tracers of a complete catalogue, as linear theory describes their counts.

    Parameters
    ----------
    density : float
        Mean number per (h⁻¹Mpc)³.
    boost : float
        Their power over that of matter, in the space in which they are counted: `boost_of`.
    """

    cosmology: Cosmology
    redshift: float
    density: float
    boost: float

    def variance(self, side: float) -> float:
        """Relative variance ξ̄ of their density in cubes of this side [h⁻¹Mpc], as in spheres of the same volume."""
        radius = side * (3 / (4 * np.pi)) ** (1 / 3)
        return self.boost * float(self.cosmology.sigma(radius, self.redshift)) ** 2

    def reach(self, cellsize: float, most: int) -> int | None:
        """Least m such that a cube of 2m + 1 cells is empty with a chance of at most `NEVER`; None beyond ``most``.

        Even where linear theory is off by `TOLERANCE`.
        """
        for reach in range(most + 1):
            side = (2 * reach + 1) * cellsize
            if void_probability(self.density * side**3, TOLERANCE * self.variance(side)) <= NEVER:
                return reach
        return None

    def scatter(self, counts: NDArray[Any], widths: NDArray[Any]) -> list[tuple[float, float, float]]:
        """How counts in blocks of a cube scatter: side of the blocks [h⁻¹Mpc], relative variance, and its bound.

        Larger and larger blocks are put together as the number of blocks allows; sizes at which their counts are too
        small or not linear are left out.

        Parameters
        ----------
        counts : ndarray (M, M, M)
            In the blocks that fill the cube.
        widths : ndarray (M,)
            Of the blocks along each axis [h⁻¹Mpc].

        Returns
        -------
        list of (side, variance, most)
            ``variance`` is the mean of (n / n̄V − 1)², with the cube's own mean n̄. Of a complete catalogue it is above
            ``most`` with a chance of `FALSE_ALARM`, even where linear theory is off by `TOLERANCE`.
        """
        blocks, boxsize, found = len(widths), float(np.sum(widths)), []
        for joined in (j for j in range(1, blocks // 2 + 1) if blocks % j == 0):
            m = blocks // joined
            w = np.asarray(widths, dtype=np.float64).reshape(m, joined).sum(axis=1)
            n = np.asarray(counts, dtype=np.float64).reshape(m, joined, m, joined, m, joined).sum(axis=(1, 3, 5))
            mean, side = n.sum() / m**3, boxsize / m
            clustering = self.variance(side)
            if mean < LEAST_COUNT or clustering > LINEAR:
                continue
            volume = w[:, None, None] * w[:, None] * w
            variance = float(((n / volume * (volume.sum() / n.sum()) - 1) ** 2).mean())
            freedom = self._freedom(boxsize, m, 1 / mean)
            surely = float(special.chdtri(freedom, FALSE_ALARM)) / freedom
            found.append((side, variance, float(TOLERANCE * surely * (clustering + 1 / mean))))
        return found

    def _freedom(self, boxsize: float, m: int, shot: float) -> float:
        """Independent contributions to the variance of m³ blocks: (Σλ)²/Σλ² over the modes of a periodic cube.

        A mode contributes λ = b² P(k) W²(k) / V, W the blocks' window; shot noise is shared by all blocks alike.
        """
        n = np.arange(-2 * m, 2 * m + 1)
        window = np.sinc(n / m) ** 2
        k = 2 * np.pi / boxsize * np.sqrt(n[:, None, None] ** 2 + n[:, None] ** 2 + n**2)
        power = self.boost * self.cosmology.linear_power(k, self.redshift) / boxsize**3
        each = power * window[:, None, None] * window[:, None] * window
        return float((each.sum() + shot) ** 2 / ((each**2).sum() + shot**2 / m**3))


def possible(velocity: NDArray[Any]) -> NDArray[np.bool_]:
    """Which velocities (3, …) [km/s] are finite and not beyond `FASTEST`."""
    return np.asarray((velocity.astype(np.float64) ** 2).sum(axis=0) <= FASTEST**2)


def boost_of(bias: float, growth_rate: float = 0.0) -> float:
    """Mean power of tracers over that of matter: b² in real space, with a growth rate Kaiser's in redshift space."""
    return bias**2 + 2 / 3 * bias * growth_rate + growth_rate**2 / 5


def void_probability(mean: float, variance: float) -> float:
    """Chance that a volume is empty which holds ``mean`` tracers, relative variance ``variance`` beside shot noise.

    The negative binomial distribution's (1 + N̄ ξ̄)^(−1/ξ̄); without clustering Poisson's e^(−N̄).
    """
    return float(np.exp(-mean if variance == 0 else -np.log1p(mean * variance) / variance))
