"""Velocities at positions over HTTP: the bytes that `velfield query` writes, made within limits."""

import io
import multiprocessing
import os
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from served import serving
from test_queries import OBSERVER, linear
from test_query_table import arrow_table, fits_table, parquet_table, text_table
from velocity_stores import written

import velfield as vf
from velfield.answers.query_table import query_table
from velfield.client.client import ServiceError
from velfield.errors import VelfieldError
from velfield.service import queries
from velfield.service.apart import apart
from velfield.service.jobs import Job
from velfield.service.problems import Problem

JOB = "0123456789abcdef" * 2
FORMS = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "fits": "application/fits",
    "arrow": "application/vnd.apache.arrow.stream",
}
TABLES = {"csv": text_table, "parquet": parquet_table, "fits": fits_table, "arrow": arrow_table}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Velocity stores that may be named: one with error bars, one that an observer looks at."""
    root = tmp_path_factory.mktemp("allowed")
    written(str(root / "plain.zarr"), linear, std=30.0, periodic=False)
    observer = np.tile(OBSERVER, (8, 1))
    written(str(root / "seen.zarr"), lambda pos: 0.1 * linear(pos), rsd="random_radial", observer=observer)
    return root


@pytest.fixture(scope="module")
def service(root, models, cluster, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("state"), models[:1], cluster, allow=[str(root)]) as service:
        service.jobs.submit(
            Job(id=JOB, model="m", input="x", average=1, isolated=False, boxes=8, cells=6, notes=[], state="done")
        )
        written(service.results.place(JOB), linear, std=30.0, periodic=False)
        yield service


@pytest.mark.parametrize("form", list(TABLES))
@pytest.mark.parametrize("of", ["job", "store"])
def test_a_table_comes_back_as_velfield_query_writes_it(service, client, root, tmp_path, form, of):
    table, out, store = TABLES[form](tmp_path), str(tmp_path / f"out.{form}"), str(root / "plain.zarr")
    counts = query_table(store, table, out)
    asked = {"url": service.results.place(JOB), "path": f"/jobs/{JOB}"}
    if of == "store":
        (name,) = (one["id"] for one in client.stores("velocity") if one["url"] == store)
        asked = {"url": store, "path": f"/stores/{name}"}
    body = Path(table).read_bytes()
    answer = httpx.post(
        f"{service.url}{asked['path']}/query", content=body, headers={"Content-Type": FORMS[form]}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert answer.content == Path(out).read_bytes()
    assert answer.headers["Content-Type"].partition(";")[0] == FORMS[form]
    assert client.query_table(asked["url"] if of == "store" else JOB, table, out) == {"rows": 4, **counts}
    assert answer.content == Path(out).read_bytes()
    assert not os.listdir(service.queries.folder)


QUESTIONS = [
    {},
    {"extrapolate": True},
    {"space": "redshift", "max_shift": 5.0},
    {"coordinates": "sky", "space": "redshift"},
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_arrays_are_answered_as_velfield_query_answers_them(client, root, question):
    store = str(root / "seen.zarr")
    rng = np.random.default_rng(4)
    positions = rng.uniform(-10, 130, (400, 3))
    if question.get("coordinates") == "sky":
        positions = np.stack([rng.uniform(0, 360, 400), rng.uniform(-90, 90, 400), rng.uniform(0, 0.03, 400)], axis=1)
    positions[7, 1] = np.nan
    found, expected = client.query(store, positions, **question), vf.query(store, positions, **question)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    assert (found["flag"] == 0).any()
    assert found["flag"][7] == 16


def test_parts_and_no_positions_at_all(client, root, monkeypatch):
    store = str(root / "plain.zarr")
    assert client.query(store, np.empty((0, 3)))["velocity"].shape == (0, 3)
    positions = np.random.default_rng(1).uniform(0, 120, (5000, 3))  # more than a part's rows, in this process
    whole, how = vf.query(store, positions), queries.Question().model_dump()
    monkeypatch.setattr(queries, "ROWS", 1000)
    folder = Path(store).parent
    np.savez(folder / "in.npz", **dict(zip("xyz", positions.T, strict=True)))
    counts = queries.answer(store, str(folder / "in.npz"), str(folder / "out.npz"), queries.NPZ, how, 5000)
    with np.load(folder / "out.npz") as found:
        np.testing.assert_array_equal(found["velocity"], whole["velocity"])
    assert counts["rows"] == 5000


def test_columns_units_prefix_and_extension(client, root, tmp_path):
    store, table = str(root / "plain.zarr"), tmp_path / "in.csv"
    table.write_text("X [Mpc],y,z,vx\n28.16901408450704,30,40,1\n")  # 20 Mpc/h at h = 0.71
    counts = client.query_table(store, str(table), str(tmp_path / "out.csv"), columns={"x": "X"}, prefix="new_")
    title, row = (tmp_path / "out.csv").read_text().splitlines()
    assert title.startswith("X [Mpc],y,z,vx,new_vx,new_vy")
    assert float(row.split(",")[4]) == pytest.approx(linear(np.array([20.0, 30, 40]))[0], rel=1e-6)
    assert counts["good"] == 1
    client.query_table(store, fits_table(tmp_path), str(tmp_path / "out.fits"), extension="GALS")
    with pytest.raises(ServiceError, match=r"which table is not clear: file=table\.fits, table=NONE"):
        client.query_table(store, str(tmp_path / "in.fits"), str(tmp_path / "out.fits"), extension="NONE")
    with pytest.raises(VelfieldError, match="not two tables of one form: "):
        client.query_table(store, str(table), str(tmp_path / "out.fits"))
    with pytest.raises(VelfieldError, match=r"positions of the wrong shape: positions=\(3,\)"):
        client.query(store, [1, 2, 3])
    with pytest.raises(VelfieldError, match="no such job or store: where=/etc"):
        client.query("/etc", [[1, 2, 3]])


def test_what_a_store_has_no_answer_to(service, client, root):
    with pytest.raises(ServiceError, match=r"no sky to look at, it has no observer: store=[0-9a-f]{16}, rsd=none"):
        client.query(str(root / "plain.zarr"), [[1, 2, 3]], coordinates="sky")
    service.jobs.submit(
        Job(id="f" * 32, model="m", input="x", average=1, isolated=False, boxes=8, cells=6, notes=[])
    )  # of a service without jobs to run: it stays as it is, or fails
    with pytest.raises(ServiceError, match="the job has no result") as caught:
        client.query("f" * 32, [[1, 2, 3]])
    assert caught.value.http_status == 409


def test_stores_of_both_kinds_are_listed_and_looked_at(client, root):
    assert {about["kind"] for about in client.stores()} == {"velocity"}
    assert not client.stores("fields")
    store = str(root / "plain.zarr")
    assert client.fields(store)["variables"] == ["velocity", "velocity_flag", "velocity_std"]
    found = client.slice(store, "velocity", box=3, axis="y", index=2)
    assert found.dims == ("component", "x", "z")
    place = np.array(found.attrs["origin"])
    x, z = np.meshgrid(found["x"] + place[0], found["z"] + place[2], indexing="ij")
    want = linear(np.stack([x, np.full_like(x, place[1] + found.attrs["position"]), z]))
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-4)  # float32 of some 300 km/s
    whole = client.slice(store, "velocity", box=None, axis="y", index=2)
    assert whole.sizes["x"] == whole.sizes["z"] == 2 * found.sizes["x"]
    side = found.sizes["x"]
    corner = client.slice(store, "velocity", box=0, axis="y", index=2)
    np.testing.assert_array_equal(whole[:, :side, :side], corner)
    coarse = client.block(store, "velocity_std", box=0, most=3)
    assert coarse.sizes == {"component": 3, "x": 3, "y": 3, "z": 3}
    assert (coarse == 30).all()
    assert coarse.attrs["units"] == "km/s"


def test_the_rest_of_the_clients_routes(service, client):
    assert client.health()["status"] == "alive"
    assert client.ready()["ready"] is True
    assert client.model("plain")["name"] == "plain"
    assert JOB in [job["id"] for job in client.jobs()]
    before = service.metrics.positions._value.get()
    client.query(JOB, np.ones((12, 3)))
    assert f"velfield_queried_positions_total {before + 12}" in client.metrics()


def test_a_query_that_takes_too_long(service, client, monkeypatch):
    monkeypatch.setattr(queries, "SECONDS", 0.001)
    with pytest.raises(ServiceError, match=r"it takes too long: seconds=0\.001"):
        client.query(JOB, [[1, 2, 3]])
    assert not os.listdir(service.queries.folder)


def test_a_process_apart_is_held_to_its_limits():
    how = {"memory": 2**27, "seconds": 60, "names": {}}
    assert apart(len, "abc", **how) == 3
    with pytest.raises(Problem, match="it takes more memory than it may: bytes=134217728") as caught:
        apart(bytearray, 2**28, **how)
    assert caught.value.status == 413
    with pytest.raises(Problem, match="what was sent ended the process that read it: exit=7") as caught:
        apart(os._exit, 7, **how)
    assert caught.value.status == 422
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        apart(divmod, 1, 0, **how)


def test_a_process_apart_ends_when_it_is_not_to_go_on():
    seen = []

    def check():
        seen.extend(child.pid for child in multiprocessing.active_children() if child.name.startswith("ForkServer"))
        if len(seen) > 1:
            raise VelfieldError("not to go on: asked=2; ask again")

    with pytest.raises(VelfieldError, match="not to go on"):
        apart(time.sleep, 600, memory=2**27, seconds=600, names={}, check=check)
    assert len(seen) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_answers_are_streamed():
    file = io.BytesIO(b"a" * (queries.PIECE + 5))
    assert [len(block) for block in queries.blocks(file)] == [queries.PIECE, 5]


def test_waiting_outlives_a_restart(monkeypatch):
    gone, running, done = ServiceError("the service does not answer"), {"state": "running"}, {"state": "done"}

    def telling(*answers):
        left = iter(answers)

        def status(_):
            if isinstance(found := next(left), Exception):
                raise found
            return found

        monkeypatch.setattr(client, "status", status)

    with vf.Client("http://127.0.0.1:1", patience=60) as client:
        telling(gone, running, gone, gone, done)
        assert client.wait("a", every=0) == done
        telling(gone, ServiceError("no such job", 404), done)
        with pytest.raises(ServiceError, match="no such job"):
            client.wait("a", every=0)
        telling(gone, gone)
        with pytest.raises(ServiceError, match=r"not done yet: .*state=not known, the service does not answer"):
            client.wait("a", every=0, timeout=-1)
        client.patience = -1.0
        with pytest.raises(ServiceError, match="does not answer"):
            client.wait("a", every=0)
