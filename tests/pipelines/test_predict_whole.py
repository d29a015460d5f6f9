"""A whole parent predicted in tiles: no seams, real neighbours, flags at the edge, resumed to the same bytes."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zarr
from arbitrary_bundle import INPUTS, bundle
from distributed import LocalCluster
from gaussian import universe, write_fields

from velfield.commands.cli import main
from velfield.errors import VelfieldError
from velfield.network.model import load_model
from velfield.network.parent_norm import Statistics
from velfield.physics.condition import Ranges
from velfield.pipelines import predict as predict_module
from velfield.pipelines import verify as verify_module
from velfield.pipelines.cluster import connect
from velfield.pipelines.predict import predict, prepare
from velfield.pipelines.predict_network import observe_tile
from velfield.pipelines.predict_plan import check_fits, plan_of
from velfield.pipelines.predict_tasks import predict_row, predict_shard
from velfield.pipelines.verify import verify
from velfield.stores import store
from velfield.stores.sources import condition_of
from velfield.theory import analytic
from velfield.theory.parent import Parent

GRID = 32


def in_this_process(_client, task, items, *common, **_named):
    for item in items:
        yield item, task(item, *common)


@pytest.fixture
def here(monkeypatch):
    """In the place of a cluster: tasks run in this process, one after the other."""
    monkeypatch.setattr(predict_module, "run_tasks", in_this_process)
    monkeypatch.setattr(verify_module, "run_tasks", in_this_process)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One periodic parent of 32³ cells in 8 boxes."""
    return write_fields(str(tmp_path_factory.mktemp("whole") / "fields"), boxes=2, cells=16)


@pytest.fixture(scope="module")
def local(whole, tmp_path_factory):
    """A network whose result depends on 9 cells around."""
    return bundle(str(tmp_path_factory.mktemp("local") / "model"), whole, std=True)


def cube(url, name="velocity"):
    """A velocity store's field of the whole parent (3, x, y, z)."""
    ds = store.open_velocity(url, chunks=None)
    cells, values = int(ds.attrs["cells"]), ds[name].values
    out = np.empty((*values.shape[1:-3], *(int(ds.attrs["boxes"]) * cells,) * 3), dtype=values.dtype)
    for box, origin in enumerate(np.rint(ds["origin"].values / ds.attrs["cellsize"]).astype(int)):
        out[(..., *(slice(first, first + cells) for first in origin))] = values[box]
    return out


def at_once(url, fields, around):
    """The network's velocity of the whole periodic parent, shown at once with so many cells of its images around."""
    ds, model = store.open_fields(fields, chunks=None), load_model(url, device="cpu")
    parent = Parent(ds)
    inputs = []
    for kind in INPUTS:
        variable = store.INPUTS[kind][0]
        values = parent.window(variable, (-around,) * 3, (parent.layout.ngrid + 2 * around,) * 3)
        inputs.append(values / ds[variable].attrs["mean"] - 1)
    made = model.predict_arrays(np.stack(inputs)[None], condition=model.condition(ds))
    cut = slice(around, around + parent.layout.ngrid)
    return [None if values is None else values[0][:, cut, cut, cut] for values in made]


def test_a_whole_parent_is_as_if_it_were_shown_at_once(here, whole, local, tmp_path):
    """The tiles' rims are as wide as the network's reach: no cell sees where its tile ends."""
    expected, bars = at_once(local, whole, around=10)
    scale = np.abs(expected).max()
    assert prepare(local, whole, str(tmp_path / "v")).tiling.rim < 9  # a tile of 16 is too narrow for a reach of 9
    for tile in (34, 40):
        out = str(tmp_path / f"v{tile}")
        job = prepare(local, whole, out, tile=tile, overlap=18)
        assert job.tiling.rim == 9
        assert predict(here, job)
        np.testing.assert_allclose(cube(out), expected, rtol=0, atol=1e-5 * scale)
        np.testing.assert_allclose(cube(out, "velocity_std"), bars, rtol=1e-4)
        assert not cube(out, "velocity_flag").any()
        assert not verify(here, out).damaged
        assert not verify(here, out, inputs=False).damaged


@pytest.mark.slow
def test_boxes_of_one_store_are_the_same_whole_cut_elsewhere(here, local, tmp_path):
    """What the store's boxes and margins are does not matter: one box that is the whole, boxes with a margin."""
    outs = []
    for boxes, margin in ((2, 0), (1, 0), (4, 3)):
        fields, out = str(tmp_path / f"f{boxes}"), str(tmp_path / f"v{boxes}")
        write_fields(fields, boxes=boxes, cells=GRID // boxes, margin=margin)
        assert predict(here, prepare(local, fields, out, tile=34, overlap=18))
        outs.append(cube(out))
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])


@pytest.mark.slow
def test_a_network_with_a_context_is_shown_real_neighbours(here, tmp_path):
    """In a store with a margin a box's own window is what a tile of the same cells is."""
    fields, model = str(tmp_path / "fields"), str(tmp_path / "model")
    write_fields(fields, boxes=2, cells=16, margin=9)
    bundle(model, fields, cells=16, context=9, margin=9)
    by_boxes, by_tiles = str(tmp_path / "boxes"), str(tmp_path / "tiles")
    assert predict(here, prepare(model, fields, by_boxes, isolated=True))
    bare = write_fields(str(tmp_path / "bare"), boxes=2, cells=16)
    assert predict(here, prepare(model, bare, by_tiles))
    made, expected = cube(by_tiles), cube(by_boxes)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert main(["predict", model, bare, str(tmp_path / "w"), "--isolated"]) == 2


@pytest.mark.slow
def test_group_normalisation_takes_the_statistics_of_the_parent(here, whole, tmp_path):
    """They are held fixed, so that tiles as wide as the reach asks for give one result, whatever their side."""
    model, outs = str(tmp_path / "model"), [str(tmp_path / f"v{tile}") for tile in (34, 40)]
    bundle(model, whole, cells=16, norm="group", std=True)
    for tile, out in zip((34, 40), outs, strict=True):
        job = prepare(model, whole, out, tile=tile, overlap=18)
        assert job.observed == tuple((i, j, k) for i in (0, 16) for j in (0, 16) for k in (0, 16))
        assert predict(here, job)
        assert json.loads(store.attributes(out)["prediction"])["norm_tiles"] == 8
        assert not verify(here, out).damaged
    one, other = map(cube, outs)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(one).max())
    np.testing.assert_allclose(cube(outs[0], "velocity_std"), cube(outs[1], "velocity_std"), rtol=1e-4)
    # the eight tiles are the eight boxes: their own statistics, averaged
    ds, net = store.open_fields(whole, chunks=None), load_model(model, device="cpu")
    inputs = np.stack([ds.velfield.input(kind).values for kind in INPUTS], axis=1)
    each = [net.statistics(inputs[box : box + 1]) for box in range(8)]
    settled = net.with_statistics(Statistics.of(each))
    parent = np.stack([
        Parent(ds).window(store.INPUTS[kind][0], (-10,) * 3, (52,) * 3) / ds[store.INPUTS[kind][0]].attrs["mean"] - 1
        for kind in INPUTS
    ])  # fmt: skip
    expected = settled.predict_arrays(parent[None])[0][0][:, 10:-10, 10:-10, 10:-10]
    np.testing.assert_allclose(one, expected, rtol=0, atol=1e-5 * np.abs(one).max())
    # by themselves boxes keep their own
    alone = str(tmp_path / "alone")
    assert predict(here, prepare(model, whole, alone, isolated=True))
    by_itself = store.open_velocity(alone, chunks=None).velocity
    np.testing.assert_allclose(by_itself, net.predict_arrays(inputs)[0], rtol=0, atol=1e-5 * np.abs(one).max())
    assert np.abs(by_itself - settled.predict_arrays(inputs)[0]).max() > 0.01 * np.abs(one).max()


def test_statistics_of_a_run_that_was_stopped_are_not_taken_anew(whole, tmp_path):
    model, out = str(tmp_path / "model"), str(tmp_path / "v")
    bundle(model, whole, cells=16, norm="group")
    job = prepare(model, whole, out, tile=34, overlap=18)
    job.receipts.begin({})
    for tile in range(8):
        observe_tile(tile, job)
    there = {path: path.stat().st_mtime_ns for path in Path(job.receipts.work).glob("norm/*.json")}
    assert len(there) == 8
    predict_row(0, job)
    assert observe_tile(3, job) == job.receipts.find("norm", "00003")
    assert {path: path.stat().st_mtime_ns for path in Path(job.receipts.work).glob("norm/*.json")} == there
    other = prepare(model, whole, str(tmp_path / "w"), tile=34, overlap=18)
    with pytest.raises(VelfieldError, match=r"statistics of the parent are missing: tiles=8 of 8"):
        predict_row(0, other)


@pytest.mark.slow
def test_tiles_leave_no_seam(here, tmp_path):
    """Where tiles change, differences between neighbouring cells are as within them; side by side they are not."""
    fields, model, blended, beside = (str(tmp_path / name) for name in ("fields", "model", "blended", "beside"))
    write_fields(fields, boxes=2, cells=16)
    bundle(model, fields, cells=16, norm="group", depth=2)
    job = prepare(model, fields, blended, tile=16, overlap=8)
    assert job.tiling.rim < 8 < load_model(model, device="cpu").reach  # too narrow to be one result: blended
    assert predict(here, job)
    assert predict(here, prepare(model, fields, beside, isolated=True))
    ratios = []
    for url, period in ((blended, 8), (beside, 16)):
        values = cube(url)
        steps = np.diff(values, axis=1, append=values[:, :1])
        # averaged over faces of 8² cells: what is common to a face is a seam
        faces = steps.reshape(3, GRID, 4, 8, 4, 8).mean((3, 5))
        border = np.arange(1, GRID + 1) % period == 0
        ratios.append(float(np.sqrt((faces[:, border] ** 2).mean() / (faces[:, ~border] ** 2).mean())))
    assert abs(ratios[0] - 1) < 0.25  # 4 borders of 16 faces and three components, in part alike
    assert ratios[1] > 1.8


@pytest.mark.parametrize("name", ["linear_whole", "linear_halo_padded", pytest.param("wiener", marks=pytest.mark.slow)])
def test_guides_of_tiles(here, whole, tmp_path, name):
    """A guide of the whole is read from one array; that of a tile sees the tile with its surroundings."""
    model, out = str(tmp_path / "model"), str(tmp_path / "v")
    smoothing = None if name == "wiener" else 10.0
    tracers = ["mass", "number"] if name == "linear_whole" else ["number"]
    bundle(model, whole, cells=16, guide={"name": name, "smoothing": smoothing, "tracers": tracers})
    margin = None if name == "linear_whole" else 3
    job = prepare(model, whole, out, tile=16, overlap=4, guide_margin=margin)
    net = load_model(model, device="cpu")
    with torch.no_grad():
        net.net.out.weight.zero_()
        net.net.out.bias.zero_()
        net.net.gain.copy_(torch.tensor([1.0, 0.5])[: len(tracers)])
    net.save(model)  # what is left is the guide
    job = prepare(model, whole, out, tile=16, overlap=4, guide_margin=margin)
    assert predict(here, job)
    made = cube(out)
    if name == "linear_whole":
        ds = store.open_fields(whole, chunks=None)
        by_mass, by_number = (
            analytic.whole_velocity(analytic.settings(name, ds, tracer=tracer, smoothing=smoothing), ds)
            for tracer in tracers
        )
        np.testing.assert_allclose(made, by_mass + 0.5 * by_number, rtol=0, atol=1e-3)
        return
    true = universe(GRID)[1]
    r = np.corrcoef(made.ravel(), true.ravel())[0, 1]
    narrow = str(tmp_path / "narrow")
    assert predict(here, prepare(model, whole, narrow, tile=16, overlap=4))
    assert r > np.corrcoef(cube(narrow).ravel(), true.ravel())[0, 1] + 0.01  # it sees further
    # a box by itself is one tile
    box, alone = write_fields(str(tmp_path / "box"), boxes=1, cells=16, periodic=False), str(tmp_path / "alone")
    assert predict(here, prepare(model, box, alone))
    ds = store.open_fields(box, chunks=None)
    expected = analytic.velocities(analytic.settings(name, ds, smoothing=smoothing), ds, [0])[0]
    np.testing.assert_allclose(cube(alone), expected, rtol=0, atol=1e-3)


def test_the_edge_of_a_parent_that_ends(here, tmp_path):
    """Beyond it is the mean; cells whose context reaches out are flagged; inside all is as in a periodic one."""
    fields, ends, model = (str(tmp_path / name) for name in ("fields", "ends", "model"))
    write_fields(fields, boxes=2, cells=16)
    write_fields(ends, boxes=2, cells=16, periodic=False)
    bundle(model, fields, cells=12, context=2)
    outs = [str(tmp_path / name) for name in ("v", "w")]
    assert predict(here, prepare(model, fields, outs[0], tile=34, overlap=18))
    job = prepare(model, ends, outs[1], tile=34, overlap=18)
    assert predict(here, job)
    flag = cube(outs[1], "velocity_flag")
    expected = np.ones((GRID,) * 3, dtype="u1")
    expected[2:-2, 2:-2, 2:-2] = 0
    np.testing.assert_array_equal(flag, expected)
    periodic, ended = cube(outs[0]), cube(outs[1])
    inner = (slice(None), *(slice(9, -9),) * 3)  # the reach
    np.testing.assert_allclose(ended[inner], periodic[inner], rtol=0, atol=1e-5 * np.abs(periodic).max())
    assert np.isfinite(ended).all()
    assert np.abs(ended[:, :2] - periodic[:, :2]).max() > 1
    assert not verify(here, outs[1]).damaged
    array = zarr.open_array(f"{outs[1]}/velocity_flag", mode="r+")
    array[5, 0, 0, 0] = 2
    array[6, 0, 0, 0] = 16
    lines = [finding.line() for finding in verify(here, outs[1]).findings]
    assert any("values outside the parent: variable=velocity, box=5" in line for line in lines)
    assert any("an unknown flag: variable=velocity_flag, box=6" in line for line in lines)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_bytes_do_not_depend_on_workers_or_interruption(client, whole, local, tmp_path, monkeypatch):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    with monkeypatch.context() as patched:
        patched.setattr(predict_module, "run_tasks", in_this_process)
        assert predict(None, prepare(local, whole, one, tile=34, overlap=18))
    job = prepare(local, whole, two, tile=34, overlap=18)
    job.receipts.begin({})
    predict_row(3, job)  # then nothing
    row = next(Path(job.receipts.work).glob("tiles/000003"))
    then = row.stat().st_mtime_ns
    kept = []
    told = threading.Event()

    class Watch:
        def start(self, label, *_, **__):
            kept.append(label)

        def advance(self, *_, **__):
            if row.exists():
                kept.append(row.stat().st_mtime_ns)
            told.set()

        def done(self, *_):
            pass

    assert predict(client, job, Watch())
    assert then in kept
    assert kept[0] == "look at the input"
    assert "predict tiles" in kept
    assert same_bytes(one, two)
    with pytest.raises(VelfieldError, match="another store is here"):
        predict(client, prepare(local, whole, two, tile=36, overlap=18))


@pytest.mark.slow
def test_a_worker_killed_meanwhile_loses_nothing(whole, local, tmp_path):
    """The same bytes; rows and shards that were finished are not made again."""
    out, other = str(tmp_path / "v"), str(tmp_path / "w")
    job = prepare(local, whole, out, tile=34, overlap=18)
    finished = {}

    with connect(workers=2, quiet=True) as cluster:
        predict(cluster, prepare(local, whole, other, tile=34, overlap=18))

        class Killer:
            """Kills a worker in each stage: while the input is looked at, rows are predicted, and shards written."""

            def __init__(self):
                self.count, self.killed = 0, 0

            def start(self, *_, **__):
                self.count = 0

            def advance(self, *_, **__):
                self.count += 1
                for path in Path(job.receipts.work).glob("*/*.json"):
                    finished.setdefault(path, path.stat().st_mtime_ns)
                    if path.exists():
                        assert path.stat().st_mtime_ns == finished[path]
                if self.count == 2:
                    workers = [w.process.process.pid for w in cluster.cluster.workers.values() if w.process]
                    os.kill(workers[0], signal.SIGKILL)
                    self.killed += 1
                    time.sleep(0.5)

            def done(self, *_):
                pass

        killer = Killer()
        assert predict(cluster, job, killer)
    assert killer.killed == 3
    assert same_bytes(out, other)


def same_bytes(one, two):
    files = {p.relative_to(one) for p in Path(one).rglob("*") if p.is_file()}
    assert files == {p.relative_to(two) for p in Path(two).rglob("*") if p.is_file()}
    return all((Path(one) / f).read_bytes() == (Path(two) / f).read_bytes() for f in files)


def test_boxes_with_observers_of_their_own_are_predicted_one_by_one(here, local, tmp_path, capsys):
    fields, out = str(tmp_path / "fields"), str(tmp_path / "v")
    observers = {"rsd": "center_radial", "observer": np.full((8, 3), 40.0)}
    write_fields(fields, boxes=2, cells=16, **observers)
    job = prepare(local, fields, out)
    assert job.tiling is None
    assert predict(here, job)
    assert json.loads(store.attributes(out)["prediction"]) == {"boxes": "isolated", "context": 0}
    assert main(["predict", local, fields, out, "--tile", "16"]) == 2
    assert "the boxes are not one whole, each is seen by an observer of its own" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--isolated", "--tile", "16"], "--tile is for whole parents only: tile=16, isolated=True"),
        (["--guide-margin", "3"], "nothing sees a margin: guide-margin=3, the model's guide=None"),
        (["--smoothing", "3"], "a bundle takes no smoothing: .*smoothing=3"),
        (["--tracer", "mass"], "only halos have a tracer"),
        (["--tile", "8", "--overlap", "8"], "tiles do not overlap so: tile=8, overlap=8"),
    ],
)
def test_options_that_mean_nothing_are_refused(local, whole, tmp_path, capsys, options, said):
    import re

    assert main(["predict", local, whole, str(tmp_path / "v"), *options]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "v").exists()


def test_options_of_analytic_models(here, whole, tmp_path, capsys):
    out = str(tmp_path / "v")
    assert predict(here, prepare("linear_whole", whole, out, tracer="mass", smoothing=8.0))
    ds = store.open_fields(whole, chunks=None)
    how = analytic.settings("linear_whole", ds, tracer="mass", smoothing=8.0)
    np.testing.assert_array_equal(cube(out), analytic.whole_velocity(how, ds))
    assert not cube(out, "velocity_flag").any()
    assert main(["predict", "linear", whole, str(tmp_path / "w"), "--tile", "16"]) == 2
    assert "--tile is for networks only: tile=16, model=linear" in capsys.readouterr().err


def test_a_store_without_flags_still_opens_and_is_whole(here, whole, local, tmp_path):
    """As written before there were any."""
    from velfield.files import shards

    out = str(tmp_path / "v")
    job = prepare(local, whole, out, isolated=True)
    attrs = {name: value for name, value in job.layout.attrs.items() if name != "prediction"}
    variables = {name: v for name, v in job.layout.variables.items() if name != "velocity_flag"}
    old = dataclasses.replace(job.layout, attrs=attrs, variables=variables)
    arrays = {n: np.full((old.nbox, *v.shape), 3, dtype=v.dtype) for n, v in variables.items()}
    shards.create(out, old)
    shards.publish(out, old, shards.write_boxes(out, old, range(old.nbox), arrays))
    assert "velocity_flag" not in store.open_velocity(out)
    for inputs in (True, False):
        assert not verify(here, out, inputs=inputs).damaged


def test_large_boxes_are_stored_in_chunks(tmp_path, monkeypatch):
    """So that a window of one is read without the rest of it."""
    from velfield.files import shards

    monkeypatch.setattr(shards, "CHUNK_BYTES", 2**14)
    monkeypatch.setattr(shards, "CHUNK_CELLS", (4, 16))
    fields = write_fields(str(tmp_path / "fields"), boxes=1, cells=GRID)
    assert zarr.open_array(f"{fields}/halo_number").chunks == (1, 16, 16, 16)
    assert zarr.open_array(f"{fields}/halo_number").shards == (1, GRID, GRID, GRID)
    ds = store.open_fields(fields, chunks=None)
    np.testing.assert_array_equal(
        Parent(ds).window("halo_number", (30, -3, 5), (4, 6, 9)),
        np.roll(ds.halo_number.values[0], (2, 3, 0), (0, 1, 2))[:4, :6, 5:14],
    )


def test_a_conditioned_network_in_tiles(here, whole, tmp_path):
    of = condition_of(store.open_fields(whole, chunks=None), INPUTS)
    model, out = str(tmp_path / "model"), str(tmp_path / "v")
    bundle(model, whole, ranges=Ranges.of([of, dataclasses.replace(of, growth=0.8)]))
    # a network that has learnt nothing: its velocities are no universe's
    assert predict(here, prepare(model, whole, out, tile=34, overlap=18, accept=["implausible"]))
    expected, _ = at_once(model, whole, around=10)
    np.testing.assert_allclose(cube(out), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_plan_is_printed_and_nothing_done(here, whole, local, tmp_path, capsys):
    out = str(tmp_path / "v")
    options = ["predict", local, whole, out, "--tile", "34", "--overlap", "18"]
    assert main([*options, "--plan"]) == 0
    said = capsys.readouterr().out
    assert "8 of 34³ cells, neighbours share 18; 9.6 × the cells of the boxes" in said
    assert "4 rows of tiles, 8 shards" in said
    assert not (tmp_path / "v").exists()
    job = prepare(local, whole, out, tile=34, overlap=18)
    planned, sizes = plan_of(job), []
    assert predict(here, job, Sizes(job, sizes))
    assert planned.work_bytes == sizes[-1]
    array = store.open_velocity(out)
    assert planned.store_bytes == sum(array[name].nbytes for name in array.data_vars)
    one, two, many = (plan_of(dataclasses.replace(job, batch=batch)) for batch in (1, 2, 1000))
    assert two == many  # there are two tiles in a row
    assert two.row_memory > one.row_memory
    small = dataclasses.replace(planned, shard_memory=2**50)
    with pytest.raises(VelfieldError, match=r"a task does not fit into a worker: needed=1.02e\+03 TiB"):
        check_fits(small, SimpleNamespace(scheduler_info=lambda n_workers: {"workers": {n_workers: WORKER}}))


WORKER = {"memory_limit": 2**34, "nthreads": 1}


class Sizes:
    """Notes how large the work files are when the rows are done."""

    def __init__(self, job, sizes):
        self.job, self.sizes = job, sizes

    def start(self, label, *_, **__):
        if label == "blend tiles":
            self.sizes.append(sum(p.stat().st_size for p in Path(self.job.receipts.work, "tiles").iterdir()))

    def advance(self, *_, **__):
        pass

    def done(self, *_):
        pass


@pytest.mark.slow
def test_a_network_waits_for_workers_that_offer_a_gpu(whole, local, tmp_path):
    job = prepare(local, whole, str(tmp_path / "v"), tile=34, overlap=18, gpu=True)
    with connect(workers=1, quiet=True, wait=1) as without, pytest.raises(VelfieldError, match="offers GPU=1"):
        predict(without, job)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, resources={"GPU": 1}, dashboard_address="127.0.0.1:0"
        ) as cluster,
        connect(cluster.scheduler_address, quiet=True) as client,
    ):
        assert predict(client, job)


@pytest.mark.parametrize(("model", "isolated"), [("local", False), ("local", True), ("linear_whole", False)])
def test_input_that_is_damaged_or_lost_is_named(here, whole, local, tmp_path, model, isolated):
    fields, out = tmp_path / "fields", str(tmp_path / "v")
    shutil.copytree(whole, fields)
    job = prepare(local if model == "local" else model, str(fields), out, isolated=isolated)
    shard = sorted(p for p in (fields / "halo_number" / "c").rglob("*") if p.is_file())[1]
    sound = shard.read_bytes()
    damaged = r"what is stored of a box is damaged: .*halo_number, box=.*velfield verify"
    third = len(sound) // 3
    shard.write_bytes(sound[:third] + bytes(b ^ 0x5A for b in sound[third : 2 * third]) + sound[2 * third :])
    with pytest.raises(VelfieldError, match=damaged):
        predict(here, job)
    shard.write_bytes(sound[:third])  # cut off
    with pytest.raises(VelfieldError, match=damaged):
        predict(here, job)
    shard.unlink()
    with pytest.raises(VelfieldError, match=r"has lost its data: .*box=|inputs are not finite: .*velfield verify"):
        predict(here, job)
    shard.write_bytes(sound)
    assert predict(here, job)


def test_a_part_of_the_linear_velocity_that_is_lost_is_not_taken_for_one(here, whole, tmp_path, monkeypatch):
    job = prepare("linear_whole", whole, str(tmp_path / "v"))
    monkeypatch.setattr(predict_module, "_run_shards", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(here, job)
    monkeypatch.undo()
    (lost,) = Path(job.receipts.work).glob("whole/array/c/1/*/*/*")  # of the whole, as it is smaller than a chunk
    lost.unlink()
    with pytest.raises(VelfieldError, match=r"linear velocity has lost a part: .*; remove the unfinished store"):
        predict_shard(0, job)


@pytest.mark.parametrize("out", ["file", "file/store"])
def test_a_file_in_the_way_is_said(whole, local, tmp_path, capsys, out):
    (tmp_path / "file").write_text("mine")
    assert main(["predict", local, whole, str(tmp_path / out)]) == 2
    assert f"a file is in the way: out={tmp_path / out}; name another place" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("isolated", [False, True])
def test_input_that_changes_meanwhile_is_not_mixed(here, local, tmp_path, isolated):
    fields, out = str(tmp_path / "fields"), str(tmp_path / "v")
    write_fields(fields, boxes=2, cells=16)
    job = prepare(local, fields, out, isolated=isolated)
    shutil.rmtree(fields)
    write_fields(fields, boxes=2, cells=16, seed=9)
    with pytest.raises(VelfieldError, match=r"the input changed while it was used: fields=.*; run the same command"):
        predict(here, job)
    assert predict(here, prepare(local, fields, out, isolated=isolated))
