"""Run files: sections are verbs, keys their options; the command line wins; mistakes are one line."""

import json
import runpy
import tomllib
from pathlib import Path

import click
import pytest

from velfield.commands.cli import cli, main
from velfield.commands.runfile import options_of, section, shipped, takers
from velfield.errors import VelfieldError
from velfield.files import storage

ROOT = Path(__file__).parent.parent


@pytest.fixture
def paint_with(monkeypatch):
    """What ``velfield paint`` would be asked for, by its options' names."""
    command, asked = cli.commands["paint"], {}
    monkeypatch.setattr(command, "callback", lambda **options: asked.update(options))

    def run(*arguments):
        asked.clear()
        assert main(["paint", "out", *map(str, arguments)]) == 0
        return dict(asked)

    return run


def write(tmp_path, text):
    file = tmp_path / "run.toml"
    file.write_text(text)
    return file


FULL = """
[paint]
halos = "h"
boxes = 2
cells = 16
rsd = "none"
min_mass = 1e12
periodic = false
halo_column = { x = "X [Mpc/h]", mass = "M" }

[paint.storage_option]
endpoint_url = "http://127.0.0.1:1"
anon = true
"""


def test_options_come_from_the_file_and_the_command_line_wins(tmp_path, paint_with):
    file = write(tmp_path, FULL)
    asked = paint_with("--config", file)
    assert (asked["boxes"], asked["cells"], asked["min_mass"], asked["rsd"]) == (2, 16, 1e12, "none")
    assert asked["periodic"] is False
    assert asked["halo_column"] == ("x=X [Mpc/h]", "mass=M")
    assert asked["margin"] == 0  # what the file leaves out has its usual default
    asked = paint_with("--cells", 8, "--config", file, "--rsd", "plane_parallel", "--periodic", "--halo-column", "y=Y")
    assert (asked["boxes"], asked["cells"], asked["rsd"], asked["periodic"]) == (2, 8, "plane_parallel", True)
    assert asked["halo_column"] == ("y=Y",)


def test_storage_options_come_from_the_file(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(cli.commands["paint"], "callback", lambda **_: seen.append(storage.options_in_use()))
    assert main(["paint", "out", "--config", str(write(tmp_path, FULL))]) == 0
    assert "http://127.0.0.1:1" in json.dumps(seen[0])
    assert storage.options_in_use() == {}


def test_a_file_may_be_anywhere(tmp_path, paint_with):
    storage.write_bytes("memory://runs/run.toml", FULL.encode())
    assert paint_with("--config", "memory://runs/run.toml")["cells"] == 16
    assert paint_with("--config", f"file://{write(tmp_path, FULL)}")["cells"] == 16


def test_required_options_are_still_required(tmp_path, capsys):
    assert main(["paint", "out", "--config", str(write(tmp_path, "[paint]\nboxes = 2"))]) == 2
    assert capsys.readouterr().err == "velfield: Missing option '--cells'; see velfield paint --help\n"


def test_one_of_two_lengths_on_the_command_line_replaces_the_files(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "velfield.learning.train.train", lambda _fields, _model, config, *_: asked.append(config) or 1 / 0
    )
    for text, option, kept in (("steps = 5", "--epochs", "epochs"), ("epochs = 5", "--steps", "steps")):
        file = write(tmp_path, f"[train]\n{text}")
        with pytest.raises(ZeroDivisionError):
            main(["train", "f", "m", "--config", str(file), option, "7"])
        config = asked.pop()
        assert {name: getattr(config, name) for name in ("steps", "epochs")} == {"steps": None, "epochs": None, kept: 7}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boxes = 2", "a key outside of a section: file=.*, key=boxes; put it beneath [paint]"),
        ("[simulte]\nseed = 1\n[paint]", "no such section: file=.*, section=simulte; did you mean simulate? choose "),
        ("[paint]\nboxs = 2", "no such key: file=.*, section=paint, key=boxs; did you mean boxes? choose halos, "),
        ("[paint]\nmin-mass = 2", "key=min-mass; did you mean min_mass?"),
        ("[paint]\nzzz = 2", "no such key: file=.*, section=paint, key=zzz; choose halos, particles, boxes"),
        ("[paint]\nconfig = 'x'", "no such key: file=.*, section=paint, key=config; "),
        ("[paint]\nboxes = 2.5", "a value of the wrong type: .*key=boxes, value=2.5; give a whole number"),
        ("[paint]\nboxes = '2'", "a value of the wrong type: .*key=boxes, value='2'; give a"),
        ("[paint]\nboxes = true", "a value of the wrong type: .*key=boxes, value=True; give a"),
        ("[paint]\nhalos = ['a']", "a value of the wrong type: .*key=halos, value=['a']; give a text"),
        ("[paint]\nperiodic = 1", "a value of the wrong type: .*key=periodic, value=1; give true or false"),
        ("[paint]\nrsd = 'randm_radial'", "not one of the choices: .*key=rsd, value='randm_radial'; did you mean "
         "random_radial? choose none, plane_parallel, center_radial, random_radial"),
        ("[paint]\nrsd = 3", "not one of the choices: .*key=rsd, value=3; choose none, plane_parallel, "),
        ("[paint]\nworkers = 0", "a value that is refused: .*key=workers, value=0; 0 is not in the range x>=1"),
        ("[paint]\nhalo_column = {x = [1]}", "a list within a table: .*key=halo_column.x, value=[1]; give single"),
        ("[paint]\n[train]\nbatch = 'x'", "section=train, key=batch, value='x'; give a"),
        ("[train]", "no section for this verb: file=.*, section=paint; it has train"),
        ("[paint", "the run file is no TOML: file=.*, reason="),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(tmp_path, capsys, text, message):
    file = write(tmp_path, text)
    assert main(["paint", "out", "--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    before, _, after = message.partition(".*")
    assert before in error
    assert after in error
    if before.endswith("file="):
        assert f"file={file}" in error


@pytest.mark.parametrize(
    "text",
    [
        "storage_option = { secret = 'x' }",
        "storage_option = { key = 'x' }",
        "storage_option = ['key=x']",
        "storage_option = ['client_kwargs.aws_secret_access_key=x']",
        "storage_option = { client = { aws_session_token = 'x' } }",
        "password = 'x'",
        "halos = 's3://AKIAIOSFODNN7EXAMPLE/x'",
        "halos = 'https://me:mine@example.org/x'",
    ],
)
def test_secrets_are_refused_and_not_repeated(tmp_path, capsys, text):
    assert main(["paint", "out", "--config", str(write(tmp_path, f"[paint]\n{text}"))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("velfield: a secret in a run file: file=")
    assert "give it in the environment" in error
    assert "EXAMPLE" not in error
    assert "mine" not in error


def test_no_such_file_names_those_that_are_shipped(capsys):
    assert main(["paint", "out", "--config", "miniture"]) == 2
    assert (
        "no such run file: config=miniture; give a path or URL, or did you mean miniature?" in capsys.readouterr().err
    )
    assert main(["paint", "out", "--config", "/nowhere.toml"]) == 2
    assert "choose miniature, outer-rim, outer-rim-z0.21" in capsys.readouterr().err


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_file_is_alive(name):
    text = (ROOT / "pipelines" / f"{name}.toml").read_text()
    assert text.startswith("#:schema ../docs/runfile.schema.json\n")
    document = tomllib.loads(text)
    assert document
    for verb, keys in document.items():
        values = section(name, verb, cli.commands)
        assert len(values) == len(keys)
        command = cli.commands[verb]
        arguments = [f"<{p.name}>" for p in command.params if isinstance(p, click.Argument)]
        context = command.make_context(
            verb, [*arguments, "--config", name], parent=click.Context(cli, help_option_names=["-h", "--help"])
        )
        assert {key: context.params[key] for key in values} == {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }


def test_shipped_files_are_package_data():
    assert {"miniature", "outer-rim", "outer-rim-z0.21"} <= set(shipped())
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "*.toml" in setup["package-data"]["velfield.pipelines"]


def test_miniature_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "universe-1", "--config", "miniature", "--boxsize", "120", "--particles", "24", "--steps",
                 "2"]) == 0  # fmt: skip
    assert main(["paint", "fields-1.zarr", "--config", "miniature", "--boxes", "2", "--cells", "8", "--plan"]) == 0
    assert "8 in 8 shards" in capsys.readouterr().out


def test_verbs_that_take_run_files():
    assert set(takers(cli.commands)) == {"simulate", "paint", "train", "calibrate", "evaluate", "predict"}
    for verb in takers(cli.commands).values():
        assert "config" not in options_of(verb)


def test_schema_is_the_programs_own():
    page = runpy.run_path(str(ROOT / "docs" / "make_runfile_schema.py"))
    current = (ROOT / "docs" / "runfile.schema.json").read_text()
    assert current == page["text"](), "run python docs/make_runfile_schema.py"


def test_schema_knows_types_and_choices():
    sections = json.loads((ROOT / "docs" / "runfile.schema.json").read_text())["properties"]
    paint = sections["paint"]["properties"]
    assert paint["boxes"]["type"] == "integer"
    assert paint["rsd"]["enum"] == ["none", "plane_parallel", "center_radial", "random_radial", "observed"]
    assert "default" not in paint["rsd"]
    assert paint["periodic"] == {"type": "boolean", "description": "Whether the parent repeats.", "default": True}
    assert paint["workers"]["minimum"] == 1
    assert sections["train"]["properties"]["input"]["anyOf"][1]["type"] == "array"
    assert not sections["train"]["additionalProperties"]


def test_a_section_is_by_parameter_names(tmp_path):
    file = str(write(tmp_path, "[train]\ninput = 'number_density'\nloader_workers = 3\n"))
    assert section(file, "train", cli.commands) == {"inputs": ["number_density"], "workers": 3}
    with pytest.raises(VelfieldError, match="no section for this verb"):
        section(file, "paint", cli.commands)
