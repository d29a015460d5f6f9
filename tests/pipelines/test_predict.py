"""The prediction job, box by box: every box, the input's coordinates, resumable."""

import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from gaussian import write_fields
from small_store import arrays_of, spec_of

from velfield.commands.cli import main
from velfield.errors import StoreError
from velfield.geometry.boxes import BoxLayout
from velfield.pipelines.predict import predict, prepare
from velfield.pipelines.predict_tasks import predict_shard
from velfield.stores import store
from velfield.theory import analytic
from velfield.theory.whole import Cache


def test_every_box_with_the_inputs_coordinates(client, fields, bundle, tmp_path):
    out = str(tmp_path / "v")
    assert predict(client, prepare(bundle, fields, out, batch=2, isolated=True))
    ds, made = store.open_fields(fields), xr.open_zarr(out)
    from velfield.network.model import load_model

    expected = load_model(bundle).predict(ds).velocity
    np.testing.assert_allclose(made.velocity, expected, rtol=0, atol=1e-2)  # float32 sums in batches of another size
    truth = ds.velfield.core(ds.velocity)
    assert (truth - made.velocity).shape == (27, 3, 8, 8, 8)
    assert np.isfinite(made.velocity).all()
    assert not predict(client, prepare(bundle, fields, out, batch=2, isolated=True))
    assert not predict(
        client, prepare(f"file://{bundle}", fields, out, isolated=True)
    )  # the same weights by another name
    assert made.velfield.core(made).velocity.equals(made.velocity)


@pytest.mark.slow
def test_a_conditioned_model_is_told_of_the_store(client, conditioned, tmp_path):
    model, other = conditioned
    job = prepare(model, other, str(tmp_path / "v"), isolated=True)
    assert any(line.endswith("redshift=0.212 to 0.212, the store has redshift=0") for line in job.differences)
    assert predict(client, job)
    from velfield.network.model import load_model

    expected = load_model(model).predict(store.open_fields(other)).velocity
    np.testing.assert_allclose(xr.open_zarr(tmp_path / "v").velocity, expected, rtol=0, atol=1e-2)


def test_analytic_models_too(client, fields, tmp_path):
    out = str(tmp_path / "v")
    assert predict(client, prepare("linear_padded", fields, out))
    ds = store.open_fields(fields, chunks=None)
    np.testing.assert_array_equal(
        store.open_velocity(out).velocity.values[7], analytic.reconstruct("linear_padded", ds, 7)
    )


def test_the_whole_parent_is_one_field_in_all_boxes(client, tmp_path):
    url, out = str(tmp_path / "fields"), str(tmp_path / "v")
    write_fields(url, boxes=2, cells=8, margin=1)
    assert predict(client, prepare("linear_whole", url, out))
    ds = store.open_fields(url, chunks=None)
    found = analytic.velocities(analytic.settings("linear_whole", ds), ds, range(8), cache=Cache())
    np.testing.assert_array_equal(store.open_velocity(out).velocity.values, found)


def test_a_guide_of_the_whole_store(client, fields, tmp_path):
    """A shard's task has few boxes to write, and its guide needs all."""
    from velfield.accuracy.measures import metrics
    from velfield.analysis.evaluate import evaluate
    from velfield.learning.train import TrainConfig, train
    from velfield.network.model import load_model

    url, out = str(tmp_path / "model"), str(tmp_path / "v")
    asked = TrainConfig(steps=1, width=4, depth=1, groups=2, device="cpu", guide="linear_whole", context=1)
    train([fields], url, asked)
    assert predict(client, prepare(url, fields, out, batch=2, isolated=True))
    ds, made = store.open_fields(fields, chunks=None), store.open_velocity(out).velocity.values
    whole = load_model(url).predict(ds).velocity.values
    np.testing.assert_allclose(made, whole, rtol=0, atol=1e-2)  # float32 sums in batches of another size
    row = evaluate(url, fields, split="validation", allow_seen=True, figures=False)["unet"]
    true = ds.velfield.core(ds["velocity"]).values[-1]
    expected = metrics(whole[-1], true, flag=ds.velfield.core(ds["velocity_flag"]).values[-1])
    assert row["rms"]["mean"] == pytest.approx(expected["rms"]["mean"], rel=1e-4)


def test_an_interrupted_job_goes_on_to_the_same_bytes(client, fields, tmp_path):
    whole, torn = (str(tmp_path / name) for name in ("whole", "torn"))
    predict(client, prepare("linear", fields, whole))
    job = prepare("linear", fields, torn)
    from velfield.files import shards

    job.receipts.begin({})
    shards.create(torn, job.layout)
    predict_shard(2, job)  # one shard done, then nothing
    with pytest.raises(StoreError, match="not finished"):
        store.open_velocity(torn)
    with pytest.raises(StoreError, match="unfinished store with other settings"):
        predict(client, prepare("linear_padded", fields, torn))
    done = tmp_path / "torn" / "velocity" / "c" / "2" / "0" / "0" / "0" / "0"
    then = done.stat().st_mtime_ns
    assert predict(client, prepare("linear", fields, torn))
    assert done.stat().st_mtime_ns == then
    for path in (tmp_path / "whole").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "torn" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_model_that_does_not_fit_is_refused(bundle, tmp_path, capsys):
    other = BoxLayout(boxsize=60.0, boxes=1, cells=8)
    url = str(tmp_path / "other.zarr")
    store.write_fields(url, spec_of(other), arrays_of(other))
    assert main(["predict", bundle, url, str(tmp_path / "v")]) == 2
    assert "the store does not fit the model: cellsize=7.5" in capsys.readouterr().err


@pytest.mark.slow
def test_the_verb_names_what_differs_from_training(client, bundle, fields, tmp_path, capfd):
    changed = str(tmp_path / "fields.zarr")
    shutil.copytree(fields, changed)
    root = tmp_path / "fields.zarr" / "zarr.json"
    root.write_text(root.read_text().replace('"redshift": 0.212', '"redshift": 0.5', 1))
    assert main(["predict", bundle, changed, str(tmp_path / "v"), "--scheduler", client.scheduler.address]) == 0
    captured = capfd.readouterr()
    assert "note: the model was trained at redshift=0.212, the store has redshift=0.5" in captured.err
    assert "predicted 27 boxes" in captured.out


@pytest.mark.slow
def test_error_bars_and_averages_go_into_the_store(client, fields, tmp_path, capsys):
    from velfield.commands.info import describe
    from velfield.learning.train import TrainConfig, train
    from velfield.network.model import load_model
    from velfield.pipelines.verify import verify

    model, out = str(tmp_path / "model"), str(tmp_path / "v")
    train([fields], model, TrainConfig(steps=2, width=4, depth=1, groups=2, device="cpu", std=True))
    job = prepare(model, fields, out, average=8, isolated=True)
    assert job.fingerprint != prepare(model, fields, out, isolated=True).fingerprint
    assert predict(client, job)
    expected = load_model(model).predict(store.open_fields(fields), average=8)
    made = store.open_velocity(out)
    np.testing.assert_allclose(made.velocity, expected.velocity, atol=1e-2)
    np.testing.assert_allclose(made.velocity_std, expected.velocity_std, rtol=1e-3)
    assert describe(out)["variables"]["velocity_std"]["units"] == "km/s"
    assert describe(out)["model"]["average"] == 8
    for inputs in (True, False):
        assert not verify(client, out, inputs=inputs).damaged
    array = zarr.open_array(f"{out}/velocity_std", mode="r+")
    array[3, 1] = -array[3, 1]
    found = [finding.line() for finding in verify(client, out).findings]
    assert any("error bars that are not positive: variable=velocity_std, box=3, found=512 values" in f for f in found)
    assert main(["predict", "linear", fields, str(tmp_path / "w"), "--average", "8"]) == 2
    assert "only a network is averaged: model=linear, average=8" in capsys.readouterr().err
