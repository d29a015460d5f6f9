"""Error bars over whole parents: found on one universe, used where tiles have neighbours, and nowhere else."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from arbitrary_bundle import bundle as arbitrary
from gaussian import write_fields

from velfield.analysis.evaluate import evaluate, read_rows
from velfield.commands.cli import main
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.network import bundle
from velfield.network.error_bars import Calibration, WholeCalibration
from velfield.network.model import load_model
from velfield.network.model_card import card
from velfield.pipelines import predict as predict_module
from velfield.pipelines.calibrate import run, settle
from velfield.pipelines.predict import predict, prepare
from velfield.pipelines.predict_catalogue import facts_of_bundle
from velfield.stores import store

pytestmark = pytest.mark.slow  # a training or two; what it holds together rarely changes
TRUE = 0.5  # standard deviation of the errors, in the σ that the network gives in tiles
ISOLATED = 1.1  # factor of `arbitrary_bundle`


def in_this_process(_client, task, items, *common, **_named):
    for item in items:
        yield item, task(item, *common)


@pytest.fixture
def _here(monkeypatch):
    """In the place of a cluster: tasks run in this process, one after the other."""
    monkeypatch.setattr(predict_module, "run_tasks", in_this_process)


def known_errors(url, model, seed, **changes):
    """A universe whose truth is what the model makes of it in tiles and a Gaussian error of `TRUE` σ."""
    empty, out = f"{url}-empty", f"{url}-raw"
    write_fields(empty, seed=seed, **changes)
    predict(None, prepare(model, empty, out, calibration=Calibration()))
    made = store.open_velocity(out, chunks=None)
    rng = np.random.default_rng(seed)
    truth = made["velocity"].values + TRUE * made["velocity_std"].values * rng.standard_normal(made["velocity"].shape)
    write_fields(url, seed=seed, arrays={"velocity": truth}, **changes)
    return url


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, the same calibrated on one universe, and two stores: of that universe, and of another."""
    folder = tmp_path_factory.mktemp("calibrated")
    model, out = str(folder / "model"), str(folder / "out")
    fields, other = str(folder / "fields"), str(folder / "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_module, "run_tasks", in_this_process)
        arbitrary(model, write_fields(str(folder / "any")), std=True, norm="group")
        known_errors(fields, model, 1)
        known_errors(other, model, 2)
        asked = settle(model, [fields], out)
        assert not asked.done
        run(None, asked)
    return SimpleNamespace(model=model, out=out, fields=fields, other=other, folder=folder)


def test_the_factor_is_that_of_errors_in_tiles(made):
    whole = load_model(made.out).whole_calibration
    # 98304 components: quantiles are known to 0.4 %
    assert (whole.map.factor, whole.map.power) == (pytest.approx(TRUE, rel=0.01), 1)
    assert whole.map.coverage_68 == pytest.approx(0.68, abs=0.004)
    assert whole.map.before_68 == pytest.approx(0.971, abs=0.004)  # of bars 1.1 / 0.5 times too wide
    (about,) = whole.stores
    assert (about["parents"], about["fingerprint"], about["boxes"]) == (["universe-1"], "fields-1", 8)
    assert about["coverage_68"] == pytest.approx(whole.map.coverage_68)
    assert load_model(made.out).calibration == load_model(made.model).calibration  # of boxes by themselves, as before
    weights = [(Path(url) / bundle.WEIGHTS).read_bytes() for url in (made.model, made.out)]
    assert weights[0] == weights[1]
    assert not (Path(made.out) / ".calibrate").exists()
    assert "a calibration of their own" in (Path(made.out) / bundle.CARD).read_text()


@pytest.mark.usefixtures("_here")
def test_each_use_has_its_own_error_bars_on_an_unseen_universe(made, tmp_path):
    """Before: two times too wide over a whole parent. Boxes by themselves keep what they had, to the bit."""
    shares = {}
    for name, model in (("before", made.model), ("after", made.out)):
        out = str(tmp_path / name)
        predict(None, prepare(model, made.other, out))
        row = evaluate(out, made.other, str(tmp_path / f"e-{name}"), figures=False)["unet"]
        shares[name] = {measure: row[measure]["mean"] for measure in ("coverage_68", "coverage_95", "chi2")}
        predict(None, prepare(model, made.other, str(tmp_path / f"{name}-isolated"), isolated=True))
    # of the Gaussian errors that were made: bars of 1.1 / 0.5 σ hold 97.1 % where 68 % should be
    assert shares["before"] == pytest.approx({"coverage_68": 0.971, "coverage_95": 1.0, "chi2": 0.207}, abs=0.004)
    assert shares["after"] == pytest.approx({"coverage_68": 0.68, "coverage_95": 0.95, "chi2": 1.0}, abs=0.03)
    isolated = [store.open_velocity(str(tmp_path / f"{name}-isolated"), chunks=None) for name in shares]
    np.testing.assert_array_equal(*(one["velocity_std"].values for one in isolated))
    direct = [load_model(model, device="cpu").predict(store.open_fields(made.other, chunks=None))
              for model in (made.model, made.out)]  # fmt: skip
    np.testing.assert_array_equal(*(one["velocity_std"].values for one in direct))
    np.testing.assert_allclose(isolated[0]["velocity_std"].values, direct[0]["velocity_std"].values, rtol=1e-5)


@pytest.mark.usefixtures("_here")
def test_an_evaluation_of_a_whole_parent_is_of_what_was_predicted(made, tmp_path):
    out, where = str(tmp_path / "v"), str(tmp_path / "e")
    predict(None, prepare(made.out, made.other, out))
    evaluate(out, made.other, where, figures=False)
    velocity = store.open_velocity(out, chunks=None)["velocity"].values
    truth = store.open_fields(made.other, chunks=None)["velocity"].values
    # each box has the same number of components: the mean of squares is that of all
    boxes = read_rows(where)["unet"]["rms"]["boxes"]
    assert np.mean(np.square(boxes)) == pytest.approx(np.mean((velocity - truth) ** 2, dtype=float), rel=1e-5)
    about = storage.read_json(f"{where}/evaluation.json")
    assert about["weights"] == bundle.read_metadata(made.model)["weights"]["sha256"]
    assert about["fields"][0]["settings"]["shown"] == "whole"
    assert about["fields"][0]["settings"]["calibration"]["factor"] == pytest.approx(TRUE, rel=0.02)
    model = str(tmp_path / "model")
    shutil.copytree(made.out, model)
    bundle.add_tested(model, read_rows(where)["unet"], about, seed=2)
    box_by_box = str(tmp_path / "boxes")
    evaluate(made.out, made.other, box_by_box, figures=False)
    bundle.add_tested(model, read_rows(box_by_box)["unet"], storage.read_json(f"{box_by_box}/evaluation.json"), seed=2)
    tested = bundle.read_metadata(model)["metrics"]["tested"]
    assert [one["shown"] for one in tested] == ["whole", "isolated"]
    assert "| whole |" in card(bundle.read_metadata(model))
    before, then = str(tmp_path / "before"), str(tmp_path / "e-before")
    predict(None, prepare(made.model, made.other, before))
    evaluate(before, made.other, then, figures=False)
    with pytest.raises(VelfieldError, match=r"an evaluation with other error bars: model=.*, evaluated=1\.1; predict"):
        bundle.add_tested(model, read_rows(then)["unet"], storage.read_json(f"{then}/evaluation.json"))


@pytest.mark.usefixtures("_here")
def test_what_is_said_of_a_prediction(made, tmp_path):
    older = prepare(made.model, made.fields, str(tmp_path / "a"))
    assert any("calibrated on boxes as its training showed them" in note for note in older.differences)
    assert json.loads(older.layout.attrs["model"])["calibration"]["factor"] == ISOLATED
    job = prepare(made.out, made.fields, str(tmp_path / "a"))
    assert not any("error bars" in note for note in job.differences)
    assert job.fingerprint != older.fingerprint
    wider = prepare(made.out, made.fields, str(tmp_path / "a"), tile=24)
    side = job.tiling.side
    assert f"the model's error bars are calibrated for tiles with side={side}, here it is 24" in wider.differences
    facts = [facts_of_bundle(bundle.read_metadata(model), 0) for model in (made.model, made.out)]
    assert facts[0].identity != facts[1].identity  # a catalogue is predicted again


def test_one_tile_without_neighbours_is_a_box_by_itself(made, tmp_path):
    alone = write_fields(str(tmp_path / "alone"), boxes=1, seed=7, periodic=False)
    job = prepare(made.out, alone, str(tmp_path / "v"))
    assert job.tiling.count == 1
    assert json.loads(job.layout.attrs["model"])["calibration"]["factor"] == ISOLATED
    with pytest.raises(VelfieldError, match=r"the parent is one tile without neighbours: url=.*; calibrate on a peri"):
        settle(made.model, [alone], str(tmp_path / "out"))


def test_the_same_again_does_nothing_and_other_places_are_refused(made, capsys):
    assert settle(made.model, [made.fields], made.out).done
    assert main(["calibrate", made.model, made.fields, made.out, "--workers", "1"]) == 0
    assert "already calibrated, nothing done" in capsys.readouterr().out
    with pytest.raises(StoreError, match=r"another model is here: out=.*; name another place"):
        settle(made.model, [made.other], made.out)
    with pytest.raises(StoreError, match=r"not a place for a model: out=.* holds a store; name another place"):
        settle(made.model, [made.fields], made.other)
    with pytest.raises(VelfieldError, match="the name of the model that comes with velfield"):
        settle(made.model, [made.fields], "pretrained")


def test_universes_that_are_no_test_are_refused(made, tmp_path):
    out = str(tmp_path / "out")
    trained = write_fields(str(tmp_path / "trained"), seed=3, parent="another")
    with pytest.raises(VelfieldError, match=r"the model was trained on this universe: url=.*parent=another; calibrate"):
        settle(made.model, [made.fields, trained], out)
    blind = write_fields(str(tmp_path / "blind"), only=("halo_number", "halo_mass"))
    with pytest.raises(StoreError, match=r"the store holds no truth: url=.*, variable=velocity; paint it again"):
        settle(made.model, [blind], out)
    apart = write_fields(str(tmp_path / "apart"), seed=4, rsd="center_radial", observer=np.zeros((8, 3)))
    with pytest.raises(VelfieldError, match=r"the boxes are not one whole, .*; boxes by themselves are calibrated by"):
        settle(made.model, [apart], out)
    with pytest.raises(VelfieldError, match=r"calibrated or trained on this universe: url=.*fields, boxes=8 of 8"):
        evaluate(made.out, made.fields, figures=False)  # no test of it either
    assert not Path(out).exists()


def test_a_model_without_error_bars_is_refused(made, tmp_path):
    bare = arbitrary(str(tmp_path / "bare"), made.fields)
    with pytest.raises(VelfieldError, match=r"the model gives no error bars: model=.*bare; train it with --std"):
        settle(bare, [made.fields], str(tmp_path / "out"))


@pytest.mark.usefixtures("_here")
def test_velocities_of_another_store_are_refused(made, tmp_path):
    out = str(tmp_path / "v")
    predict(None, prepare(made.model, made.other, out, isolated=True))
    with pytest.raises(VelfieldError, match=r"the velocities are of another store: velocities=.*, fields=.*; give the"):
        evaluate(out, made.fields, figures=False)
    with pytest.raises(VelfieldError, match=r"these velocities are there already: store=.*, average=8, .*; leave the"):
        evaluate(out, made.other, figures=False, average=8)


@pytest.mark.parametrize("wrong", [{"map": {"factor": -1.0}}, {"tiles": {}}, {"stores": [{}]}, {"stores": 3}])
def test_senseless_calibrations_are_refused(made, tmp_path, wrong):
    url = str(tmp_path / "model")
    shutil.copytree(made.out, url)
    metadata = bundle.read_metadata(url)
    assert WholeCalibration.of(metadata).to_dict() == metadata["calibration_whole"]
    storage.write_json(f"{url}/metadata.json", metadata | {"calibration_whole": metadata["calibration_whole"] | wrong})
    with pytest.raises(StoreError, match="the model's metadata do not make sense"):
        load_model(url)
