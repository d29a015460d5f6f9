"""A catalogue of halos as a prediction's input: the same as painting it first; nothing is left behind."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from arbitrary_bundle import bundle

from velfield.catalogues.catalogue import open_catalogue
from velfield.commands.cli import main
from velfield.errors import ClusterError
from velfield.files import storage
from velfield.files.progress import Silent
from velfield.pipelines import paint_plan
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.pipelines.paint_plan import size
from velfield.pipelines.predict import predict
from velfield.pipelines.predict import prepare as prepare_predict
from velfield.pipelines.predict_catalogue import from_catalogue
from velfield.pipelines.predict_plan import both, plan_of
from velfield.stores import store
from velfield.verification.verify_store import open_store

HALOS = str(Path(__file__).parent.parent / "data" / "mock-outer-rim" / "m000-499.fofproperties")


@pytest.fixture(scope="module")
def painted(client, tmp_path_factory):
    """The mock catalogue's halos above 10¹³, and a model for cells of its size."""
    root = tmp_path_factory.mktemp("painted")
    fields = str(root / "fields")
    config = PaintConfig(halos=HALOS, particles=None, boxes=2, cells=16, rsd="none", min_mass=1e13, validation=0.0)
    assert paint(client, prepare(fields, config))
    return fields, bundle(str(root / "model"), fields, cells=20)


def test_the_same_as_painting_it_first(client, painted, tmp_path, capsys):
    fields, model = painted
    out, expected = str(tmp_path / "v"), str(tmp_path / "w")
    options = ["predict", model, HALOS, out, "--rsd", "none", "--min-mass", "1e13"]
    options += ["--scheduler", client.scheduler.address]
    assert main([*options, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "paint: store" in said
    assert "predict: tiles" in said
    assert not list(tmp_path.iterdir())
    assert main(options) == 0
    assert "predicted 8 boxes" in capsys.readouterr().out  # 32 cells in boxes of at most 20
    assert predict(client, prepare_predict(model, fields, expected))
    made = store.open_velocity(out, chunks=None)
    np.testing.assert_array_equal(made.velocity.values, store.open_velocity(expected, chunks=None).velocity.values)
    assert not storage.exists(f"{out}.fields")
    assert made.attrs["input"] == HALOS
    came_from = json.loads(made.attrs["catalogue"])
    assert came_from["fingerprint"] == open_catalogue(HALOS).fingerprint
    assert (came_from["assignment"], came_from["seed"], came_from["rows"]) == ("ngp", 1, len(open_catalogue(HALOS)))
    assert not open_store(out).findings
    root = json.loads((tmp_path / "v" / "zarr.json").read_text())
    for value, what in ((json.dumps(came_from | {"rows": 1}), "an input is not what was painted"), ("x", "no sense")):
        root["attributes"]["catalogue"] = value
        (tmp_path / "changed").mkdir(exist_ok=True)
        changed = shutil.copytree(out, tmp_path / "changed" / what.split()[0])
        (changed / "zarr.json").write_text(json.dumps(root))
        assert any(what in f.what for f in open_store(str(changed)).findings)
    assert main(options) == 0
    assert "already predicted, nothing done" in capsys.readouterr().out
    assert main([*options, "--tile", "24"]) == 2
    assert "another store is here" in capsys.readouterr().err


def test_the_prediction_is_planned_before_anything_is_painted(painted, tmp_path):
    fields, model = painted
    guided = bundle(str(tmp_path / "guided"), fields, cells=20, guide={"name": "linear_whole", "smoothing": 3.0})
    for name, options in ((model, {}), (model, {"isolated": True}), (guided, {"batch": 2}), ("linear_whole", {})):
        work = from_catalogue(
            name,
            HALOS,
            str(tmp_path / "v"),
            boxes=2,
            cells=16,
            paint={"min_mass": 1e13, "rsd": "none"},
            options=options,
        )
        planned = plan_of(*work.expected())
        assert planned == plan_of(prepare_predict(name, fields, str(tmp_path / "v"), **options))
    painting = paint_plan.plan_of(work.paint)
    at_once = painting.store_bytes + planned.work_bytes + planned.store_bytes
    assert f"on disk                    at most {size(at_once)} before" in both(painting, planned)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tile", "4", "--overlap", "4"], "tiles do not overlap so: tile=4, overlap=4"),
        (["--smoothing", "3"], "a bundle takes no smoothing"),
        (["--boxes", "2"], "one of two is missing: boxes=2, cells=None"),
        (["--boxsize", "500"], "not cut into the model's cells|do not agree on the boxsize"),
    ],
)
def test_what_cannot_be_painted_is_refused(painted, tmp_path, capsys, options, said):
    import re

    _, model = painted
    assert main(["predict", model, HALOS, str(tmp_path / "v"), "--rsd", "none", *options]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_options_of_catalogues_and_models_that_take_none(painted, tmp_path, capsys):
    fields, model = painted
    assert main(["predict", model, fields, str(tmp_path / "v"), "--min-mass", "1e13"]) == 2
    assert "--min-mass is for catalogues only: min_mass=10000000000000.0" in capsys.readouterr().err
    assert main(["predict", "linear", HALOS, str(tmp_path / "v")]) == 2
    assert "this model takes particles: model=linear" in capsys.readouterr().err
    assert main(["predict", "linear_whole", HALOS, str(tmp_path / "v"), "--rsd", "none"]) == 2
    assert "no cell size to take: model=linear_whole takes any; give --boxes and --cells" in capsys.readouterr().err


WHOLE = ("--boxes", "1", "--cells", "8", "--workers", "1", "--rsd", "random_radial")


def test_a_run_that_fails_leaves_no_fields(tmp_path, capsys):
    out = str(tmp_path / "v")
    assert main(["predict", "linear_whole", HALOS, out, *WHOLE, "--max-shift", "0.01"]) == 2
    assert "max_shift=0.01" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_fields_of_somebody_else_stay(painted, tmp_path, capsys):
    out = str(tmp_path / "v")
    shutil.copytree(painted[0], f"{out}.fields")
    before = sorted(Path(f"{out}.fields").rglob("*"))
    assert main(["predict", "linear_whole", HALOS, out, *WHOLE]) == 2
    assert "another store is here: out=" in capsys.readouterr().err
    assert sorted(Path(f"{out}.fields").rglob("*")) == before
    shutil.move(f"{out}.fields", tmp_path / "mine")
    assert main(["predict", "linear_whole", HALOS, out, *WHOLE]) == 0
    shutil.move(tmp_path / "mine", f"{out}.fields")
    assert main(["predict", "linear_whole", HALOS, out, *WHOLE]) == 0  # done before
    assert "already predicted, nothing done" in capsys.readouterr().out
    assert sorted(Path(f"{out}.fields").rglob("*")) == before


def test_what_a_run_that_can_go_on_has_painted_stays(client, tmp_path):
    out = str(tmp_path / "v")
    work = from_catalogue(
        "linear_whole", HALOS, out, boxes=1, cells=8, paint={"rsd": "random_radial"}, options={},
    )  # fmt: skip
    for error, stays in (
        (ClusterError("no worker works"), True),
        (KeyboardInterrupt(), True),
        (ValueError("a"), False),
    ):
        with suppress(type(error)), work.clearing():
            work.painted(client, Silent())
            raise error
        assert storage.exists(f"{out}.fields") == stays
