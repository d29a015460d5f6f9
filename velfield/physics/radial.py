"""Linear redshift space around an observer, from the matter's modes to a survey's cells and back.

δ_s = b δ − ∇·(r̂ r̂·ψ) with ψ = f ∇∇⁻²(−δ) is, since ∇·r̂ = 2/r and r̂ does not change along itself,

    b δ + f Σ_ab r̂_a r̂_b T_ab − (2 f / r) Σ_a r̂_a U_a,   T_ab = k_a k_b/k² δ(k),   U_a = i k_a/k² δ(k):

nine fields on the survey's cells alone, δ = T_xx + T_yy + T_zz among them. They share the passes of their transforms
along x and y, and after each axis only the survey's cells are kept, so that all together cost as much as four
transforms of the padded volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from velfield.physics.linear import derivative, wavevectors

# the fields by their powers of i k along x and y, then those along z: T_xx is (2, 0, 0), U_z is (0, 0, 1)
FIELDS = {(2, 0): (0,), (1, 1): (0,), (1, 0): (0, 1), (0, 2): (0,), (0, 1): (0, 1), (0, 0): (1, 2)}


class RadialView:
    """What tracers in ``cells`` of a padded volume show of its matter.

    Parameters
    ----------
    shape : (int, int, int)
        Cells of the padded, periodic volume.
    cellsize : ndarray (3,)
        Sides of a cell [h⁻¹Mpc].
    away : sequence of three ndarrays
        From the observer to the centres of the survey's cells along each axis [h⁻¹Mpc]; the survey begins at the
        volume's corner.
    bias, growth_rate : float
        b and f.
    workers : int
        Threads of the Fourier transforms.
    """

    def __init__(
        self,
        shape: Sequence[int],
        cellsize: NDArray[np.float64],
        away: Sequence[NDArray[np.float64]],
        *,
        bias: float,
        growth_rate: float,
        workers: int,
    ) -> None:
        self.shape, self.workers = tuple(shape), workers
        self.cells = tuple(len(along) for along in away)
        k = wavevectors(self.shape, cellsize * np.array(self.shape))
        k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
        self.inverse_k2 = (1 / np.where(k2 > 0, k2, np.inf)).astype(np.float32)
        self.ik = [(1j * derivative(k, self.shape, axis)).astype(np.complex64) for axis in range(3)]
        self.k2 = [(-(k[axis] ** 2)).astype(np.float32) for axis in range(3)]  # (i k)², also at the Nyquist frequency
        self.weights = _weights(away, float(cellsize.min()), bias, growth_rate)

    def observed(self, modes: NDArray[Any]) -> NDArray[np.float32]:
        """R: what the survey's cells show of the matter's modes."""
        seen = np.zeros(self.cells, dtype=np.float32)
        along_x = self._back(modes * self.inverse_k2, (0, 1, 2), 0)
        for (x, y), powers in FIELDS.items():
            along_y = self._back(along_x[x], (y,), 1)[y]
            for z in powers:
                lines = self._times(along_y, z, 2)
                lines = scipy.fft.irfft(lines, n=self.shape[2], axis=2, workers=self.workers, overwrite_x=True)
                seen += self.weights[x, y, z] * lines[..., : self.cells[2]]
        return seen

    def spread(self, cells: NDArray[Any]) -> NDArray[np.complex64]:
        """Rᵀ: modes of the matter from numbers in the survey's cells."""
        n, options = self.shape, {"workers": self.workers, "overwrite_x": True}
        along_x: dict[int, Any] = {}
        for (x, y), powers in FIELDS.items():
            along_y: Any = 0
            for z in powers:
                field = scipy.fft.rfft(self.weights[x, y, z] * cells, n=n[2], axis=2, **options)
                along_y = along_y + self._times(field, z, 2, sign=-1)
            along_y = self._times(scipy.fft.fft(along_y, n=n[1], axis=1, **options), y, 1, sign=-1)
            along_x[x] = along_x[x] + along_y if x in along_x else along_y
        parts = (self._times(scipy.fft.fft(p, n=n[0], axis=0, **options), x, 0, sign=-1) for x, p in along_x.items())
        return np.asarray(sum(parts) * self.inverse_k2)

    def _back(self, modes: NDArray[Any], powers: Sequence[int], axis: int) -> dict[int, NDArray[Any]]:
        """The inverse transform along one axis of the derivatives of these orders, on the survey's cells."""
        keep = (slice(None),) * axis + (slice(self.cells[axis]),)
        return {p: scipy.fft.ifft(self._times(modes, p, axis), axis=axis, workers=self.workers)[keep] for p in powers}

    def _times(self, modes: NDArray[Any], power: int, axis: int, sign: int = 1) -> NDArray[Any]:
        """Modes times i k, or −i k for the adjoint, to this power."""
        if power == 0:
            return modes
        return modes * (np.complex64(sign) * self.ik[axis] if power == 1 else self.k2[axis])


def _weights(
    away: Sequence[NDArray[np.float64]], cell: float, bias: float, growth_rate: float
) -> dict[tuple[int, int, int], NDArray[np.float32]]:
    """What each field counts in each cell; the derivatives are of −∇⁻² δ, whose (i k)² is −k²."""
    r = [along.reshape([-1 if i == axis else 1 for i in range(3)]) for axis, along in enumerate(away)]
    square = r[0] ** 2 + r[1] ** 2 + r[2] ** 2
    square = np.where(square < (0.5 * cell) ** 2, np.inf, square)  # in the observer's own cell there is no direction
    powers = {0: (2, 0, 0), 1: (0, 2, 0), 2: (0, 0, 2)}
    weights: dict[tuple[int, int, int], Any] = {}
    for a in range(3):
        weights[powers[a]] = -(bias + growth_rate * r[a] ** 2 / square)
        first = tuple(int(i == a) for i in range(3))
        weights[first[0], first[1], first[2]] = -2 * growth_rate * r[a] / square
        for b in range(a):
            mixed = tuple(int(i in (a, b)) for i in range(3))
            weights[mixed[0], mixed[1], mixed[2]] = -2 * growth_rate * r[a] * r[b] / square
    return {field: weight.astype(np.float32) for field, weight in weights.items()}
