"""The demo: small, whole, and nothing the second time."""

import json
import re
import shlex
from html import escape

import pytest

from velfield.accuracy.standing import headline, lost, standings
from velfield.accuracy.tables import ENTRIES, table
from velfield.analysis.figure_style import label
from velfield.commands.cli import main
from velfield.errors import VelfieldError
from velfield.pipelines.demo import DARK_MATTER, LEGEND, ROWS, SAME_HALOS, DemoConfig, rows_of

SMALL = ["--boxes", "2", "--cells", "8", "--particles", "32", "--min-halo-mass", "1e12", "--steps", "4"]


@pytest.mark.slow
def test_the_whole_journey_and_nothing_the_second_time(tmp_path, capfd):
    folder = tmp_path / "demo"
    assert main(["demo", str(folder), *SMALL, "--workers", "2"]) == 0
    first = capfd.readouterr()
    assert "already there" not in first.out
    assert "cos θ" in first.out
    rows = json.loads((folder / "metrics.json").read_text())
    assert list(rows) == ["unet", "wiener", "linear_halo_padded", "linear", "linear_padded"]
    assert len({tuple(sorted(row)) for row in rows.values()}) == 1  # the same keys in each
    page = (folder / "report.html").read_text()
    assert "<img" in page
    assert "velfield simulate" in page
    for row in rows:
        assert re.search(rf"\| +{row} +\|", first.out)
        assert label(row) in page
    measured = rows_of(str(folder))
    said = standings(measured)
    assert {one.other for one in said} == {*rows} - {"unet"}
    for sentence in (LEGEND, headline(measured), said[0].sentence(), lost(measured)):
        assert " ".join(sentence.split()) in " ".join(first.out.split())
    clauses = [clause.split(" in ", 1)[1] for one in said for clause in one.clauses()]
    for part in (headline(measured), lost(measured), *clauses):
        assert escape(part) in page
    evaluated = re.findall(r"evaluate (\w+): done in .*, mean cos θ (\S+)", first.err)
    assert evaluated == [(name, f"{row['cos_theta']['mean']:.2f}") for name, row in rows.items()]
    assert re.search(r"train: done in .*, mean loss [\d.]+", first.err)
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert main(["demo", str(folder), *SMALL]) == 0
    second = capfd.readouterr()
    assert second.out.startswith("already there, nothing done")
    assert second.out.splitlines()[1:] == first.out.splitlines()
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == times
    (folder / "report.html").unlink()  # made again
    assert main(["demo", str(folder), *SMALL, "--workers", "2"]) == 0
    assert "already there" not in capfd.readouterr().out
    assert "<img" in (folder / "report.html").read_text()
    metrics = (folder / "evaluation" / "unet" / "metrics.json").read_bytes()
    commands = json.loads((folder / "demo.json").read_text())["commands"]
    assert len(commands) == 13
    for command in commands:  # just what was run: each finds its work done, and measures the same
        assert main(shlex.split(command)[1:]) == 0, command
        said = capfd.readouterr().out
        assert "nothing done" in said or "evaluate" in command, command
    assert (folder / "evaluation" / "unet" / "metrics.json").read_bytes() == metrics
    assert main(["demo", str(folder), *SMALL, "--seed", "9"]) == 2
    assert "another demo is here" in capfd.readouterr().err


def test_the_demos_table_is_of_those_given_the_same_halos_and_then_of_those_given_the_dark_matter():
    row = {entry.name: {"mean": 0.5, "std": 0.05} for entry in ENTRIES if entry.label != "rms"}
    text = table(dict.fromkeys(ROWS, row))
    assert max(map(len, text.splitlines())) <= 80
    heads = [line.split("|")[2:-1] for line in text.splitlines() if line.startswith("| mean")]
    assert [tuple(name.strip() for name in head) for head in heads] == [SAME_HALOS, DARK_MATTER]


def test_the_test_parent_is_not_among_the_training_parents():
    config = DemoConfig(seed=5)
    assert config.test_seed not in config.training_seeds
    assert len(set(config.training_seeds)) == 2


def test_the_default_keeps_particles_close():
    assert DemoConfig().boxsize / DemoConfig().particles <= 3.1
    assert DemoConfig().steps >= 240


def test_what_cannot_work_is_refused():
    with pytest.raises(VelfieldError, match=r"too few particles: particles=64, .*take at least 155"):
        DemoConfig(particles=64)
    with pytest.raises(VelfieldError, match="too small"):
        DemoConfig(cells=4)


def test_what_a_stage_refuses_is_refused_before_the_folder_is_taken(tmp_path, capsys):
    folder = tmp_path / "demo"
    for options, said in ((["--min-halo-mass", "1e9"], "no such halos"), (["--steps", "0"], "not positive: steps=0")):
        assert main(["demo", str(folder), *options]) == 2
        assert said in capsys.readouterr().err
    assert not folder.exists()


def test_a_foreign_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert main(["demo", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()
