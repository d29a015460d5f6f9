"""Experiments as files: what is refused, and that every shipped one means something at every scale."""

import re
import shlex
from pathlib import Path

import pytest

from velfield.commands import cli_use
from velfield.commands.cli import main
from velfield.errors import VelfieldError
from velfield.pipelines.checked_toml import shipped
from velfield.pipelines.experiment_file import read_experiment
from velfield.pipelines.experiment_plan import plan
from velfield.pipelines.experiment_scale import pick_scale, read_scales
from velfield.pipelines.steps import Evaluate, Paint, Simulate, Train

WANTED = {"blocks", "centre-edge", "inputs", "loss-terms", "patterns", "redshift", "table-4", "threshold"}
HEAD = 'title = "t"\nreproduces = "r"\npainting = { rsd = "random_radial" }\n'
ROW = '[[row]]\nname = "a"\n'


def planned(name, scale="miniature", folder="out"):
    return plan(read_experiment(name), pick_scale(scale, read_scales()), folder)


def written(tmp_path, text, name="mine.toml"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_what_ships():
    assert set(shipped()) >= WANTED
    for name in shipped():
        assert name in cli_use.experiment.help


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = 3", r"wrong type: file=.*mine.toml, key=title, value=3; give a text"),
        (HEAD, r"a key is missing: file=.*, key=row; add it"),
        (HEAD + "row = []", "an experiment without rows"),
        (HEAD + "colour = 1\n" + ROW, r"no such key: file=.*, key=colour; .*choose title"),
        (HEAD + "[[row]]\nlabel = 'x'", r"a key is missing: file=.*, row=1, key=name"),
        (HEAD + ROW + ROW, r"two rows of one name: file=.*, row=a"),
        (HEAD + ROW + "modle = 'linear'", r"no such key: .*row=a, key=modle; did you mean model\?"),
        (HEAD + ROW + "model = 'wienr'", r"not one of .*row=a, key=model, value='wienr'; did you mean wiener\?"),
        (HEAD + ROW + "model_of = 'b'", r"no row that trains .*row=a, key=model_of, value=b; add one"),
        (HEAD + ROW + "model = 'linear'\nmodel_of = 'b'", r"a row has one model: .*model=linear, model_of=b"),
        (HEAD + ROW + "model = 'linear'\ntraining = { steps = 2 }", r"nothing is trained for this row: .*row=a"),
        (HEAD + ROW + "painting = { rsd = 'radial' }", r"key=rsd, value='radial'; .*choose none"),
        (HEAD + ROW + "painting = { halos = 'x' }", r"no such key: .*row=a, section=painting, key=halos"),
        (HEAD + ROW + "painting = { min_mass = -1 }", r"out of range: .*min_mass=-1.0.*, file=.*row=a"),
        (HEAD + ROW + "painting = { margin = true }", r"wrong type: .*key=margin, value=True; give a whole number"),
        (HEAD + ROW + "training = { inputs = ['mass'] }", r"row=a, key=inputs, value='mass'"),
        (HEAD + ROW + "training = { inputs = [1] }", r"key=inputs, value=\[1\]; give a list, each of its items a text"),
        (HEAD + ROW + "training = { norm = 'layer' }", r"norm='layer'.*file=.*row=a"),
        (HEAD + ROW + "training = { device = 'cpu' }", r"no such key: .*section=training, key=device"),
        (HEAD + ROW + "training = { weighted = -1.0 }", r"no such loss: .*weighted=-1.0.*row=a"),
        (HEAD + ROW + "trained_on = [{ z = 1 }]", r"no such key: .*section=trained_on, key=z"),
        (HEAD + ROW + "paper = { slop = 0.8 }", r"no such key: .*section=paper, key=slop; did you mean slope\?"),
        (HEAD + ROW + "evaluation = { average = '8' }", r"section=evaluation, key=average, value='8'"),
        (HEAD + ROW + "evaluation = { smoothing = 3 }", r"not have: .*row=a, model=network, key=smoothing, value=3"),
        (HEAD + ROW + "model = 'linear'\nevaluation = { average = 8 }", r"model=linear, key=average, value=8; leave"),
        (HEAD + ROW + "model = 'wiener'\nevaluation = { tracer = 'mass' }", r"model=wiener, key=tracer, value=mass"),
        (HEAD + "figures = ['pie']\n" + ROW, r"not one of the choices: .*key=figures, value='pie'"),
        (HEAD + "measures = ['slop']\n" + ROW, r"not one of the choices: .*key=measures, value='slop'"),
        (HEAD + "[training]\nlearning = 1\n" + ROW, r"section=training, key=learning"),
        ("title =", "the file is no TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_key_and_value(tmp_path, text, said):
    with pytest.raises(VelfieldError, match=said):
        read_experiment(written(tmp_path, text))


def test_files_that_are_not_there_and_names_that_folders_cannot_have(tmp_path):
    with pytest.raises(VelfieldError, match=r"no such experiment: name=table4; .*did you mean table-4\?"):
        read_experiment("table4")
    with pytest.raises(VelfieldError, match="no such experiment: name=scales"):
        read_experiment("scales")
    with pytest.raises(VelfieldError, match=r"no such scales: name=mine\.toml; .* or leave --scales out$"):
        read_scales("mine.toml")
    with pytest.raises(VelfieldError, match=r"a name that folders cannot have: .*name=My Own"):
        read_experiment(written(tmp_path, HEAD + ROW, "My Own.toml"))
    with pytest.raises(VelfieldError, match="no such scale: scale=tiny; choose miniature"):
        pick_scale("tiny", read_scales())


SCALE = """[tiny]
title = "t"
boxsize = 120
particles = 40
min_halo_mass = 3e11
redshifts = [0]
boxes = 3
cells = 8
training_seeds = [1]
test_seeds = [2]
validation = 0.2
keep_universes = true
training = { steps = 4 }
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("boxes = 3", "", r"a key is missing: file=.*, scale=tiny, key=boxes"),
        ("boxes = 3", "boxes = 3.5", r"scale=tiny, key=boxes, value=3.5; give a whole number"),
        ("test_seeds = [2]", "test_seeds = [1]", r"must be others: .*training_seeds=\[1\], test_seeds=\[1\]"),
        ("test_seeds = [2]", "test_seeds = []", "must be others"),
        ("particles = 40", "particles = 41", r"no such volume: .*particles=41, file=.*scale=tiny"),
        ("steps = 4", "stops = 4", r"section=training, key=stops"),
        ("steps = 4", "batch = 4", r"how long to train: .*scale=tiny"),
        ("redshifts = [0]", "redshifts = [0.5]", r"no snapshot of this redshift: redshift=0, scale=tiny"),
        ("[tiny]", "tiny = 1\n[other]", r"a key outside of a scale: .*key=tiny"),
    ],
)
def test_scales_that_cannot_be(tmp_path, old, new, said):
    assert read_scales(written(tmp_path, SCALE))["tiny"].boxsize == 120.0
    assert old in SCALE
    with pytest.raises(VelfieldError, match=said):
        read_scales(written(tmp_path, SCALE.replace(old, new)))


def test_a_redshift_that_the_universes_do_not_have(tmp_path):
    mine = written(tmp_path, HEAD + ROW + "painting = { redshift = 0.5 }")
    with pytest.raises(VelfieldError, match=r"no snapshot of this redshift: redshift=0.5, .*experiment=mine, row=a"):
        planned(mine)


def scales_of(name):
    """The scales at which a file means something: its own, or all but those that are another's own."""
    own = {read_experiment(other).scale for other in shipped()}
    return [read_experiment(name).scale] if read_experiment(name).scale else sorted(set(read_scales()) - own)


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in shipped() for scale in scales_of(name)])
def test_every_command_is_just_what_is_run(name, scale, monkeypatch):
    """Every row resolves to valid settings, and its commands, typed, ask for the same."""
    asked = []

    class Enough(Exception):
        pass

    def note(*what):
        asked.append(what)
        raise Enough

    monkeypatch.setattr("velfield.simulation.simulate.simulate", lambda url, config, *_: note(url, config))
    monkeypatch.setattr("velfield.pipelines.paint_job.prepare", lambda url, config: note(url, config))
    monkeypatch.setattr("velfield.learning.train.train", lambda stores, url, config, *_: note(url, stores, config))
    monkeypatch.setattr(
        "velfield.analysis.evaluate.evaluate", lambda model, stores, url, **options: note(url, model, stores, options)
    )
    settled = planned(name, scale)
    for step in settled.steps:
        with pytest.raises(Enough):
            main(shlex.split(step.command())[1:])
        found = asked.pop()
        assert found[0] == step.url
        match step:
            case Simulate() | Paint():
                assert found[1] == step.config
            case Train():
                assert found[1:] == (step.stores, step.config)
            case Evaluate():
                assert found[1:3] == (step.model, step.stores)
                options = found[3]
                shown = {name: getattr(step, name) for name in ("tracer", "smoothing", "average")}
                assert options["figures"] is bool(step.compare)
                assert {name: options[name] for name in shown} == shown

    def seeds(urls):
        return {settled.universes[settled.universe_of[url]].config.seed for url in urls}

    for training in settled.trainings:
        assert seeds(training.stores) == set(settled.scale.training_seeds)
    for evaluation in settled.evaluations:
        assert seeds(evaluation.stores) == set(settled.scale.test_seeds)


def test_paintings_may_be_dealt_to_the_universes(tmp_path):
    row = ROW + "training = { condition = true }\ntrained_on = [{}, {}, { min_mass = 1e12 }, { redshift = 0.212 }]\n"
    for words, expected in (
        ("", [(1, 0, 0.0), (2, 0, 0.0), (1, 1e12, 0.0), (2, 1e12, 0.0), (1, 0, 0.212), (2, 0, 0.212)]),
        ("dealt = true", [(1, 0, 0.0), (1, 1e12, 0.0), (2, 0, 0.0), (2, 0, 0.212)]),
    ):
        settled = planned(written(tmp_path, HEAD + row + words))
        (training,) = settled.trainings
        stores = [settled.stores[url].config for url in training.stores]
        steps = [0.212 if "411" in str(config.halos) else 0.0 for config in stores]
        assert [(c.seed, c.min_mass, z) for c, z in zip(stores, steps, strict=True)] == expected
    with pytest.raises(VelfieldError, match=r"nothing to deal: file=.*, row=a, key=dealt, value=True; give trained_on"):
        read_experiment(written(tmp_path, HEAD + ROW + "dealt = true"))


def test_one_seed_may_draw_the_observers_of_all_universes(tmp_path):
    scales = read_scales(written(tmp_path, SCALE.replace("boxes = 3", "boxes = 3\npainting_seed = 7")))
    asked = read_experiment(written(tmp_path, HEAD + ROW))
    assert {step.config.seed for step in plan(asked, scales["tiny"], "out").stores.values()} == {7}
    assert {step.config.seed for step in planned("table-4").stores.values()} == {1, 2, 3}


def test_what_is_the_same_is_shared_and_what_is_not_has_another_name():
    trained = {t.url: t for name in WANTED for t in planned(name).trainings}
    asked = {(t.stores, str(t.config.settings())) for t in trained.values()}
    assert len(trained) == len(asked) == 13
    assert planned("table-4").universes.keys() == planned("redshift").universes.keys()
    other = {t.url for name in WANTED for t in planned(name, "reduced").trainings}
    assert not other & trained.keys()
    thresholds = planned("threshold")
    assert len({plan_.evaluate.url for plan_ in thresholds.rows}) == 4
    assert len({plan_.evaluate.model for plan_ in thresholds.rows}) == 2
    (model,) = thresholds.trainings
    assert all("m1e12" not in url for url in model.stores)
    heavy = thresholds.rows[1].evaluate
    assert heavy.model == model.url
    assert {thresholds.stores[url].config.min_mass for url in heavy.stores} == {1e12}
    earlier = planned("redshift").rows[1].evaluate
    assert all("411" in str(planned("redshift").stores[url].config.halos) for url in earlier.stores)  # z = 0.212


def test_the_papers_scale_has_the_papers_boxes():
    scale = read_scales()["paper"]
    train = len(scale.training_seeds) * round((1 - scale.validation) * scale.boxes**3)
    assert abs(train - 800) <= 10
    assert len(scale.test_seeds) * scale.boxes**3 >= 200
    assert scale.boxsize / scale.boxes == 300
    assert scale.cells == 60


def test_steps_and_epochs_replace_each_other(tmp_path):
    mine = written(tmp_path, HEAD + ROW + "training = { epochs = 3 }")
    (training,) = planned(mine).trainings
    assert (training.config.epochs, training.config.steps) == (3, None)


def test_a_network_for_several_paintings_learns_from_all_of_them(tmp_path):
    some = "[{ min_mass = 1e12 }, { redshift = 0.212 }, {}]"
    mine = written(tmp_path, HEAD.replace("random_radial", "none") + ROW + f"trained_on = {some}")
    settled = planned(mine)
    (training,) = settled.trainings
    configs = [settled.stores[url].config for url in training.stores]
    assert [c.min_mass for c in configs] == [1e12, 1e12, 0, 0, 0, 0]
    assert len({c.halos for c in configs}) == 4
    assert {c.rsd for c in configs} == {"none"}
    assert {settled.stores[url].config.min_mass for url in settled.rows[0].evaluate.stores} == {0.0}


def test_the_example_of_the_docs_is_one(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "experiments.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, flags=re.M | re.S)
    settled = planned(written(tmp_path, example))
    assert [plan_.row.name for plan_ in settled.rows] == ["all", "heavy", "smooth", "both"]
    assert len(settled.trainings) == 2
    assert settled.rows[2].evaluate.smoothing == 8.0
    for name in shipped():
        assert f"| `{name}` |" in page
