"""Rows as text: the table that a terminal shows."""

import pytest

from velfield.accuracy.tables import ENTRIES, best, table


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


def test_the_star_goes_to_the_best_of_all_tables():
    worse = dict.fromkeys(("unet", "linear_halo_padded", "linear", "linear_padded"), FFT)
    lines = table({"wiener": UNET, **worse}).splitlines()
    (first, second) = (line for line in lines if line.startswith("| cos θ  "))
    assert [cell.strip() for cell in first.split("|")[2:5]] == ["0.79±0.05*", "0.70±0.05", "0.70±0.05"]
    assert "*" not in second


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
