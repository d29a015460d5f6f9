"""The model that comes with velfield: whole, small, in wheel and sdist, and of use; and its name, wherever it is given.

These tests use the bundle of the package, ``velfield/pretrained``, and fail without it.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import velfield as vf
from velfield.accuracy.measures import metrics
from velfield.commands.cli import main
from velfield.files import shipped, storage
from velfield.network import bundle
from velfield.simulation.simulate import SimulateConfig, simulate
from velfield.stores import store
from velfield.verification.verify import check_model

ROOT = Path(__file__).parents[1]
FILES = {"README.md", "metadata.json", "model.safetensors"}
LARGEST = 8e6  # bytes
CELLS, BOXES = 16, 2  # of the store that it is tried on, along a side
SEED = 90_210  # of no training


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """A small universe at the lowest redshift and threshold that the model was trained at, painted as it needs it."""
    metadata = bundle.read_metadata("pretrained")
    trained, ranges = metadata["trained_on"], metadata["normalisation"].get("condition") or {}
    redshift = float(trained["redshift"] if "redshift" in trained else ranges["redshift"][0])
    min_mass = float(trained["min_mass"] if "min_mass" in trained else ranges["min_mass"][0])
    universe = tmp_path_factory.mktemp("universe")
    boxsize = CELLS * BOXES * trained["cellsize"]
    least = min_mass or 3e11  # all halos of their catalogues
    config = SimulateConfig(
        boxsize=boxsize,
        particles=2 * round(boxsize / 6),
        redshifts=(redshift,),
        seed=SEED,
        min_halo_mass=least,
        steps=12,
    )
    (snapshot,) = simulate(str(universe / "u"), config).snapshots
    out = str(universe / "fields.zarr")
    options = {"boxes": BOXES, "cells": CELLS, "margin": metadata.get("context", trained["margin"])}
    options |= {"rsd": trained["rsd"], "assignment": trained["assignment"], "min-mass": min_mass}
    options |= {name: str(universe / "u" / getattr(snapshot, name)) for name in ("halos", "particles")}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["paint", out, *words, "--workers", "1"]) == 0
    return out


def test_it_is_whole_and_small():
    assert {path.name for path in shipped.FOLDER.iterdir()} == FILES
    assert sum(path.stat().st_size for path in shipped.FOLDER.iterdir()) <= LARGEST
    report = check_model("pretrained")  # opens it: checksum, names and shapes; finite numbers
    assert not report.findings
    assert report.checked["parameters"] > 0


def test_its_card_says_what_it_is_good_for():
    metadata, text = bundle.read_metadata("pretrained"), (shipped.FOLDER / "README.md").read_text()
    for title in ("Made for", "Not for", "Made from", "Reached on unseen parents"):
        assert f"\n## {title}\n" in text
    saw = set(vf.load_model("pretrained", device="cpu").parents)  # its training, and its calibration
    assert saw > set(metadata["parents"])
    for one in metadata["metrics"]["tested"]:
        assert not set(one["parents"]) & saw
        assert one["measures"]["cos_theta"]["mean"] > 0.5
    assert all(parent in text for parent in metadata["parents"])
    # where it was trained is nobody's business: relative places only
    assert not [one["url"] for one in metadata["training"]["stores"] if one["url"].startswith("/") or ":" in one["url"]]


@pytest.mark.slow
def test_its_velocities_are_better_than_none(fields):
    ds = store.open_fields(fields, chunks=None)
    model = vf.load_model("pretrained", device="cpu")
    predicted, truth = model.predict(ds)["velocity"], ds.velfield.core(ds["velocity"])
    flag = ds.velfield.core(ds["velocity_flag"])
    found = metrics(predicted, truth, flag=flag)
    nothing = metrics(predicted * 0, truth, flag=flag)
    assert found["missing"]["mean"] == 0
    # boxes of 80 h⁻¹Mpc may be all that it sees: half of the flow comes from outside
    assert found["rms"]["mean"] < 0.9 * nothing["rms"]["mean"]
    assert found["cos_theta"]["mean"] > 0.5


def test_predicting_out_of_the_box(client, fields, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the workers stay in another folder
    scheduler = client.scheduler.address
    assert main(["predict", "pretrained", fields, "out.zarr", "--scheduler", scheduler]) == 0
    velocity = store.open_velocity("out.zarr", chunks=None)
    about = json.loads(velocity.attrs["model"])
    assert about["url"] == "pretrained"
    metadata = bundle.read_metadata("pretrained")
    assert about["weights"] == metadata["weights"]["sha256"]
    assert about["calibration"] == metadata["calibration_whole"]["map"] != metadata["calibration"]  # of whole parents
    assert np.isfinite(velocity["velocity"].values).all()
    for path in (p for p in Path("out.zarr").rglob("*.json")):
        assert str(shipped.FOLDER) not in path.read_text()  # nothing depends on where velfield is installed
    shutil.copytree(shipped.FOLDER, "elsewhere")
    capsys.readouterr()
    assert main(["predict", "elsewhere", fields, "out.zarr", "--scheduler", scheduler]) == 0
    assert "already predicted, nothing done" in capsys.readouterr().out
    assert main(["verify", "out.zarr", "--scheduler", scheduler]) == 0


@pytest.mark.slow
def test_evaluations_name_it_by_its_weights(fields, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "pretrained", fields, "here", "--no-figures"]) == 0
    assert main(["evaluate", "pretrained", fields, "spread", "--no-figures", "--workers", "1"]) == 0
    about = storage.read_json("here/evaluation.json")
    assert (about["model"], about["row"]) == ("pretrained", "unet")
    assert about["weights"] == bundle.read_metadata("pretrained")["weights"]["sha256"]
    assert str(shipped.FOLDER) not in json.dumps(about)
    assert storage.read_json("spread/evaluation.json")["weights"] == about["weights"]
    rms = [storage.read_json(f"{out}/metrics.json")["unet"]["rms"]["mean"] for out in ("here", "spread")]
    assert rms[0] == pytest.approx(rms[1], rel=1e-4)  # other threads: float32 rounding of the network
    capsys.readouterr()
    assert main(["info", "pretrained"]) == 0
    assert capsys.readouterr().out.startswith(f"model bundle: {shipped.FOLDER}\n")
    assert main(["verify", "pretrained"]) == 0
    assert "whole: model bundle=pretrained" in capsys.readouterr().out


def test_wheel_and_sdist_have_it(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "tests", "docs", "build", "dist", "*.egg-info", "demo", "run")
    )
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", "."]
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    for command in (wheel, [sys.executable, "-c", build]):
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    (packed,) = (source / "dist").glob("*.whl")
    (archive,) = (source / "dist").glob("*.tar.gz")
    (about,) = (name for name in zipfile.ZipFile(packed).namelist() if name.endswith(".dist-info/METADATA"))
    about = zipfile.ZipFile(packed).read(about).decode()
    assert "Provides-Extra: formats" in about.splitlines()  # an older name, which brings nothing more
    assert "extra == 'formats'" not in about.replace('"', "'")
    for name in FILES:
        data = (shipped.FOLDER / name).read_bytes()
        assert zipfile.ZipFile(packed).read(f"velfield/pretrained/{name}") == data
        with tarfile.open(archive) as tar:
            member = tar.extractfile(f"{archive.name.removesuffix('.tar.gz')}/velfield/pretrained/{name}")
            assert member is not None
            assert member.read() == data


def test_a_folder_of_that_name_is_reached_by_its_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert shipped.place("pretrained") == str(shipped.FOLDER)
    assert shipped.place("./pretrained") == "./pretrained"
    assert main(["info", "./pretrained"]) == 2
    assert "no such file" in capsys.readouterr().err
    shutil.copytree(shipped.FOLDER, "pretrained")
    assert main(["info", "./pretrained"]) == 0
    assert capsys.readouterr().out.startswith("model bundle: ./pretrained\n")


def test_nothing_is_written_by_that_name(fields, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", fields, "pretrained", "--steps", "1"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the name of the model that comes with velfield: model=pretrained; choose another place, or ./pre" in said
    assert not list(tmp_path.iterdir())
    with pytest.raises(vf.VelfieldError, match="the name of the model that comes with velfield"):
        bundle.add_tested("pretrained", {}, {})


@pytest.mark.parametrize(
    "command", [["info", "pretrained"], ["verify", "pretrained"], ["evaluate", "pretrained", "FIELDS", "e"],
                ["predict", "pretrained", "FIELDS", "v.zarr"]]
)  # fmt: skip
def test_an_installation_without_it_says_so(fields, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "nowhere")
    assert main([fields if word == "FIELDS" else word for word in command]) == 2
    said = capsys.readouterr().err
    assert said.startswith("velfield: the model that comes with velfield is not in this installation: model=pretrained")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
