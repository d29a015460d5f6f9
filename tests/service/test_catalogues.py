"""Catalogues of halos as jobs: what `velfield predict` writes; what clients send is read apart and within bounds."""

import os
import threading
import time
from pathlib import Path

import astropy.io.fits
import h5py
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served import serving, until, write_model

from velfield.client.client import Client, ServiceError
from velfield.errors import VelfieldError
from velfield.pipelines import predict as predicting
from velfield.pipelines.predict_catalogue import from_catalogue
from velfield.service import painted
from velfield.service.apart import apart
from velfield.service.paint import Paint
from velfield.service.runner import StoppedError
from velfield.stores import store

SIDE = 120.0  # h⁻¹Mpc: 24 of the models' cells
NAMES = ["x", "y", "z", "vx", "vy", "vz", "mass"]
PAINT = {"boxsize": SIDE, "redshift": 0.212, "rsd": "random_radial", "min_mass": 1e12, "velocity": "proper"}
HOW = {"boxsize": SIDE, "redshift": 0.212, "rsd": "random_radial", "min_mass": 1e12, "halo_velocity": "proper"}


def halos(seed=1, count=4000):
    rng = np.random.default_rng(seed)
    columns = [*rng.uniform(0, SIDE, (3, count)), *rng.normal(0, 200, (3, count)), 10 ** rng.uniform(11.8, 14, count)]
    return dict(zip(NAMES, columns, strict=True))


def csv(path, columns):
    np.savetxt(path, np.stack(list(columns.values()), axis=1), fmt="%.17g", delimiter=",", header=",".join(NAMES),
               comments="")  # fmt: skip


def parquet(path, columns):
    pq.write_table(pa.table(columns), path)


def fits(path, columns):
    made = [astropy.io.fits.Column(name, "D", array=values) for name, values in columns.items()]
    astropy.io.fits.BinTableHDU.from_columns(made).writeto(path)


def hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[f"halos/{name}"] = values


WRITERS = {".csv": csv, ".parquet": parquet, ".fits": fits, ".hdf5": hdf5}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("catalogues")
    csv(root / "halos.csv", halos())
    return root


@pytest.fixture(scope="module")
def service(models, fields, root, cluster, tmp_path_factory):
    dark = str(tmp_path_factory.mktemp("models") / "dark")
    write_model(dark, fields, kinds=("matter_overdensity", "number_overdensity"))
    with serving(tmp_path_factory.mktemp("state"), [*models, dark], cluster, allow=[str(root), fields]) as service:
        yield service


@pytest.fixture(scope="module")
def expected(models, root, cluster, tmp_path_factory):
    """What `velfield predict` makes of the catalogue."""
    out = str(tmp_path_factory.mktemp("expected") / "v")
    work = from_catalogue(models[0], str(root / "halos.csv"), out, boxes=None, cells=None, paint=HOW, options={})
    assert predicting.predict(cluster(), work.painted(cluster(), predicting.Silent()))
    return store.open_velocity(out, chunks=None)


def same(found, expected):
    for name in expected.data_vars:
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_array_equal(found["origin"], expected["origin"])


@pytest.mark.parametrize(
    "end", [".csv", *(pytest.param(end, marks=pytest.mark.slow) for end in WRITERS if end != ".csv")]
)
def test_a_catalogue_that_is_sent(client, service, expected, tmp_path, end):
    table = str(tmp_path / f"halos{end}")
    WRITERS[end](table, halos())
    name = client.upload_catalogue(table)
    assert client.upload_catalogue(table) == name
    job = client.submit("plain", name, paint=PAINT)
    status = client.wait(job, timeout=240, every=0.05)
    assert (status["boxes"], status["cells"], status["stage"]) == (27, 8, "blend tiles")
    assert status["paint"]["min_mass"] == 1e12
    same(client.open(job), expected)
    assert client.open(job).attrs["input"] == name
    assert service.folder not in str(client.open(job).attrs)
    assert not Path(service.results.place(job) + ".fields").exists()
    assert client.submit("plain", name, paint=PAINT) == job
    other = client.submit("plain", name, paint=PAINT | {"min_mass": 2e12})
    assert other != job
    client.cancel(other)


@pytest.mark.slow
def test_a_catalogue_that_is_named(client, root, expected):
    job = client.submit("plain", str(root / "halos.csv"), paint=PAINT | {"boxes": 3, "cells": 8})
    client.wait(job, timeout=240, every=0.05)
    np.testing.assert_array_equal(client.open(job)["velocity"], expected["velocity"])
    found = client.query(job, [[60.0, 60, 60]])
    assert found["flag"][0] == 0


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"boxsize": 121.0}, 422, "the parent is not cut into the model's cells: boxsize=121, cellsize=5"),
        ({"boxes": 3}, 422, "one of two is missing: boxes=3, cells=None"),
        ({"boxes": 2, "cells": 8}, 422, "cells of another size: cellsize=7.5, the model's=5"),
        ({"boxes": 10, "cells": 8, "boxsize": 400.0}, 413, "a parent of too many cells: cells=80 a side, limit=64"),
        ({"boxes": 1024, "cells": 2}, 413, "it takes more memory than it may"),
        ({"redshift": None}, 422, "the redshift is not known"),
        ({"column": ["x=none"]}, 422, "column=none"),
        ({"rsd": "sideways"}, 422, "paint.rsd: input should be"),
        ({"rsd": None}, 422, "it is not said whether halos are in redshift space: give rsd: none (positions"),
        ({"line_of_sight": "x"}, 422, "no single line of sight: rsd=random_radial, line_of_sight=x"),
        ({"halos": "/etc/passwd"}, 422, "paint.halos: extra inputs are not permitted"),
        ({"cosmology": {"omega_m": 0.3}}, 422, "paint.cosmology.omega_b: field required"),
    ],
)
def test_what_cannot_be_painted_is_refused(service, root, change, status, said, monkeypatch):
    monkeypatch.setattr(painted, "MEMORY", 2**29)
    asked = {"model": "plain", "input": str(root / "halos.csv"), "paint": PAINT | change}
    answer = httpx.post(f"{service.url}/jobs", json=asked, timeout=120)
    assert answer.status_code == status, answer.text
    assert said.lower() in answer.json()["error"].lower()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "dark"}, "no such field"),
        ({"paint": PAINT | {"rsd": "plane_parallel"}, "average": 48}, "no such number of orientations: average=48"),
    ],
)
def test_what_would_fail_once_it_is_painted_is_refused(service, root, asked, said):
    before = service.jobs.all()
    whole = {"model": "plain", "input": str(root / "halos.csv"), "paint": PAINT} | asked
    answer = httpx.post(f"{service.url}/jobs", json=whole, timeout=120)
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["error"]
    assert str(root.parent) not in answer.json()["error"].replace(str(root), "")
    assert service.jobs.all() == before


def test_what_the_model_was_not_trained_for_is_noted_when_it_is_asked_for(service, root):
    """As `velfield predict` does; how dense the halos are is known once they are painted."""
    far = Paint(**PAINT | {"redshift": 1.5, "rsd": "none", "min_mass": 5e12})
    for model, names in (("plain", ("redshift", "rsd", "min_mass")), ("guided", ("redshift", "rsd"))):
        notes = service.runner.asked(model, str(root / "halos.csv"), 1, False, far).notes
        for name in names:
            assert any(note.startswith(f"the model was trained at {name}=") for note in notes), (model, notes)
        assert not any("density" in note for note in notes)


def test_stores_and_catalogues_are_not_taken_for_each_other(client, fields, root, tmp_path):
    with pytest.raises(ServiceError, match=r"a catalogue: input=upload:.*; say how it is painted"):
        client.submit("plain", client.upload_catalogue(str(root / "halos.csv")))
    for given in (fields, "upload:" + "0" * 32, str(tmp_path)):
        with pytest.raises(ServiceError) as caught:
            client.submit("plain", given, paint=PAINT)
        assert caught.value.http_status == 422
    with pytest.raises(ServiceError) as caught:
        client.submit("plain", str(root / "halos.csv"))
    assert caught.value.http_status == 422
    with pytest.raises(VelfieldError, match="not a table: table="):
        client.upload_catalogue("halos.txt")


def linked(h5py, file):
    file["halos/x"] = h5py.ExternalLink("/etc/passwd", "/x")


def stored_elsewhere(_, file):
    file.create_dataset("halos/x", shape=(4,), dtype="u1", external=[("/etc/passwd", 0, 4)])


def virtual(h5py, file):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("/tmp/other.hdf5", "x", shape=(4,))
    file.create_virtual_dataset("halos/x", layout)


@pytest.mark.parametrize("make", [linked, stored_elsewhere, virtual])
def test_hdf5_whose_values_lie_elsewhere(client, tmp_path, make):
    with h5py.File(tmp_path / "in.hdf5", "w") as file:
        for name in NAMES[1:]:
            file[f"halos/{name}"] = np.ones(4)
        make(h5py, file)
    name = client.upload_catalogue(str(tmp_path / "in.hdf5"))
    with pytest.raises(ServiceError, match=r"what lies elsewhere is not read: name='.*x'"):
        client.submit("plain", name, paint=PAINT)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"HACC01B" + bytes(200), "file="),
        (b"PAR1" + b"\xff" * 4 + b"PAR1", "cannot be read as Parquet"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "cannot be read as HDF5"),
        (b"SIMPLE  =                    T", "file="),
        (b"nothing at all", "file="),
    ],
)
def test_hostile_catalogues(client, service, tmp_path, body, said):
    (tmp_path / "in.csv").write_bytes(body)
    name = client.upload_catalogue(str(tmp_path / "in.csv"))
    with pytest.raises(ServiceError, match=said) as caught:
        client.submit("plain", name, paint=PAINT)
    assert caught.value.http_status == 422
    assert service.folder not in str(caught.value)
    assert name in str(caught.value)


def test_rows_that_make_no_sense_fail_the_job_before_any_worker_sees_them(client, service, tmp_path):
    columns = halos()
    columns["vx"][17] = np.nan
    csv(tmp_path / "in.csv", columns)
    job = client.submit("plain", client.upload_catalogue(str(tmp_path / "in.csv")), paint=PAINT)
    with pytest.raises(ServiceError, match=r"state=failed; .*vx"):
        client.wait(job, timeout=120, every=0.05)
    assert not os.path.exists(service.results.place(job) + ".fields")
    assert client.status(job)["stage"] == "read the catalogue"


@pytest.mark.slow
def test_a_stopped_service_goes_on_with_what_is_painted(models, root, cluster, expected, tmp_path, monkeypatch):
    given, real, painted_once = str(root / "halos.csv"), predicting.predict, threading.Event()

    def stopped(*_):
        painted_once.set()
        until(lambda: service.runner._ending.is_set(), 60)
        raise StoppedError("the service ends; start it again")

    with serving(tmp_path, models[:1], cluster, allow=[str(root)]) as service, Client(service.url) as client:
        monkeypatch.setattr(predicting, "predict", stopped)
        job = client.submit("plain", given, paint=PAINT)
        until(painted_once.is_set, 120)
    fields = Path(service.results.place(job) + ".fields")
    written = (fields / "zarr.json").stat().st_mtime_ns
    monkeypatch.setattr(predicting, "predict", real)
    seen, clear = [], painted.FromCatalogue.clear

    def noted(self):
        seen.append((fields / "zarr.json").stat().st_mtime_ns)
        clear(self)

    monkeypatch.setattr(painted.FromCatalogue, "clear", noted)
    with serving(tmp_path, models[:1], cluster, allow=[str(root)]) as service, Client(service.url) as client:
        client.wait(job, timeout=240, every=0.05)
        same(client.open(job), expected)
    assert seen == [written]  # not painted again
    assert not fields.exists()


def test_what_is_cancelled_leaves_no_fields(models, root, cluster, tmp_path, monkeypatch):
    begun = threading.Event()
    real = painted.FromCatalogue.painted

    def slowly(self, client, progress):
        made = real(self, client, progress)
        begun.set()
        until(lambda: service.jobs.get(job).state == "cancelling", 60)
        progress.advance(0)
        return made

    monkeypatch.setattr(painted.FromCatalogue, "painted", slowly)
    with serving(tmp_path, models[:1], cluster, allow=[str(root)]) as service, Client(service.url) as client:
        name = client.upload_catalogue(str(root / "halos.csv"))
        job = client.submit("plain", name, paint=PAINT)
        until(begun.is_set, 120)
        assert os.path.exists(service.results.place(job) + ".fields")
        client.cancel(job)
        until(lambda: client.status(job)["state"] == "cancelled", 60)
        assert not os.path.exists(service.results.place(job) + ".fields")


@pytest.mark.parametrize("asked", ["cancelled", "stopped"])
def test_reading_a_catalogue_ends_at_once(models, root, cluster, tmp_path, monkeypatch, asked):
    begun, slept = threading.Event(), threading.Event()

    def for_long(function, *arguments, **how):
        if function is not painted.read_through:
            return apart(function, *arguments, **how)
        begun.set()
        apart(time.sleep, 600, **how)
        slept.set()

    monkeypatch.setattr(painted, "apart", for_long)
    with serving(tmp_path, models[:1], cluster) as service, Client(service.url) as client:
        job = client.submit("plain", client.upload_catalogue(str(root / "halos.csv")), paint=PAINT)
        until(begun.is_set, 120)
        assert client.status(job)["stage"] == "read the catalogue"
        if asked == "cancelled":
            client.cancel(job)
            until(lambda: client.status(job)["state"] == "cancelled", 120)
        else:
            service.runner.stop()
            assert client.status(job)["state"] == "running"  # for the next start
        assert not slept.is_set()  # it was ended
        assert not service.runner.alive() or asked == "cancelled"


def test_a_catalogue_that_nobody_uses_expires(models, root, cluster, tmp_path):
    with serving(tmp_path, models[:1], cluster, keep=1.0) as service, Client(service.url) as client:
        client.upload_catalogue(str(root / "halos.csv"))
        until(lambda: not [p for p in Path(service.uploads.folder).iterdir() if not p.name.startswith(".")], 60)
