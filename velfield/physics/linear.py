"""Linear theory: the velocity that a density contrast makes, v(k) = i a H f δ(k) k/k², and Gaussian smoothing.

Fourier conventions: docs/conventions.md. The cube is taken as periodic unless it is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from velfield.arguments import number, numbers, overdensity, redshift_of
from velfield.errors import VelfieldError
from velfield.physics.cosmology import OUTER_RIM, Background, Cosmology, background_of
from velfield.physics.modes import backward, cells_of, forward, planes_of_k2, room

SPACE = ("x", "y", "z")


def linear_velocity(
    delta: NDArray[Any],
    boxsize: ArrayLike,
    cosmology: Cosmology | Background = OUTER_RIM,
    redshift: float = 0.0,
    bias: float = 1.0,
    pad: float = 1,
    smoothing: float = 0.0,
    *,
    workers: int = 1,
) -> NDArray[Any]:
    """Linear peculiar velocity (3, x, y, z) [km/s] of a density contrast (x, y, z).

    Parameters
    ----------
    delta : ndarray (x, y, z)
        Density contrast of matter, or of tracers with ``bias``, value / mean − 1; counts and 1 + δ are refused
        (`velfield.arguments.overdensity`). float32 is computed and returned in float32, everything else in float64.
    boxsize : float or (3,)
        Sides of the cube [h⁻¹Mpc].
    cosmology : Cosmology, or one of astropy's
        Gives aH and the growth rate f.
    redshift : float
        Of the snapshot, from 0 on.
    bias : float
        Linear bias of the tracers; divides the velocity.
    pad : float
        The cube is put into one ``pad`` times larger along each axis, empty (δ = 0) elsewhere, and cut out again: 2
        keeps an isolated box from feeling its own periodic images.
    smoothing : float
        Radius R [h⁻¹Mpc] of a Gaussian exp(−k²R²/2).
    workers : int
        Threads of the Fourier transforms.

    Notes
    -----
    The mean velocity of the (padded) cube is zero: v(k=0) is unknown to the density. The component of a mode at the
    Nyquist frequency of its own axis is zero. Units, masks and names of dimensions: docs/conventions.md, "From Python".
    """
    cosmology = background_of(cosmology)
    delta, redshift = overdensity(delta, "delta"), redshift_of(redshift)
    bias, pad = number(bias, "bias"), number(pad, "pad")
    smoothing = number(smoothing, "smoothing", "length", h=cosmology.h)
    if delta.ndim != 3:
        raise VelfieldError(f"density contrast of the wrong shape: delta={delta.shape}; give one cube (x, y, z)")
    sides = cube_sides(delta.shape, boxsize, h=cosmology.h)
    if not (0 < bias < np.inf and 1 <= pad < np.inf and 0 <= smoothing < np.inf):
        raise VelfieldError(
            f"no such reconstruction: bias={bias}, pad={pad}, smoothing={smoothing}; "
            "bias must be positive, pad at least 1, smoothing not negative"
        )
    check_known(delta, "density contrast")
    real = np.float32 if delta.dtype == np.float32 else np.float64
    shape = tuple(round(n * pad) for n in delta.shape)
    modes = room(shape, real)
    cells, inside = cells_of(modes, shape[2]), tuple(slice(n) for n in delta.shape)
    if shape != delta.shape:
        cells[...] = 0
    cells[inside] = delta
    forward(modes, shape[2], workers=workers)
    factor = cosmology.aH(redshift) * cosmology.growth_rate(redshift) / bias
    velocity = np.empty((3, *delta.shape), dtype=real)
    sides = sides * np.array(shape) / delta.shape
    for axis, component in enumerate(components(modes, shape, sides, factor, smoothing=smoothing, workers=workers)):
        velocity[axis] = component[inside]
    return velocity


def components(
    modes: NDArray[Any],
    shape: Sequence[int],
    sides: NDArray[np.float64],
    factor: float,
    *,
    smoothing: float = 0.0,
    workers: int = 1,
) -> Iterator[NDArray[Any]]:
    """The components x, y, z of factor · i k δ(k) / k², one after the other, each a cube (x, y, z).

    As large as the density contrast itself twice, and no more: ``modes`` and one component, whose memory the next one
    takes.

    Parameters
    ----------
    modes : ndarray
        δ(k) of a cube of this ``shape``, as `velfield.physics.modes.forward` makes them; used up.
    sides : ndarray (3,)
        Of the cube [h⁻¹Mpc].
    factor : float
        aHf [km/s / (h⁻¹Mpc)] for a velocity in km/s.
    smoothing : float
        Radius R [h⁻¹Mpc] of a Gaussian exp(−k²R²/2).
    """
    shape = tuple(shape)
    k = wavevectors(shape, sides)
    _filter(modes, k, lambda k2: factor * np.exp(-0.5 * smoothing**2 * k2) / np.where(k2 > 0, k2, 1))
    part = np.empty_like(modes)
    for axis in range(3):
        np.multiply(modes, (1j * derivative(k, shape, axis)).astype(modes.dtype), out=part)
        yield backward(part, shape[2], workers=workers)


def smooth(field: NDArray[Any], boxsize: ArrayLike, radius: float, *, workers: int = 1) -> NDArray[Any]:
    """Convolve the last three axes, periodic, with a Gaussian of rms ``radius`` [h⁻¹Mpc]: times exp(−k²R²/2).

    ``boxsize`` [h⁻¹Mpc] is the side of the cube, or its three sides. float32 stays float32; all else becomes float64.
    What comes out is in the unit of ``field``.
    """
    field = as_field(field, "field")
    sides = cube_sides(field.shape, boxsize, axes=field.ndim)
    radius = number(radius, "radius", "length")
    check_known(field, "field")
    if not radius >= 0:
        raise VelfieldError(f"no such smoothing: radius={radius}; give 0 or a positive length")
    shape, axes = field.shape[-3:], (-3, -2, -1)
    real = np.float32 if field.dtype == np.float32 else np.float64
    modes = scipy.fft.rfftn(field.astype(real, copy=False), axes=axes, workers=workers)
    _filter(modes, wavevectors(shape, sides), lambda k2: np.exp(-0.5 * radius**2 * k2))
    return np.asarray(scipy.fft.irfftn(modes, s=shape, axes=axes, workers=workers, overwrite_x=True))


def as_field(field: Any, name: str) -> NDArray[Any]:
    """A field (…, x, y, z) in its own unit; a DataArray by the names of its dimensions, space last."""
    dims = getattr(field, "dims", ())
    return numbers(field, name, "any", dims=(*(d for d in dims if d not in SPACE), *SPACE) if dims else ())


def check_known(field: NDArray[Any], what: str) -> None:
    """Refuse a field with cells that are not finite."""
    if not np.isfinite(field).all():
        raise VelfieldError(
            f"{what} with holes: not finite={np.count_nonzero(~np.isfinite(field))} of {field.size} cells; "
            "give a number for each, 0 where nothing is known"
        )


def cube_sides(
    shape: Sequence[int], boxsize: ArrayLike, axes: int = 3, *, h: float | None = None
) -> NDArray[np.float64]:
    """Three sides [h⁻¹Mpc] of a field of at most so many ``axes``, the last three of which are space.

    ``boxsize`` [h⁻¹Mpc] is the side of the cube, or its three sides; ``h`` is for one in units without it.
    """
    sides = numbers(boxsize, "boxsize", "length", h=h).astype(np.float64)
    positive = sides.shape in ((), (3,)) and bool(((sides > 0) & (sides < np.inf)).all())
    if not 3 <= len(shape) <= axes or 0 in shape or not positive:
        raise VelfieldError(
            f"no such cube: shape={tuple(shape)}, boxsize={sides.tolist()}; "
            "give axes x, y, z (last) and one positive side or three"
        )
    return np.broadcast_to(sides, 3)


def wavevectors(shape: tuple[int, ...], sides: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Wavenumbers along each axis [h Mpc⁻¹], shaped to broadcast over the modes of a real transform."""
    frequencies = (scipy.fft.fftfreq, scipy.fft.fftfreq, scipy.fft.rfftfreq)
    return [
        (2 * np.pi * frequency(n, side / n)).reshape([-1 if i == axis else 1 for i in range(3)])
        for axis, (frequency, n, side) in enumerate(zip(frequencies, shape, sides, strict=True))
    ]


def derivative(k: list[NDArray[np.float64]], shape: tuple[int, ...], axis: int) -> NDArray[np.float64]:
    """Wavenumbers along one axis, 0 at its Nyquist frequency, where i k is not defined for a real field."""
    n = shape[axis]
    along = k[axis].copy()
    if n % 2 == 0:
        along.flat[n // 2] = 0
    return along


def _filter(
    modes: NDArray[Any],
    k: list[NDArray[np.float64]],
    response: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    """Multiply modes (…, x, y, z) by a response to k² in place, plane by plane: a whole cube of k² is never made."""
    for i, k2 in planes_of_k2(k):
        modes[..., i, :, :] *= response(k2).astype(modes.real.dtype)
