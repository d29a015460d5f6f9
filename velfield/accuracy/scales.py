"""How near a predicted velocity field is to the true one, scale by scale: correlation, transfer, divergence, vorticity.

A box cut out of a larger volume is not periodic; its opposite faces would make a step that fills every spectrum. Fields
are therefore faded out towards the faces (Hann window, sin² along each axis) before they are transformed.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from velfield.physics.spectra import correlation, power

ROUNDING = 1e-20  # of the divergence's largest power: less vorticity than this is none
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # k [h Mpc⁻¹] and a value for each


def by_scale(predicted: NDArray[np.floating], true: NDArray[np.floating], cellsize: float) -> dict[str, Curve]:
    """Measures of two velocity fields (3, x, y, z) [km/s] in shells of k [h Mpc⁻¹], NaN where the truth has no power.

    ``r_of_k`` is their correlation, ``transfer`` √(P_pred / P_true) of the velocity; ``divergence_ratio`` and
    ``vorticity_ratio`` are P_pred / P_true of ∇·v and ∇×v, ``divergence_r`` is the correlation of ∇·v.
    """
    sides = np.array(true.shape[1:]) * cellsize
    window = taper(true.shape[1:])
    p, t = (_centred(v) * window for v in (predicted, true))
    (div_p, curl_p), (div_t, curl_t) = (derivatives(v, cellsize) for v in (predicted, true))
    k, transfer = _ratio(p, t, sides)
    return {
        "r_of_k": correlation(p, t, sides),
        "transfer": (k, np.sqrt(transfer)),
        "divergence_ratio": _ratio(div_p, div_t, sides),
        "divergence_r": correlation(div_p, div_t, sides),
        "vorticity_ratio": _ratio(curl_p, curl_t, sides, least=ROUNDING * float(np.nanmax(power(div_t, sides).power))),
    }


def r_of_k(predicted: NDArray[np.floating], true: NDArray[np.floating], cellsize: float) -> Curve:
    """Correlation of two velocity fields (3, x, y, z) by wavenumber [h Mpc⁻¹]: all components together."""
    window = taper(true.shape[1:])
    p, t = (_centred(v) * window for v in (predicted, true))
    return correlation(p, t, np.array(true.shape[1:]) * cellsize)


def taper(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The window (x, y, z): the product of sin² along each axis."""
    window = np.ones(())
    for n in shape:
        window = window[..., None] * np.sin(_phase(n)) ** 2
    return window


def derivatives(velocity: NDArray[np.floating], cellsize: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tapered divergence (x, y, z) and vorticity (3, x, y, z) [km s⁻¹ h Mpc⁻¹] of a box that is not periodic.

    w ∂v = ∂(w v) − v ∂w for the window w: the first term is periodic and differentiated in Fourier space, the second
    is known. So a field without vorticity gets none from the faces, nor from the window.
    """
    v, shape = _centred(velocity), velocity.shape[1:]
    k = [2 * np.pi * scipy.fft.fftfreq(n, cellsize) for n in shape[:2]]
    k.append(2 * np.pi * scipy.fft.rfftfreq(shape[2], cellsize))
    for one, n in zip(k, shape, strict=True):
        if n % 2 == 0:
            one[n // 2] = 0  # the Nyquist mode has no derivative on the grid
    wave = [one.reshape([-1 if axis == i else 1 for i in range(3)]) for axis, one in enumerate(k)]
    steep = [_window_slope(shape, axis, cellsize) for axis in range(3)]
    modes = [scipy.fft.rfftn(component * taper(shape)) for component in v]

    def of(axis: int, component: int) -> NDArray[np.float64]:
        faded = scipy.fft.irfftn(1j * wave[axis] * modes[component], s=shape)
        return np.asarray(faded - v[component] * steep[axis])

    divergence = of(0, 0) + of(1, 1) + of(2, 2)
    return divergence, np.stack([of(1, 2) - of(2, 1), of(2, 0) - of(0, 2), of(0, 1) - of(1, 0)])


def _window_slope(shape: tuple[int, ...], along: int, cellsize: float) -> NDArray[np.float64]:
    """∂w along one axis [h Mpc⁻¹]."""
    slope = np.ones(())
    for axis, n in enumerate(shape):
        one = np.sin(_phase(n)) ** 2 if axis != along else np.sin(2 * _phase(n)) * np.pi / (n * cellsize)
        slope = slope[..., None] * one
    return slope


def _phase(n: int) -> NDArray[np.float64]:
    return np.pi * (np.arange(n) + 0.5) / n


def _centred(velocity: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(velocity - velocity.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64))


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64], sides: NDArray[np.float64], least: float = 0.0) -> Curve:
    """P_a / P_b by k, where P_b is above ``least``."""
    above, below = power(a, sides), power(b, sides)
    ratio = np.full_like(below.power, np.nan)
    np.divide(above.power, below.power, out=ratio, where=below.power > least)
    return above.k, ratio
