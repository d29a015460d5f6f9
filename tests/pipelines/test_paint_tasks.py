"""The tasks of the painting job, called in this process: blocks in ranges of rows, patches in several files, memory."""

from pathlib import Path

import numpy as np
import pytest
from distributed import Client

from velfield.catalogues import genericio
from velfield.catalogues.catalogue import open_catalogue
from velfield.errors import DamagedError
from velfield.files import shards, storage
from velfield.painting import patches
from velfield.pipelines import paint_tasks, watch
from velfield.pipelines.paint import _add_up, paint
from velfield.pipelines.paint_job import PaintConfig, painted_of, prepare, spec_of
from velfield.pipelines.paint_plan import WORKER_BASE, plan_of
from velfield.pipelines.paint_tasks import Reopened, paint_block, write_shard
from velfield.stores import store, store_layout

MOCK = Path(__file__).parent.parent / "data" / "mock-outer-rim"
HALOS, PARTICLES = str(MOCK / "m000-499.fofproperties"), str(MOCK / "m000.mpicosmo.499")


def painted_here(out, **changes):
    """The fields that the tasks make, one after the other, and the receipts of the blocks."""
    asked = {"halos": HALOS, "particles": PARTICLES, "boxes": 2, "cells": 16, "margin": 1, "rsd": "random_radial"}
    job = prepare(str(out), PaintConfig(**asked | changes))
    job.receipts.begin({})
    per_shard = store_layout.field_layout(spec_of(job, dict.fromkeys(painted_of(job), 1.0), {})).boxes_per_shard
    common = (Reopened(job.config, job.versions), job.config, job.scene, job.receipts, per_shard)
    blocks = {b: paint_block(b, *common) for b in job.blocks}
    totals = _add_up(job, blocks)
    layout = store_layout.field_layout(spec_of(job, store_layout.means_of(totals, job.scene.boxes), totals))
    shards.create(job.out, layout)
    objects = {}
    for shard in range(layout.nshard):
        files = [(*block, *rest) for block in job.blocks for s, *rest in blocks[block]["files"] if s == shard]
        objects |= write_shard((shard, files), job.scene, layout, job.receipts)["objects"]
    shards.publish(job.out, layout, objects)
    job.receipts.clear()
    return store.open_fields(str(out)).load(), blocks


def assert_same_fields(found, expected):
    for name in ("halo_number", "matter_number", "velocity_flag"):
        np.testing.assert_array_equal(found[name].values, expected[name].values)
    # float64 sums in another order, rounded to float32 once
    np.testing.assert_allclose(found.halo_mass.values, expected.halo_mass.values, rtol=2.0**-23)
    np.testing.assert_allclose(found.velocity.values, expected.velocity.values, rtol=1e-6, atol=1e-4)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return painted_here(tmp_path_factory.mktemp("tasks") / "f")[0]


def test_ranges_of_rows_give_the_same_fields(tmp_path, monkeypatch, expected):
    monkeypatch.setattr(paint_tasks, "ROWS", 1777)
    found, blocks = painted_here(tmp_path / "f")
    assert_same_fields(found, expected)
    assert {n for receipt in blocks.values() for _, n, *_ in receipt["files"]} == {0}  # in one canvas until the end


def test_patches_may_be_written_before_the_block_ends(tmp_path, monkeypatch, expected):
    monkeypatch.setattr(paint_tasks, "ROWS", 1777)
    monkeypatch.setattr(paint_tasks, "HELD_BYTES", 2**16)
    monkeypatch.setattr(patches, "CANVAS_BYTES", 2**12)  # so that blocks are painted box by box
    found, blocks = painted_here(tmp_path / "f")
    assert_same_fields(found, expected)
    assert max(n for receipt in blocks.values() for _, n, *_ in receipt["files"]) >= 2


def test_a_block_that_arrives_damaged_is_painted_anew(tmp_path, monkeypatch, expected):
    real, fetched = paint_tasks._paint, []

    def damaged_at_first(cat, kind, index, *rest):
        receipt = real(cat, kind, index, *rest)  # patches and all, as when the last range shows the damage
        fetched.append((kind, index))
        if fetched.count((kind, index)) == 1:
            raise DamagedError("checksum is wrong: file=f, rank=0, column=x")
        return receipt

    monkeypatch.setattr(paint_tasks, "_paint", damaged_at_first)
    with pytest.raises(DamagedError):  # a local disk does not change its mind
        painted_here(tmp_path / "f")
    here = storage.is_local
    monkeypatch.setattr(storage, "is_local", lambda url: here(url) and MOCK.name not in url)
    fetched.clear()
    found, _ = painted_here(tmp_path / "g")
    assert len(fetched) == 2 * 16
    assert_same_fields(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("rsd", ["none", "random_radial"])
def test_memory_stays_within_the_plan(tmp_path, rsd):
    """A large block of halos and one of particles in no order: the worker's peak against `plan_of`."""
    from velfield.pipelines.cluster import connect

    rng = np.random.default_rng(0)
    for name, of in (("m000-499.fofproperties", "fof_halo_center_"), ("m000.mpicosmo.499", "")):
        rows = 6_000_000
        table = {f"{of}{x}": (500 * rng.random(rows, dtype="f4")).clip(0, 499.9) for x in "xyz"}
        speed = "fof_halo_mean_v" if of else "v"
        table |= {f"{speed}{x}": 300 * rng.standard_normal(rows, dtype="f4") for x in "xyz"}
        if of:
            table["fof_halo_mass"] = np.full(rows, 1e12, "f4")
        genericio.write(str(tmp_path / name), [table], dims=(1, 1, 1), boxsize=500.0)
        del table
    assert len(open_catalogue(str(tmp_path / "m000.mpicosmo.499")).blocks) == 1
    job = prepare(
        str(tmp_path / "out"),
        PaintConfig(
            halos=str(tmp_path / "m000-499.fofproperties"), particles=str(tmp_path / "m000.mpicosmo.499"),
            boxes=4, cells=32, margin=4, rsd=rsd, assignment="cic",
        ),
    )  # fmt: skip
    planned = plan_of(job).worker_memory + WORKER_BASE
    with connect(workers=1, quiet=True) as client:
        assert isinstance(client, Client)
        with watch.reported(client, None, "paint", {}) as record:
            assert paint(client, job)
    (peak,) = record.peaks.values()
    assert 0.3 * planned < peak < planned
