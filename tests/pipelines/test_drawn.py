"""Painting a universe from memory: the same arrays as from its files, in threads of this process."""

import dataclasses
import errno
import json
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from velfield.errors import ClusterError, StoreError, VelfieldError
from velfield.files.progress import Silent
from velfield.pipelines import here, paint_tasks, watch
from velfield.pipelines.here import Threads
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.pipelines.steps import Paint, Simulate
from velfield.pipelines.verify import verify
from velfield.simulation.simulate import SimulateConfig, simulate
from velfield.stores import store

pytestmark = pytest.mark.slow  # universes twice, from files and from memory

CONFIG = SimulateConfig(boxsize=160.0, particles=40, redshifts=(0.0, 0.212), seed=3, min_halo_mass=3e11, steps=3)
PAINTINGS = {
    "seen": {"rsd": "random_radial", "margin": 2},
    "heavy": {"rsd": "plane_parallel", "min_mass": 1e12, "assignment": "cic"},
    "own": {"rsd": "center_radial", "validation": 0.5},
    "early": {"rsd": "random_radial"},
}


def paintings(universe, folder):
    return {
        name: Paint(
            url=f"{folder}/{name}",
            config=PaintConfig(
                halos=f"{universe}/m000-{411 if name == 'early' else 499}.fofproperties",
                particles=f"{universe}/m000.mpicosmo.{411 if name == 'early' else 499}",
                **{"boxes": 2, "cells": 16, "seed": 7} | options,
            ),
        )
        for name, options in PAINTINGS.items()
    }


def painted_from_memory(folder, threads=2):
    """All paintings, of a universe that is nowhere."""
    steps = paintings("nowhere", folder)
    for drawn in Simulate(url="nowhere", config=CONFIG).draw(list(steps.values()), Silent()):
        for step in drawn.stores:
            step.run_drawn(drawn, Threads(threads), Silent())
    return steps


@pytest.fixture(scope="module")
def files(memory, client, tmp_path_factory):  # noqa: ARG001 - workers find compiled what memory was painted with
    """All paintings, from files."""
    folder = tmp_path_factory.mktemp("files")
    simulate(str(folder / "universe"), CONFIG)
    for step in paintings(folder / "universe", folder).values():
        step.run(client, Silent())
    return folder


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    painted_from_memory(folder)
    return folder


def arrays(folder):
    """Every object of the store's arrays, which are all that a shard or a coordinate holds."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if "/c/" in name and not name.startswith("manifest")}


@pytest.mark.parametrize("name", PAINTINGS)
def test_arrays_are_those_from_files_to_the_last_bit(files, memory, name):
    expected, found = arrays(files / name), arrays(memory / name)
    assert len(found) > 10
    assert found == expected
    one, other = (store.open_fields(str(folder / name)) for folder in (files, memory))
    assert set(one.data_vars) == set(other.data_vars)
    own = {"inputs", "fingerprint"}
    assert one.attrs.keys() == other.attrs.keys()
    assert {name for name, value in one.attrs.items() if other.attrs[name] != value} == own
    for variable in one.variables:
        xr.testing.assert_identical(one[variable].variable, other[variable].variable)


def test_the_parent_is_the_universe_either_way(files, memory):
    """So that an evaluation refuses it, whichever of the two was trained on."""
    stores = [store.open_fields(str(folder / name)) for folder in (files, memory) for name in PAINTINGS]
    assert len({str(parent) for ds in stores for parent in ds.parent.values}) == 1


def test_a_store_from_memory_says_so_and_its_fingerprint_is_its_settings(memory, files, tmp_path):
    painted_from_memory(tmp_path, threads=1)
    for name in PAINTINGS:
        attrs = [store.attributes(str(folder / name)) for folder in (memory, tmp_path, files)]
        assert attrs[0] == attrs[1]
        assert attrs[0]["fingerprint"] != attrs[2]["fingerprint"]
        inputs, written = json.loads(attrs[0]["inputs"]), json.loads(attrs[2]["inputs"])
        step = 411 if name == "early" else 499
        assert inputs["halos"]["url"] == f"drawn:m000-{step}.fofproperties"
        for kind in ("halos", "particles"):
            assert inputs[kind]["rows"] == written[kind]["rows"]
            assert inputs[kind]["columns"] == written[kind]["columns"]


def test_verify_finds_nothing_and_notes_that_there_is_no_catalogue(client, memory):
    report = verify(client, str(memory / "seen"))
    assert not report.damaged
    assert [finding.line() for finding in report.findings] == [
        f"note: an input was never written: catalogue={kind}, url=drawn:{name}, found=a universe in memory, "
        "expected=a catalogue to compare with"
        for kind, name in (("halos", "m000-499.fofproperties"), ("particles", "m000.mpicosmo.499"))
    ]


def test_snapshots_that_nothing_is_painted_from_are_not_drawn(tmp_path):
    steps = paintings("nowhere", tmp_path)
    universe = Simulate(url="nowhere", config=CONFIG)
    drawn = [d.stores for d in universe.draw([steps["early"]], Silent())]
    assert drawn == [(steps["early"],)]
    snapshots = universe.draw([steps["own"], steps["early"], steps["seen"]], Silent())
    first = next(snapshots)
    assert first.stores == (steps["early"],)
    held = weakref.ref(first.tables["particles"])
    del first
    assert next(snapshots).stores == (steps["own"], steps["seen"])
    assert held() is None  # the first made room for the second
    assert next(snapshots, None) is None


def test_how_columns_are_read_counts_for_memory_as_for_files(memory, tmp_path):
    (drawn,) = Simulate(url="nowhere", config=CONFIG).draw([paintings("nowhere", tmp_path)["early"]], Silent())
    config = paintings("nowhere", tmp_path)["early"].config
    turned = dataclasses.replace(config, particle_column=("vx=vy", "vy=vx"), rsd="none")
    paint(Threads(1), prepare(str(tmp_path / "turned"), turned, drawn.tables))
    velocity = [store.open_fields(str(f)).velocity.values for f in (tmp_path / "turned", memory / "early")]
    np.testing.assert_array_equal(velocity[0][:, [1, 0, 2]], velocity[1])
    with pytest.raises(VelfieldError, match=r"holds one table only: file=drawn:m000-411\.fofproperties, table=halos;"):
        prepare(str(tmp_path / "x"), dataclasses.replace(config, halo_table="halos"), drawn.tables)


def test_finished_work_is_not_done_again_and_another_run_is_refused(memory, tmp_path, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in (memory / "early").rglob("*")}
    step = paintings("nowhere", memory)["early"]
    (drawn,) = Simulate(url="nowhere", config=CONFIG).draw([step], Silent())
    step.run_drawn(drawn, Threads(1), Silent())
    assert {p: p.stat().st_mtime_ns for p in (memory / "early").rglob("*")} == before
    other = dataclasses.replace(step, url=str(tmp_path / "other"))
    refused = []

    def meet(*_):
        with pytest.raises(StoreError, match="another run is making this store") as error:
            other.run_drawn(drawn, Threads(1), Silent())
        refused.append(error)
        raise VelfieldError("enough: a=1; stop")

    monkeypatch.setattr("velfield.pipelines.paint.paint_block", meet)
    with pytest.raises(VelfieldError, match="enough"):
        other.run_drawn(drawn, Threads(1), Silent())
    assert refused


def test_blocks_that_are_painted_are_not_painted_again(memory, tmp_path, monkeypatch):
    step = paintings("nowhere", tmp_path)["early"]
    (drawn,) = Simulate(url="nowhere", config=CONFIG).draw([step], Silent())
    whole, painted = paint_tasks.paint_block, []

    def stops(block, *common):
        if len(painted) == 5:
            raise KeyboardInterrupt
        painted.append(block)
        return whole(block, *common)

    monkeypatch.setattr("velfield.pipelines.paint.paint_block", stops)
    with pytest.raises(KeyboardInterrupt):
        step.run_drawn(drawn, Threads(1), Silent())
    assert not step.done()
    monkeypatch.setattr("velfield.pipelines.paint.paint_block", lambda *a: painted.append(a[0]) or whole(*a))
    step.run_drawn(drawn, Threads(1), Silent())
    assert len(painted) == len(set(painted)) == 16
    assert arrays(tmp_path / "early") == arrays(memory / "early")


# the loop


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(here, "PAUSE", 0.01)


@pytest.fixture
def ended(monkeypatch):
    """Set as soon as a loop's threads are told to begin nothing more."""
    event = threading.Event()

    class Pool(here.ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            if cancel_futures:
                super().shutdown(wait=False, cancel_futures=True)
                event.set()
            super().shutdown(wait=wait)

    monkeypatch.setattr(here, "ThreadPoolExecutor", Pool)
    return event


class Fails:
    """Fails for an item until it was tried ``last`` times."""

    def __init__(self, last, error):
        self.last, self.error, self.tried = last, error, []

    def __call__(self, item):
        self.tried.append(item)
        if self.tried.count(item) < self.last:
            raise self.error
        return item * 10


def test_every_item_once_with_its_result_on_so_many_threads():
    seen, both = set(), threading.Barrier(2, timeout=20)

    def task(item, sign):
        both.wait()  # two at a time
        seen.add(threading.get_ident())
        return sign * item

    assert sorted(Threads(2).run_tasks(task, range(10), -1, name="x")) == [(i, -i) for i in range(10)]
    assert len(seen) == 2
    assert threading.main_thread().ident not in seen


def test_what_may_pass_is_tried_again_and_counted():
    token = watch._current.set(record := watch.Record())
    try:
        task = Fails(3, ConnectionResetError("cut"))
        assert sorted(Threads(2).run_tasks(task, [1, 2], name="x")) == [(1, 10), (2, 20)]
    finally:
        watch._current.reset(token)
    assert (record.tasks["x"]["retries"], record.tasks["x"]["count"]) == (4, 2)


def test_it_is_not_tried_for_ever():
    task = Fails(9, ConnectionResetError("cut"))
    with pytest.raises(ClusterError, match=r"^cut: x 0, tried=4; run the same command again to go on$"):
        list(Threads(1).run_tasks(task, [1], name="x"))
    assert len(task.tried) == 4


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (VelfieldError("wrong: a=1; do b"), VelfieldError),
        (ZeroDivisionError("ours"), ZeroDivisionError),
        (OSError(errno.ENOSPC, "No space left on device"), ClusterError),
        (MemoryError(), ClusterError),
    ],
)
def test_what_will_not_pass_is_raised_and_the_rest_is_not_begun(ended, error, raised):
    begun = []

    def task(item):
        begun.append(item)
        assert item == 0 or ended.wait(60)  # the one after it may have begun, too
        raise error

    with pytest.raises(raised):
        list(Threads(1).run_tasks(task, list(range(100)), name="x"))
    assert len(set(begun)) <= 2  # some are tried again


def test_a_loop_that_is_left_begins_nothing_more(ended):
    begun = []

    def task(item):
        begun.append(item)
        assert item == 0 or ended.wait(60)

    loop = Threads(1).run_tasks(task, list(range(100)), name="x")
    next(loop)
    loop.close()
    assert len(begun) <= 2
