"""Error bars: Gaussian errors of a known size, and bars that are too short."""

import numpy as np
import pytest

from velfield.accuracy.calibration import CALIBRATION, NOMINAL, calibrate, half_width
from velfield.accuracy.measures import metrics
from velfield.errors import VelfieldError

RNG = np.random.default_rng(3)
TRUE = RNG.normal(0, 300, (2, 3, 24, 24, 24))
STD = RNG.uniform(20, 150, TRUE.shape)
PREDICTED = TRUE + STD * RNG.normal(size=TRUE.shape)


def test_half_widths_are_those_of_a_gaussian():
    np.testing.assert_allclose(half_width(np.array([0.68, 0.95])), [0.994458, 1.959964], atol=1e-6)
    assert half_width(0.6826895) == pytest.approx(1, abs=1e-6)


def test_true_error_bars_hold_what_they_should():
    row = metrics(PREDICTED, TRUE, std=STD)
    # 82944 components: shares to 0.002, χ² to √(2 / 82944) = 0.005
    assert row["coverage_68"]["mean"] == pytest.approx(0.68, abs=0.006)
    assert row["coverage_95"]["mean"] == pytest.approx(0.95, abs=0.003)
    assert row["chi2"]["mean"] == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(row["calibration"]["mean"], NOMINAL, atol=0.006)
    assert row["calibration"]["nominal"] == pytest.approx(list(NOMINAL))
    assert len(row["coverage_68"]["boxes"]) == 2


def test_bars_of_half_the_size_hold_less():
    from scipy.stats import norm

    row = metrics(PREDICTED, TRUE, std=0.5 * STD)
    assert row["coverage_68"]["mean"] == pytest.approx(2 * norm.cdf(0.994458 / 2) - 1, abs=0.006)
    assert row["chi2"]["mean"] == pytest.approx(4, rel=0.02)
    assert (np.array(row["calibration"]["mean"]) < NOMINAL).all()


def test_only_cells_that_count_are_looked_at():
    flag = np.zeros((2, 24, 24, 24), dtype="u1")
    flag[:, :12] = 2
    std = STD.copy()
    std[:, :, :12] = np.nan  # no error bar outside the parent is no mistake
    row = metrics(PREDICTED, TRUE, std=std, flag=flag)
    assert row["coverage_68"]["mean"] == pytest.approx(0.68, abs=0.01)


def test_without_error_bars_there_is_no_coverage():
    assert not {*CALIBRATION, "calibration"} & set(metrics(PREDICTED, TRUE))


@pytest.mark.parametrize("wrong", [0.0, -5.0, np.nan])
def test_what_is_no_standard_deviation_is_refused(wrong):
    std = STD[0].reshape(3, -1).copy()
    std[1, 7] = wrong
    with pytest.raises(VelfieldError, match=rf"not a standard deviation: velocity_std={wrong:g} km/s, components=1; "):
        calibrate(PREDICTED[0].reshape(3, -1), TRUE[0].reshape(3, -1), std)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(VelfieldError, match=r"do not fit.*true=\(2, 3, 24, 24, 24\), std=\(1, 3, 24, 24, 24\); give"):
        metrics(PREDICTED, TRUE, std=STD[:1])
