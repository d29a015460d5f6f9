"""An experiment from nothing to its table: shared, resumed, stopped in time; tiny universes, a few steps."""

import json
import shutil
import signal
import threading
from pathlib import Path

import pytest

from velfield.commands.cli import main
from velfield.errors import VelfieldError
from velfield.files.progress import Silent
from velfield.pipelines import deadline
from velfield.pipelines.deadline import Deadline, OutOfTimeError
from velfield.pipelines.experiment import experiment
from velfield.pipelines.experiment_file import read_experiment
from velfield.pipelines.experiment_plan import plan
from velfield.pipelines.experiment_report import write
from velfield.pipelines.experiment_scale import read_scales

pytestmark = pytest.mark.slow  # universes, trainings, evaluations: tests of each of them are quick
SCALES = """[tiny]
title = "tiny universes"
boxsize = 80
particles = 28
min_halo_mass = 3e11
redshifts = [0]
boxes = 2
cells = 8
training_seeds = [1]
test_seeds = [2]
validation = 0.25
keep_universes = true
training = { steps = 6, width = 4, depth = 1, groups = 2, batch = 2 }
"""
FIRST = """title = "Threshold"
reproduces = "a figure"
painting = { rsd = "random_radial" }
measures = ["slope", "residuals_200", "r_centre", "rms"]
figures = ["measures", "depth", "contours"]
[[row]]
name = "net"
label = "U-Net"
paper = { slope = 0.81 }
[[row]]
name = "heavy"
model_of = "net"
painting = { min_mass = 1e12 }
[[row]]
name = "fft"
model = "linear"
"""
SECOND = """title = "Loss"
reproduces = "another figure"
painting = { rsd = "random_radial" }
[[row]]
name = "net"
[[row]]
name = "mse"
training = { dice = 0.0, weighted = 0.0 }
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, text in (("scales", SCALES), ("first", FIRST), ("second", SECOND)):
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def done(files, tmp_path_factory):
    """The first experiment, as it is after one command."""
    folder = tmp_path_factory.mktemp("experiments")
    assert main(command(files, "first", folder)) == 0
    return folder


def command(files, name, folder, *more):
    scale = ["--scale", "tiny", "--scales", str(files / "scales.toml"), "--workers", "1"]
    return ["experiment", str(files / f"{name}.toml"), str(folder), *scale, *more]


def times(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def made_in(folder, kind):
    return sorted(p.name for p in (folder / kind).iterdir() if p.is_dir())


def weights(folder):
    (bundle,) = made_in(folder, "models")
    return json.loads((folder / "models" / bundle / "metadata.json").read_text())["weights"]["sha256"]


def test_one_command_makes_the_table_and_the_figures(done):
    out = done / "first-tiny"
    assert {p.name for p in out.iterdir()} == {
        *("plan.json", "results.json", "table.md", "measures.png", "depth.png", "contours.png")
    }
    results = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["net", "heavy", "fft"]
    assert (results["boxes"], results["parents"]) == (8, 1)
    net, heavy, fft = results["rows"]
    assert net["training"]["steps"] == 6
    assert heavy["model"] == net["model"]
    assert heavy["stores"] != net["stores"]
    assert net["difference"] == {}
    found = {row["name"]: json.loads((done / "evaluations" / row["evaluation"] / "metrics.json").read_text())
             for row in results["rows"]}  # fmt: skip
    for row in (heavy, fft):
        for name, paired in row["difference"].items():
            means = [next(iter(found[one].values()))[name]["mean"] for one in (row["name"], "net")]
            assert paired["difference"] == pytest.approx(means[0] - means[1], abs=1e-9)
    assert set(heavy["difference"]) == {"slope", "residuals_200", "r_centre", "rms"}
    assert all(one["seconds"] > 0 and "thread" in one["machine"] for one in results["made"])
    assert [one["url"].split("/")[-2] for one in results["made"]].count("universes") == 2
    page = (out / "table.md").read_text()
    slope = net["measured"]["slope"]
    assert f"| {slope['mean']:.2f}±{slope['std']:.2f} (0.81) |" in page.replace("  ", "")
    assert "8 boxes of 1 universe" in page
    assert "r, centre" in page
    assert "seeds 1 to learn from, 2 to measure on" in page
    assert all(command in page for command in results["commands"])
    assert sum(c.startswith("velfield train") for c in results["commands"]) == 1


def test_the_networks_card_says_what_it_reached(done):
    (bundle,) = made_in(done, "models")
    folder = done / "models" / bundle
    results = json.loads((done / "first-tiny" / "results.json").read_text())
    tested = json.loads((folder / "metadata.json").read_text())["metrics"]["tested"]
    assert [one["min_mass"] for one in tested] == [0.0, 1e12]
    assert [one["seed"] for one in tested] == [2, 2]
    for one, row in zip(tested, results["rows"], strict=False):
        assert one["measures"]["slope"] == row["measured"]["slope"]
    assert "## Reached on unseen parents" in (folder / "README.md").read_text()


def test_the_same_command_again_does_nothing(done, files, capsys):
    before = times(done)
    assert main(command(files, "first", done)) == 0
    assert "already there, nothing done" in capsys.readouterr().out
    assert times(done) == before


def test_only_what_is_needed_is_made_again(done, files, tmp_path):
    folder = tmp_path / "copy"  # at another place
    for kind in ("evaluations", "first-tiny"):
        shutil.copytree(done / kind, folder / kind)
    results = (folder / "first-tiny" / "results.json").read_text()
    for name in ("table.md", "measures.png"):
        (folder / "first-tiny" / name).unlink()
    assert main(command(files, "first", folder)) == 0
    assert {p.name for p in folder.iterdir()} == {"evaluations", "first-tiny"}
    assert (folder / "first-tiny" / "measures.png").exists()
    again = json.loads((folder / "first-tiny" / "results.json").read_text())
    for one, other in zip(again["rows"], json.loads(results)["rows"], strict=True):
        assert one["measured"] == other["measured"]
        assert one["difference"] == other["difference"]


def test_two_experiments_share_universes_stores_and_models(done, files):
    before = times(done)
    assert main(command(files, "second", done)) == 0
    after = times(done)
    assert {path: after[path] for path in before} == before
    new = {path.parts[:2] for path in after.keys() - before.keys()}
    assert {kind for kind, *_ in new} == {"models", "evaluations", "second-tiny"}
    assert sum(kind == "models" and not name.endswith(".json") for kind, name in new) == 1
    assert sum(kind == "evaluations" and not name.endswith(".json") for kind, name in new) == 1


class Timer:
    """A timer that rings when it is told to."""

    def __init__(self, _seconds, ring):
        Timer.ring = staticmethod(ring)

    def start(self):
        pass

    cancel = join = start


class RingsAt(Silent):
    """Lets the timer ring when a stage begins for the n-th time."""

    def __init__(self, label, number=1):
        self.label, self.number, self.begun = label, number, []

    def start(self, label, *_, **_also):
        self.begun.append(label)
        if label == self.label and self.begun.count(label) == self.number:
            Timer.ring()


class RingsAtStep(Silent):
    """Lets the timer ring in a step of the training."""

    def __init__(self, step):
        self.step, self.label, self.steps = step, "", 0

    def start(self, label, *_, before=0):
        self.label = label
        if label == "train":
            self.began = before

    def advance(self, amount=1, *_, **_also):
        if self.label == "train":
            self.steps += amount
            if self.steps == self.step:
                Timer.ring()


class WritesNoUniverse(RingsAtStep):
    """Sees at every stage that no universe is written."""

    def __init__(self, folder):
        super().__init__(None)
        self.folder, self.looked = folder, 0

    def start(self, label, *also, before=0):
        super().start(label, *also, before=before)
        self.looked += 1
        assert not (self.folder / "universes").exists() or made_in(self.folder, "universes") == []


def chunks(store):
    """All objects of a store's arrays."""
    found = {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if "/c/" in name and not name.startswith("manifest")}


def test_minutes_stop_it_and_it_goes_on_with_stores_that_were_made_again(done, files, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    for kind in ("universes", "fields"):
        shutil.copytree(done / kind, folder / kind)
    asked = {"scale": "tiny", "scales": str(files / "scales.toml"), "workers": 1}
    monkeypatch.setattr(deadline.threading, "Timer", Timer)
    with pytest.raises(OutOfTimeError, match=r"out of time: minutes=10; run the same command again") as stopped:
        experiment(str(files / "first.toml"), str(folder), minutes=10, progress=RingsAtStep(3), **asked)
    assert stopped.value.status == 75
    (model,) = made_in(folder, "models")
    assert (folder / "models" / model / ".checkpoint" / "state.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for kind in ("universes", "fields"):  # a bare machine: only what is trained has come with us
        shutil.rmtree(folder / kind)
    watching = WritesNoUniverse(folder)
    outcome = experiment(str(files / "first.toml"), str(folder), progress=watching, keep_universes=False, **asked)
    assert outcome.new
    assert watching.began == 3
    assert watching.steps == 3
    assert weights(folder) == json.loads(
        (done / "models" / model / "metadata.json").read_text()
    )["weights"]["sha256"]  # fmt: skip
    assert watching.looked > 10
    for store in made_in(done, "fields"):
        assert chunks(folder / "fields" / store) == chunks(done / "fields" / store) != {}
    page = (folder / "first-tiny" / "table.md").read_text()
    assert "2 universes of these were painted from memory and never written. The commands write them" in page
    assert "never written" not in (done / "first-tiny" / "table.md").read_text()
    record = json.loads((folder / "models" / f"{model}.json").read_text())
    assert record["settings"]["command"].startswith("velfield train")


def test_an_interrupted_universe_is_drawn_again_and_its_finished_stores_are_not_painted_again(
    done, files, tmp_path, monkeypatch
):
    asked = {"scale": "tiny", "scales": str(files / "scales.toml"), "workers": 1, "minutes": 10}
    monkeypatch.setattr(deadline.threading, "Timer", Timer)

    def run(progress):
        with pytest.raises(OutOfTimeError):
            experiment(str(files / "first.toml"), str(tmp_path), keep_universes=False, progress=progress, **asked)
        return progress.begun

    assert run(RingsAt("assemble boxes", 3)).count("draw halos, z = 0") == 2  # in the second store of the second
    before = times(tmp_path / "fields")
    whole = [name for name in made_in(tmp_path, "fields") if (tmp_path / "fields" / name / "zarr.json").exists()]
    assert len(whole) == 2
    begun = run(RingsAt("train"))
    assert [label for label in begun if label in ("draw halos, z = 0", "paint blocks")] == [
        "draw halos, z = 0",
        "paint blocks",
    ]
    after = times(tmp_path / "fields")
    kept = {path for path in before if path.parts[0] in whole}
    assert len(kept) > 20
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    for name in made_in(done, "fields"):
        assert chunks(tmp_path / "fields" / name) == chunks(done / "fields" / name)
    assert made_in(tmp_path, "universes") == []
    records = [json.loads(path.read_text()) for path in (tmp_path / "universes").iterdir()]
    assert [record["settings"]["written"] for record in records] == [False, False]
    assert all(0 < record["settings"]["last_seconds"] < 600 for record in records)
    begun = run(RingsAt("train"))  # and again there is nothing to draw
    assert begun[-1] == "train"
    assert not any(label.startswith(("draw", "gravity", "paint")) for label in begun)


def test_universes_that_are_there_are_painted_from_and_stay(done, files, tmp_path, monkeypatch):
    shutil.copytree(done / "universes", tmp_path / "universes")
    before = times(tmp_path)
    monkeypatch.setattr(deadline.threading, "Timer", Timer)
    asked = {"scale": "tiny", "scales": str(files / "scales.toml"), "workers": 1, "minutes": 10}
    watching = RingsAt("train")
    with pytest.raises(OutOfTimeError):
        experiment(str(files / "first.toml"), str(tmp_path), keep_universes=False, progress=watching, **asked)
    assert watching.begun.count("paint blocks") == 3
    assert not any(label.startswith(("draw", "gravity")) for label in watching.begun)
    assert times(tmp_path).items() >= before.items()


@pytest.mark.parametrize(("keep", "stage"), [(True, "write halos, z = 0"), (False, "assemble boxes")])
def test_a_step_that_never_fits_is_said_not_tried_for_ever(files, tmp_path, monkeypatch, keep, stage):
    monkeypatch.setattr(deadline.threading, "Timer", Timer)
    asked = {"scale": "tiny", "scales": str(files / "scales.toml"), "workers": 1, "keep_universes": keep}
    said = (
        r"^a step that cannot be interrupted takes longer than the time that is given: "
        r"simulate=.*/universes/tiny-1-\w+, minutes=10; give more$"
    )
    with pytest.raises(VelfieldError, match=said) as error:
        experiment(str(files / "first.toml"), str(tmp_path), minutes=10, progress=RingsAt(stage), **asked)
    assert error.value.status == 2


@pytest.mark.parametrize("keep", [True, False])
def test_what_does_not_fit_in_the_time_that_is_left_is_not_begun(files, tmp_path, monkeypatch, keep):
    monkeypatch.setattr(Deadline, "left", lambda _: 1e-3)
    asked = {"scale": "tiny", "scales": str(files / "scales.toml"), "workers": 1, "keep_universes": keep}
    watching = RingsAt("never")
    with monkeypatch.context() as patched:  # the first store is not what is tested
        patched.setattr("velfield.pipelines.steps.Paint.run", lambda *_: None)
        patched.setattr("velfield.pipelines.steps.Paint.run_drawn", lambda *_: None)
        with pytest.raises(OutOfTimeError):
            experiment(str(files / "first.toml"), str(tmp_path), minutes=10, progress=watching, **asked)
    assert watching.begun.count("gravity to z = 0") == 1  # the second would take as long as the first
    assert len(made_in(tmp_path, "universes")) == keep


def test_a_deadline_that_is_not_reached_changes_nothing():
    before = set(threading.enumerate())
    with Deadline(10) as one:
        assert 0 < one.left() <= 600
        (timer,) = (t for t in threading.enumerate() if isinstance(t, threading.Timer) and t not in before)
    assert not one.passed
    assert not timer.is_alive()
    with Deadline(None) as one:
        assert one.left() == float("inf")


def test_ctrl_c_is_not_taken_for_the_end_of_the_time():
    with pytest.raises(KeyboardInterrupt), Deadline(10):
        raise KeyboardInterrupt


def test_the_time_is_up_while_the_main_thread_waits():
    with pytest.raises(OutOfTimeError, match=r"minutes=0\.001;"), Deadline(0.001):
        threading.Event().wait(30)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_times_that_are_none(files, tmp_path, capsys, minutes):
    assert main(command(files, "first", tmp_path / "out", "--minutes", minutes)) == 2
    assert "no such time: minutes=" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_foreign_folder_is_left_alone(files, tmp_path, capsys):
    (tmp_path / "first-tiny").mkdir()
    (tmp_path / "first-tiny" / "thesis.tex").write_text("important")
    assert main(command(files, "first", tmp_path)) == 2
    assert "this folder is not empty: folder=" in capsys.readouterr().err
    assert (tmp_path / "first-tiny" / "thesis.tex").exists()


def test_evaluations_of_other_boxes_are_not_compared(done, files):
    scale = read_scales(str(files / "scales.toml"))["tiny"]
    settled = plan(read_experiment(str(files / "first.toml")), scale, str(done))
    path = Path(settled.rows[2].evaluate.url) / "evaluation.json"
    whole = path.read_text()
    record = json.loads(whole)
    record["fields"][0]["parents"] = ["another"]
    path.write_text(json.dumps(record))
    with pytest.raises(VelfieldError, match="rows of other boxes cannot be compared: row=fft"):
        write(settled)
    path.write_text(whole)
