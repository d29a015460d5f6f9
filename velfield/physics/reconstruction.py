"""The matter behind tracers of a whole periodic volume in redshift space, to linear order.

Redshift space shows δ_s = b δ − ∇·(r̂ r̂·ψ) with ψ = v/aH = f i k δ(k)/k², along one direction Kaiser's (b + f μ²) δ,
which divides out mode by mode. Around an observer r̂ differs from cell to cell and mixes the modes; there δ is found by
iterating, as Burden et al. (2015) do, but with steps that converge for any bias: −∇·(r̂ r̂·ψ) is f times a projection
of ψ (0 to 1 of its size), so that a step of 1/(b + f/2) times what is left of the equation shrinks the error of the
velocity by (f/2)/(b + f/2) or more each time, where the plain step of 1/b takes f/b, which need not be below 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from velfield.arguments import number, numbers, overdensity
from velfield.errors import VelfieldError
from velfield.physics.linear import check_known, cube_sides, derivative, wavevectors
from velfield.physics.modes import backward, cells_of, forward, planes_of_k2, room

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
        Density contrast of the tracers, value / mean − 1. float32 stays float32; all else becomes float64.
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
    delta = overdensity(delta, "delta")
    sides = cube_sides(delta.shape, boxsize)
    check_known(delta, "density contrast")
    modes = room(delta.shape, np.float32 if delta.dtype == np.float32 else np.float64)
    cells_of(modes, delta.shape[2])[...] = delta
    forward(modes, delta.shape[2], workers=workers)
    modes = matter_modes(
        modes,
        delta.shape,
        sides,
        bias=number(bias, "bias"),
        growth_rate=number(growth_rate, "growth_rate"),
        line_of_sight=None if line_of_sight is None else numbers(line_of_sight, "line_of_sight"),
        observer=None if observer is None else numbers(observer, "observer", "length"),
        tolerance=tolerance,
        workers=workers,
    )
    return np.ascontiguousarray(backward(modes, delta.shape[2], workers=workers))


def matter_modes(
    modes: NDArray[Any],
    shape: Sequence[int],
    sides: NDArray[np.float64],
    *,
    bias: float,
    growth_rate: float,
    line_of_sight: ArrayLike | None = None,
    observer: ArrayLike | None = None,
    tolerance: float = 1e-3,
    workers: int = 1,
) -> NDArray[Any]:
    """Modes of matter from those of tracers in a cube of this ``shape``, which are used up.

    Parameters as of `matter_contrast`; modes as `velfield.physics.modes.forward` makes them. In place, but for an
    observer: there four arrays as large as the cube are held, the modes among them.
    """
    _check(bias, growth_rate, line_of_sight, observer, tolerance)
    shape, real = tuple(shape), modes.real.dtype.type
    if line_of_sight is not None:
        _divide_by_kaiser(modes, shape, sides, bias, growth_rate, np.asarray(line_of_sight, dtype=np.float64))
    elif observer is not None:
        away = _away(shape, sides, np.asarray(observer, dtype=np.float64))
        return _solve(modes, _Radial(shape, sides, away, real, workers), bias, growth_rate, tolerance)
    else:
        modes /= real(bias)
    return modes


def _divide_by_kaiser(
    modes: NDArray[Any],
    shape: tuple[int, ...],
    sides: NDArray[np.float64],
    bias: float,
    growth_rate: float,
    n: NDArray[np.float64],
) -> None:
    """Divide by b + f μ², in place, plane by plane."""
    k = wavevectors(shape, sides)
    x, y, z = (n[axis] * derivative(k, shape, axis) / np.sqrt(n @ n) for axis in range(3))
    for i, k2 in planes_of_k2(k):
        along = x[i] + y[0] + z[0]
        modes[i] /= (bias + growth_rate * along**2 / np.where(k2 > 0, k2, np.inf)).astype(modes.real.dtype)


def _solve(rest: NDArray[Any], radial: _Radial, bias: float, growth_rate: float, tolerance: float) -> NDArray[Any]:
    """Modes of δ from those of δ_s, which become what is left of the equation."""
    size = radial.speed(rest)
    found = np.zeros_like(rest)
    step = 1 / (bias + growth_rate / 3)  # right on average over directions
    for _ in range(ITERATIONS):
        radial.move(rest, found, step, bias, growth_rate)
        left = radial.speed(rest)
        if left <= tolerance * size:
            return found
        step = 1 / (bias + growth_rate / 2)
    raise VelfieldError(
        f"redshift space cannot be undone: iterations={ITERATIONS}, left={left / size:.2g}, tolerance={tolerance:g}, "
        f"bias={bias:g}, growth_rate={growth_rate:g}; raise the tolerance"
    )


class _Radial:
    """The equation of one cube, with ``away`` from the observer to each cell along each axis [h⁻¹Mpc].

    It holds a cube's modes and a cube's cells, beside those that it is given: what follows from places alone is made
    plane by plane each time.
    """

    def __init__(
        self, shape: tuple[int, ...], sides: NDArray[np.float64], away: list[NDArray[Any]], real: Any, workers: int
    ) -> None:
        self.shape, self.workers = shape, workers
        self.k = wavevectors(shape, sides)
        self.part = room(shape, real)
        self.ik = [(1j * derivative(self.k, shape, axis)).astype(self.part.dtype) for axis in range(3)]
        self.away = [along.astype(real) for along in away]
        self.along = np.empty(shape, dtype=real)
        self.nearest = (0.5 * (sides / np.array(shape)).min()) ** 2  # the observer's own cell: no direction

    def move(self, rest: NDArray[Any], found: NDArray[Any], step: float, bias: float, growth_rate: float) -> None:
        """Add ``step`` times the rest to what was found, and take what that makes off the rest, both in place.

        It makes b δ − ∇·(r̂ r̂·ψ), ψ = f i k δ(k)/k².
        """
        real, n, along = self.along.dtype.type, self.shape[2], self.along
        along[...] = 0
        for ik, away in zip(self.ik, self.away, strict=True):
            for i, inverse in self._inverse_k2():
                np.multiply(rest[i], inverse, out=self.part[i])
            self.part *= ik
            cells = backward(self.part, n, workers=self.workers)
            cells *= away
            along += cells
        x, y, z = self.away
        for i in range(len(along)):
            square = x[i] ** 2 + y[0] ** 2 + z[0] ** 2
            square[square < self.nearest] = np.inf
            along[i] *= real(step * growth_rate) / square
        for i in range(len(rest)):
            found[i] += real(step) * rest[i]
        rest *= real(1 - step * bias)
        for ik, away in zip(self.ik, self.away, strict=True):
            np.multiply(along, away, out=cells_of(self.part, n))
            forward(self.part, n, workers=self.workers)
            self.part *= ik
            rest += self.part

    def speed(self, modes: NDArray[Any]) -> float:
        """Norm of the velocity that a density contrast makes; its unit does not matter."""
        return float(np.sqrt(sum(float(np.vdot(modes[i], modes[i] * w).real) for i, w in self._inverse_k2())))

    def _inverse_k2(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """Number and 1/k² (y, z) of each plane; 0 where k is."""
        for i, k2 in planes_of_k2(self.k):
            yield i, (1 / np.where(k2 > 0, k2, np.inf)).astype(self.along.dtype)


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
