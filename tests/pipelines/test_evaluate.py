"""Evaluation with its boxes on a cluster: the same rows, figures and refusals as without one."""

import dataclasses
import shutil

import numpy as np
import pytest

from velfield.analysis.evaluate import evaluate as here
from velfield.analysis.pieces import Asked, Piece
from velfield.commands.cli import main
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.pipelines.evaluate import evaluate, measure


@pytest.mark.parametrize("figures", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_and_files_are_the_same(client, fields, tmp_path, figures):
    asked = {"figures": True, "box": 20} if figures else {"figures": False}
    rows = evaluate(client, "linear_padded", fields, str(tmp_path / "there"), **asked)
    assert rows == here("linear_padded", fields, str(tmp_path / "here"), **asked)
    drawn = ["figures/contours.png", "figures/error_by.png"] if figures else []
    for name in ["metrics.json", "evaluation.json", "table.md", *drawn]:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.slow
def test_a_networks_row_is_the_same(client, fields, bundle):
    there, alone = (
        run(bundle, fields, None, allow_seen=True)["unet"] for run in (lambda *a, **o: evaluate(client, *a, **o), here)
    )
    assert set(there) == set(alone)
    for name in ("slope", "cos_theta", "r", "rms"):  # threads of torch may sum in another order
        assert there[name]["mean"] == pytest.approx(alone[name]["mean"], rel=1e-4)


@pytest.mark.slow
def test_a_conditioned_networks_row_is_the_same(client, conditioned):
    model, other = conditioned
    there, alone = evaluate(client, model, other, None)["unet"], here(model, other, None)["unet"]
    for name in ("slope", "cos_theta", "r", "rms"):
        assert there[name]["mean"] == pytest.approx(alone[name]["mean"], rel=1e-4)


def test_mistakes_on_a_worker_are_raised_here(client, fields, tmp_path):
    torn = str(tmp_path / "torn")
    shutil.copytree(fields, torn)
    where = next((tmp_path / "torn" / "velocity" / "c").iterdir())
    shutil.rmtree(where)
    with pytest.raises(StoreError, match="lost its truth"):
        evaluate(client, "linear", torn)


def test_a_store_or_model_that_changed_meanwhile_is_refused(fields, bundle):
    asked = Asked(
        model="linear", tracer="number", smoothing=None, average=1, count_filled=True, tracers=(), identity=""
    )
    piece = Piece(number=0, url=fields, fingerprint="f00d", boxes=(1,), drawn=1)
    (measured, *_), kept, sums = measure(piece, asked)
    assert np.isfinite(measured["r"])
    assert kept.shape == (3, 8, 8, 8)
    assert sums.cells == 8**3
    with pytest.raises(VelfieldError, match=f"it changed while it was used: store={fields}; run the same command"):
        measure(dataclasses.replace(piece, fingerprint="beef"), asked)
    with pytest.raises(VelfieldError, match=f"it changed while it was used: model={bundle}; "):
        measure(piece, dataclasses.replace(asked, model=bundle, identity="00"))


def test_the_verb(client, fields, tmp_path, capfd, monkeypatch):
    address = client.scheduler.address
    options = ["--no-figures", "--scheduler", address]
    assert main(["evaluate", "linear", fields, str(tmp_path / "out"), *options]) == 0
    assert "Dask dashboard" in capfd.readouterr().err
    assert storage.names(str(tmp_path / "out")) == ["evaluation.json", "metrics.json", "table.md"]
    assert main(["evaluate", "linear", fields, str(tmp_path / "alone"), "--no-figures"]) == 0
    assert "Dask" not in capfd.readouterr().err
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    assert main(["evaluate", "linear", fields, str(tmp_path / "named"), "--no-figures"]) == 0
    assert "Dask dashboard" in capfd.readouterr().err


def test_options_of_a_cluster_without_one_are_refused(fields, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    assert main(["evaluate", "linear", fields, str(tmp_path / "out"), "--threads", "2"]) == 2
    assert "no cluster is asked for: threads=2; add --workers or --scheduler" in capsys.readouterr().err
