"""Rows as text: the table that a terminal shows, and the sentences above it."""

import numpy as np
import pytest

from velfield.accuracy.tables import ENTRIES, best, difference, headline, table


def row(slope=0.7, residuals=0.8, cos=0.7, r=0.75, std=0.05):
    values = dict.fromkeys((e.name for e in ENTRIES), 0.5)
    values |= {"slope": slope, "residuals_200": residuals, "cos_theta": cos, "r": r, "rms": 150.4}
    return {name: {"mean": value, "std": std} for name, value in values.items()}


FFT = row()
PADDED = row(slope=0.74, residuals=0.89, cos=0.82, r=0.86)
UNET = row(slope=0.81, residuals=0.877, cos=0.79, r=0.84)


def test_table_of_three_fits_a_terminal():
    lines = table({"linear": FFT, "linear_padded": PADDED, "unet": UNET}).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= 80
    cells = [cell.strip() for cell in lines[2].split("|")[1:-1]]
    assert cells == ["slope, pred. on true", "0.70±0.05", "0.74±0.05", "0.81±0.05*"]
    assert "87.7±5.0" in lines[4]
    assert "150±0" in next(line for line in lines if line.startswith("| rms"))


def test_more_models_are_spread_over_tables():
    rows = dict.fromkeys(("linear", "linear_padded", "linear_halo", "linear_halo_padded", "unet"), FFT)
    text = table(rows)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("| cos θ  ") == 2
    assert table(rows, width=None).count("| cos θ  ") == 1
    for name in rows:
        assert name in text


def test_one_box_has_no_scatter_and_undefined_is_a_dash():
    one = row(std=None) | {"r": {"mean": None, "std": None}}
    lines = table({"unet": one}).splitlines()
    assert lines[2].split("|")[2].strip() == "0.70"
    assert next(line for line in lines if line.startswith("| r ")).split("|")[2].strip() == "–"


@pytest.mark.parametrize(
    ("name", "values", "winners"),
    [
        ("slope", {"a": 0.9, "b": 1.05, "c": 1.3}, {"b"}),  # the nearest to 1
        ("cos_theta", {"a": 0.7, "b": 0.8, "c": 0.6}, {"b"}),
        ("rms", {"a": 130, "b": 150, "c": 140}, {"a"}),
        ("r", {"a": 0.801, "b": 0.799, "c": 0.7}, {"a", "b"}),  # the same as shown
        ("r", {"a": None, "b": 0.1}, {"b"}),
        ("r", {"a": None, "b": None}, set()),
        ("r", {"a": 0.5}, set()),  # alone
    ],
)
def test_best(name, values, winners):
    entry = next(e for e in ENTRIES if e.name == name)
    assert best(entry, {k: {name: {"mean": v, "std": None}} for k, v in values.items()}) == winners


def test_headline_says_where_the_padded_fft_is_ahead():
    said = headline({"linear": FFT, "linear_padded": PADDED, "unet": UNET})
    assert said[0] == "The U-Net beats the paper's FFT on all 4 measures."
    assert "slope 0.81 against 0.70" in said[1]
    padded = "the zero-padded FFT, which is given the dark matter itself in real space"
    assert said[2] == f"The U-Net is ahead of {padded}: slope 0.81 against 0.74."
    assert said[3].startswith(f"The U-Net is behind {padded}: residuals below 200 km/s 87.7")
    assert said[3].endswith("cos θ 0.79 against 0.82, r 0.84 against 0.86.")


def test_headline_does_not_flatter():
    worse = row(slope=0.71, residuals=0.7, cos=0.6, r=0.75)
    said = headline({"linear": FFT, "unet": worse})
    assert said[0] == "The U-Net beats the paper's FFT on 1 of 4 measures."
    assert headline({"linear": UNET, "unet": FFT})[0] == "The U-Net beats the paper's FFT on none of the 4 measures."
    assert "real space: slope 0.74 against 0.74, " in " ".join(headline({"linear_padded": PADDED, "unet": PADDED}))
    assert headline({"linear": FFT}) == []


def of_boxes(**values):
    """A row whose measures have these values in each box."""
    return {name: {"mean": np.mean(v), "std": np.std(v, ddof=1), "boxes": list(v)} for name, v in values.items()}


def test_what_counts_is_the_difference_box_by_box():
    """Boxes scatter by 0.1 about both rows, and the first is ahead by 0.02 ± 0.01 in each: four standard errors."""
    scatter = np.array([-0.1, 0.1, -0.1, 0.1])
    small = np.array([0.01, 0.03, 0.03, 0.01])
    theirs = of_boxes(slope=0.7 + scatter, residuals_200=0.7 + scatter, cos_theta=0.7 + scatter, r=0.7 + scatter)
    mine = of_boxes(
        slope=0.7 + scatter + small,
        residuals_200=0.7 + scatter - small,
        cos_theta=0.7 + scatter + small - 0.015,  # ahead by 0.005 ± 0.006
        r=0.7 + scatter,
    )
    said = headline({"unet": mine, "linear_halo_padded": theirs})
    halo = "linear theory that sees the same halos"
    assert said == [
        f"The U-Net is ahead of {halo}: slope 0.72 against 0.70 (+0.02 ± 0.01).",
        f"The U-Net is behind {halo}: residuals below 200 km/s 68.0\u00a0% against 70.0\u00a0% (\u22122.0 ± 0.6).",
        f"The U-Net is level with {halo}: cos θ 0.70 against 0.70 (+0.01 ± 0.01), r 0.70 against 0.70 (+0.00 ± 0.00).",
    ]


def test_difference_from_one_and_what_cannot_be_compared():
    slope = next(e for e in ENTRIES if e.name == "slope")
    above, below = of_boxes(slope=[1.1, 1.2]), of_boxes(slope=[0.8, 0.7])
    better, error = difference(slope, above, below)  # 0.15 off against 0.25 off
    assert (better, error) == pytest.approx((0.10, 0.0))
    rms = next(e for e in ENTRIES if e.name == "rms")
    assert difference(rms, of_boxes(rms=[150, 160]), of_boxes(rms=[170, 190]))[0] == 25
    assert difference(slope, above, of_boxes(slope=[0.8, 0.7, 0.9])) is None
    assert difference(slope, above, row()) is None
    one = {"slope": {"mean": 0.8, "std": None, "boxes": [0.8, None]}}
    assert difference(slope, above, one) is None
