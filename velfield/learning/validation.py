"""What a network reaches on validation boxes, and the calibration of its error bars there.

Error bars are learnt by likelihood, which does not promise that 68 % of the truth lies within one of them. So the σ
that the network gives [σ_v] is mapped by σ → factor · σ^power, the same for all components. Residuals have heavier
tails than a Gaussian, so no factor may make the coverages at 68 and 95 % nominal together: for any power the factor is
the one at which they miss by equally much, one above and one below, and the power is the one, between limits, at which
that is least. A power above 0 keeps the order of the cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from velfield.accuracy.calibration import SHARES, half_width
from velfield.learning.batches import Batch
from velfield.learning.loss import LossConfig, velocity_loss
from velfield.network.error_bars import Calibration

KEPT = 4_000_000  # residuals that a calibration is made from, evenly spread over the boxes
Z68, Z95 = (float(half_width(share)) for share in SHARES.values())
POWERS = np.linspace(0.5, 2.0, 61)

# a batch's velocity [σ_v], ln σ² or None, and the cells that count
Forward = Callable[[Batch], tuple[Tensor, Tensor | None, Tensor]]


def calibrate(
    residual: NDArray[Any], sigma: NDArray[Any], powers: Sequence[float] | NDArray[np.float64] = POWERS
) -> Calibration:
    """Find the map of σ at which residuals are covered as they should be; both 1-D, in the same unit."""
    size, log_sigma = np.abs(residual.astype(np.float64)), np.log(sigma.astype(np.float64))
    best: tuple[float, float, float] | None = None
    for power in sorted(powers, key=lambda p: abs(p - 1)):  # of equals the one that changes least
        scaled = np.sort(size * np.exp(-power * log_sigma))
        factor = _balanced(scaled)
        miss = abs(_share(scaled, Z95 * factor) - 0.95)
        if factor > 0 and (best is None or miss < best[0] - 1e-4):
            best = miss, factor, float(power)
    if best is None:  # residuals that are zero
        return Calibration(residuals=len(size))
    _, factor, power = best

    def covered(z: float, factor: float = 1.0, power: float = 1.0) -> float:
        return float((size <= z * factor * np.exp(power * log_sigma)).mean())

    return Calibration(
        factor=factor,
        power=power,
        residuals=len(size),
        coverage_68=covered(Z68, factor, power),
        coverage_95=covered(Z95, factor, power),
        before_68=covered(Z68),
        before_95=covered(Z95),
    )


def _share(ordered: NDArray[np.float64], largest: float) -> float:
    """Share of sorted numbers that are not above the largest."""
    return float(np.searchsorted(ordered, largest, side="right")) / len(ordered)


def _balanced(ordered: NDArray[np.float64]) -> float:
    """Of sorted |residual|/σ the factor at which the coverages at 68 and 95 % miss by equally much, in opposite ways.

    Both rise with the factor, so the sum of what they miss has one zero, between the factors that make either nominal.
    """
    low, high = sorted(float(np.quantile(ordered, share)) / z for share, z in ((0.68, Z68), (0.95, Z95)))
    for _ in range(50):
        middle = 0.5 * (low + high)
        over = _share(ordered, Z68 * middle) - 0.68 + _share(ordered, Z95 * middle) - 0.95
        low, high = (low, middle) if over > 0 else (middle, high)
    return high


def calibrate_on(forward: Forward, batches: Iterable[Batch], boxes: int) -> Calibration:
    """Calibrate on the counted cells of ``boxes`` validation boxes."""
    residuals, sigmas = [], []
    with torch.inference_mode():
        for batch in batches:
            predicted, log_variance, counted = forward(batch)
            if log_variance is None:
                return Calibration()
            for p, t, s, c in zip(predicted, batch.velocity, log_variance, counted, strict=True):
                every = -(-3 * c.numel() * boxes // KEPT)
                residuals.append((p - t)[:, c].flatten()[::every].cpu().numpy())
                sigmas.append(Calibration().error_bars(s[:, c]).flatten()[::every].cpu().numpy())
    return calibrate(np.concatenate(residuals), np.concatenate(sigmas))


def validate(forward: Forward, batches: Iterable[Batch], config: LossConfig) -> dict[str, float]:
    """Loss and its terms, slope of predicted on true components and their correlation, on the validation boxes."""
    sums: dict[str, float] = {}
    boxes, moments = 0, np.zeros(6)
    with torch.inference_mode():
        for batch in batches:
            predicted, log_variance, counted = forward(batch)
            for name, term in velocity_loss(predicted, batch.velocity, counted, config, log_variance).items():
                sums[name] = sums.get(name, 0.0) + float(term) * len(predicted)
            boxes += len(predicted)
            where = counted.unsqueeze(1).expand_as(predicted)
            p, t = predicted[where].double(), batch.velocity[where].double()
            moments += [float(m) for m in (p.sum(), t.sum(), (p * t).sum(), (p * p).sum(), (t * t).sum(), len(p))]
    mean_p, mean_t, pt, pp, tt = moments[:5] / max(moments[5], 1)
    cov, var_p, var_t = pt - mean_p * mean_t, pp - mean_p**2, tt - mean_t**2
    reached = {name: value / boxes for name, value in sums.items()}
    return reached | {"slope": float(cov / var_t), "r": float(cov / math.sqrt(max(var_p * var_t, 1e-30)))}
