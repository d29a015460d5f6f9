"""Evaluation end to end: rows, provenance, what is refused, and what is loaded."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from gaussian import write_fields

from velfield.accuracy.measures import MEASURES, PARTS, metrics
from velfield.analysis.evaluate import evaluate, read_rows
from velfield.commands.cli import main
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.stores.store import open_fields
from velfield.theory import analytic


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return write_fields(str(tmp_path_factory.mktemp("test") / "fields"), boxes=2, cells=12, margin=1, seed=7)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, fields):
    """A network, hardly trained, on universe 7 and another."""
    from velfield.learning.train import train
    from velfield.learning.train_config import TrainConfig

    folder = tmp_path_factory.mktemp("bundle")
    train([fields], str(folder / "model"), TrainConfig(steps=2, batch=2, width=8, depth=1, device="cpu", workers=0))
    return str(folder / "model")


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    return write_fields(str(tmp_path_factory.mktemp("unseen") / "fields"), boxes=2, cells=12, margin=1, seed=8)


def by_hand(name, url, boxes):
    ds = open_fields(url, chunks=None)
    predicted = np.stack([analytic.reconstruct(name, ds, b) for b in boxes])
    core = ds.velfield.core(ds).isel(box=list(boxes))
    density = core["matter_number"].values / 8.0  # the parent's mean
    return metrics(predicted, core["velocity"].values, cellsize=10.0, density=density, halos=core["halo_number"].values)


@pytest.mark.parametrize("name", analytic.NAMES)
def test_analytic_rows_are_the_measures_of_every_core(fields, name):
    rows = evaluate(name, fields)
    assert list(rows) == [name]
    expected = by_hand(name, fields, range(8))
    assert set(rows[name]) == {*expected, "checks"}
    (checks,) = rows[name]["checks"]["stores"]
    assert checks["implausible"] is None
    assert 0.2 < checks["rms"][0] / checks["sigma_v"] < 1.5  # small boxes by themselves lack most of the long modes
    for key in (m + part for m in MEASURES for part in PARTS):
        assert rows[name][key] == {k: expected[key][k] for k in ("mean", "std")}


def test_files(tmp_path, fields):
    out = str(tmp_path / "out")
    rows = evaluate("linear_padded", fields, out, compare=("linear",), box=3)
    written = storage.read_json(f"{out}/metrics.json")
    assert written == rows
    assert set(written) == {"linear_padded"}
    assert set(written["linear_padded"]["slope"]) == {"mean", "std"}
    assert "| cos θ " in (tmp_path / "out" / "table.md").read_text()
    about = storage.read_json(f"{out}/evaluation.json")
    assert about["fields"][0]["settings"] == {
        "variable": "matter_number",
        "pad": 2,
        "smoothing": 0.0,
        "bias": 1.0,
        "min_mass": None,
        "margin": 1,
    }
    assert about["figure_box"] == {"url": fields, "box": 3}
    assert about["fields"][0]["boxes"] == list(range(8))
    assert about["fields"][0]["parents"] == ["universe-7"]
    assert len(about["boxes"]["slope"]) == 8
    assert np.mean(about["boxes"]["slope"]) == pytest.approx(rows["linear_padded"]["slope"]["mean"])
    names = ("slices", "contours", "line", "distribution", "misalignment", "contours_centre")
    names += ("r_of_k", "transfer", "divergence", "error_by")
    assert about["figures"] == [f"figures/{name}.png" for name in names]
    for path in about["figures"]:
        assert (tmp_path / "out" / path).read_bytes().startswith(b"\x89PNG")


def test_again_gives_the_same_and_no_figures_on_request(tmp_path, fields):
    out = str(tmp_path / "out")
    evaluate("linear", fields, out, figures=False)
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    evaluate("linear", fields, out, figures=False)
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    assert not (tmp_path / "out" / "figures").exists()
    json.loads(before, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_the_drawn_box_follows_the_seed(tmp_path, fields, monkeypatch):
    monkeypatch.setattr("velfield.analysis.curves.draw", lambda *_: {})
    monkeypatch.setattr(
        "velfield.analysis.figures.draw", lambda *_: {}
    )  # drawing takes a second; test_figures looks at it

    def drawn(seed):
        evaluate("linear", fields, str(tmp_path / f"{seed}"), seed=seed)
        return storage.read_json(str(tmp_path / f"{seed}" / "evaluation.json"))["figure_box"]["box"]

    first = drawn(0)
    assert first == drawn(0)
    assert {first, drawn(1), drawn(2)} != {first}


def test_split_and_several_stores(fields, unseen):
    row = evaluate("linear", fields, split="validation")["linear"]
    assert row["r"] == {"mean": by_hand("linear", fields, [7])["r"]["mean"], "std": None}
    both = evaluate("linear", [fields, unseen])["linear"]
    one, other = (evaluate("linear", url)["linear"]["cos_theta"]["mean"] for url in (fields, unseen))
    assert both["cos_theta"]["mean"] == pytest.approx((one + other) / 2)


def test_each_store_has_settings_of_its_own(tmp_path, fields):
    """Halos above 10¹² and above 10¹³: another bias in each store, so the rows are those of the stores alone."""
    heavy = write_fields(str(tmp_path / "heavy"), boxes=2, cells=12, margin=1, seed=7, min_mass=1e13, redshift=0.5)
    out = str(tmp_path / "out")
    both = evaluate("linear_halo", [fields, heavy], out, figures=False)["linear_halo"]
    one, other = (evaluate("linear_halo", url)["linear_halo"]["slope"]["mean"] for url in (fields, heavy))
    assert both["slope"]["mean"] == pytest.approx((one + other) / 2)
    settings = [store["settings"] for store in storage.read_json(f"{out}/evaluation.json")["fields"]]
    assert [s["min_mass"] for s in settings] == [1e12, 1e13]
    assert settings[0]["bias"] < settings[1]["bias"]


def test_tracer_smoothing_and_filled_cells_reach_the_row(tmp_path, fields):
    rows = [
        evaluate("linear_halo", fields, **options)["linear_halo"]["r"]["mean"]
        for options in ({}, {"tracer": "mass"}, {"smoothing": 20.0})
    ]
    assert len(set(rows)) == 3
    ds = open_fields(fields, chunks=None)
    flag = np.zeros((8, 14, 14, 14), dtype="u1")
    flag[:, 5] = 1
    arrays = {"velocity_flag": flag}
    filled = write_fields(str(tmp_path / "filled"), boxes=2, cells=12, margin=1, seed=7, arrays=arrays)
    assert ds.sizes == open_fields(filled, chunks=None).sizes
    assert evaluate("linear", filled)["linear"]["cells"]["mean"] == 12**3
    assert evaluate("linear", filled, count_filled=False)["linear"]["cells"]["mean"] == 11 * 12**2


@pytest.mark.slow
def test_a_bundle_is_the_row_unet(tmp_path, bundle, unseen):
    from velfield.network.model import load_model

    rows = evaluate(bundle, unseen, str(tmp_path / "out"))
    assert list(rows) == ["unet"]
    ds = open_fields(unseen)
    predicted = load_model(bundle).predict(ds)["velocity"]
    expected = metrics(predicted, ds.velfield.core(ds["velocity"]), cellsize=10.0)
    for name in MEASURES:  # other batches of the same boxes: equal to float32 rounding of the network
        assert rows["unet"][name]["mean"] == pytest.approx(expected[name]["mean"], rel=1e-3, abs=1e-4)
    about = storage.read_json(str(tmp_path / "out" / "evaluation.json"))
    assert about["fields"][0]["settings"] == {"bundle": bundle, "unlike_training": {}}


@pytest.mark.slow
def test_error_bars_of_a_model_are_measured(tmp_path, bundle, unseen, monkeypatch):
    from velfield.network.model import Model

    plain = Model.predict

    def with_bars(self, ds, *, average, boxes):
        made = plain(self, ds, average=average, boxes=boxes)
        truth = ds.velfield.core(ds["velocity"]).isel(box=list(boxes)).values
        return made.assign(velocity_std=made["velocity"].copy(data=np.abs(made["velocity"].values - truth) * 1.5 + 1))

    monkeypatch.setattr(Model, "predict", with_bars)
    out = str(tmp_path / "out")
    row = evaluate(bundle, unseen, out)["unet"]
    assert row["coverage_68"] == {"mean": 1.0, "std": 0.0}  # every error is ⅔ of its bar
    assert row["chi2"]["mean"] < 0.45
    assert "figures/calibration.png" in storage.read_json(f"{out}/evaluation.json")["figures"]
    assert "| within 68 % bars [%] " in (tmp_path / "out" / "table.md").read_text()


def test_differences_from_the_training_are_noted_for_each_store(tmp_path, bundle, unseen, capsys):
    late = write_fields(str(tmp_path / "late"), boxes=2, cells=12, margin=1, seed=9, redshift=0.5)
    notes = []
    evaluate(bundle, [unseen, late], str(tmp_path / "out"), figures=False, note=notes.append)
    assert notes == [f"the model was trained at redshift=0, {late} has redshift=0.5"]
    stores = storage.read_json(str(tmp_path / "out" / "evaluation.json"))["fields"]
    assert [store["settings"]["unlike_training"] for store in stores] == [{}, {"redshift": [0.0, 0.5]}]
    assert main(["evaluate", bundle, late, str(tmp_path / "cli"), "--no-figures"]) == 0
    assert f"note: {notes[0]}\n" in capsys.readouterr().err


def test_universes_of_the_training_are_refused(bundle, fields, unseen):
    said = r"trained on this universe: url=.*, boxes=8 of 8, parent=universe-7; .* --allow-seen"
    with pytest.raises(VelfieldError, match=said):
        evaluate(bundle, [unseen, fields])
    with pytest.raises(VelfieldError, match="boxes=1 of 1"):  # validation boxes share the universe's long modes
        evaluate(bundle, fields, split="validation")
    assert "unet" in evaluate(bundle, fields, allow_seen=True)


def test_only_an_earlier_evaluation_is_replaced(tmp_path, fields, bundle):
    for name, what in (("zarr.json", "a store"), ("metadata.json", "a model"), ("thesis.tex", "something else")):
        out = tmp_path / name.partition(".")[0]
        storage.write_json(str(out / name), {})
        with pytest.raises(StoreError, match=f"not a place for an evaluation: out={out} holds {what}; name another"):
            evaluate("linear", fields, str(out), figures=False)
        assert [p.name for p in out.iterdir()] == [name]
    with pytest.raises(StoreError, match="holds a store"):
        evaluate("linear", fields, fields)
    with pytest.raises(StoreError, match="holds a model"):
        evaluate("linear", fields, bundle)


def test_mistakes_show_before_the_work(tmp_path, fields, monkeypatch):
    monkeypatch.setattr("velfield.analysis.evaluate.measure_piece", lambda *_: pytest.fail("worked"))
    monkeypatch.setattr(storage, "write_json", _read_only)
    with pytest.raises(PermissionError):
        evaluate("linear", fields, str(tmp_path / "out"))
    with pytest.raises(VelfieldError, match="unknown analytic model: model='lineal'; choose from linear"):
        evaluate("linear", fields, str(tmp_path / "out"), compare=("lineal",))


def _read_only(*_):
    raise PermissionError


def test_an_interrupted_evaluation_is_gone_on_with(tmp_path, fields, monkeypatch):
    out = str(tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr("velfield.analysis.evaluate.measure_piece", _read_only)
        with pytest.raises(PermissionError):
            evaluate("linear", fields, out, figures=False)
    assert storage.names(out) == ["evaluation.begun.json"]
    evaluate("linear", fields, out, figures=False)
    assert storage.names(out) == ["evaluation.json", "metrics.json", "table.md"]


def test_options_that_would_be_ignored_are_refused(fields, unseen, bundle):
    with pytest.raises(VelfieldError, match="nothing is drawn: box=2, figures=False; leave one out"):
        evaluate("linear", fields, box=2, figures=False)
    with pytest.raises(VelfieldError, match=r"a bundle takes no smoothing: model=.*, smoothing=5; leave it out"):
        evaluate(bundle, unseen, smoothing=5.0)
    for model in ("linear", bundle):
        with pytest.raises(VelfieldError, match=f"only halos have a tracer: model={model}, tracer=mass"):
            evaluate(model, unseen, tracer="mass")


def test_rows_drawn_beside_have_the_same_settings(tmp_path, fields, monkeypatch):
    kept = {}
    monkeypatch.setattr("velfield.analysis.figures.draw", lambda _true, shown, *_: kept.update(shown) or {})
    options = {"tracer": "mass", "smoothing": 20.0}
    evaluate("linear_halo", fields, str(tmp_path / "out"), compare=("linear_halo_padded",), box=3, **options)
    ds = open_fields(fields, chunks=None)
    np.testing.assert_array_equal(
        kept["linear_halo_padded"], analytic.reconstruct("linear_halo_padded", ds, 3, **options)
    )


def test_what_cannot_be_done_is_refused(tmp_path, fields):
    with pytest.raises(VelfieldError, match=r"no such model: model=.*lineal; give linear, linear_padded"):
        evaluate(str(tmp_path / "lineal"), fields)
    with pytest.raises(VelfieldError, match=r"nothing to evaluate on: fields=\[\]"):
        evaluate("linear", [])
    with pytest.raises(StoreError, match=r"no boxes of this split: url=.*, split=test; choose from train, validation"):
        evaluate("linear", fields, split="test")
    with pytest.raises(VelfieldError, match="no such box among the measured ones: box=2, boxes=1"):
        evaluate("linear", fields, str(tmp_path / "out"), split="validation", box=2)
    halos = write_fields(str(tmp_path / "halos"), boxes=1, cells=8, only=("halo_number", "halo_mass"))
    with pytest.raises(StoreError, match=r"holds no truth: .*variable=velocity; paint it again with --particles"):
        evaluate("linear_halo", halos)
    other = write_fields(str(tmp_path / "other"), boxes=1, cells=8)
    with pytest.raises(VelfieldError, match="different sizes cannot be averaged: 8 cells of 10 Mpc/h, 12 cells"):
        evaluate("linear", [fields, other])


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("velocity", "lost its truth: store={url}, box=3; check it with velfield verify"),
        ("velocity_flag", "lost its truth: store={url}, box=3; "),
        ("matter_number", "lost its data: store={url}, box=3, variable=matter_number; "),
    ],
)
def test_a_box_that_lost_a_shard_is_refused(tmp_path, fields, variable, said):
    url = str(tmp_path / "torn")
    shutil.copytree(fields, url)
    shutil.rmtree(tmp_path / "torn" / variable / "c" / "3")  # a shard is one box here
    with pytest.raises(StoreError, match=re.escape(said.format(url=url))):
        evaluate("linear", url)


def test_progress_is_told_the_mean_over_the_boxes_so_far(fields, tmp_path):
    told = []

    class Listening:
        def start(self, label, total, unit):
            told.append((label, total, unit))

        def advance(self, amount=1, note=""):
            told.append((amount, note))

        def done(self, note=""):
            told.append(note)

    row = evaluate("linear", fields, str(tmp_path / "out"), figures=False, progress=Listening())["linear"]
    assert told[0] == ("evaluate linear", 8, "boxes")
    assert len(told) == 10
    boxes = read_rows(str(tmp_path / "out"))["linear"]["cos_theta"]["boxes"]
    assert f"{boxes[-1]:.2f}" != f"{row['cos_theta']['mean']:.2f}"
    assert [note for _, note in told[1:9]] == [f"mean cos θ {np.mean(boxes[:n]):.2f}" for n in range(1, 9)]


def test_analytic_rows_need_neither_torch_nor_matplotlib(fields):
    code = (
        "import sys; from velfield.analysis.evaluate import evaluate; "
        f"evaluate('linear', {fields!r}); print(sorted({{'torch', 'matplotlib'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
