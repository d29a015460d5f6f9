"""Whether error bars are true: how often the truth lies within them, against how often it should."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from velfield.errors import VelfieldError

NOMINAL = np.array([0.05, *np.arange(0.1, 0.95, 0.1), 0.95, 0.99])  # shares that the calibration is taken at
SHARES = {"coverage_68": 0.68, "coverage_95": 0.95}
CALIBRATION = (*SHARES, "chi2")


def half_width(share: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The number of standard deviations within which a Gaussian has this share: 0.994 for 68 %, 1.960 for 95 %."""
    return np.asarray(ndtri(0.5 + 0.5 * np.asarray(share)))


def calibrate(
    predicted: NDArray[np.floating], true: NDArray[np.floating], std: NDArray[np.floating]
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Measures of error bars of velocities, all (3, cells) [km/s]: coverages and χ², and the coverage at `NOMINAL`.

    χ² is the mean of (error / std)²: 1 where the error bars are true, more where they are too short.
    """
    if not (std > 0).all():  # NaN is not
        wrong = std[~(std > 0)]
        raise VelfieldError(
            f"not a standard deviation: velocity_std={wrong[0]:g} km/s, components={wrong.size}; "
            "a model's error bars must be positive wherever it predicts"
        )
    pull = np.abs(predicted - true).astype(np.float64) / std
    if not pull.size:
        return dict.fromkeys(CALIBRATION, np.nan), np.full(len(NOMINAL), np.nan)
    values = {name: float((pull < half_width(share)).mean()) for name, share in SHARES.items()}
    ordered = np.sort(pull, axis=None)
    return values | {"chi2": float((pull**2).mean())}, np.searchsorted(ordered, half_width(NOMINAL)) / ordered.size
