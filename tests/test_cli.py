"""The command line: one line for a mistake, exit statuses, what `info` says."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from small_store import BOXES, arrays_of, spec_of

from velfield.commands.cli import cli, main
from velfield.files import storage
from velfield.learning import checkpoint
from velfield.stores import store

DATA = Path(__file__).parent / "data"


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "velfield", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paint"], "velfield: Missing argument 'OUT'; see velfield paint --help"),
        (["paint", "o", "--boxes", "two"], "velfield: Invalid value for '--boxes': 'two' is not a valid integer"),
        (["fly"], "velfield: No such command 'fly'; see velfield --help"),
        (["info", "foo://bar"], "velfield: no file system for this URL: url=foo://bar"),
        (["info", "/nowhere"], "velfield: no such file: file=/nowhere; check the path"),
        (["info", str(DATA)], "velfield: nothing of velfield's is here"),
        (["info", str(DATA / "README.md")], "velfield: not a catalogue in a known format"),
        (["predict", "m", "/nowhere", "o"], "velfield: no such file or folder: input=/nowhere; check the path"),
        (
            ["paint", "o", "--boxes", "2", "--cells", "8", "--cosmology", "planck"],
            "velfield: no such cosmology: cosmology",
        ),
        (["demo", "d", "--particles", "8"], "velfield: too few particles: particles=8"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_no_verb_is_the_help_in_its_lines(capsys):
    assert main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Usage: velfield")
    assert said.count("\n") > 10


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "not enough memory: Unable to allocate 9 TiB; ask for less"),
        (MemoryError(), "not enough memory: it does not say how much; "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore"), "can't allocate memory; ask for less"),
    ],
)
def test_memory_that_is_not_there_is_one_line(monkeypatch, capsys, error, said):
    monkeypatch.setattr("velfield.commands.info.describe", lambda *_, **__: (_ for _ in ()).throw(error))
    assert main(["info", "x"]) == 1
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert said in captured


def test_other_errors_of_ours_are_shown_whole(monkeypatch):
    monkeypatch.setattr(
        "velfield.commands.info.describe", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a bug"))
    )
    with pytest.raises(RuntimeError, match="a bug"):
        main(["info", "x"])


def test_help_and_version_exit_0(capsys):
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert "velfield, version" in capsys.readouterr().out
    for verb in cli.commands:
        assert main([verb, "--help"]) == 0


def test_help_fits_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["paint", "--help"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 60


@pytest.mark.parametrize(
    ("command", "at", "said"),
    [
        (["info", "x"], "velfield.commands.info.describe", "run the same command again: it begins anew"),
        (
            ["simulate", "x", "--boxsize", "8", "--particles", "8", "--seed", "1"],
            "velfield.simulation.simulate.simulate",
            "run the same command again: snapshots that are written stay, gravity is computed anew",
        ),
        (["demo", "x"], "velfield.pipelines.demo.demo", "run the same command again to go on"),
    ],
)
def test_an_interrupt_says_what_the_same_command_does(monkeypatch, capsys, command, at, said):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(at, interrupted)
    assert main(command) == 130
    assert capsys.readouterr().err.strip() == f"velfield: interrupted; {said}"


def test_a_closed_pipe_is_no_traceback():
    url = DATA / "mock-outer-rim" / "m000-499.fofproperties"
    command = f"{sys.executable} -m velfield info {url} --json | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert result.stdout == "{\n"
    assert result.stderr == ""


def test_info_on_a_catalogue(capsys):
    url = str(DATA / "mock-outer-rim" / "m000.mpicosmo.499")
    assert main(["info", url]) == 0
    text = capsys.readouterr().out
    assert "kind" in text
    assert "particles" in text
    assert main(["info", url, "--json"]) == 0
    what = json.loads(capsys.readouterr().out)
    assert (what["what"], what["rows"], what["boxsize"], what["redshift"]) == ("catalogue", 167772, 512.0, 0.0)


def test_info_on_a_field_store(tmp_path, capsys):
    url = str(tmp_path / "f")
    store.write_fields(url, spec_of(BOXES), arrays_of(BOXES))
    assert main(["info", url]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"field store: {url}\n")
    assert "halo_mass        float32  solMass / littleh box=27 x=8 y=8 z=8  mean 2e+12 a cell" in text
    said = {" ".join(line.split()) for line in text.splitlines()}
    assert {"boxsize 90 h⁻¹Mpc", "boxes 3 along a side", "cells 6 along a side", "cellsize 5 h⁻¹Mpc"} <= said
    assert {"margin 1 cells on every side", "min mass 1e+12 h⁻¹M⊙"} <= said
    assert main(["info", url, "--json"]) == 0
    what = json.loads(capsys.readouterr().out)
    assert what["split"] == {"train": 26, "validation": 1}
    assert what["cosmology"]["sigma8"] == 0.8


def test_info_on_a_bundle_counts_what_is_long(tmp_path, capsys):
    bundle = {
        "parents": ["ab" * 32],
        "losses": {"train": [[1, 3.0], [2, 2.5]], "all": list(range(20))},
        "stores": [{"url": "a", "fingerprint": "cd" * 32}],
        "learned": True,
        "rate": 4e-3,
        "boxes": 1234,
        "metrics": {"tested": [{"boxes": 27, "cells": 60, "measures": {"r": {"mean": 0.5, "std": None}}}]},
    }
    storage.write_json(str(tmp_path / "metadata.json"), bundle)
    assert main(["info", str(tmp_path)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"model bundle: {tmp_path}"
    assert "parents abababababab" in lines
    assert "train 2 values" in lines
    assert "all 20 values" in lines
    assert {"boxes 27", "cells 60 along a side", "r 0.5"} <= set(lines)  # boxes that were tested, not along a side
    assert "fingerprint cdcdcdcdcdcd" in lines
    assert {"learned True", "rate 0.004", "boxes 1,234"} <= set(lines)
    assert main(["info", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["losses"] == bundle["losses"]  # a program gets all of it


def test_info_on_what_verbs_leave(tmp_path, capsys):
    def said(name, **records):
        for file, record in records.items():
            storage.write_json(str(tmp_path / name / file.replace("__", ".")), record)
        assert main(["info", str(tmp_path / name)]) == 0
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    row = {"slope": {"mean": 0.7, "std": 0.06}, "r": {"mean": 0.8, "std": None}, "cells": {"mean": 9, "std": 0.0}}
    lines = said("e", evaluation__json={"model": "linear"}, metrics__json={"linear": row})
    assert lines == [f"evaluation: {tmp_path}/e", "model linear", "metrics:", "slope 0.7 ± 0.06", "r 0.8"]
    settings = {"settings": {"boxes": 3, "cells": 32}, "seconds": {"train": 77.0}}
    assert not any("read as" in line for line in said("n", demo__json=settings | {"read_as": {}}))  # nothing to say
    lines = said("d", demo__json=settings, report__html={})
    assert lines[0] == f"demo: {tmp_path}/d"
    assert {"boxes 3 along a side", f"report.html {tmp_path}/d/report.html"} <= set(lines)
    assert said("b", demo__begun__json=settings)[0] == f"unfinished demo: {tmp_path}/b"
    assert said("s", simulation__begun__json={})[0] == f"unfinished simulation: {tmp_path}/s"
    results = {"title": "t", "reproduces": "r", "boxes": 27, "parents": 1, "scale": {"name": "tiny", "boxes": 3}}
    lines = said("x", results__json=results | {"rows": [{"label": "U-Net", "measured": row}]}, plan__json={"plan": "9"})
    assert lines[0] == f"experiment: {tmp_path}/x"
    assert lines[-4:] == ["rows:", "U-Net:", "slope 0.7 ± 0.06", "r 0.8"]
    assert "scale tiny" in lines
    assert said("y", plan__json={"plan": "9"})[0] == f"unfinished experiment: {tmp_path}/y"
    checkpoint.begin(str(tmp_path / "t"))
    assert said("t")[:2] == [f"unfinished training: {tmp_path}/t", "steps done 0"]


def test_info_on_unfinished_and_foreign_groups(tmp_path, capsys):
    storage.write_json(str(tmp_path / "u" / ".work" / "x.json"), {})
    assert main(["info", str(tmp_path / "u")]) == 2
    assert "unfinished store" in capsys.readouterr().err
    storage.write_json(str(tmp_path / "z" / "zarr.json"), {"attributes": {}, "zarr_format": 3, "node_type": "group"})
    assert main(["info", str(tmp_path / "z")]) == 2
    assert "that velfield did not write" in capsys.readouterr().err


def test_python_m_velfield():
    assert "Usage: velfield" in run("--help").stdout


def test_every_choice_of_a_training_is_an_option():
    from dataclasses import fields

    from velfield.learning.loss import LossConfig
    from velfield.learning.train_config import TrainConfig

    no_choice = ("fields", "model", "config", "storage_option", "scheduler", "wait")
    options = {p.name: p.default for p in cli.commands["train"].params if p.name not in no_choice}
    wanted = {f.name: f.default for f in (*fields(TrainConfig), *fields(LossConfig)) if f.name != "loss"}
    assert set(options) == set(wanted)
    differing = {name for name, default in wanted.items() if options[name] != default}
    assert all(wanted[name] is None for name in differing)  # click has a mark of its own for these


PAINT = [
    "paint",
    "out",
    "--halos",
    str(DATA / "mock-outer-rim" / "m000-499.fofproperties"),
    "--boxes",
    "2",
    "--cells",
    "8",
    "--rsd",
    "random_radial",
]
SIMULATE = ["simulate", "out", "--boxsize", "48", "--particles", "16", "--seed", "1"]


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        (PAINT, "--max-shift"),
        (PAINT, "--min-mass"),
        (PAINT, "--boxsize"),
        (PAINT, "--redshift"),
        (PAINT, "--validation"),
        (SIMULATE, "--boxsize"),
        (SIMULATE, "--redshift"),
        (SIMULATE, "--min-halo-mass"),
        (["train", "f", "out"], "--learning-rate"),
        (["train", "f", "out"], "--weight-decay"),
        (["train", "f", "out"], "--clip"),
        (["train", "f", "out"], "--warmup"),
        (["train", "f", "out"], "--dropout"),
        (["train", "f", "out"], "--mse"),
        (["train", "f", "out"], "--floor"),
        (["demo", "out"], "--min-halo-mass"),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path, monkeypatch, capsys, command, option, value):
    monkeypatch.chdir(tmp_path)
    assert main([*command, option, value]) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert f"{float(value):g}" in captured
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", [PAINT, SIMULATE, ["train", "f", "out"], ["demo", "out"], ["evaluate", "linear", "f", "o"]]
)
def test_negative_seeds_are_refused(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--seed", "-3"]) == 2
    captured = capsys.readouterr().err
    assert captured.count("\n") == 1
    assert "-3" in captured
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", [["info"], ["verify"], ["predict", "linear_halo"], ["evaluate", "linear"], ["export"], ["query"]]
)
def test_a_path_that_is_a_typo_is_called_that(tmp_path, capsys, command):
    (tmp_path / "fields-1.zarr").mkdir()
    more = {"query": ["t.csv"], "info": [], "verify": []}.get(command[0], [])
    out = [] if command[0] in ("info", "verify") else [str(tmp_path / "out")]
    assert main([*command, str(tmp_path / "field-1.zarr"), *more, *out]) == 2
    said = capsys.readouterr().err
    assert "no such file" in said
    assert "did you mean fields-1.zarr? check the path" in said


def test_a_model_that_is_a_typo_is_called_that(tmp_path, capsys):
    fields = tmp_path / "fields.zarr"
    store.write_fields(str(fields), spec_of(BOXES), arrays_of(BOXES))
    for given, meant in (("linear_hallo", "linear_halo"), ("pretraind", "pretrained")):
        assert main(["predict", given, str(fields), str(tmp_path / "out")]) == 2
        assert f"did you mean {meant}? " in capsys.readouterr().err


def test_the_help_of_predict_is_in_groups(capsys):
    assert main(["predict", "--help"]) == 0
    said = capsys.readouterr().out
    titles = [line for line in said.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "For a catalogue, how it is painted:",
        "For a catalogue, how it is read:",
        "How the volume is cut:",
        "For linear theory:",
        "For a network:",
        "The run:",
    ]
    place = {
        option: said.index(f"  --{option}") for option in ("rsd", "boxes", "table", "tile", "tracer", "gpu", "plan")
    }
    assert list(place) == sorted(place, key=lambda option: place[option])
    for parameter in cli.commands["predict"].params:  # none is lost
        if isinstance(parameter, click.Option):
            assert said.count(f"  {max(parameter.opts, key=len)} ") == 1 or parameter.name == "help", parameter.name
