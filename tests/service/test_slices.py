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
from velfield.service import slices, volumes
from velfield.service.allowed import Allowed
from velfield.service.app import Service, create_app
from velfield.service.jobs import Job
from velfield.service.kept import Kept
from velfield.service.limits import Limits
from velfield.service.models import Models
from velfield.service.server import listen, server
from velfield.service.slices import Slices, Source
from velfield.service.volumes import Volume, put_together, span, stretches
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
    arrays["velocity_std"] = np.abs(arrays["velocity_std"])
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


def whole_of(values):
    """Boxes (box, …, x, y, z) side by side, by a loop."""
    side = BOXES.boxes * N
    whole = np.empty((*values.shape[1:-3], side, side, side), values.dtype)
    for box, one in enumerate(values):
        x, y, z = (N * place for place in BOXES.index(box))
        whole[..., x : x + N, y : y + N, z : z + N] = one
    return whole


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
    assert {"velocity", "velocity_std", "velocity_truth", "velocity_error", "velocity_flag"} < set(there["variables"])
    assert there["whole"]
    assert there["joined"]
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


@pytest.mark.parametrize(("axis", "number"), [("x", 0), ("y", 1), ("z", 2)])
@pytest.mark.parametrize(("most", "step"), [(18, 1), (17, 2)])
def test_a_plane_of_the_whole_parent_is_its_boxes_side_by_side(http, axis, number, most, step):
    name = http.get("/stores").json()["stores"][0]["id"]
    raw = arrays_of(BOXES)
    for variable, cells in {
        "velocity": raw["velocity"][CORE],
        "matter_number_overdensity": raw["matter_number"][CORE] / 8 - 1,
        "velocity_flag": raw["velocity_flag"][CORE],
    }.items():
        asked = {"variable": variable, "axis": axis, "index": 7, "most": most}
        found, about = numbers(http.get(f"/stores/{name}/slice", params=asked))
        plane = whole_of(cells).take(7, axis=number - 3)
        side = BOXES.boxes * N // step
        parts = plane.reshape(*plane.shape[:-2], side, step, side, step)
        want = parts.max(axis=(-3, -1)) if variable == "velocity_flag" else parts.mean(axis=(-3, -1))
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-4)  # float32 sums of four values of some 300
        assert (about["step"], about["cellsize"]) == (step, step * BOXES.cellsize)
        assert (about["side"], about["origin"], about["box"]) == (BOXES.boxsize, [0, 0, 0], None)
        assert about["position"] == 7.5 * BOXES.cellsize


def test_a_pixel_at_the_edge_is_what_is_left(http):
    name = http.get("/stores").json()["stores"][0]["id"]
    asked = {"variable": "velocity", "axis": "z", "index": 0, "most": 16}
    there = http.get(f"/stores/{name}/slice", params=asked)
    assert numbers(there)[0].shape == (3, 9, 9)
    values = np.arange(125, dtype="f4").reshape(5, 5, 5)
    values[0, 0, 0] = np.nan
    values[4] = np.nan
    found = put_together(values, (0, 0, 0), (2, 2, 2), "mean")[0]
    assert found.shape == (3, 3, 3)
    assert found[0, 0, 0] == np.nanmean(values[:2, :2, :2])
    assert found[1, 2, 2] == values[2:4, 4:, 4:].mean()
    assert np.isnan(found[2]).all()


def test_errors_are_put_together_by_their_squares(service, http, fields):
    made, raw = done(service, fields), arrays_of(BOXES)
    apart = whole_of(made["velocity"] - raw["velocity"][CORE])[..., 7]
    asked = {"variable": "velocity_error", "axis": "z", "index": 7}
    found, about = numbers(http.get(f"/jobs/{JOB}/slice", params=asked))
    np.testing.assert_array_equal(found, np.abs(apart))
    assert about["units"] == "km/s"
    for variable, values in {"velocity_error": apart, "velocity_std": whole_of(made["velocity_std"])[..., 7]}.items():
        found, _ = numbers(http.get(f"/jobs/{JOB}/slice", params=asked | {"variable": variable, "most": 17}))
        want = np.sqrt((values.astype("f8") ** 2).reshape(3, 9, 2, 9, 2).mean(axis=(2, 4)))
        np.testing.assert_allclose(found, want, rtol=1e-5)
    box, _ = numbers(http.get(f"/jobs/{JOB}/slice", params=asked | {"box": 4, "index": 1}))
    np.testing.assert_array_equal(box, np.abs(made["velocity"][4] - raw["velocity"][4][CORE])[..., 1])


def test_a_coarse_cube_of_the_whole_parent(service, http, fields):
    made = done(service, fields)
    found, about = numbers(http.get(f"/jobs/{JOB}/block", params={"variable": "velocity", "most": 4}))
    whole = whole_of(made["velocity"]).astype("f8")  # 18 cells: three pixels of 5 and one of 3
    edges = np.arange(0, 18, 5)
    want = whole
    for axis in (1, 2, 3):
        want = np.add.reduceat(want, edges, axis=axis)
    size = np.array([5, 5, 5, 3])
    want = want / (size[:, None, None] * size[:, None] * size)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-3)
    assert (about["step"], about["side"]) == (5, BOXES.boxsize)


@pytest.mark.parametrize(("margin", "chunk"), [(0, 4), (3, 4), (3, 5), (0, 12), (2, 16)])
def test_boxes_of_several_chunks_are_read_chunk_by_chunk(margin, chunk):
    """Each cell is read once, and never more than what one chunk holds."""
    cells, boxes = 12, 2
    whole = np.random.default_rng(2).normal(size=(boxes * cells,) * 3).astype("f4")
    read = []

    def one(box, cut):
        read.append(cut)
        for part in cut:
            assert (part.start + margin) // chunk == (part.stop - 1 + margin) // chunk
        corner = [cells * place for place in np.unravel_index(box, (boxes,) * 3)]
        return whole[tuple(slice(c + part.start, c + part.stop) for c, part in zip(corner, cut, strict=True))]

    volume = Volume(
        read=one,
        numbers=np.arange(boxes**3).reshape((boxes,) * 3),
        along=stretches(boxes, cells, margin, chunk),
        components=1,
        unpacked=1,
        together="mean",
    )
    np.testing.assert_array_equal(volume.coarse(1), whole)
    assert sum(np.prod([part.stop - part.start for part in cut]) for cut in read) == whole.size
    for index in (0, 11, 12, 17):
        first, end = volume.layer(index, 2)
        assert first <= index < end
        want = whole[:, first:end].reshape(12, 2, end - first, 12, 2).mean(axis=(1, 4))
        np.testing.assert_allclose(volume.planes(1, first, end, 2), want, rtol=1e-5, atol=1e-6)


def test_a_layer_is_of_bounded_size(monkeypatch):
    monkeypatch.setattr(volumes, "LAYER_BYTES", 5 * 24**2 * 4)
    volume = Volume(
        read=None,
        numbers=np.zeros((2, 2, 2), int),
        along=stretches(2, 12, 0, 12),
        components=1,
        unpacked=1,
        together="mean",
    )
    assert [volume.layer(i, 1) for i in (0, 3, 4, 11, 12, 23)] == [(0, 4), (0, 4), (4, 8), (8, 12), (12, 16), (20, 24)]


def test_how_far_values_reach():
    values = np.arange(1000, dtype="f4").reshape(1, -1)
    assert span(values) == tuple(np.percentile(values, [0.5, 99.5]))
    assert span(np.concatenate([values, 0 * values, 0 * values])) == (0, np.percentile(values, 99.5))
    assert span(np.full((1, 8), np.nan, "f4")) == (0, 0)


def test_how_far_the_whole_reaches_is_told_by_boxes_all_over_it(fields):
    _, about = Slices().plane(Source(fields=fields), "velocity", None, "z", 0)
    some = arrays_of(BOXES)["velocity"][CORE][[0, 4, 7, 11, 15, 19, 22, 26]]
    assert about["high"] == pytest.approx(np.percentile(np.sqrt((some.astype("f8") ** 2).sum(1)), 99.5))


def test_what_was_looked_at_is_kept_within_a_bound():
    made = []

    def get(key):
        return kept.get(key, lambda: made.append(key) or np.full(10, ord(key)))

    kept = Kept(2 * 80)
    for key in "aabacb":
        assert get(key)[0] == ord(key)
    assert made == ["a", "b", "c", "b"]


def test_what_two_ask_for_is_made_once_and_nobody_else_waits():
    kept, made, go = Kept(2**20), [], threading.Event()

    def slow():
        made.append(1)
        assert go.wait(60)
        return np.zeros(1)

    def fails():
        raise OSError("gone")

    threads = [threading.Thread(target=kept.get, args=("slow", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    kept.get("quick", lambda: np.zeros(1))
    go.set()
    for thread in threads:
        thread.join(60)
    assert made == [1]
    for _ in range(2):  # what could not be made is tried again
        with pytest.raises(OSError, match="gone"):
            kept.get("fails", fails)


def test_planes_of_a_layer_are_read_once(fields, monkeypatch):
    read = []
    planes = Volume.planes
    monkeypatch.setattr(Volume, "planes", lambda self, *a: read.append(a) or planes(self, *a))
    looked = Slices()
    for index in (0, 3, N - 1, N, 0):
        looked.plane(Source(fields=fields), "velocity", None, "x", index)
    assert [first for _, first, _, _ in read] == [0, N]


def test_a_store_that_was_painted_anew_is_read_anew(tmp_path):
    url, looked = str(tmp_path / "f"), Slices()
    store.write_fields(url, spec_of(BOXES), arrays_of(BOXES))
    first = looked.plane(Source(fields=url), "velocity", 0, "x", 0)[0]
    store.write_fields(url, spec_of(BOXES, fingerprint="other"), arrays_of(BOXES, seed=9))
    assert np.abs(looked.plane(Source(fields=url), "velocity", 0, "x", 0)[0] - first).max() > 1


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
        ({"index": N}, 422, f"no such plane: index={N}, cells={N}"),
        ({"box": None, "index": 3 * N}, 422, f"no such plane: index={3 * N}, cells={3 * N}"),
        ({"most": 257}, 422, "most: input should be less than or equal to 256"),
        ({"box": -1}, 422, "box: input should be greater than or equal to 0"),
        ({"axis": "w"}, 422, "axis: input should be 'x', 'y' or 'z'"),
        ({"variable": "../../etc/passwd"}, 422, "variable: input should be"),
        ({"variable": "velocity_std"}, 404, "no such variable here: variable=velocity_std"),
        ({"index": "1e3"}, 422, "index: input should be a valid integer"),
    ],
)
def test_what_is_not_there_is_said(http, change, status, says):
    name = http.get("/stores").json()["stores"][0]["id"]
    asked = {key: value for key, value in (ASKED | change).items() if value is not None}
    answer = http.get(f"/stores/{name}/slice", params=asked)
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


def test_what_is_too_much_to_read_is_refused_before_it_is_read(http, monkeypatch):
    monkeypatch.setattr(volumes, "UNPACKED_BYTES", 9 * 3 * 4 * (N + 2 * M) ** 3)  # a layer of nine boxes
    name = http.get("/stores").json()["stores"][0]["id"]
    whole = {"variable": "velocity", "axis": "z", "index": 0}
    assert http.get(f"/stores/{name}/slice", params=whole).status_code == 200
    answer = http.get(f"/stores/{name}/block", params={"variable": "velocity"})
    assert answer.status_code == 413
    assert "too much to read for one picture: bytes=" in answer.json()["error"]
    assert answer.json()["what_to_do"] == "look at one box of it, or read the store itself"
    assert http.get(f"/stores/{name}/block", params={"variable": "velocity", "box": 3}).status_code == 200
    monkeypatch.setattr(volumes, "SECONDS", -1.0)
    answer = http.get(f"/stores/{name}/slice", params=whole | {"index": N})
    assert answer.status_code == 413
    assert answer.json()["error"] == "too slow to read for one request: pieces=9, seconds=-1"


def test_boxes_with_observers_of_their_own_do_not_join(fields, tmp_path):
    about = Slices().about(Source(fields=fields))
    assert (about["joined"], about["observer"], about["line_of_sight"]) == (True, [10.0, 20.0, 30.0], None)
    each = np.random.default_rng(3).uniform(0, 90, (BOXES.nbox, 3))
    store.write_fields(str(tmp_path / "f"), spec_of(BOXES, observer=each, observer_per_box=True), arrays_of(BOXES))
    about = Slices().about(Source(fields=str(tmp_path / "f")))
    assert (about["whole"], about["joined"], about["observer"]) == (True, False, None)
    along = spec_of(BOXES, observer=None, rsd="plane_parallel", line_of_sight=np.tile([0.0, 0, 1], (BOXES.nbox, 1)))
    store.write_fields(str(tmp_path / "z"), along, arrays_of(BOXES))
    about = Slices().about(Source(fields=str(tmp_path / "z")))
    assert (about["observer"], about["line_of_sight"]) == (None, [0.0, 0.0, 1.0])


def test_boxes_that_do_not_fill_their_parent_are_no_whole(fields, monkeypatch):
    opened = store.open_fields
    monkeypatch.setattr(slices.store, "open_fields", lambda *a, **k: opened(*a, **k).isel(box=slice(0, 9)))
    slices._opened.cache_clear()
    looked = Slices()
    assert not looked.about(Source(fields=fields))["whole"]
    with pytest.raises(Exception, match="the boxes are not one whole"):
        looked.plane(Source(fields=fields), "velocity", None, "x", 0)
    slices._opened.cache_clear()


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
