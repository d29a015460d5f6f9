"""The figures hold what was given to them: artists and their data, not pixels."""

import numpy as np
import pytest
from gaussian import universe
from matplotlib.contour import ContourSet
from matplotlib.quiver import Quiver

from velfield.analysis import figure_style, figures

N, CELLSIZE = 16, 10.0


@pytest.fixture(scope="module")
def fields():
    true = universe(N, CELLSIZE, seed=3)[1]
    rng = np.random.default_rng(4)
    return true, {
        "linear": 0.7 * true + rng.normal(0, 90, true.shape),
        "unet": 0.9 * true + rng.normal(0, 50, true.shape),
    }


def axes_with(figure, kind):
    return [ax for ax in figure.axes if any(isinstance(artist, kind) for artist in ax.get_children())]


def test_slices_show_truth_and_models_at_centre_and_edge(fields):
    true, models = fields
    figure = figures.slices(true, models, CELLSIZE)
    panels = axes_with(figure, Quiver)
    assert [ax.get_title() for ax in panels[:3]] == ["truth", "linear (FFT)", "U-Net"]
    assert len(panels) == 6
    for row, k in enumerate((N // 2, 0)):
        for ax, v in zip(panels[3 * row : 3 * row + 3], (true, *models.values()), strict=True):
            np.testing.assert_allclose(ax.images[0].get_array(), v[2, :, :, k].T)  # x to the right, y up
            assert ax.images[0].get_extent() == [0, 160, 0, 160]
            arrows = next(a for a in ax.get_children() if isinstance(a, Quiver))
            np.testing.assert_allclose(arrows.U.reshape(N, N), v[0, :, :, k].T)
            np.testing.assert_allclose(arrows.V.reshape(N, N), v[1, :, :, k].T)
            np.testing.assert_allclose(arrows.XY[:2], [[5, 5], [15, 5]])
    assert "h^{-1}$Mpc" in panels[3].get_xlabel()
    assert "km s" in figure.axes[-1].get_ylabel()  # the colour bar


def test_arrows_of_a_large_box_are_means_of_cells():
    v = np.broadcast_to(np.arange(48.0)[:, None, None], (3, 48, 48, 48))
    figure = figures.slices(v, {}, 5.0)
    arrows = next(a for a in figure.axes[0].get_children() if isinstance(a, Quiver))
    assert arrows.U.reshape(16, 16)[0, :2].tolist() == [1.0, 4.0]  # of cells 0 to 2, 3 to 5


@pytest.mark.parametrize("part", ["", "centre"])
def test_contours_hold_the_shares_and_the_fitted_line(fields, part):
    true, models = fields
    figure = figures.contours(true, models, CELLSIZE, part)
    assert len(figure.axes) == 6
    where = figures._part((true,), CELLSIZE, part)
    assert where.sum() == (N**3 if part == "" else 10**3)  # 2/3 of 16 cells, by their centres
    ax = figure.axes[3]  # v_x of the second model
    t, p = true[0][where], models["unet"][0][where]
    slope, intercept = np.polyfit(t, p, 1)
    fitted = ax.lines[-1]
    np.testing.assert_allclose(fitted.get_ydata(), intercept + slope * np.asarray(fitted.get_xdata()))
    assert f"slope {slope:.2f}" in ax.texts[0].get_text()
    assert len([a for a in ax.get_children() if isinstance(a, ContourSet)]) == 2  # filled, and their lines
    assert ("centre" in figure.axes[0].get_title()) == (part == "centre")


def test_contour_levels_enclose_68_95_and_99_7_percent():
    from matplotlib.figure import Figure

    x = np.linspace(-6, 6, 241)
    middle = 0.5 * (x[1:] + x[:-1])
    density = np.exp(-0.5 * (middle[:, None] ** 2 + middle**2))
    ax = Figure().subplots()
    figures._filled(ax, x, x, density, "#0072B2")
    lines = next(a for a in ax.get_children() if isinstance(a, ContourSet) and not a.filled)
    # of a 2D Gaussian a share s lies within r² = −2 ln(1 − s), where the density is 1 − s
    np.testing.assert_allclose(lines.levels, [0.003, 0.046, 0.317], rtol=0.05)  # by cells of 0.05


def test_lines_and_densities_are_the_data(fields):
    true, models = fields
    figure = figures.line(true, models, CELLSIZE)
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_array_equal(drawn["truth"].get_ydata(), true[0, :, 8, 8])
    np.testing.assert_array_equal(drawn["U-Net"].get_ydata(), models["unet"][0, :, 8, 8])
    np.testing.assert_allclose(drawn["truth"].get_xdata()[:2], [5, 15])
    figure = figures.distribution(true, models)
    for line in figure.axes[0].lines:
        x, density = line.get_xdata(), np.nan_to_num(line.get_ydata())
        # the limits hold 99.95 % of the widest of them
        assert density.sum() * (x[1] - x[0]) == pytest.approx(1, abs=0.002)
    assert figure.axes[0].get_yscale() == "log"


def test_misalignment_has_a_panel_for_each_model(fields):
    figure = figures.misalignment(*fields)
    assert [ax.get_title() for ax in figure.axes] == ["linear (FFT)", "U-Net"]
    for ax in figure.axes:
        assert ax.get_xlim() == (-1, 1)
        assert any(isinstance(a, ContourSet) and a.filled for a in ax.get_children())
        assert list(ax.lines[0].get_ydata()) == [200, 200]


def test_all_are_drawn_and_written(tmp_path, fields):
    true, models = fields
    drawn = figures.draw(true, models, CELLSIZE)
    assert list(drawn) == ["slices", "contours", "line", "distribution", "misalignment", "contours_centre"]
    for name, figure in drawn.items():
        url = figure_style.save(figure, str(tmp_path / f"{name}.png"), dpi=60)
        data = (tmp_path / f"{name}.png").read_bytes()
        assert url.endswith(f"{name}.png")
        assert data.startswith(b"\x89PNG")
        width, height = (int.from_bytes(data[i : i + 4]) for i in (16, 20))
        assert 300 < width < 1500
        assert 200 < height < 1000


def test_holes_are_left_out(fields):
    true, models = fields
    true = true.copy()
    true[:, :4] = np.nan
    for figure in figures.draw(true, models, CELLSIZE).values():
        figure_style.png(figure, dpi=40)  # no warning, no error


def test_unknown_models_are_shown_under_their_name():
    assert figure_style.label("my-model") == "my-model"
    assert figure_style.label("unet") == "U-Net"
    assert figure_style.colour("my-model") != figure_style.colour("unet")
