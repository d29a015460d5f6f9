"""The model card: where a model must not be used, and what it reached on universes that its training did not see."""

from pathlib import Path

import pytest
from fields_fixture import write_universe

from velfield.analysis.evaluate import evaluate
from velfield.commands.info import describe, lines
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.learning.train import TrainConfig, train
from velfield.network import bundle
from velfield.network.model import load_model
from velfield.network.model_card import card


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return write_universe(str(tmp_path_factory.mktemp("fields") / "seen"), seed=1)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    return write_universe(str(tmp_path_factory.mktemp("fields") / "unseen"), seed=2, redshift=0.3, min_mass=2e12)


@pytest.fixture
def model(seen, tmp_path):
    url = str(tmp_path / "model")
    train([seen], url, TrainConfig(steps=2, width=4, depth=1, groups=2, device="cpu"))
    return url


def measured(model, fields, out, **options):
    rows = evaluate(model, fields, str(out), figures=False, **options)
    return rows["unet"], storage.read_json(str(out / "evaluation.json"))


def section(model, title):
    text = (Path(model) / "README.md").read_text()
    assert text.count(f"## {title}\n") <= 1
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0].strip().splitlines()


def test_what_a_test_reached_is_in_the_card(model, unseen, tmp_path):
    assert section(model, "Reached on unseen parents") == []
    before = bundle.read_metadata(model)
    row, about = measured(model, unseen, tmp_path / "out")
    bundle.add_tested(model, row, about, seed=2)
    head, rule, line, *_ = section(model, "Reached on unseen parents")
    assert head.count("|") == rule.count("|") == line.count("|")
    shown = dict(zip(*([cell.strip() for cell in text.strip("|").split("|")] for text in (head, line)), strict=True))
    assert [shown[n] for n in ("redshift", "halos above [h⁻¹M⊙]", "pattern", "boxes", "seed", "orientations")] == [
        "0.3", "2e+12", "none", "8", "2", "1",
    ]  # fmt: skip
    assert shown["cos θ"] == f"{row['cos_theta']['mean']:.2f}±{row['cos_theta']['std']:.2f}"
    assert "within 68 % bars [%]" not in shown  # it has none
    (tested,) = bundle.read_metadata(model)["metrics"].pop("tested")
    assert tested["measures"]["rms"] == {k: row["rms"][k] for k in ("mean", "std")}
    assert tested["parents"] == ["universe-2"]
    after = bundle.read_metadata(model)
    del after["metrics"]["tested"]
    assert after == before  # nothing else has changed
    load_model(model)
    assert "seed                 2" in "\n".join(lines(describe(model)))


def test_the_same_test_again_replaces_the_first(model, unseen, tmp_path):
    row, about = measured(model, unseen, tmp_path / "out")
    bundle.add_tested(model, row, about)
    bundle.add_tested(model, {**row, "r": {"mean": 0.123, "std": 0.0}}, about)
    turned, about = measured(model, unseen, tmp_path / "turned", average=8)
    bundle.add_tested(model, turned, about)
    *_, first, second = [text for text in section(model, "Reached on unseen parents") if text.startswith("| 0.3")]
    assert "| 0.12±0.00 |" in first
    assert " | – | 8 | " in second
    assert len(bundle.read_metadata(model)["metrics"]["tested"]) == 2


def test_only_what_was_measured_of_it_on_unseen_universes(model, seen, unseen, tmp_path):
    row, about = measured(model, unseen, tmp_path / "out")
    with pytest.raises(VelfieldError, match=r"another model: model=.*, weights=\w{12}, evaluated=0123; evaluate this"):
        bundle.add_tested(model, row, about | {"weights": "0123"})
    third = write_universe(str(tmp_path / "third"), seed=3)
    row, about = measured(model, [unseen, third], tmp_path / "both")
    with pytest.raises(VelfieldError, match="several stores: stores=2; evaluate them one by one"):
        bundle.add_tested(model, row, about)
    row, about = measured(model, seen, tmp_path / "seen", allow_seen=True)
    with pytest.raises(VelfieldError, match=r"trained on this universe: model=.*, parent=universe-1; "):
        bundle.add_tested(model, row, about)
    assert section(model, "Reached on unseen parents") == []


def test_an_analytic_row_is_not_the_models(model, unseen, tmp_path):
    rows = evaluate("linear_halo", unseen, str(tmp_path / "out"), figures=False)
    about = storage.read_json(str(tmp_path / "out" / "evaluation.json"))
    assert about["weights"] is None
    with pytest.raises(VelfieldError, match=r"another model: .*evaluated=None"):
        bundle.add_tested(model, rows["linear_halo"], about)


def test_where_it_must_not_be_used(model):
    said = "\n".join(section(model, "Not for"))
    for words in (
        "Anything but redshift 0, halos above 0 h⁻¹M⊙, pattern none, assignment ngp, in a universe near Ωm 0.2648",
        "Cells of another size than 10 h⁻¹Mpc",
        "inputs in other units: refused",
        "Galaxies with a selection",
        "Boxes of less than 80 h⁻¹Mpc a side",
        "Places outside the boxes",
        "it gives no error bars",
    ):
        assert words in said
    assert "guide" not in said
    metadata = bundle.read_metadata(model) | {"context": 3}
    assert "inputs in other units, isolated boxes with a margin below 3 cells: refused" in card(metadata)
    ranges = {"redshift": [0.0, 0.5], "min_mass": [3.7e10, 1e13], "density": [1e-4, 0.1], "growth": [0.7, 1.0]}
    conditioned = metadata | {"normalisation": metadata["normalisation"] | {"condition": ranges}}
    assert "Anything but redshifts 0 to 0.5, halos above 3.7e+10 to 1e+13 h⁻¹M⊙ (0.0001 to 0.1" in card(conditioned)


@pytest.mark.parametrize(
    ("guide", "said"),
    [
        ("linear_whole", "Boxes without the rest of their periodic parent: its guide"),
        ("wiener", "Another margin than 0 cells, unless you test it there: its guide, wiener"),
        ("linear_halo", None),
    ],
)
def test_guides_and_error_bars_have_a_say(model, guide, said):
    metadata = bundle.read_metadata(model)
    metadata |= {"guide": {"name": guide, "smoothing": None}}
    metadata |= {"calibration": {"coverage_68": None}}
    text = card(metadata).partition("## Not for")[2].partition("\n## ")[0]
    assert "no error bars" not in text
    assert (said in text) if said else ("guide" not in text)
