"""An experiment's page and figures, from results that are made up."""

import copy

import matplotlib.image
import numpy as np
import pytest

from velfield.accuracy.tables import BY_NAME, entry_of
from velfield.analysis import experiment_figures
from velfield.analysis.experiment_table import text
from velfield.analysis.figure_style import png, save


def difference(value, *, parents=1, p=0.25):
    over = {"error_boxes": 0.01, "p_boxes": p, "error_parents": 0.02 if parents > 1 else None, "p_parents": 0.5}
    return {"difference": value, "parents": parents, "boxes": 8} | over


def entries(*names):
    return [vars(entry_of(name)) for name in names]


@pytest.fixture
def results():
    known = {"seconds": 10.0, "machine": "a CPU, 2 threads", "velfield_version": "0", "written": True}
    made = [
        {"url": f"out/{kind}/{n}"} | known
        for kind in ("universes", "fields", "models", "evaluations")
        for n in range(2)
    ]
    made[2]["seconds"] = made[2]["machine"] = None  # came from elsewhere
    settings = {"batch": 4, "seed": 7}
    training = {"steps": 50, "boxes": 40, "seconds": 12.3, "device": "cpu", "threads": 1, "parameters": 1234}
    return {
        "title": "A title",
        "reproduces": "figure 99",
        "says": "What to look for.",
        "measures": entries("slope", "residuals_200", "rms_edge"),
        "scale": {
            **{"name": "small", "title": "a scale", "says": "It is small.", "boxsize": 480.0, "particles": 160},
            **{"min_halo_mass": 3e11, "boxes": 3, "cells": 32, "training_seeds": (1, 2), "test_seeds": (3,)},
        },
        "boxes": 27,
        "parents": 1,
        "rows": [
            {
                **{"name": "net", "label": "U-Net | new", "model": "out/models/a", "paper": {"residuals_200": 0.877}},
                "measured": {"slope": {"mean": 0.7, "std": 0.1}, "residuals_200": {"mean": 0.8, "std": None}},
                "difference": {},
                "training": training | {"settings": settings},
            },
            {
                **{"name": "fft", "label": "FFT", "model": "linear", "paper": {}},
                "measured": {"slope": {"mean": 0.6, "std": 0.2}, "rms_edge": {"mean": 200.0, "std": 10.0}},
                "difference": {"slope": difference(-0.1), "residuals_200": difference(0.02, p=1e-9)},
            },
        ],
        "figures": ["measures.png"],
        "made": made,
        "commands": ["velfield simulate out/universes/0 --seed 1"],
        "velfield_version": ["0.1.0"],
    }


def lines_of(page, start):
    return [line for line in page.splitlines() if line.startswith(start)]


def test_the_table_has_values_scatter_the_paper_and_differences(results):
    before = copy.deepcopy(results)
    page = text(results)
    assert results == before
    (row,) = (line for line in lines_of(page, "| U-Net \\| new") if "±" in line)
    assert [cell.strip() for cell in row.replace("\\|", "").split("|")[2:-1]] == ["0.70±0.10", "80.0 (87.7)", "–"]
    own, compared = lines_of(page, "| FFT")
    assert [cell.strip() for cell in own.split("|")[2:-1]] == ["0.60±0.20", "–", "200±10"]
    cells = [cell.strip() for cell in compared.split("|")[2:-1]]
    assert cells == ["−0.100±0.010 (0.25)", "+2.00±1.00 (<0.001)", "–"]
    assert "Mean ± scatter of 27 boxes of 1 universe that no training saw; in brackets the paper's value." in page
    assert "over boxes of one universe, which share its long waves" in page
    assert "rms error [km/s], edge" in page


def test_over_universes_where_there_are_several(results):
    results["parents"] = 2
    results["rows"][1]["difference"] = {"slope": difference(-0.1, parents=2)}
    page = text(results)
    assert "−0.100±0.020 (0.5)" in page
    assert "standard error over universes" in page
    assert "27 boxes of 2 universes" in page


def test_it_says_how_it_was_made(results):
    page = text(results)
    assert "Reproduces figure 99." in page
    assert "**Scale `small`**: a scale." in page
    assert "It is small." in page
    assert "seeds 1, 2 to learn from, 3 to measure on" in page
    assert "27 boxes each, of 160 h⁻¹Mpc and 32³ cells" in page
    (net,) = (line for line in lines_of(page, "| U-Net") if "boxes" in line)
    assert [cell.strip() for cell in net.replace("\\|", "").split("|")[2:-1]] == [
        *("50 × 4 boxes", "7", "1,234", "12", "cpu, 1 thread")
    ]
    assert [cell.strip() for cell in lines_of(page, "| simulated")[0].split("|")[2:-1]] == [
        "2",
        "20",
        "a CPU, 2 threads",
    ]
    assert lines_of(page, "| painted")[0].split("|")[3].strip() == "10 of 1"  # the other's seconds are not known
    assert page.endswith("```sh\nvelfield simulate out/universes/0 --seed 1\n```\n")
    assert "![measures](measures.png)" in page


def test_it_says_what_was_never_written(results):
    results["made"][0]["written"] = False
    said = text(results).partition("```sh")[2]
    assert "1 universe of these was painted from memory and never written. The commands write them" in said


def test_a_network_is_called_by_the_row_that_trains_it(results):
    first = results["rows"][0]
    results["rows"].append(first | {"name": "heavy", "label": "the same, elsewhere"})
    made = text(results).partition("## How it was made")[2]
    assert "U-Net" in made
    assert "elsewhere" not in made


def test_parts_are_called_as_the_whole():
    assert entry_of("slope_centre").label == "slope, pred. on true, centre"
    assert entry_of("rms_edge").best == "low"
    assert entry_of("cos_theta_edge") is BY_NAME["cos_theta_edge"]
    assert entry_of("unknown", "high").best == "high"
    assert entry_of("cos_dense", "high").label == "cos θ, δ > 2"


def test_a_mark_is_where_the_value_is(results):
    rows = [row["measured"] for row in results["rows"]]
    figure = experiment_figures.measures(results, rows)
    slope, residuals = figure.axes[0], figure.axes[1]
    marks = [line for line in slope.lines if line.get_marker() == "o"]
    assert [tuple(m.get_xydata()[0]) for m in marks] == [(0.7, 0), (0.6, -1)]
    (paper,) = (line for line in residuals.lines if line.get_marker() == "D")
    assert tuple(paper.get_xydata()[0]) == (87.7, 0)
    assert [t.get_text() for t in slope.get_yticklabels()] == ["U-Net | new", "FFT"]
    assert png(figure).startswith(b"\x89PNG")


def test_depth_is_drawn_between_the_faces_and_the_middle(results, tmp_path):
    bins = {
        "edges": [0, 20, 75, 100, None],
        **{key: {"mean": [300.0, 200.0, 100.0, None], "std": [1.0, 1.0, None, None]} for key in ("rms", "cos_theta")},
        "cells": {"mean": [8.0, 8.0, 1.0, 0.0]},
    }
    figure = experiment_figures.depth(results, [{"error_by_depth": bins}] * 2)
    for ax in figure.axes:
        assert len(ax.lines) == 2
        np.testing.assert_allclose(ax.lines[0].get_xdata(), [10, 47.5, 77.5])  # a box of 160: its middle is 80 deep
        np.testing.assert_allclose(ax.lines[0].get_ydata(), [300, 200, 100])
    image = matplotlib.image.imread(save(figure, str(tmp_path / "depth.png")))
    assert image.std() > 0
