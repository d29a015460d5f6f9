"""The matter behind tracers of a whole periodic volume in redshift space, to linear order.

Redshift space shows δ_s = b δ − ∇·(r̂ r̂·ψ) with ψ = v/aH = f i k δ(k)/k², along one direction Kaiser's (b + f μ²) δ,
which divides out mode by mode. Around an observer r̂ differs from cell to cell and mixes the modes; there δ is found by
iterating, as Burden et al. (2015) do, but with steps that converge for any bias: −∇·(r̂ r̂·ψ) is f times a projection
of ψ (0 to 1 of its size), so that a step of 1/(b + f/2) times what is left of the equation shrinks the error of the
velocity by (f/2)/(b + f/2) or more each time, where the plain step of 1/b takes f/b, which need not be below 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from velfield.errors import VelfieldError
from velfield.physics.linear import cube_sides, derivative, wavevectors

ITERATIONS = 60  # at a bias of 0.1 and f = 1, a factor of 0.83 each, 1e-4 is reached in 50


def matter_contrast(
    delta: NDArray[Any],
    boxsize: ArrayLike,
    *,
    bias: float,
    growth_rate: float,
    line_of_sight: ArrayLike | None = None,
    observer: ArrayLike | None = None,
    tolerance: float = 1e-3,
    workers: int = 1,
) -> NDArray[Any]:
    """Density contrast of matter in real space (x, y, z) from that of tracers in a periodic cube.

    Parameters
    ----------
    delta : ndarray (x, y, z)
        Density contrast of the tracers. float32 stays float32; all else becomes float64.
    boxsize : float or (3,)
        Sides of the cube [h⁻¹Mpc].
    bias, growth_rate : float
        Of the tracers; f of the universe.
    line_of_sight : (3,), optional
        Direction along which redshift space moved the tracers.
    observer : (3,), optional
        Place from which it did, from the cube's corner [h⁻¹Mpc], as every cell of the cube itself, not an image of it,
        is seen. With neither the tracers lie where they are.
    tolerance : float
        With an observer: where the iteration ends, as the velocity of what is left of the equation over that of the
        data.
    workers : int
        Threads of the Fourier transforms.

    Raises
    ------
    VelfieldError
        Where shapes or numbers make no sense, or the iteration does not end.
    """
    delta = np.asarray(delta)
    sides = cube_sides(delta.shape, boxsize)
    _check(bias, growth_rate, line_of_sight, observer, tolerance)
    real = np.float32 if delta.dtype == np.float32 else np.float64
    data = scipy.fft.rfftn(delta.astype(real, copy=False), workers=workers)
    if line_of_sight is not None:
        data /= _kaiser(delta.shape, sides, bias, growth_rate, np.asarray(line_of_sight, dtype=np.float64)).astype(real)
    elif observer is not None:
        away = _away(delta.shape, sides, np.asarray(observer, dtype=np.float64))
        radial = _Radial(delta.shape, sides, away, real, workers)
        data = _solve(data, radial, bias, growth_rate, tolerance)
    else:
        data /= real(bias)
    return np.asarray(scipy.fft.irfftn(data, s=delta.shape, workers=workers, overwrite_x=True))


def _kaiser(
    shape: tuple[int, ...], sides: NDArray[np.float64], bias: float, growth_rate: float, n: NDArray[np.float64]
) -> NDArray[np.float64]:
    """B + f μ² of every mode of a real transform."""
    k = wavevectors(shape, sides)
    k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    k2[0, 0, 0] = np.inf
    along = sum(n[axis] * derivative(k, shape, axis) for axis in range(3)) / np.sqrt(n @ n)
    return np.asarray(bias + growth_rate * along**2 / k2)


def _solve(data: NDArray[Any], radial: _Radial, bias: float, growth_rate: float, tolerance: float) -> NDArray[Any]:
    """Modes of δ from those of δ_s."""
    real = data.real.dtype.type
    found = data / real(bias + growth_rate / 3)  # right on average over directions
    size, left = radial.speed(data), np.inf
    for _ in range(ITERATIONS):
        rest = data - real(bias) * found
        radial.subtract(rest, found, growth_rate)
        left = radial.speed(rest)
        if left <= tolerance * size:
            return found
        rest *= real(1 / (bias + growth_rate / 2))
        found += rest
    raise VelfieldError(
        f"redshift space cannot be undone: iterations={ITERATIONS}, left={left / size:.2g}, tolerance={tolerance:g}, "
        f"bias={bias:g}, growth_rate={growth_rate:g}; raise the tolerance"
    )


class _Radial:
    """The redshift-space term −∇·(r̂ r̂·ψ) of one cube, with ``away`` from the observer to each cell along each axis."""

    def __init__(
        self, shape: tuple[int, ...], sides: NDArray[np.float64], away: list[NDArray[Any]], real: Any, workers: int
    ) -> None:
        self.shape, self.workers = shape, workers
        k = wavevectors(shape, sides)
        k2 = (k[0] ** 2 + k[1] ** 2 + k[2] ** 2).astype(real)
        k2[0, 0, 0] = np.inf
        self.inverse_k2 = np.divide(1, k2, out=k2)
        self.ik = [(1j * derivative(k, shape, axis)).astype(np.result_type(real, np.complex64)) for axis in range(3)]
        self.away = [along.astype(real) for along in away]
        square = self.away[0] ** 2 + self.away[1] ** 2 + self.away[2] ** 2
        square[square < (0.5 * (sides / np.array(shape)).min()) ** 2] = np.inf  # the observer's own cell: no direction
        self.inverse_square = np.divide(1, square, out=square)

    def subtract(self, rest: NDArray[Any], modes: NDArray[Any], growth_rate: float) -> None:
        """Take the term that the matter's ``modes`` make off ``rest``, in place."""
        real = modes.real.dtype.type
        potential = modes * self.inverse_k2
        along = np.zeros(self.shape, dtype=real)
        for ik, away in zip(self.ik, self.away, strict=True):
            part = scipy.fft.irfftn(ik * potential, s=self.shape, workers=self.workers, overwrite_x=True)
            part *= away
            along += part
        del potential, part
        along *= self.inverse_square * real(growth_rate)
        for ik, away in zip(self.ik, self.away, strict=True):
            rest += ik * scipy.fft.rfftn(away * along, workers=self.workers, overwrite_x=True)

    def speed(self, modes: NDArray[Any]) -> float:
        """Norm of the velocity that a density contrast makes; its unit does not matter."""
        return float(np.sqrt(sum(np.vdot(m, m * w).real for m, w in zip(modes, self.inverse_k2, strict=True))))


def _away(shape: tuple[int, ...], sides: NDArray[np.float64], observer: NDArray[np.float64]) -> list[NDArray[Any]]:
    """From the observer to each cell's centre along each axis [h⁻¹Mpc], shaped to broadcast."""
    return [
        ((np.arange(n) + 0.5) * side / n - place).reshape([-1 if i == axis else 1 for i in range(3)])
        for axis, (n, side, place) in enumerate(zip(shape, sides, observer, strict=True))
    ]


def _check(
    bias: float,
    growth_rate: float,
    line_of_sight: ArrayLike | None,
    observer: ArrayLike | None,
    tolerance: float,
) -> None:
    if not (0 < bias < np.inf and 0 <= growth_rate < np.inf and 0 < tolerance < 1):
        raise VelfieldError(
            f"no such reconstruction: bias={bias}, growth_rate={growth_rate}, tolerance={tolerance}; the bias must be "
            "positive, the growth rate not negative, the tolerance below 1"
        )
    if line_of_sight is not None and observer is not None:
        raise VelfieldError("two kinds of redshift space at once: line_of_sight and observer; give one of them")
    view = np.asarray([0, 0, 1] if line_of_sight is None else line_of_sight, dtype=np.float64)
    place = np.asarray([0, 0, 0] if observer is None else observer, dtype=np.float64)
    if view.shape != (3,) or not 0 < view @ view < np.inf or place.shape != (3,) or not np.isfinite(place).all():
        raise VelfieldError(
            f"no point or direction in space: line_of_sight={view.tolist()}, observer={place.tolist()}; "
            "give three numbers"
        )
