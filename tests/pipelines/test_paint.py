"""The painting job, through its real entry points, on a COLA simulation in the Outer Rim release's form."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from velfield.catalogues.catalogue import open_catalogue
from velfield.commands.cli import main
from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, storage
from velfield.physics.cosmology import OUTER_RIM, Cosmology
from velfield.physics.redshift_space import redshift_space
from velfield.pipelines.here import Threads
from velfield.pipelines.paint import _check_sums, paint
from velfield.pipelines.paint_job import PaintConfig, prepare, spec_of
from velfield.pipelines.paint_plan import check_fits, plan_of
from velfield.stores import store, store_layout

MOCK = Path(__file__).parent.parent / "data" / "mock-outer-rim"
HALOS, PARTICLES = str(MOCK / "m000-499.fofproperties"), str(MOCK / "m000.mpicosmo.499")


def config_of(**changes):
    values = {"halos": HALOS, "particles": PARTICLES, "boxes": 2, "cells": 16, "rsd": "none"}
    return PaintConfig(**(values | changes))


def painted(client, out, **changes):
    job = prepare(str(out), config_of(**changes))
    assert paint(client, job)
    return store.open_fields(str(out)).load()


def whole(ds, name):
    """The boxes of a store side by side."""
    n = int(ds.attrs["boxes"])
    v = ds.velfield.core(ds[name]).values
    lead = v.shape[1:-3]
    v = v.reshape(n, n, n, *lead, *v.shape[-3:])
    v = np.moveaxis(v, (0, 1, 2), (-6, -4, -2))
    c = v.shape[-1]
    return v.reshape(*lead, n * c, n * c, n * c)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_fields_are_the_catalogue_on_a_grid(client, tmp_path):
    ds = painted(client, tmp_path / "f")
    tracers = open_catalogue(PARTICLES).tracers()
    cell = np.floor(tracers.pos / 16.0).astype(int) % 32
    number, momentum = np.zeros((32, 32, 32)), np.zeros((3, 32, 32, 32))
    np.add.at(number, tuple(cell.T), 1)
    for c in range(3):
        np.add.at(momentum[c], tuple(cell.T), tracers.vel[:, c])
    np.testing.assert_array_equal(whole(ds, "matter_number"), number)
    known = number > 0
    np.testing.assert_allclose(whole(ds, "velocity")[:, known], (momentum / np.maximum(number, 1))[:, known], rtol=2e-6,
                               atol=1e-3)  # float32 of sums of at most some 50 velocities  # fmt: skip
    np.testing.assert_array_equal(whole(ds, "velocity_flag") == 0, known)
    halos = open_catalogue(HALOS).tracers()
    cell = np.floor(halos.pos / 16.0).astype(int) % 32
    mass = np.zeros((32, 32, 32))
    np.add.at(mass, tuple(cell.T), halos.mass.astype(float))
    np.testing.assert_allclose(whole(ds, "halo_mass"), mass, rtol=1e-6)
    assert ds.halo_mass.attrs["mean"] == pytest.approx(mass.mean())


@pytest.mark.parametrize("assignment", ["ngp", pytest.param("tsc", marks=pytest.mark.slow)])
def test_totals_are_conserved(client, tmp_path, assignment):
    ds = painted(client, tmp_path / "f", rsd="random_radial", assignment=assignment, margin=2)
    core = ds.velfield.core(ds)
    halos, matter = open_catalogue(HALOS).tracers(), open_catalogue(PARTICLES).tracers()
    eps = 1e-6  # float32 cells of float64 sums: each at most 6e-8 off, of random sign
    assert float(core.halo_number.sum(dtype="f8")) == pytest.approx(len(halos.pos), rel=eps)
    assert float(core.halo_mass.sum(dtype="f8")) == pytest.approx(halos.mass.sum(dtype="f8"), rel=eps)
    assert float(core.matter_number.sum(dtype="f8")) == pytest.approx(len(matter.pos), rel=eps)
    momentum = (core.velocity.astype("f8") * core.matter_number).sum(("box", "x", "y", "z")).values
    speed = np.sqrt((matter.vel.astype("f8") ** 2).sum(1)).sum()
    assert np.abs(momentum - matter.vel.sum(0, dtype="f8")).max() <= 1e-5 * speed


@pytest.mark.parametrize("painted", [7.9, float("nan")])
def test_sums_that_differ_or_are_no_numbers_are_refused(painted):
    sums = {"number": 8.0, "mass": 8.0}
    _check_sums("halos", {"sums": sums, "painted": sums})
    with pytest.raises(StoreError, match=r"painted sums differ from the catalogue's: halos mass, read=8\.0, painted="):
        _check_sums("halos", {"sums": sums, "painted": {"number": 8.0, "mass": painted}})


def test_mass_threshold_and_plane_parallel_shift(client, tmp_path):
    ds = painted(client, tmp_path / "f", particles=None, rsd="plane_parallel", min_mass=3e13, redshift=0.0)
    assert set(ds.data_vars) == {"halo_mass", "halo_number"}
    halos = open_catalogue(HALOS).tracers()
    keep = halos.mass >= 3e13
    seen = redshift_space(halos.pos[keep], halos.vel[keep], redshift=0.0, cosmology=OUTER_RIM,
                          line_of_sight=np.array([0.0, 0, 1]))  # fmt: skip
    cell = np.floor(seen / 16.0).astype(int) % 32
    number = np.zeros((32, 32, 32))
    np.add.at(number, tuple(cell.T), 1)
    np.testing.assert_array_equal(whole(ds, "halo_number"), number)
    np.testing.assert_array_equal(ds.line_of_sight.values, np.tile([0.0, 0, 1], (8, 1)))


def test_margins_are_the_neighbours_cells(client, tmp_path):
    plain = painted(client, tmp_path / "a", halos=None)
    wide = painted(client, tmp_path / "b", halos=None, margin=3)
    number = whole(plain, "matter_number")
    for box in (0, 5):
        start = (wide.origin.values[box] / 16.0).astype(int) - 3
        index = [np.arange(s, s + 22) % 32 for s in start]
        np.testing.assert_array_equal(wide.matter_number.values[box], number[np.ix_(*index)])
    assert wide.x.values[0] == -2.5 * 16.0
    np.testing.assert_array_equal(wide.velfield.core(wide.matter_number).values, plain.matter_number.values)


def test_a_parent_that_does_not_repeat(client, tmp_path):
    ds = painted(client, tmp_path / "f", halos=None, margin=2, periodic=False)
    flag = ds.velocity_flag.values[0]
    assert (flag[:2] == 2).all()  # beyond the parent's lower edge
    assert (flag[2:, 2:, 2:] < 2).all()
    assert np.isnan(ds.velocity.values[0][:, flag == 2]).all()
    assert np.isfinite(ds.velocity.values[0][:, flag < 2]).all()


@pytest.mark.parametrize("rsd", ["center_radial", "random_radial"])
def test_every_pattern_says_where_its_observers_are(client, tmp_path, rsd):
    ds = painted(client, tmp_path / "f", particles=None, rsd=rsd)
    if rsd == "center_radial":
        np.testing.assert_allclose(ds.observer.values, ds.origin.values + 128.0)
    else:
        assert len(np.unique(ds.observer.values, axis=0)) == 1


def test_parent_and_cosmology_are_the_simulations_or_those_given(tmp_path):
    planck = Cosmology(name="p", omega_m=0.31, omega_b=0.049, h=0.68, sigma8=0.81, n_s=0.966)

    def linked(name, **changes):
        for path in MOCK.glob("m000*499*"):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / path.name).symlink_to(path)
        asked = {"cosmology": planck.to_dict(), "boxsize": 512.0, "particles": 55, "seed": 1} | changes
        snapshot = {"halos": Path(HALOS).name, "particles": Path(PARTICLES).name}
        storage.write_json(str(tmp_path / name / "simulation.json"), {"parameters": asked, "snapshots": [snapshot]})
        return {kind: str(tmp_path / name / file) for kind, file in snapshot.items()}

    def prepared(**changes):
        return prepare(str(tmp_path / "out"), config_of(**changes))

    one, other = linked("one"), linked("other", seed=2)
    jobs = [prepared(**one), prepared(**other), prepared(**linked("again", min_halo_mass=1e13)), prepared()]
    assert jobs[0].parent == jobs[2].parent
    assert len({job.parent for job in jobs}) == 3
    assert jobs[0].scene.cosmology == planck
    assert jobs[3].scene.cosmology == OUTER_RIM
    assert jobs[3].parent == open_catalogue(PARTICLES).fingerprint
    named = prepared(**one, parent="mine", cosmology=OUTER_RIM)
    assert (named.parent, named.scene.cosmology) == ("mine", OUTER_RIM)
    assert len({job.fingerprint for job in (*jobs, named)}) == 4  # the first and the third are the same store
    with pytest.raises(VelfieldError, match=r"are of two universes: halos=.*one.*, particles=.*other.*; take both"):
        prepared(halos=one["halos"], particles=other["particles"])


def test_split_is_seeded_and_has_its_share(client, tmp_path):
    a = painted(client, tmp_path / "a", particles=None, boxes=4, cells=4, validation=0.25, seed=5)
    b = painted(client, tmp_path / "b", particles=None, boxes=4, cells=4, validation=0.25, seed=6)
    assert list(a.split.values).count("validation") == 16
    assert list(a.split.values) != list(b.split.values)


def test_finished_work_is_not_done_again(client, tmp_path):
    out = tmp_path / "f"
    painted(client, out, particles=None)
    before = files(out)
    assert not paint(client, prepare(str(out), config_of(particles=None)))
    assert files(out) == before
    assert not (out / ".work").exists()
    with pytest.raises(StoreError, match=r"another store is here: out=.*name another place, or remove it"):
        paint(client, prepare(str(out), config_of(particles=None, seed=2)))


def test_a_foreign_folder_is_left_alone(client, tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(StoreError, match="not empty"):
        paint(client, prepare(str(tmp_path), config_of()))


def test_other_settings_do_not_take_over_unfinished_work(client, tmp_path):
    job = prepare(str(tmp_path / "f"), config_of())
    job.receipts.begin({})
    job.receipts.leave({}, "shards", "00000")
    with pytest.raises(StoreError, match="unfinished store with other settings"):
        paint(client, prepare(str(tmp_path / "f"), config_of(min_mass=1e13)))


def test_a_first_try_that_wrote_no_shard_gives_way(client, tmp_path):
    with pytest.raises(VelfieldError, match="raise --max-shift"):
        paint(client, prepare(str(tmp_path / "f"), config_of(rsd="center_radial", max_shift=1.0)))
    killed = prepare(str(tmp_path / "f"), config_of(halos=None, margin=1))  # after its arrays were made
    killed.receipts.begin({})
    shards.create(killed.out, store_layout.field_layout(spec_of(killed, {"matter_number": 1.0}, {})))
    painted(client, tmp_path / "f", particles=None)
    painted(client, tmp_path / "calm", particles=None)
    assert files(tmp_path / "f") == files(tmp_path / "calm")


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_bytes(tmp_path):
    command = [sys.executable, "-m", "velfield", "paint", "--halos", HALOS, "--particles", PARTICLES, "--boxes", "6",
               "--cells", "16", "--margin", "2", "--assignment", "tsc", "--rsd", "random_radial",
               "--workers", "2"]  # fmt: skip
    calm, torn = tmp_path / "calm", tmp_path / "torn"
    subprocess.run([*command, str(calm)], check=True, capture_output=True)
    for stage in ("blocks", "shards"):
        process = subprocess.Popen([*command, str(torn)], stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and not list(torn.glob(f".work/*/{stage}/*.json")):
            time.sleep(0.005)
        assert process.poll() is None, f"too fast to be killed while it makes {stage}"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(StoreError, match="not finished"):
            store.open_fields(str(torn))
    done = {p: p.stat().st_mtime_ns for p in torn.glob(".work/*/*/*.json")}
    shard = {p: p.stat().st_mtime_ns for p in torn.glob("velocity/c/*/0/0/0/0") if _has_receipt(torn, p)}
    assert done
    assert shard
    result = subprocess.run([*command, str(torn)], check=True, capture_output=True, text=True)
    assert "were done before" in result.stderr
    assert all(p.stat().st_mtime_ns == then for p, then in shard.items()), "finished shards were written again"
    assert files(calm) == files(torn)


def _has_receipt(out, path):
    return bool(list(out.glob(f".work/*/shards/{int(path.parts[-5]):05d}.json")))


def test_workers_do_not_change_the_bytes(client, tmp_path):
    painted(client, tmp_path / "two", assignment="cic", boxes=4, cells=8)
    one = config_of(assignment="cic", boxes=4, cells=8)
    assert paint(Threads(1), prepare(str(tmp_path / "one"), one))
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_running_cluster_is_used(client, tmp_path, capfd):
    address = client.scheduler.address
    assert main(["paint", str(tmp_path / "f"), "--halos", HALOS, "--boxes", "2", "--cells", "8", "--rsd",
                 "random_radial", "--scheduler", address]) == 0  # fmt: skip
    assert "(2 workers, 2 threads)" in capfd.readouterr().err
    assert client.scheduler_info(n_workers=-1)["workers"]  # still there
    painted(client, tmp_path / "same", particles=None, cells=8, rsd="random_radial")
    assert files(tmp_path / "f") == files(tmp_path / "same")


def test_plan_reads_headers_only_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "f"
    assert main(["paint", str(out), "--halos", HALOS, "--particles", PARTICLES, "--boxes", "2", "--cells", "16",
                 "--rsd", "none", "--plan"]) == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "8 in 8 shards" in text
    assert "16 blocks to read" in text
    assert not out.exists()


def test_a_redshift_that_is_not_the_names_is_noted(tmp_path, capsys):
    command = ["paint", str(tmp_path / "f"), "--halos", HALOS, "--boxes", "2", "--cells", "16", "--rsd", "none"]
    command += ["--plan", "--redshift"]
    assert main([*command, "0.212"]) == 0
    said = "note: the halos are taken at redshift=0.212, the step in their name is at 0\n"
    assert capsys.readouterr().err == said
    assert main([*command, "0.0005"]) == 0  # rounded
    assert capsys.readouterr().err == ""


def test_plan_counts_the_columns_that_are_read():
    plan = plan_of(prepare("x", config_of(rsd="none", particles=None)))
    rows = len(open_catalogue(HALOS))
    assert rows * 16 < plan.bytes_to_read < rows * 16 + 8 * 4 * 32  # x y z mass, float32, and each block's checksum


def test_a_plan_that_does_not_fit_is_refused(client):
    plan = plan_of(prepare("x", config_of(boxes=1, cells=4096)))
    with pytest.raises(VelfieldError, match=r"does not fit into a worker: needed=.*; start fewer --workers"):
        check_fits(plan, client)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to paint"),
        (["--halos", PARTICLES], "wrong kind: halos=.* holds particles; name a catalogue of halos"),
        (["--halos", HALOS, "--min-mass", "1e17"], "no tracers left to paint: .*lower --min-mass"),
        (["--halos", HALOS, "--redshift", "0.5", "--max-shift", "0.5"], "carried too far .* raise --max-shift"),
        (["--halos", HALOS, "--boxsize", "300"], "does not agree on the boxsize: file=.*, given=300, in the file=512"),
        (["--halos", "nowhere"], "nowhere; check the path"),
        (["--halos", HALOS, "--validation", "1.5"], "out of range: validation=1.5"),
        (["--halos", HALOS, "--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(client, tmp_path, capfd, options, message):
    scheduler = ["--scheduler", client.scheduler.address]
    cut = ["--boxes", "2", "--cells", "8", "--rsd", "random_radial"]
    status = main(["paint", str(tmp_path / "f"), *cut, *scheduler, *options])
    captured = capfd.readouterr().err.splitlines()
    line = [text for text in captured if text.startswith("velfield: ")]
    assert status == 2
    assert len(line) == 1
    assert re.search(message, line[0])
    assert not any("Traceback" in text for text in captured)
