"""Paired comparison: t and sign tests against scipy, better as it is meant, and what cannot be compared."""

import json
import re

import numpy as np
import pytest
from gaussian import write_fields
from scipy import stats

from velfield.analysis.compare import compare, pair
from velfield.analysis.evaluate import evaluate
from velfield.commands.cli import main
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage


def test_errors_and_tests_are_those_of_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.8, 0.1, 24), rng.normal(0.75, 0.1, 24)
    parents = [f"p{i // 6}" for i in range(24)]
    found = pair("r", a, b, parents, "high")
    t = stats.ttest_rel(a, b)
    assert (found.t_boxes, found.p_boxes) == (pytest.approx(t.statistic), pytest.approx(t.pvalue))
    assert found.difference == pytest.approx((a - b).mean())
    assert found.error_boxes == pytest.approx(stats.sem(a - b))
    means = (a - b).reshape(4, 6).mean(1)
    assert found.error_parents == pytest.approx(stats.sem(means))
    assert found.p_parents == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    wins = int((a > b).sum())
    assert found.better == wins / 24
    assert found.p_sign == pytest.approx(stats.binomtest(wins, 24).pvalue)
    assert (found.boxes, found.parents) == (24, 4)


def test_shared_scatter_drops_out():
    shared = np.random.default_rng(2).normal(0.7, 0.2, 10)
    found = pair("cos_theta", shared + 0.01 + 0.001 * np.arange(10), shared, ["p"] * 10, "high")
    assert found.p_boxes < 1e-5
    assert found.better == 1
    assert found.error_parents is None  # one parent


def test_better_follows_the_measure():
    a, b = [0.9, 1.2, 1.0], [0.8, 0.9, 1.5]
    assert pair("slope", a, b, list("ppp"), "one").better == pytest.approx(2 / 3)
    assert pair("r", a, b, list("ppp"), "high").better == pytest.approx(2 / 3)
    assert pair("rms", a, b, list("ppp"), "low").better == pytest.approx(1 / 3)
    assert pair("coverage_68", [0.7], [0.6], list("p"), "one", 0.68).better == 1


def test_undefined_boxes_and_ties_are_left_out():
    found = pair("r", [0.5, None, 0.7, 0.6], [0.5, 0.5, None, 0.4], list("ppqq"), "high")
    assert (found.boxes, found.parents, found.better) == (2, 2, 1.0)
    assert pair("r", [None], [0.5], list("p"), "high") is None
    same = pair("r", [0.5, 0.6], [0.5, 0.6], list("pp"), "high")
    assert (same.better, same.p_sign, same.p_boxes, same.difference) == (None, None, None, 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Evaluations of two rows on two universes."""
    folder = tmp_path_factory.mktemp("compare")
    fields = [write_fields(str(folder / f"fields-{seed}"), boxes=2, cells=8, seed=seed) for seed in (5, 6)]
    for row in ("linear", "linear_padded"):
        evaluate(row, fields, str(folder / row), figures=False)
    evaluate("linear", fields[:1], str(folder / "half"), figures=False)
    return folder


def test_the_verb(place, capsys):
    assert main(["compare", str(place / "linear_padded"), str(place / "linear"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["a"]["row"] == "linear_padded"
    r = found["measures"]["r"]
    boxes = [
        storage.read_json(str(place / row / "evaluation.json"))["boxes"]["r"] for row in ("linear_padded", "linear")
    ]
    assert r["difference"] == pytest.approx(np.mean(np.subtract(*boxes)))
    assert (r["boxes"], r["parents"]) == (16, 2)
    assert r["error_parents"] is not None
    assert {"rms_centre", "cos_theta_edge", "residuals_200"} <= set(found["measures"])
    assert main(["compare", str(place / "linear_padded"), str(place / "linear")]) == 0
    text = capsys.readouterr().out
    assert "16 boxes, 2 parents" in text
    assert f"{r['difference']:+.3f}".replace("-", "\u2212") in text
    assert "| rms error [km/s] " in text


def test_a_row_against_itself_is_level(place):
    found = compare(str(place / "linear"), str(place / "linear"))
    assert {paired.difference for paired in found.measures.values()} == {0.0}
    assert any("–" in line for line in found.lines())


def test_other_boxes_are_refused(place, tmp_path, capsys):
    with pytest.raises(VelfieldError, match=r"other boxes cannot be compared: A=16 boxes of 2 stores.* B=8 boxes of 1"):
        compare(str(place / "linear"), str(place / "half"))
    for row in ("linear", "half"):  # each is said with its stores
        for store in json.loads((place / row / "evaluation.json").read_text())["fields"]:
            with pytest.raises(VelfieldError, match=re.escape(f"{store['url']} ({store['fingerprint'][:12]})")):
                compare(str(place / "linear"), str(place / "half"))
    with pytest.raises(StoreError, match=f"no evaluation here: url={tmp_path}; make one with velfield evaluate"):
        compare(str(place / "linear"), str(tmp_path))
    assert main(["compare", str(place / "linear"), str(tmp_path / "nothing")]) == 2
    assert "no evaluation here" in capsys.readouterr().err


def test_an_evaluation_of_several_parents_must_say_whose_box_is_whose(place, tmp_path):
    record = storage.read_json(str(place / "half" / "evaluation.json"))
    record["fields"][0] |= {"parents": ["a", "b"]}
    storage.write_json(str(tmp_path / "metrics.json"), storage.read_json(str(place / "half" / "metrics.json")))
    storage.write_json(str(tmp_path / "evaluation.json"), record)
    assert compare(str(tmp_path), str(tmp_path)).measures["r"].parents == 1  # all boxes are said to be of the first
    del record["fields"][0]["parent_of_box"]
    storage.write_json(str(tmp_path / "evaluation.json"), record)
    with pytest.raises(StoreError, match=r"which box is of which parent: url=.*, parents=2; evaluate again"):
        compare(str(tmp_path), str(tmp_path))
