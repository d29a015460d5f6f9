import numpy as np
import pytest

from velfield.errors import VelfieldError
from velfield.network.normalisation import Channel, Normalisation, measure

KINDS = ("mass_overdensity", "number_density")


def boxes(number: int = 3, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(number):
        inputs = np.stack([rng.exponential(1, (6, 6, 6)) - 1, 0.07 * rng.exponential(1, (6, 6, 6))]).astype("f4")
        out.append((inputs, rng.normal(20, 300, (3, 6, 6, 6)).astype("f4"), np.zeros((6, 6, 6), "u1")))
    return out


@pytest.mark.parametrize("transform", ["log", "linear"])
def test_training_cells_have_mean_zero_and_deviation_one(transform):
    measured = measure(boxes(), KINDS, transform)
    values = np.stack([measured.inputs(box[0]) for box in boxes()])
    np.testing.assert_allclose(values.mean(axis=(0, 2, 3, 4)), 0, atol=1e-5)  # float32 of 648 cells
    np.testing.assert_allclose(values.std(axis=(0, 2, 3, 4)), 1, rtol=1e-5)
    assert values.dtype == np.float32


def test_log_is_of_the_density_over_its_mean():
    rho = np.array([0.0, 0.5, 3.0]).reshape(3, 1, 1)
    contrast = Channel(kind="mass_overdensity", transform="log", scale=1.0, mean=0.0, std=1.0)
    density = Channel(kind="mass_density", transform="log", scale=2.0, mean=0.0, std=1.0)
    np.testing.assert_allclose(contrast.transformed(rho - 1), np.log(1 + rho))
    np.testing.assert_allclose(density.transformed(2.0 * rho), np.log(1 + rho))


def test_density_and_overdensity_are_normalised_alike():
    # the same cells given either way come out the same, as the scale of a density is its mean
    rng = np.random.default_rng(4)
    rho = rng.exponential(1, (1, 8, 8, 8))
    rho /= rho.mean()
    still = np.zeros((8, 8, 8), "u1")
    velocity = rng.normal(0, 300, (3, 8, 8, 8))
    a = measure([(rho - 1, velocity, still)], ["number_overdensity"], "log")
    b = measure([(0.07 * rho, velocity, still)], ["number_density"], "log")
    np.testing.assert_allclose(a.inputs(rho - 1), b.inputs(0.07 * rho), atol=2e-6)  # float32 rounding of the input


def test_sigma_v_is_the_rms_component_where_a_velocity_is():
    inputs, velocity, flag = boxes(1)[0]
    flag[0] = 2
    broken = velocity.copy()
    broken[:, 0] = np.nan
    measured = measure([(inputs, broken, flag)], KINDS, "log")
    assert measured.sigma_v == pytest.approx(np.sqrt((velocity[:, 1:].astype("f8") ** 2).mean()))


def test_goes_through_a_dict():
    measured = measure(boxes(), KINDS, "log")
    assert Normalisation.from_dict(measured.to_dict()) == measured


def test_boxes_together_or_one_by_one():
    measured = measure(boxes(), KINDS, "log")
    together = measured.inputs(np.stack([box[0] for box in boxes()]))
    for number, box in enumerate(boxes()):
        np.testing.assert_array_equal(together[number], measured.inputs(box[0]))


def test_refuses():
    good = boxes(1)
    with pytest.raises(VelfieldError, match=r"unknown transform of the inputs: transform='sqrt'; choose linear, log"):
        measure(good, KINDS, "sqrt")
    inputs, velocity, flag = good[0]
    with pytest.raises(VelfieldError, match=r"no velocity to learn from: cells=0"):
        measure([(inputs, velocity, np.full_like(flag, 2))], KINDS, "log")
    with pytest.raises(VelfieldError, match=r"an input without tracers: input=number_density, mean=0.0"):
        measure([(inputs * [[[[1]]], [[[0]]]], velocity, flag)], KINDS, "log")
    with pytest.raises(VelfieldError, match=r"the same everywhere: input=mass_overdensity, std=0.0; leave it out"):
        measure([(inputs * [[[[0]]], [[[1]]]], velocity, flag)], KINDS, "log")
