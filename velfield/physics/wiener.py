"""The Wiener filter: of all velocity fields that a Gaussian universe can have, the mean of those that fit the counts.

The data are d = M (R δ + ε) in the cells of a survey: δ is the linear density contrast of matter, with covariance S
from the linear power; R its bias and the linear redshift-space distortion; ε the shot noise, with covariance N; M says
where there are data. The mean of δ is S Rᵀ Mᵀ (M R S Rᵀ Mᵀ + N)⁻¹ d, and its velocity is linear theory's (Zaroubi et
al. 1995; Fisher et al. 1995). The inverse is found by conjugate gradients: S acts in Fourier space, M and N in cells.
Beyond the survey the mean fades to zero, so an isolated box has neither images of itself nor walls.

Redshift space, to first order in the displacement ψ = v / aH: R δ = b δ − ∇·(r̂ r̂·ψ), along one direction Kaiser's
(b + f μ²) δ, around an observer with r̂ as it is in each cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator, cg

from velfield.arguments import marks, number, numbers, overdensity, redshift_of
from velfield.errors import VelfieldError
from velfield.physics.cosmology import Cosmology
from velfield.physics.linear import SPACE, cube_sides, derivative, wavevectors
from velfield.physics.radial import RadialView

ITERATIONS = 300


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a count of tracers in a cube of cells says about the matter.

    Parameters
    ----------
    boxsize : float or (3,)
        Sides of the cube [h⁻¹Mpc].
    bias : float
        Linear bias of the tracers.
    density : float
        Their mean number per (h⁻¹Mpc)³, for the shot noise.
    mask : bool ndarray (x, y, z), optional
        Where there are data; everywhere by default.
    line_of_sight : (3,), optional
        Direction along which redshift space moved them.
    observer : (3,), optional
        Place from which it did, from the cube's corner [h⁻¹Mpc]; with neither they lie where they are.
    places : three ndarrays (n,), optional
        With an observer: the cells' centres along each axis [h⁻¹Mpc], from wherever the observer's place is counted,
        for a cube that reaches around a periodic parent, whose cells are seen where they lie in it.
    """

    boxsize: ArrayLike
    bias: float
    density: float
    mask: NDArray[np.bool_] | None = None
    line_of_sight: ArrayLike | None = None
    observer: ArrayLike | None = None
    places: Sequence[ArrayLike] | None = None


def wiener_velocity(
    delta: NDArray[Any],
    survey: Survey,
    *,
    cosmology: Cosmology,
    redshift: float,
    pad: float = 1.5,
    tolerance: float = 1e-3,
    workers: int = 1,
) -> NDArray[np.float32]:
    """Mean velocity (3, x, y, z) [km/s] of all Gaussian universes that fit a tracers' density contrast.

    Parameters
    ----------
    delta : ndarray (x, y, z)
        Density contrast of the tracers' number in the cells, value / mean − 1; what it is outside the mask does not
        matter.
    survey : Survey
        What it says about the matter.
    cosmology : Cosmology, or one of astropy's
        Gives linear power, aH and growth rate.
    redshift : float
        Of the snapshot, from 0 on.
    pad : float
        Side over that of the cube of the periodic volume in which the universes live: 1 for a cube that is itself
        periodic, as of a whole simulation.
    tolerance : float
        Norm of what is left of the equation over that of the data, where the iteration ends.
    workers : int
        Threads of the Fourier transforms.

    Raises
    ------
    VelfieldError
        Where shapes or numbers make no sense, or the iteration does not end.
    """
    cosmology, redshift = Cosmology.of(cosmology), redshift_of(redshift)
    survey, pad = _plain(survey, cosmology.h), number(pad, "pad")
    given = numbers(delta, "delta", dims=SPACE)
    mask = np.ones(given.shape, dtype=bool) if survey.mask is None else survey.mask
    delta = overdensity(given, "delta", mask)
    _check(delta, mask, survey, pad, tolerance)
    sides = cube_sides(delta.shape, survey.boxsize)
    problem = _Problem(delta.shape, sides, survey, cosmology, redshift, pad, workers)
    noise = delta.size / (survey.density * float(np.prod(sides)))
    data = np.where(mask, delta, 0).astype(np.float32)

    def covariance(x: NDArray[Any]) -> NDArray[Any]:
        cells = np.where(mask, x.reshape(delta.shape).astype(np.float32, copy=False), 0)
        seen = problem.observed(problem.power * problem.spread(cells))
        return np.asarray((np.where(mask, seen, 0) + noise * x.reshape(delta.shape)).ravel())

    def nearly_inverse(x: NDArray[Any]) -> NDArray[Any]:
        """The inverse of a cube that is periodic and full, and sees no direction."""
        modes = scipy.fft.rfftn(x.reshape(delta.shape).astype(np.float32, copy=False), workers=workers)
        modes /= problem.smooth_power + noise
        return np.asarray(scipy.fft.irfftn(modes, s=delta.shape, workers=workers).ravel())

    size = (delta.size, delta.size)
    solution, left = cg(
        LinearOperator(size, matvec=covariance, dtype=np.float32),
        data.ravel(),
        rtol=tolerance,
        maxiter=ITERATIONS,
        M=LinearOperator(size, matvec=nearly_inverse, dtype=np.float32),
    )
    if left:
        raise VelfieldError(
            f"the Wiener filter does not settle: iterations={ITERATIONS}, tolerance={tolerance}, bias={survey.bias}, "
            f"density={survey.density}; check these, or raise the tolerance"
        )
    return problem.velocity(problem.power * problem.spread(np.where(mask, solution.reshape(delta.shape), 0)))


class _Problem:
    """The operators of one cube: the padded volume's modes, the power in them, and the way to cells and back."""

    def __init__(
        self,
        shape: Sequence[int],
        sides: NDArray[np.float64],
        survey: Survey,
        cosmology: Cosmology,
        redshift: float,
        pad: float,
        workers: int,
    ) -> None:
        self.inside = tuple(slice(n) for n in shape)
        self.shape = tuple(n if pad == 1 else scipy.fft.next_fast_len(int(np.ceil(n * pad)), real=True) for n in shape)
        self.workers = workers
        cell = sides / np.array(shape)
        wide = cell * np.array(self.shape)
        k = wavevectors(self.shape, wide)
        k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
        self.inverse_k2 = (1 / np.where(k2 > 0, k2, np.inf)).astype(np.float32)
        self.ik = [(1j * derivative(k, self.shape, axis)).astype(np.complex64) for axis in range(3)]
        self.power = _power(k, cell, cosmology, redshift)
        self.speed = cosmology.aH(redshift) * cosmology.growth_rate(redshift)
        self.bias, self.f = survey.bias, cosmology.growth_rate(redshift)
        seen = survey.line_of_sight is not None or survey.observer is not None
        boost = survey.bias**2 + (2 / 3 * survey.bias * self.f + self.f**2 / 5 if seen else 0)
        self.smooth_power = boost * _power(wavevectors(tuple(shape), sides), cell, cosmology, redshift)
        self.radial: RadialView | None = None
        self.kaiser: NDArray[np.float32] = np.full((1, 1, 1), self.bias, dtype=np.float32)
        if survey.line_of_sight is not None:
            n = np.asarray(survey.line_of_sight, dtype=np.float64)
            n = n / np.sqrt(n @ n)
            mu2 = (sum(n[a] * derivative(k, self.shape, a) for a in range(3))) ** 2 * self.inverse_k2
            self.kaiser = (self.bias + self.f * mu2).astype(np.float32)
        elif survey.observer is not None:
            away = _away(shape, cell, survey)
            self.radial = RadialView(self.shape, cell, away, bias=self.bias, growth_rate=self.f, workers=workers)

    def spread(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Rᵀ: modes of the matter from numbers in the survey's cells."""
        if self.radial is not None:
            return self.radial.spread(cells)
        grid = np.zeros(self.shape, dtype=np.float32)
        grid[self.inside] = cells
        return np.asarray(self.kaiser * scipy.fft.rfftn(grid, workers=self.workers))

    def observed(self, modes: NDArray[Any]) -> NDArray[Any]:
        """R: what the survey's cells see of the matter's modes."""
        if self.radial is not None:
            return self.radial.observed(modes)
        return np.asarray(self._cells(self.kaiser * modes)[self.inside])

    def velocity(self, modes: NDArray[Any]) -> NDArray[np.float32]:
        """Linear velocity in the survey's cells [km/s]."""
        potential = np.float32(self.speed) * self.inverse_k2 * modes
        return np.stack([self._cells(ik * potential)[self.inside] for ik in self.ik])

    def _cells(self, modes: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(scipy.fft.irfftn(modes, s=self.shape, workers=self.workers))


def _power(
    k: list[NDArray[np.float64]], cell: NDArray[np.float64], cosmology: Cosmology, redshift: float
) -> NDArray[np.float32]:
    """Covariance of the mean density contrasts of cells, in Fourier space: P(k) W²(k) over a cell's volume."""
    k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    values, place = np.unique(k2, return_inverse=True)
    power = cosmology.linear_power(np.sqrt(values), redshift)[place].reshape(k2.shape)
    for along, side in zip(k, cell, strict=True):
        power *= np.sinc(along * side / (2 * np.pi)) ** 2
    return np.asarray(power / np.prod(cell), dtype=np.float32)


def _away(shape: Sequence[int], cell: NDArray[np.float64], survey: Survey) -> list[NDArray[np.float64]]:
    """From the observer to the cells' centres along each axis [h⁻¹Mpc]."""
    usual = [(np.arange(n) + 0.5) * side for n, side in zip(shape, cell, strict=True)]
    places = usual if survey.places is None else [np.asarray(p, dtype=np.float64) for p in survey.places]
    return [p - place for p, place in zip(places, np.asarray(survey.observer, dtype=np.float64), strict=True)]


def _plain(survey: Survey, h: float) -> Survey:
    """The same survey in plain numbers of our units."""
    return replace(
        survey,
        boxsize=numbers(survey.boxsize, "boxsize", "length", h=h),
        bias=number(survey.bias, "bias"),
        density=number(survey.density, "density", "number density", h=h),
        mask=None if survey.mask is None else marks(survey.mask, "mask", SPACE),
        line_of_sight=None if survey.line_of_sight is None else numbers(survey.line_of_sight, "line_of_sight"),
        observer=None if survey.observer is None else numbers(survey.observer, "observer", "length", h=h),
        places=None if survey.places is None else [numbers(p, "places", "length", h=h) for p in survey.places],
    )


def _check(delta: NDArray[Any], mask: NDArray[np.bool_], survey: Survey, pad: float, tolerance: float) -> None:
    if delta.ndim != 3 or mask.shape != delta.shape:
        raise VelfieldError(
            f"shapes do not fit: delta={delta.shape}, mask={mask.shape}; give one cube (x, y, z), and its mask"
        )
    if not (0 < survey.bias < np.inf and 0 < survey.density < np.inf and 1 <= pad < np.inf and 0 < tolerance < 1):
        raise VelfieldError(
            f"no such reconstruction: bias={survey.bias}, density={survey.density}, pad={pad}, tolerance={tolerance}; "
            "bias and density must be positive, pad at least 1, the tolerance below 1"
        )
    if survey.line_of_sight is not None and survey.observer is not None:
        raise VelfieldError("two kinds of redshift space at once: line_of_sight and observer; give one of them")
    if survey.places is not None and tuple(np.shape(p) for p in survey.places) != tuple((n,) for n in delta.shape):
        raise VelfieldError(
            f"places that are not those of the cells: places={[np.shape(p) for p in survey.places]}, "
            f"delta={delta.shape}; give one for each cell along each axis"
        )
    if not mask.any() or not np.isfinite(delta[mask]).all():
        raise VelfieldError(
            f"density contrast with holes: cells with data={int(mask.sum())}, not finite among them="
            f"{int(np.count_nonzero(~np.isfinite(delta[mask])))}; mask what is not known"
        )
