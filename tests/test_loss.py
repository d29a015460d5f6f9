import math

import numpy as np
import pytest
import torch

from velfield.errors import VelfieldError
from velfield.learning.loss import LossConfig, counted_cells, velocity_loss

SHAPE = (2, 3, 4, 5, 6)


def fields(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)


def everywhere() -> torch.Tensor:
    return torch.ones(SHAPE[0], *SHAPE[2:], dtype=torch.bool)


def naive(predicted: np.ndarray, true: np.ndarray, counted: np.ndarray, alpha: float) -> dict[str, float]:
    """The module's three formulas, cell by cell."""
    cells, mse, weighted, product, power = 0, 0.0, 0.0, 0.0, 0.0
    for box, i, j, k in np.argwhere(counted):
        p, t = predicted[box, :, i, j, k], true[box, :, i, j, k]
        cells += 1
        mse += ((p - t) ** 2).sum()
        weighted += math.sqrt((t**2).sum()) ** alpha * ((p - t) ** 2).sum()
        product += (p * t).sum()
        power += (p**2).sum() + (t**2).sum()
    return {"mse": mse / (3 * cells), "dice": 1 - 2 * product / power, "weighted": weighted / (3 * cells)}


@pytest.mark.parametrize("alpha", [1.0, 2.0, -1.0])
def test_against_a_loop_over_cells(alpha):
    predicted, true = fields()
    counted = torch.rand(SHAPE[0], *SHAPE[2:], generator=torch.Generator().manual_seed(2)) < 0.7
    terms = velocity_loss(predicted, true, counted, LossConfig(alpha=alpha, floor=1e-6))
    expected = naive(predicted.double().numpy(), true.double().numpy(), counted.numpy(), alpha)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5)  # float32 sums of some 500 terms
    total = expected["mse"] + expected["dice"] + 0.5 * expected["weighted"]
    assert terms["loss"].item() == pytest.approx(total, rel=1e-5)


def test_perfect_and_opposite_predictions():
    _, true = fields()
    perfect = velocity_loss(true, true, everywhere(), LossConfig())
    assert perfect["loss"].item() == pytest.approx(0, abs=1e-6)  # float32 rounding of the dice's ratio
    opposite = velocity_loss(-true, true, everywhere(), LossConfig())
    assert opposite["dice"].item() == pytest.approx(2, abs=1e-6)
    assert opposite["mse"].item() == pytest.approx(4 * true.square().mean().item(), rel=1e-6)


def test_zero_prediction_has_the_variance_and_dice_one():
    _, true = fields()
    terms = velocity_loss(torch.zeros_like(true), true, everywhere(), LossConfig())
    assert terms["mse"].item() == pytest.approx(true.square().mean().item(), rel=1e-6)
    assert terms["dice"].item() == 1


@pytest.mark.parametrize(
    ("config", "slope"),
    [
        (LossConfig(mse=1, dice=0, weighted=0), 0.88**2),
        (LossConfig(mse=0, dice=1, weighted=0), 0.88),
    ],
)
def test_what_each_term_makes_of_the_slope(config, slope):
    # Gaussian truth known through data of correlation ρ = 0.88 (the paper's mean cos θ of 0.83): v_p = s E[v_t | data]
    rho = 0.88
    generator = torch.Generator().manual_seed(3)
    data = torch.randn((1, 3, 40, 40, 40), generator=generator)
    true = rho * data + math.sqrt(1 - rho**2) * torch.randn(data.shape, generator=generator)
    scale = torch.ones((), requires_grad=True)
    optimiser = torch.optim.LBFGS([scale], lr=0.5, max_iter=40)
    counted = torch.ones(1, 40, 40, 40, dtype=torch.bool)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = velocity_loss(scale * rho * data, true, counted, config)["loss"]
        loss.backward()
        return loss

    optimiser.step(closure)
    predicted = (scale * rho * data).detach()
    fitted = (predicted * true).sum() / true.square().sum()
    assert fitted.item() == pytest.approx(slope, abs=0.006)  # 192,000 components: 2.5 standard errors of 1/√N


def test_weighting_raises_the_slope_for_positive_alpha_only():
    rho = 0.88
    generator = torch.Generator().manual_seed(3)
    data = torch.randn((1, 3, 30, 30, 30), generator=generator)
    true = rho * data + math.sqrt(1 - rho**2) * torch.randn(data.shape, generator=generator)
    counted = torch.ones(1, 30, 30, 30, dtype=torch.bool)
    scales = torch.linspace(0.8, 1.4, 121)
    best = {}
    for alpha in (-1.0, 0.0, 1.0, 2.0):
        config = LossConfig(mse=0, dice=0, weighted=1, alpha=alpha)
        losses = [velocity_loss(s * rho * data, true, counted, config)["loss"].item() for s in scales]
        best[alpha] = float(scales[int(np.argmin(losses))])
    assert best[-1.0] < best[0.0] < best[1.0] < best[2.0]
    assert best[0.0] == pytest.approx(1, abs=0.01)  # α = 0 is the mse: the posterior mean


def test_dice_per_sample_and_per_channel():
    predicted, true = fields()
    for over, parts in (("sample", [(b,) for b in range(2)]), ("channel", [(slice(None), c) for c in range(3)])):
        terms = velocity_loss(predicted, true, everywhere(), LossConfig(dice_over=over))
        each = [
            1 - 2 * (predicted[part] * true[part]).sum() / (predicted[part] ** 2 + true[part] ** 2).sum()
            for part in parts
        ]
        assert terms["dice"].item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)


def test_cells_left_out_change_nothing_and_pass_no_gradient():
    predicted, true = fields()
    counted = everywhere()
    counted[:, 0] = False
    broken = true.clone()
    broken[:, :, 0] = math.nan
    predicted.requires_grad_(True)
    terms = velocity_loss(predicted, broken, counted, LossConfig())
    inner = torch.ones_like(counted[:, 1:])
    expected = velocity_loss(predicted[:, :, 1:], true[:, :, 1:], inner, LossConfig())
    assert terms["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-6)
    terms["loss"].backward()
    assert torch.isfinite(predicted.grad).all()
    assert not predicted.grad[:, :, 0].any()
    assert predicted.grad[:, :, 1:].abs().min() > 0


def test_no_cell_at_all_is_no_nan():
    predicted, true = fields()
    terms = velocity_loss(predicted, true, torch.zeros_like(everywhere()), LossConfig())
    assert terms["mse"].item() == 0
    assert terms["dice"].item() == 1


def test_negative_alpha_is_finite_at_rest():
    predicted, _ = fields()
    terms = velocity_loss(predicted, torch.zeros_like(predicted), everywhere(), LossConfig(alpha=-1, floor=0.1))
    assert terms["weighted"].item() == pytest.approx(10 * terms["mse"].item(), rel=1e-5)


def test_which_flags_count():
    flag = torch.tensor([0, 1, 2], dtype=torch.uint8)
    assert counted_cells(flag, LossConfig()).tolist() == [True, True, False]
    assert counted_cells(flag, LossConfig(count_filled=False)).tolist() == [True, False, False]


def test_turning_both_fields_leaves_the_loss():
    # a cyclic change of axes, of positions and components alike, is one of the cube's rotations
    predicted, true = (torch.randn(2, 3, 4, 4, 4) for _ in range(2))
    cells = torch.ones(2, 4, 4, 4, dtype=torch.bool)

    def turn(v: torch.Tensor) -> torch.Tensor:
        return v.permute(0, 1, 4, 2, 3)[:, [2, 0, 1]]

    for over in ("batch", "sample", "channel"):
        config = LossConfig(dice_over=over)
        before = velocity_loss(predicted, true, cells, config)["loss"].item()
        after = velocity_loss(turn(predicted), turn(true), cells, config)["loss"].item()
        assert after == pytest.approx(before, rel=1e-5)  # float32 sums in another order


def test_config_goes_through_a_dict():
    config = LossConfig(alpha=-1, dice_over="sample", count_filled=False)
    assert LossConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"mse": 0, "dice": 0, "weighted": 0}, "no such loss: mse=0, dice=0, weighted=0"),
        ({"dice": -1}, "dice=-1"),
        ({"dice_over": "cell"}, "unknown reduction of the dice loss: dice_over='cell'; choose batch, sample, channel"),
        ({"floor": 0}, "no such weight of the speed: floor=0"),
        ({"alpha": float("nan")}, "no such weight of the speed: floor=0.1, alpha=nan"),
        ({"dice": float("nan")}, "no such loss: mse=1.0, dice=nan"),
    ],
)
def test_refuses(wrong, text):
    with pytest.raises(VelfieldError) as error:
        LossConfig(**wrong)
    assert text in str(error.value)
