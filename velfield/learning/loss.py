"""The paper's loss: mean squared error, a dice loss, and a mean squared error weighted by the true speed.

All velocities are in units of σ_v, the rms velocity component of the training cells, so that the terms compare and
their weights mean the same for every simulation. With N cells and v_t, v_p the true and the predicted velocity:

    mse      = Σ |v_p − v_t|² / 3N
    dice     = 1 − 2 Σ v_p·v_t / (Σ |v_p|² + Σ |v_t|²)
    weighted = Σ |v_t|^α |v_p − v_t|² / 3N

With a predicted ln σ² = s for each component there is a fourth, of weight 1, whose gradient reaches s alone:

    nll      = Σ ½ [(v_p − v_t)² e⁻ˢ + s] / 3N

All terms follow from sums over cells (`loss_sums`), so that a batch can be taken in parts, here or by several
processes, and still have one loss, which is not the mean of the parts' losses: dice is a quotient of two sums.

What a term is for: where v_p and v_t have correlation ρ, the mse alone is least at the posterior mean, whose slope on
the truth is ρ²; dice is least where Σ|v_p|² = Σ|v_t|², slope ρ; weighting by speed (α > 0) lies between. A slope nearer
to 1 is thus bought, not better: report the slope both ways and ρ beside it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from velfield.errors import VelfieldError
from velfield.network.error_bars import LARGEST_LOG

DICE_OVER = ("batch", "sample", "channel")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and choices of the loss.

    Parameters
    ----------
    mse, dice, weighted : float
        Weight of each term; 0 leaves it out.
    alpha : float
        Power of the true speed in the weighted term: +1, or −1 and +2 as other readings of the paper's equation.
    floor : float
        Least speed [σ_v] that the weight knows where ``alpha`` is negative; keeps the weight finite at v_t = 0.
    dice_over : {"batch", "sample", "channel"}
        One dice over the whole batch, the mean of one a sample, or the mean of one a component.
    count_filled : bool
        Whether cells without a particle, whose velocity was filled in from their neighbours, count. They do unless
        asked otherwise: leaving them out would take the emptiest places out of the training.
    """

    mse: float = 1.0
    dice: float = 1.0
    weighted: float = 0.5
    alpha: float = 1.0
    floor: float = 0.1
    dice_over: str = "batch"
    count_filled: bool = True

    def __post_init__(self) -> None:
        weights = (self.mse, self.dice, self.weighted)
        if not all(0 <= weight < math.inf for weight in weights) or max(weights) == 0:
            raise VelfieldError(
                f"no such loss: mse={self.mse}, dice={self.dice}, weighted={self.weighted}; "
                "weights must be finite and not negative, and one positive"
            )
        if self.dice_over not in DICE_OVER:
            raise VelfieldError(
                f"unknown reduction of the dice loss: dice_over={self.dice_over!r}; choose {', '.join(DICE_OVER)}"
            )
        if not 0 < self.floor < math.inf or not math.isfinite(self.alpha):
            raise VelfieldError(
                f"no such weight of the speed: floor={self.floor}, alpha={self.alpha}; "
                "give a positive share of σ_v, and a finite power"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LossConfig:
        """Rebuild what `to_dict` wrote."""
        return cls(**values)


def counted_cells(flag: Tensor, config: LossConfig) -> Tensor:
    """Which cells count, from ``velocity_flag`` (box, x, y, z): never those outside the parent (2)."""
    return flag != 2 if config.count_filled else flag == 0


def velocity_loss(
    predicted: Tensor, true: Tensor, counted: Tensor, config: LossConfig, log_variance: Tensor | None = None
) -> dict[str, Tensor]:
    """Every term of the loss and their weighted sum.

    Parameters
    ----------
    predicted, true : Tensor
        Velocities (box, 3, x, y, z) [σ_v]; where ``counted`` is false ``true`` may be NaN.
    counted : Tensor
        bool (box, x, y, z): the cells that count.
    config : LossConfig
        Weights and choices.
    log_variance : Tensor, optional
        ln σ² (box, 3, x, y, z) of each component.

    Returns
    -------
    dict
        ``mse``, ``dice``, ``weighted`` unweighted, and ``loss``, their weighted sum; scalars that carry gradients.
        With a ``log_variance`` also ``nll``, which ``loss`` includes.
    """
    terms = loss_of(loss_sums(predicted, true, counted, config, log_variance), config)
    if log_variance is None:
        del terms["nll"]
    return terms


def loss_sums(
    predicted: Tensor, true: Tensor, counted: Tensor, config: LossConfig, log_variance: Tensor | None = None
) -> Tensor:
    """The sums that the loss is made of, arguments as of `velocity_loss`; those of parts of a batch add up.

    Cells, squared and weighted squared residuals, twice the negative log-likelihood; then products and powers of the
    dice loss (one or three of each), or, over samples, the sum of their dice and their number.
    """
    where = counted.unsqueeze(1)
    predicted = torch.where(where, predicted.float(), 0.0)
    true = torch.where(where, true.float(), 0.0)
    squared = (predicted - true).square().sum(dim=1)
    speed = true.square().sum(dim=1).sqrt()
    if config.alpha < 0:
        speed = speed.clamp(min=config.floor)
    sums = [counted.sum().float(), squared.sum(), (speed.pow(config.alpha) * squared).sum()]
    if log_variance is None:
        sums.append(torch.zeros_like(sums[0]))
    else:
        s = log_variance.float().clamp(-LARGEST_LOG, LARGEST_LOG)
        residual = (predicted - true).detach().square()
        sums.append(torch.where(where, residual * torch.exp(-s) + s, 0.0).sum())
    axes = {"batch": (0, 1, 2, 3, 4), "sample": (1, 2, 3, 4), "channel": (0, 2, 3, 4)}[config.dice_over]
    product = (predicted * true).sum(dim=axes).reshape(-1)
    power = (predicted.square() + true.square()).sum(dim=axes).reshape(-1)
    if config.dice_over == "sample":
        product, power = _dice(product, power).sum()[None], torch.full_like(power[:1], len(predicted))
    return torch.cat([torch.stack(sums), product, power])


def loss_of(sums: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Every term of the loss, ``nll`` too, and their weighted sum, from what `loss_sums` gave."""
    cells = 3 * sums[0].clamp(min=1)
    mse, weighted, nll = sums[1] / cells, sums[2] / cells, 0.5 * sums[3] / cells
    one, other = sums[4:].chunk(2)
    dice = (one / other if config.dice_over == "sample" else _dice(one, other)).mean()
    loss = config.mse * mse + config.dice * dice + config.weighted * weighted + nll
    return {"loss": loss, "mse": mse, "dice": dice, "weighted": weighted, "nll": nll}


def is_linear(config: LossConfig) -> bool:
    """Whether, with the cells and samples given, the loss is linear in the other sums."""
    return config.dice == 0 or config.dice_over == "sample"


def _dice(product: Tensor, power: Tensor) -> Tensor:
    tiny = torch.finfo(torch.float32).tiny  # all cells left out: dice 1, no NaN
    return 1 - 2 * product / power.clamp(min=tiny)
