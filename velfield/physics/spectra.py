"""Power, cross-correlation and redshift-space multipoles of periodic fields.

P(k) = V |δ_k|² / N² with N cells in the volume V; a vector field's power is the sum over its components. Every mode of
the full transform counts once: a real transform keeps one of each pair k, −k, which then counts for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from scipy.special import eval_legendre

from velfield.arguments import numbers
from velfield.errors import VelfieldError
from velfield.physics.linear import as_field, cube_sides


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Power in shells of k; a shell without modes holds NaN.

    Attributes
    ----------
    k : ndarray (nk,)
        Mean wavenumber of the shell's modes [h Mpc⁻¹].
    power : ndarray (nk,), or (nell, nk) from `multipoles`
        [field² (h⁻¹Mpc)³].
    modes : ndarray (nk,), int64
        Number of modes in the shell, k and −k both.
    """

    k: NDArray[np.float64]
    power: NDArray[np.float64]
    modes: NDArray[np.int64]


def power(
    field: NDArray[Any], boxsize: ArrayLike, other: NDArray[Any] | None = None, bins: ArrayLike | None = None
) -> Spectrum:
    """Power spectrum of a scalar (x, y, z) or vector field (component, x, y, z), or cross spectrum with ``other``.

    Parameters
    ----------
    field, other : ndarray
        Periodic fields of one shape; the mean is a mode like the others, at k = 0, outside the default shells.
    boxsize : float or (3,)
        Sides of the cube [h⁻¹Mpc].
    bins : array_like (nk + 1,), optional
        Edges of the shells [h Mpc⁻¹], lower edge included. By default they are one fundamental mode of the longest
        side wide, centred on its multiples, up to the lowest Nyquist frequency.
    """
    field, other = as_field(field, "field"), None if other is None else as_field(other, "other")
    sides, edges = _check(field, other, boxsize, bins)
    products = _products(field, other, sides)
    shape = field.shape[-3:]
    modes, k, (mean,) = _shells(products, _wavenumbers(shape, sides), _pairs(shape[2]), edges, [lambda p, *_: p])
    return Spectrum(k=k, power=mean, modes=modes)


def correlation(
    a: NDArray[Any], b: NDArray[Any], boxsize: ArrayLike, bins: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean k [h Mpc⁻¹] and r(k) = P_ab / √(P_aa P_bb) of two scalar or vector fields, in the shells of `power`.

    r is NaN in a shell without modes or where a field has no power.
    """
    cross, auto_a, auto_b = power(a, boxsize, b, bins), power(a, boxsize, bins=bins), power(b, boxsize, bins=bins)
    norm = np.sqrt(auto_a.power * auto_b.power)
    return cross.k, np.divide(cross.power, norm, out=np.full_like(norm, np.nan), where=norm > 0)


def multipoles(
    field: NDArray[Any],
    boxsize: ArrayLike,
    los: ArrayLike,
    ells: tuple[int, ...] = (0, 2),
    bins: ArrayLike | None = None,
) -> Spectrum:
    """Multipoles P_ℓ(k) = (2ℓ + 1) ⟨P(k) L_ℓ(μ)⟩ of a scalar field along one line of sight (3,), a unit vector.

    ``power`` of the result is (nell, nk), one row per ℓ of ``ells``; shells as in `power`.
    """
    field = as_field(field, "field")
    sides, edges = _check(field, None, boxsize, bins)
    n = np.asarray(los, dtype=np.float64)
    if field.ndim != 3 or n.shape != (3,) or not abs(n @ n - 1) < 1e-6:
        raise VelfieldError(
            f"no multipoles of this: field={field.shape}, los={n.tolist()}; give a cube (x, y, z) and a unit vector"
        )

    def legendre(ell: int) -> Callable[..., NDArray[np.float64]]:
        def weighted(p: NDArray[Any], k: NDArray[Any], vectors: list[NDArray[Any]]) -> NDArray[np.float64]:
            along = vectors[0] * n[0] + vectors[1] * n[1] + vectors[2] * n[2]
            mu = np.divide(along, k, out=np.zeros_like(k), where=k > 0)
            return np.asarray((2 * ell + 1) * p * eval_legendre(ell, mu))

        return weighted

    products = _products(field, None, sides)
    weights = [legendre(ell) for ell in ells]
    modes, k, means = _shells(products, _wavenumbers(field.shape, sides), _pairs(field.shape[2]), edges, weights)
    return Spectrum(k=k, power=np.array(means), modes=modes)


def _check(
    field: NDArray[Any], other: NDArray[Any] | None, boxsize: ArrayLike, bins: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sides of the cube (3,) and edges of the shells."""
    sides = cube_sides(field.shape, boxsize, axes=4)
    if other is not None and other.shape != field.shape:
        raise VelfieldError(f"fields of different shapes: {field.shape}, {other.shape}; give two on the same grid")
    if bins is None:
        fundamental = 2 * np.pi / sides.max()
        nyquist = np.pi * (np.array(field.shape[-3:]) / sides).min()
        return sides, fundamental * (np.arange(max(int(nyquist / fundamental + 0.5), 1) + 1) + 0.5)
    edges = numbers(bins, "bins", "wavenumber").astype(np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise VelfieldError(f"shells out of order: bins={edges.tolist()}; give at least two increasing edges")
    return sides, edges


def _wavenumbers(shape: tuple[int, ...], sides: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    kx, ky = (2 * np.pi * scipy.fft.fftfreq(n, side / n) for n, side in zip(shape[:2], sides[:2], strict=True))
    kz = 2 * np.pi * scipy.fft.rfftfreq(shape[2], sides[2] / shape[2])
    return [kx, ky[:, None], kz[None, :]]


def _products(field: NDArray[Any], other: NDArray[Any] | None, sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """V Re(a b*) / N² of the modes of a real transform, summed over components."""
    shape = field.shape[-3:]
    field = field.reshape(-1, *shape)
    other = None if other is None else other.reshape(-1, *shape)
    total = np.zeros((shape[0], shape[1], shape[2] // 2 + 1))
    for c in range(len(field)):
        a = scipy.fft.rfftn(field[c])
        b = a if other is None else scipy.fft.rfftn(other[c])
        total += a.real * b.real + a.imag * b.imag
    return np.asarray(total * (sides.prod() / np.prod(shape, dtype=float) ** 2))


def _pairs(nz: int) -> NDArray[np.int64]:
    """How many modes of the full transform each of the real one's stands for, along z: k and −k unless they are one."""
    pairs = np.full(nz // 2 + 1, 2)
    pairs[0] = 1
    if nz % 2 == 0:
        pairs[-1] = 1
    return pairs


def _shells(
    products: NDArray[np.float64],
    vectors: list[NDArray[np.float64]],
    pairs: NDArray[np.int64],
    edges: NDArray[np.float64],
    weights: list[Callable[..., NDArray[np.float64]]],
) -> tuple[NDArray[np.int64], NDArray[np.float64], list[NDArray[np.float64]]]:
    """Number of modes, mean k, and mean of each weighted product per shell, plane by plane to spare memory."""
    kx, ky, kz = vectors
    twice = np.broadcast_to(pairs, products.shape[1:]).ravel()
    n = len(edges) - 1
    sums = np.zeros((2 + len(weights), n))
    for i, plane in enumerate(products):
        k = np.sqrt(kx[i] ** 2 + ky**2 + kz**2)
        shell = np.searchsorted(edges, k.ravel(), side="right") - 1
        inside = (shell >= 0) & (shell < n)
        columns = [np.ones_like(k), k, *(weight(plane, k, [kx[i], ky, kz]) for weight in weights)]
        for row, column in enumerate(columns):
            sums[row] += np.bincount(shell[inside], (column.ravel() * twice)[inside], minlength=n)
    means = np.full((1 + len(weights), n), np.nan)
    np.divide(sums[1:], sums[0], out=means, where=sums[0] > 0)
    return sums[0].astype(np.int64), means[0], list(means[1:])
