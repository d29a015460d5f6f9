"""Predictions that cannot be right: refused, gone on with where they are accepted, flagged in every cell."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from arbitrary_bundle import bundle
from gaussian import universe, write_fields

from velfield.analysis.evaluate import evaluate
from velfield.commands.cli import main
from velfield.errors import ImplausibleError, StoreError
from velfield.network.model import load_model
from velfield.physics.plausible import EMPTY_SHARE
from velfield.pipelines import verify as verification
from velfield.pipelines.predict import predict, prepare, remarks
from velfield.stores.store import attributes, open_fields, open_velocity
from velfield.stores.store_layout import EMPTY, IMPLAUSIBLE

NOT_COMPLETE = r"^the halos do not fill the volume as a complete catalogue does: .*; a survey needs its selection "


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    return write_fields(str(tmp_path_factory.mktemp("complete") / "fields"), boxes=2, cells=12, seed=5)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """The same, its halos as a flux limit leaves them."""
    delta, _ = universe(24, 10.0, 5)
    at = (np.indices((24,) * 3) + 0.5 - 12) * 10.0
    share = np.exp(-(at**2).sum(axis=0) / 60.0**2)
    halos = np.random.default_rng(6).poisson(20 * np.clip(1 + 1.5 * delta, 0, None) * share)
    number = np.stack([halos[12 * x :, 12 * y :, 12 * z :][:12, :12, :12] for x, y, z in np.ndindex(2, 2, 2)])
    arrays = {"halo_number": number, "halo_mass": 1e12 * number}
    url = str(tmp_path_factory.mktemp("survey") / "fields")
    write_fields(url, boxes=2, cells=12, seed=5, arrays=arrays, fingerprint="survey")
    return url


@pytest.fixture(scope="module")
def wild(complete, tmp_path_factory):
    """A network whose velocities are a hundred times too large."""
    url = bundle(str(tmp_path_factory.mktemp("wild") / "model"), complete, cells=12)
    model = load_model(url, device="cpu")
    with torch.no_grad():
        for p in model.net.out.parameters():
            p.mul_(100)
    model.save(url)
    return url


def test_a_complete_catalogue_is_predicted_and_says_what_was_found(client, complete, tmp_path):
    job = prepare("linear_whole", complete, str(tmp_path / "out"))
    assert predict(client, job)
    attrs = attributes(job.out)
    found = json.loads(attrs["checks"])
    assert "implausible" not in attrs
    assert found["blocks_variance"] < found["blocks_most"]
    made = open_velocity(job.out, chunks=None)
    np.testing.assert_allclose(
        found["rms"], np.sqrt((made["velocity"].values ** 2.0).mean(axis=(0, 2, 3, 4))), rtol=1e-6
    )
    assert (found["fast_cells"], found["lost_cells"], found["empty_share"]) == (0, 0, 0)
    assert (made["velocity_flag"].values == 0).all()
    assert remarks(job.out) == []


@pytest.mark.parametrize("model", ["linear_whole", "wild"])
def test_a_flux_limited_catalogue_is_refused_and_accepted(client, survey, wild, tmp_path, model):
    name, out = wild if model == "wild" else model, str(tmp_path / "out")
    with pytest.raises(ImplausibleError, match=NOT_COMPLETE):
        predict(client, prepare(name, survey, out))
    with pytest.raises(StoreError, match="not finished"):
        open_velocity(out)
    job = prepare(name, survey, out, accept=["implausible"])
    assert predict(client, job)
    made = open_velocity(out, chunks=None)
    flag = made["velocity_flag"].values
    assert (flag & IMPLAUSIBLE > 0).all()
    assert (flag & EMPTY > 0).mean() == pytest.approx(json.loads(made.attrs["checks"])["empty_share"])
    assert (flag & EMPTY > 0).mean() > 10 * EMPTY_SHARE
    assert made.attrs["implausible"].startswith("the halos do not fill the volume")
    assert any("accepted as implausible" in text for text in remarks(out))
    assert list(verification.verify(client, out).findings) == []


def test_velocities_that_cannot_be_right_go_on_where_they_are_accepted(client, complete, wild, tmp_path):
    out = tmp_path / "out"
    match = r"^the velocities cannot be right: rms of vx, vy, vz=.*, at most=719 km/s .*; see whether the input is what"
    with pytest.raises(ImplausibleError, match=match):
        predict(client, prepare(wild, complete, str(out), isolated=True))
    with pytest.raises(ImplausibleError, match=match):  # nor is it published by asking again
        predict(client, prepare(wild, complete, str(out), isolated=True))

    def written(variable: str) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (out / variable / "c").rglob("*") if path.is_file()}

    before, flags = written("velocity"), written("velocity_flag")
    assert predict(client, prepare(wild, complete, str(out), isolated=True, accept=["implausible"]))
    assert written("velocity") == before  # nothing was computed anew
    assert written("velocity_flag") != flags
    made = open_velocity(str(out), chunks=None)
    assert (made["velocity_flag"].values == IMPLAUSIBLE).all()
    assert list(verification.verify(client, str(out)).findings) == []
    alone = str(tmp_path / "at-once")
    predict(client, prepare(wild, complete, alone, isolated=True, accept=["implausible"]))
    again = open_velocity(alone, chunks=None)
    assert again.identical(made)


def test_evaluate_refuses_and_accepts_the_same(complete, survey, wild, tmp_path):
    with pytest.raises(ImplausibleError, match=NOT_COMPLETE):
        evaluate("linear_halo", survey, figures=False)
    rows = evaluate("linear_halo", survey, str(tmp_path / "out"), figures=False, accept=["implausible"])
    (checks,) = rows["linear_halo"]["checks"]["stores"]
    assert checks["implausible"].startswith("the halos do not fill the volume")
    with pytest.raises(ImplausibleError, match=r"^the velocities cannot be right: rms of vx, vy, vz="):
        evaluate(wild, complete, figures=False)
    (checks,) = evaluate("linear", survey, figures=False)["linear"]["checks"]["stores"]  # the dark matter is complete
    assert checks["implausible"] is None


def test_an_input_far_from_a_training_is_refused(client, complete, tmp_path):
    ds = open_fields(complete, chunks=None)
    assert load_model(bundle(str(tmp_path / "model"), complete, cells=12), device="cpu").far(ds, 0) == 0
    loaded = load_model(str(tmp_path / "model"), device="cpu")
    channels = [dict(one, mean=40.0, std=0.5) for one in loaded.normalisation.to_dict()["channels"]]
    other = loaded.normalisation.from_dict(loaded.normalisation.to_dict() | {"channels": channels})
    type(loaded)(loaded.net, other, loaded.metadata).save(str(tmp_path / "other"))
    match = r"^the input is far from all that the network learnt from: cells=1e\+02 %, at most=10 %; see whether"
    with pytest.raises(ImplausibleError, match=match):
        predict(client, prepare(str(tmp_path / "other"), complete, str(tmp_path / "out")))
    with pytest.raises(ImplausibleError, match=match):
        evaluate(str(tmp_path / "other"), complete, figures=False)


def test_the_command_says_it_in_a_line_and_exits_with_2(survey, tmp_path, capsys):
    out = str(tmp_path / "out")
    asked = ["predict", "linear_whole", survey, out, "--workers", "1"]
    assert main(asked) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("velfield: the halos do not fill the volume as a complete catalogue does: ")
    assert last.endswith("or write it all the same, flagged, with --accept implausible")
    assert main([*asked, "--accept", "implausible"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "note: accepted as implausible, every cell is flagged: the halos do not fill" in said
