"""The demo: small, whole, and nothing the second time."""

import json

import pytest

from velfield.cli import main
from velfield.errors import VelfieldError
from velfield.pipelines.demo import DemoConfig

SMALL = ["--boxes", "2", "--cells", "8", "--particles", "32", "--min-halo-mass", "1e12", "--steps", "4"]


@pytest.mark.slow
def test_the_whole_journey_and_nothing_the_second_time(tmp_path, capfd):
    folder = tmp_path / "demo"
    assert main(["demo", str(folder), *SMALL, "--workers", "2"]) == 0
    first = capfd.readouterr()
    assert "already there" not in first.out
    assert "cos θ" in first.out
    rows = json.loads((folder / "metrics.json").read_text())
    assert list(rows) == ["unet", "linear", "linear_padded"]
    assert len({tuple(sorted(row)) for row in rows.values()}) == 1  # the same keys in each
    page = (folder / "report.html").read_text()
    assert "<img" in page
    assert "velfield simulate" in page
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert main(["demo", str(folder), *SMALL]) == 0
    second = capfd.readouterr()
    assert second.out.startswith("already there, nothing done")
    assert second.out.splitlines()[1:] == first.out.splitlines()
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()} == times
    assert main(["demo", str(folder), *SMALL, "--seed", "9"]) == 2
    assert "another demo is here" in capfd.readouterr().err


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


def test_a_foreign_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("important")
    assert main(["demo", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()
