"""Planes and coarse cubes: the numbers that lie in the stores, by an independent path, and what is refused."""

import json
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from served import LIMITS, until
from small_store import BOXES, arrays_of, spec_of

from velfield.files import shards
from velfield.service.allowed import Allowed
from velfield.service.app import Service, create_app
from velfield.service.jobs import Job
from velfield.service.limits import Limits
from velfield.service.models import Models
from velfield.service.server import listen, server
from velfield.service.slices import Boxes, Source, coarse, span
from velfield.stores import store, store_layout

M, N = BOXES.margin, BOXES.cells
CORE = (..., *[slice(M, M + N)] * 3)
JOB = "0123456789abcdef" * 2
TOKEN = "a-token-of-the-operator"


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("allowed") / "fields")
    store.write_fields(url, spec_of(BOXES), arrays_of(BOXES))
    return url


def write_made(url, fields):
    """A velocity store of these fields with arbitrary values."""
    with store.open_fields(fields, chunks=None) as ds:
        layout = store_layout.velocity_layout(
            ds, model={"error_bars": True}, source="f", fingerprint="ab", prediction={}
        )
    rng = np.random.default_rng(5)
    arrays = {n: rng.normal(0, 200, (layout.nbox, *v.shape)).astype("f4") for n, v in layout.variables.items()}
    arrays["velocity_flag"] = rng.integers(0, 3, arrays["velocity_flag"].shape).astype("u1")
    shards.create(url, layout)
    shards.publish(url, layout, shards.write_boxes(url, layout, range(layout.nbox), arrays))
    return arrays


class NoRunner:
    """Jobs stay as they are."""

    def start(self):
        pass

    stop = start

    def alive(self):
        return True


@contextmanager
def asking(fields, folder, tokens=()):
    """A service without models or Dask, and a client that asks it."""
    made = Service(
        models=Models([]), allowed=Allowed([fields]), limits=Limits(**LIMITS), folder=str(folder), tokens=tokens
    )
    made.runner = NoRunner()
    with listen("127.0.0.1", 0) as listening:
        http = server(create_app(made), "127.0.0.1", 0, 32)
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until(lambda: http.started, 60)
        port = listening.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield made, client
        http.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture
def both(fields, tmp_path):
    with asking(fields, tmp_path) as (service, client):
        service.jobs.submit(
            Job(id=JOB, model="m", input=fields, average=1, isolated=False, boxes=BOXES.nbox, cells=N, notes=[])
        )
        yield service, client


@pytest.fixture
def service(both):
    return both[0]


@pytest.fixture
def http(both):
    return both[1]


def numbers(answer):
    assert answer.status_code == 200, answer.text
    about = json.loads(answer.headers["velfield-array"])
    return np.frombuffer(answer.content, "<f4").reshape(about["shape"]), about


def done(service, fields):
    made = write_made(service.results.place(JOB), fields)
    service.jobs.move(service.jobs.get(JOB), "done")
    return made


@pytest.mark.parametrize(("axis", "number"), [("x", 0), ("y", 1), ("z", 2)])
def test_a_plane_of_a_store_is_what_lies_there(http, axis, number):
    name = http.get("/stores").json()["stores"][0]["id"]
    raw = arrays_of(BOXES)
    asked = {"box": 2, "axis": axis, "index": 4}
    for variable, expected in {
        "velocity": raw["velocity"],
        "velocity_flag": raw["velocity_flag"],
        "halo_number_overdensity": raw["halo_number"] / 0.5 - 1,
        "halo_mass_overdensity": raw["halo_mass"] / 2e12 - 1,
        "matter_number_overdensity": raw["matter_number"] / 8 - 1,
    }.items():
        found, about = numbers(http.get(f"/stores/{name}/slice", params=asked | {"variable": variable}))
        want = expected[2][CORE].take(4, axis=number - 3)
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-6)  # contrasts are rounded to float32 once
        assert [d for d in about["dims"] if d != "component"] == [d for d in "xyz" if d != axis]
        assert about["position"] == 4.5 * BOXES.cellsize
        np.testing.assert_array_equal(about["origin"], BOXES.origin(2))
    assert about["units"] == "1"


def test_a_job_has_its_result_and_what_it_was_given(service, http, fields):
    made, raw = done(service, fields), arrays_of(BOXES)
    there = http.get(f"/jobs/{JOB}/fields").json()
    assert {"velocity", "velocity_std", "velocity_truth", "velocity_flag"} < set(there["variables"])
    assert (there["boxes"], there["cells"]) == (BOXES.nbox, N)
    for variable, expected in {
        "velocity": made["velocity"][1],
        "velocity_std": made["velocity_std"][1],
        "velocity_truth": raw["velocity"][1][CORE],
    }.items():
        asked = {"variable": variable, "box": 1, "axis": "y", "index": 0}
        found, about = numbers(http.get(f"/jobs/{JOB}/slice", params=asked))
        np.testing.assert_array_equal(found, expected[:, :, 0])
        assert about["units"] == "km/s"
    asked = {"variable": "velocity_flag", "box": 1, "axis": "y", "index": 0}
    found, about = numbers(http.get(f"/jobs/{JOB}/slice", params=asked))
    np.testing.assert_array_equal(found, made["velocity_flag"][1][:, 0])
    assert about["meanings"] == ["known", "context_outside_parent", "outside_parent"]  # the result's own


def test_a_coarse_cube_is_means(service, http, fields):
    made = done(service, fields)
    found, about = numbers(http.get(f"/jobs/{JOB}/block", params={"variable": "velocity", "box": 0, "most": 3}))
    want = made["velocity"][0].reshape(3, 3, 2, 3, 2, 3, 2).mean(axis=(2, 4, 6))
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-3)  # float32 sums of eight values of some 200
    assert about["cellsize"] == 2 * BOXES.cellsize
    assert about["side"] == N * BOXES.cellsize


def test_means_leave_out_what_is_not_known():
    values = np.arange(125, dtype="f4").reshape(5, 5, 5)
    values[0, 0, 0] = np.nan
    values[4] = np.nan
    found = coarse(values, 2)
    assert found.shape == (3, 3, 3)
    assert found[0, 0, 0] == np.nanmean(values[:2, :2, :2])
    assert found[1, 2, 2] == values[2:4, 4:, 4:].mean()
    assert np.isnan(found[2]).all()


def test_how_far_values_reach():
    values = np.arange(1000, dtype="f4").reshape(10, 10, 10)
    assert span(values) == tuple(np.percentile(values, [0.5, 99.5]))
    assert span(np.stack([values, 0 * values, 0 * values])) == (0, np.percentile(values, 99.5))
    assert span(np.full((2, 2, 2), np.nan, "f4")) == (0, 0)


def test_boxes_that_were_looked_at_are_kept_within_a_bound(fields, monkeypatch):
    boxes = Boxes(10**6, kept_bytes=2 * 4 * N**3)
    read = []
    whole = Boxes._read
    monkeypatch.setattr(Boxes, "_read", lambda self, *a, **k: read.append(a[3]) or whole(self, *a, **k))
    for box in (0, 0, 1, 0, 2, 1):
        boxes.box(Source(fields=fields), "halo_number_overdensity", box)
    assert read == [0, 1, 2, 1]
    assert len(boxes._kept) == 2


def test_a_store_that_was_painted_anew_is_read_anew(tmp_path):
    url, boxes = str(tmp_path / "f"), Boxes(10**6)
    store.write_fields(url, spec_of(BOXES), arrays_of(BOXES))
    first = boxes.box(Source(fields=url), "velocity", 0).values
    store.write_fields(url, spec_of(BOXES, fingerprint="other"), arrays_of(BOXES, seed=9))
    assert np.abs(boxes.box(Source(fields=url), "velocity", 0).values - first).max() > 1


def test_an_input_that_is_another_now_is_not_shown_as_truth(service, http, fields):
    done(service, fields)
    with store.open_fields(fields, chunks=None) as ds:
        layout = store_layout.velocity_layout(
            ds.assign_attrs(fingerprint="what it was"), model={}, source="f", fingerprint="ab", prediction=None
        )
    place = service.results.place(JOB)
    shards.publish(place, layout, {})
    assert http.get(f"/jobs/{JOB}/fields").json()["variables"] == ["velocity"]


ASKED = {"variable": "velocity", "box": 0, "axis": "z", "index": 0}


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"box": 99}, 422, "no such box: box=99"),
        ({"index": N}, 422, f"no such plane: index={N}"),
        ({"box": -1}, 422, "box: input should be greater than or equal to 0"),
        ({"axis": "w"}, 422, "axis: input should be 'x', 'y' or 'z'"),
        ({"variable": "../../etc/passwd"}, 422, "variable: input should be"),
        ({"variable": "velocity_std"}, 404, "no such variable here: variable=velocity_std"),
        ({"index": "1e3"}, 422, "index: input should be a valid integer"),
    ],
)
def test_what_is_not_there_is_said(http, change, status, says):
    name = http.get("/stores").json()["stores"][0]["id"]
    answer = http.get(f"/stores/{name}/slice", params=ASKED | change)
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_no_place_of_the_clients_choosing(http):
    for name in ("0" * 16, "..%2F..%2Fetc", "x" * 16):
        answer = http.get(f"/stores/{name}/slice", params=ASKED)
        assert answer.status_code in (404, 422)
        assert set(answer.json()) >= {"error", "what_to_do"}


def test_a_job_that_is_not_done_has_nothing_to_look_at(http):
    answer = http.get(f"/jobs/{JOB}/slice", params=ASKED)
    assert answer.status_code == 409
    assert answer.json()["error"] == "the job has no result: state=queued"
    assert http.get(f"/jobs/{'f' * 32}/slice", params=ASKED).status_code == 404


def test_boxes_too_large_to_look_at_are_refused(service, http):
    service.boxes.most_cells = N**3
    name = http.get("/stores").json()["stores"][0]["id"]
    answer = http.get(f"/stores/{name}/slice", params=ASKED)  # its margin counts: it is read as well
    assert answer.status_code == 413
    assert "boxes too large to look at" in answer.json()["error"]


def test_flags_have_no_mean(http):
    name = http.get("/stores").json()["stores"][0]["id"]
    answer = http.get(f"/stores/{name}/block", params={"variable": "velocity_flag", "box": 0})
    assert answer.json()["error"] == "flags have no mean: variable=velocity_flag"


def test_a_token_is_asked_for_as_everywhere(fields, tmp_path):
    with asking(fields, tmp_path, tokens=[TOKEN]) as (_, http):
        known = {"Authorization": f"Bearer {TOKEN}"}
        name = http.get("/stores", headers=known).json()["stores"][0]["id"]
        for path in (f"/stores/{name}/slice", f"/stores/{name}/block", f"/stores/{name}/fields", f"/jobs/{JOB}/slice"):
            assert http.get(path, params=ASKED).status_code == 401
        assert http.get(f"/stores/{name}/slice", params=ASKED, headers=known).status_code == 200
