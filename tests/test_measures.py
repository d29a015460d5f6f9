"""The measures against cases with a known answer, against a naive loop, and on fields with noise of a known level."""

import json

import numpy as np
import pytest
import xarray as xr
from gaussian import universe
from hypothesis import given, settings
from hypothesis import strategies as st

from velfield.accuracy.measures import MEASURES, PARTS, combine, measure_box, metrics, regions
from velfield.accuracy.scales import r_of_k
from velfield.errors import VelfieldError

RNG = np.random.default_rng(5)
TRUE = RNG.normal(0, 300, (2, 3, 12, 12, 12))


def mean(row, name):
    return row[name]["mean"]


def test_truth_itself_is_perfect():
    row = metrics(TRUE, TRUE, cellsize=5.0)
    for suffix in PARTS:
        for name in MEASURES:
            assert mean(row, name + suffix) == pytest.approx(0.0 if name == "rms" else 1.0, abs=1e-12)
    assert mean(row, "cells") == 12**3
    assert mean(row, "missing") == mean(row, "zero_vectors") == 0
    np.testing.assert_allclose(row["r_of_k"]["mean"], 1, atol=1e-12)


@given(scale=st.floats(0.05, 20), shift=st.floats(-500, 500))
@settings(max_examples=25, deadline=None)
def test_scaled_and_shifted_truth(scale, shift):
    row = metrics(scale * TRUE + shift, TRUE)
    assert mean(row, "slope") == pytest.approx(scale, rel=1e-9)  # the line has an intercept: the shift is not seen
    assert mean(row, "slope_inverse") == pytest.approx(1 / scale, rel=1e-9)
    assert mean(row, "r") == pytest.approx(1, rel=1e-9)


@given(scale=st.floats(0.05, 20))
@settings(max_examples=25, deadline=None)
def test_scaled_truth_has_the_right_direction(scale):
    row = metrics(scale * TRUE, TRUE)
    assert mean(row, "cos_theta") == pytest.approx(1, rel=1e-9)
    for name in ("coherence", "coherence_median", "coherence_ratio"):
        assert mean(row, name) == pytest.approx(scale, rel=1e-9)
    assert mean(row, "rms") == pytest.approx(abs(scale - 1) * np.mean([np.sqrt((t**2).mean()) for t in TRUE]), rel=1e-9)


def test_orthogonal_and_opposite_vectors():
    true = np.zeros((3, 6, 6, 6))
    true[0] = RNG.normal(0, 300, (6, 6, 6))
    predicted = np.zeros_like(true)
    predicted[1] = 250.0
    row = metrics(predicted, true)
    assert mean(row, "cos_theta") == mean(row, "coherence") == mean(row, "coherence_ratio") == 0
    assert mean(row, "residuals_200_vector") == 0  # at least 250 km/s apart
    opposite = metrics(-true, true)
    assert mean(opposite, "cos_theta") == mean(opposite, "r") == pytest.approx(-1)
    assert mean(opposite, "residuals_200_magnitude") == 1


def test_noise_of_a_known_level_in_a_gaussian_field():
    _, true = universe(ngrid=32, cellsize=10.0, seed=3)
    sigma = true.std()
    noise = np.random.default_rng(4).normal(0, 0.5 * sigma, true.shape)
    row = metrics(true + noise, true)
    # white noise of half the signal's rms: 98304 components give each of these to about 0.5 / sqrt(98304) = 0.002
    assert mean(row, "slope") == pytest.approx(1, abs=0.01)
    assert mean(row, "slope_inverse") == pytest.approx(0.8, abs=0.01)
    assert mean(row, "r") == pytest.approx(1 / np.sqrt(1.25), abs=0.01)
    assert mean(row, "rms") == pytest.approx(0.5 * sigma, rel=0.01)
    from scipy.stats import chi2, norm

    assert mean(row, "residuals_200") == pytest.approx(2 * norm.cdf(200 / (0.5 * sigma)) - 1, abs=0.01)
    assert mean(row, "residuals_100") == pytest.approx(2 * norm.cdf(100 / (0.5 * sigma)) - 1, abs=0.01)
    assert mean(row, "residuals_200_vector") == pytest.approx(chi2(3).cdf((200 / (0.5 * sigma)) ** 2), abs=0.01)


def test_paper_cosine_means_the_component_correlation_that_theory_gives():
    # isotropic Gaussian vectors with component correlation 0.880 have a mean cosine of 0.83
    v, w = np.random.default_rng(6).normal(size=(2, 3, 40, 40, 40))
    row = metrics(300 * (0.88 * v + np.sqrt(1 - 0.88**2) * w), 300 * v)
    assert mean(row, "cos_theta") == pytest.approx(0.83, abs=0.005)  # 64000 cells of scatter 0.25, and 0.83 is rounded


def test_against_a_naive_loop():
    predicted, true = RNG.normal(0, 300, (2, 3, 4, 5, 6))
    cos, gamma, size, below = [], [], [], 0
    for p, t in zip(predicted.reshape(3, -1).T, true.reshape(3, -1).T, strict=True):
        cos.append(p @ t / np.linalg.norm(p) / np.linalg.norm(t))
        gamma.append(p @ t / (t @ t))
        size.append(abs(np.linalg.norm(p) - np.linalg.norm(t)) < 200)
        below += sum(abs(a - b) < 200 for a, b in zip(p, t, strict=True))
    row = measure_box(predicted, true)
    assert row["cos_theta"] == pytest.approx(np.mean(cos), rel=1e-12)
    assert row["coherence"] == pytest.approx(np.mean(gamma), rel=1e-12)
    assert row["coherence_median"] == pytest.approx(np.median(gamma), rel=1e-12)
    assert row["residuals_200_magnitude"] == np.mean(size)
    assert row["residuals_200"] == below / (3 * 120)
    slope, _ = np.polyfit(true.ravel(), predicted.ravel(), 1)
    assert row["slope"] == pytest.approx(slope, rel=1e-9)


def test_inputs_are_left_alone_and_float32_will_do():
    predicted, true = (TRUE + 50).astype("f4"), TRUE.astype("f4")
    before = predicted.copy(), true.copy()
    row = metrics(predicted, true, cellsize=5.0)
    np.testing.assert_array_equal(before[0], predicted)
    np.testing.assert_array_equal(before[1], true)
    assert mean(row, "rms") == pytest.approx(50, rel=1e-5)  # float32 holds 300 ± 50 to 3e-5


def test_mean_and_scatter_over_boxes():
    predicted = np.stack([0.5 * TRUE[0], 1.0 * TRUE[1]])
    slope = metrics(predicted, TRUE)["slope"]
    assert slope["boxes"] == pytest.approx([0.5, 1.0])
    assert slope["mean"] == pytest.approx(0.75)
    assert slope["std"] == pytest.approx(0.25 * np.sqrt(2))  # of a sample of two
    assert metrics(predicted[0], TRUE[0])["slope"]["std"] is None  # one box has no scatter


def test_boxes_are_averaged_not_pooled():
    together = metrics(np.stack([TRUE[0], -TRUE[1]]), TRUE)
    assert mean(together, "cos_theta") == pytest.approx(0)
    apart = [measure_box(p, t) for p, t in ((TRUE[0], TRUE[0]), (-TRUE[1], TRUE[1]))]
    assert combine(apart)["cos_theta"] == together["cos_theta"]


def test_cells_outside_the_parent_and_filled_cells():
    flag = np.zeros((12, 12, 12), dtype="u1")
    flag[:3], flag[3:6] = 2, 1
    true, predicted = TRUE[0].copy(), TRUE[0].copy()
    predicted[:, :6] += 1000  # wrong where flagged
    true[:, :3] = np.nan
    assert measure_box(predicted, true, flag=flag)["cells"] == 9 * 144
    assert measure_box(predicted, true, flag=flag)["rms"] == pytest.approx(1000 * np.sqrt(3 / 9))
    measured = measure_box(predicted, true, flag=flag, count_filled=False, cellsize=5.0)
    assert measured["cells"] == 6 * 144
    assert measured["rms"] == pytest.approx(0, abs=1e-9)
    assert np.isfinite(measured["r_of_k"][1]).all()


def test_cells_that_a_model_leaves_out_are_counted():
    predicted = TRUE[0].copy()
    predicted[1, 0, 0, :5] = np.nan
    row = measure_box(predicted, TRUE[0])
    assert (row["missing"], row["cells"]) == (5, 12**3 - 5)


def test_vectors_of_no_length_have_no_angle():
    true, predicted = TRUE[0].copy(), TRUE[0].copy()
    true[:, 0, 0, 0] = 0  # neither angle nor coherence
    predicted[:, 1, 1, 1] = 0  # no angle, a coherence of 0
    row = measure_box(predicted, true)
    assert row["zero_vectors"] == 2
    assert row["cos_theta"] == pytest.approx(1)
    assert row["coherence"] == pytest.approx((12**3 - 2) / (12**3 - 1))


def test_undefined_is_none_and_json_takes_it():
    row = metrics(np.zeros_like(TRUE), np.zeros_like(TRUE), cellsize=5.0)
    assert row["slope"] == {"mean": None, "std": None, "boxes": [None, None]}
    assert row["cos_theta"]["mean"] is None
    json.dumps(row, allow_nan=False)
    nothing = metrics(np.full_like(TRUE[0], np.nan), TRUE[0])
    assert nothing["rms"]["mean"] is None
    assert nothing["missing"]["mean"] == 12**3


def test_centre_and_edge_of_the_papers_box():
    centre, edge = regions((60, 60, 60), 5.0)
    assert centre[10:50, 10:50, 10:50].all()
    assert centre.sum() == 40**3
    np.testing.assert_array_equal(edge, ~centre)  # 200 + 2 · 50 = 300


def test_centre_and_edge_of_other_boxes():
    centre, edge = regions((120, 120, 120), 5.0)  # 600 h⁻¹Mpc: still 200 and 50
    assert (centre.sum(), (~edge).sum()) == (40**3, 100**3)
    for cellsize in (5.0, None):  # 120 h⁻¹Mpc, or unknown: shares of the side
        centre, edge = regions((24, 24, 24), cellsize)
        assert (centre.sum(), (~edge).sum()) == (16**3, 16**3)
    for n in range(1, 70):  # every box has a centre
        assert regions((n, n, n), 5.0)[0].any()


def test_parts_see_their_own_cells():
    centre, _ = regions((12, 12, 12), 5.0)
    predicted = np.where(centre, TRUE[0], -TRUE[0])
    row = measure_box(predicted, TRUE[0], cellsize=5.0)
    assert row["cos_theta_centre"] == pytest.approx(1)
    assert row["cos_theta_edge"] == pytest.approx(-1)
    assert row["cells_centre"] + row["cells_edge"] == row["cells"]


def test_r_of_k_sees_where_noise_is():
    _, true = universe(ngrid=32, cellsize=10.0, seed=3)
    k1 = 2 * np.pi * np.fft.fftfreq(32, 10.0)
    high = np.sqrt(k1[:, None, None] ** 2 + k1[:, None] ** 2 + k1**2) > 0.15
    noise = np.fft.fftn(np.random.default_rng(8).normal(0, 300, true.shape), axes=(1, 2, 3)) * high
    k, r = r_of_k(true + np.fft.ifftn(noise, axes=(1, 2, 3)).real, true, 10.0)
    # the window mixes neighbouring shells only: 2 fundamental modes = 0.04 away nothing is left
    assert (r[k < 0.1] > 0.999).all()
    assert (np.abs(r[k > 0.2]) < 0.15).all()  # 0.05 in two seeds


def test_r_of_k_does_not_see_the_step_at_the_faces():
    # a cut-out box: truth and prediction share a gradient across the box and nothing else
    x = np.linspace(-1, 1, 24)[:, None, None] * np.ones((3, 24, 24, 24))
    a, b = np.random.default_rng(9).normal(size=(2, 3, 24, 24, 24))
    k, r = r_of_k(5 * x + a, 5 * x + b, 10.0)
    high = k > 5 * k[0]
    # 0.07 in three seeds; without the window 0.3 to 0.8
    assert np.abs(r[high]).max() < 0.15
    assert r[0] > 0.9


def test_data_arrays_are_put_in_order_by_name():
    dims = ("box", "component", "x", "y", "z")
    true = xr.DataArray(TRUE, dims=dims)
    predicted = xr.DataArray(0.5 * TRUE + RNG.normal(0, 50, TRUE.shape), dims=dims)
    flag = xr.DataArray(RNG.integers(0, 2, (2, 12, 12, 12)), dims=("box", "x", "y", "z"))
    expected = metrics(predicted.values, true.values, flag=flag.values, count_filled=False)
    shuffled = predicted.transpose("z", "component", "x", "box", "y")
    assert metrics(shuffled, true, flag=flag.transpose("z", "y", "x", "box"), count_filled=False) == expected
    assert metrics(predicted.isel(box=0), true.isel(box=0))["slope"]["boxes"] == [
        metrics(predicted, true)["slope"]["boxes"][0]
    ]


def test_data_array_of_something_else_is_refused():
    with pytest.raises(VelfieldError, match=r"not a velocity field: true=\('x', 'y'\); give the dimensions box"):
        metrics(TRUE, xr.DataArray(np.zeros((2, 2)), dims=("x", "y")))


@pytest.mark.parametrize(
    ("predicted", "true", "flag", "said"),
    [
        (TRUE, TRUE[:, :, :10], None, r"do not fit.*predicted=\(2, 3, 12, 12, 12\), true=\(2, 3, 10, 12, 12\)"),
        (TRUE[:, :2], TRUE[:, :2], None, r"do not fit.*predicted=\(2, 2, 12"),
        (TRUE, TRUE, np.zeros((1, 12, 12, 12)), r"do not fit.*flag=\(1, 12, 12, 12\); give .* cores without margins"),
        (TRUE[0, 0], TRUE, None, r"not a field of boxes: predicted=\(12, 12, 12\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(predicted, true, flag, said):
    with pytest.raises(VelfieldError, match=said):
        metrics(predicted, true, flag=flag)


def test_nothing_to_average():
    with pytest.raises(VelfieldError, match="nothing to average: boxes=0"):
        combine([])
