"""The figures over all boxes hold the rows' values."""

import numpy as np
import pytest
from gaussian import universe

from velfield.accuracy.measures import metrics
from velfield.analysis import curves, figure_style

N, CELLSIZE = 16, 10.0


@pytest.fixture(scope="module")
def rows():
    delta, true = universe(N, CELLSIZE, seed=3)
    rng = np.random.default_rng(4)
    halos = rng.poisson(3 * np.clip(1 + 1.5 * delta, 0, None))
    rows = {}
    for name, level in (("linear", 90), ("unet", 50)):
        noisy = true + rng.normal(0, level, (2, *true.shape))
        std = np.full(noisy.shape, 50.0) if name == "unet" else None
        options = {"cellsize": CELLSIZE, "density": np.stack([1 + delta] * 2), "halos": np.stack([halos] * 2)}
        rows[name] = metrics(noisy, np.stack([true] * 2), std=std, **options)
    return rows


def test_all_that_the_rows_have_are_drawn(tmp_path, rows):
    drawn = curves.draw(rows)
    assert list(drawn) == ["r_of_k", "transfer", "divergence", "error_by", "calibration"]
    for name, figure in drawn.items():
        figure_style.save(figure, str(tmp_path / f"{name}.png"), dpi=60)
        data = (tmp_path / f"{name}.png").read_bytes()
        width, height = (int.from_bytes(data[i : i + 4]) for i in (16, 20))
        assert 250 < width < 1500
        assert 200 < height < 1000
    assert list(curves.draw({"linear": rows["linear"]})) == ["r_of_k", "transfer", "divergence", "error_by"]
    assert curves.draw({"linear": {"slope": {"mean": 1.0, "std": None}}}) == {}


def test_correlation_has_mean_and_scatter(rows):
    ax = curves.correlation(rows).axes[0]
    assert [line.get_label() for line in ax.lines] == ["linear (FFT)", "U-Net"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), rows["unet"]["r_of_k"]["mean"])
    assert len(ax.collections) == 2
    single = {"unet": metrics(np.ones((3, 8, 8, 8)), np.random.default_rng(1).normal(size=(3, 8, 8, 8)), cellsize=5.0)}
    assert not curves.correlation(single).axes[0].collections  # one box has no scatter


def test_transfer_and_divergence_are_the_rows_values(rows):
    ax = curves.transfer(rows).axes[0]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), rows["linear"]["transfer"]["mean"])
    panels = curves.divergence(rows).axes
    for ax, name in zip(panels, ("divergence_ratio", "vorticity_ratio", "divergence_r"), strict=True):
        drawn = [line for line in ax.lines if line.get_label() == "U-Net"]
        np.testing.assert_allclose(drawn[0].get_ydata(), np.array(rows["unet"][name]["mean"], dtype=float))
        assert "h$ Mpc" in ax.get_xlabel()


def test_errors_by_place_have_a_panel_each_and_name_their_bins(rows):
    axes = curves.error_by(rows).axes
    assert [ax.get_xlabel().split(" [")[0] for ax in axes[3:]] == [
        r"1 + $\delta$ of the cell",
        "distance to the nearest face",
        "halos in the cell",
    ]
    assert "km s" in axes[0].get_ylabel()
    rms = np.array(rows["unet"]["error_by_density"]["rms"]["mean"], dtype=float)
    drawn = next(line for line in axes[0].lines if line.get_label() == "U-Net")
    np.testing.assert_allclose(drawn.get_ydata(), rms[np.isfinite(rms)])  # empty bins are bridged
    assert [tick.get_text() for tick in axes[5].get_xticklabels()][:4] == ["0", "1", "2–3", "4–7"]
    low, high = axes[4].get_xlim()
    assert (low, high) == (1, 8)  # depths of 5 to 75: a box of 160 h⁻¹Mpc has no other


def test_calibration_is_in_percent_with_the_diagonal(rows):
    ax = curves.calibration({"unet": rows["unet"]}).axes[0]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 100 * np.array(rows["unet"]["calibration"]["mean"]))
    assert list(ax.lines[0].get_ydata()) == [0, 100]
