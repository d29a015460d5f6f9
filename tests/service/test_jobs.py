"""Jobs: the same request is the same job; results over HTTP; cancelled, expired, refused; none lost in a restart."""

import hashlib
import io
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import xarray as xr
from served import ABOUT, cube, process, serving, until
from small_store import arrays_of, spec_of

from velfield.client.client import Client, ServiceError
from velfield.geometry.boxes import BoxLayout
from velfield.network.model import load_model
from velfield.pipelines import predict as job_of
from velfield.stores import store


@pytest.fixture(scope="module")
def done(service, fields):
    """A job of the shared service that is done."""
    with Client(service.url) as client:
        job = client.submit("plain", fields, isolated=True)
        status = client.wait(job, timeout=240, every=0.1)
    return job, status


def post(service, given, model="plain", **more):
    return httpx.post(f"{service.url}/jobs", json={"model": model, "input": given} | more, timeout=60)


def test_a_store_becomes_a_store(client, fields, models, done):
    job, status = done
    assert (status["boxes"], status["cells"], status["stage"], status["state"]) == (27, 8, "predict", "done")
    assert (status["done"], status["total"], status["unit"]) == (27, 27, "boxes")
    found = client.open(job)
    expected = load_model(models[0], "cpu").predict(store.open_fields(fields))
    for name in ("velocity", "velocity_std"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-2)  # float32 sums in other batches
    np.testing.assert_array_equal(found["origin"], expected["origin"])
    assert found.attrs["input"] == fields
    assert str(Path(models[0]).parent) not in str(found.attrs)


def test_plain_xarray_opens_it_and_fetches_ranges(service, done):
    url = f"{service.url}/jobs/{done[0]}/store"
    ds = xr.open_zarr(url, chunks=None)
    assert np.isfinite(ds["velocity"].isel(box=13)).all()
    part = httpx.get(f"{url}/zarr.json", headers={"Range": "bytes=0-9"})
    whole = httpx.get(f"{url}/zarr.json")
    assert (part.status_code, part.content) == (206, whole.content[:10])
    end = httpx.get(f"{url}/velocity/c/0/0/0/0/0", headers={"Range": "bytes=-4"})
    assert (end.status_code, len(end.content)) == (206, 4)
    assert httpx.head(f"{url}/zarr.json").headers["Content-Length"] == str(len(whole.content))
    for key in ("none", ".work", "velocity/%2e%2e/zarr.json", "velocity", "", "zarr.json/"):
        assert httpx.get(f"{url}/{key}").status_code == 404, key


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_result_as_one_file(client, done, tmp_path):
    ds = client.open(done[0])
    client.download(done[0], str(tmp_path / "v.npz"))
    client.download(done[0], str(tmp_path / "v.nc"))
    with np.load(tmp_path / "v.npz", allow_pickle=False) as found:
        np.testing.assert_array_equal(found["velocity_std"], ds["velocity_std"])
    with xr.open_dataset(tmp_path / "v.nc", engine="scipy") as found:
        np.testing.assert_array_equal(found["velocity"], ds["velocity"])
        np.testing.assert_allclose(
            found["origin"] * store.cosmology_of(ds).h, ds["origin"], rtol=1e-12
        )  # megaparsec, without h
        assert found["velocity"].attrs["units"] == "km/s"
    with pytest.raises(Exception, match="not a kind of file that a result has"):
        client.download(done[0], str(tmp_path / "v.fits"))


def test_the_same_request_is_the_same_job(service, fields, done):
    again = post(service, fields, isolated=True)
    assert (again.status_code, again.json()["id"]) == (200, done[0])
    assert post(service, fields + "/", isolated=True).json()["id"] == done[0]
    other = post(service, fields)  # as one whole
    assert other.status_code == 202
    assert other.headers["Location"] == f"/jobs/{other.json()['id']}"
    assert other.json()["id"] != done[0]
    httpx.post(f"{service.url}/jobs/{other.json()['id']}/cancel")


def test_an_upload_is_what_is_answered_at_once(client):
    arrays = cube(seed=3)
    name = client.upload(arrays, **ABOUT)
    assert client.upload(arrays, **ABOUT) == name
    assert client.upload(arrays, **ABOUT | {"redshift": 0.3}) != name
    job = client.submit("plain", name)
    client.wait(job, timeout=240, every=0.1)
    at_once = client.predict("plain", arrays, **ABOUT)
    np.testing.assert_allclose(client.open(job)["velocity"][0], at_once["velocity"], rtol=0, atol=1e-3)  # threads
    assert client.open(job).attrs["input"] == name


def test_what_does_not_fit_is_refused_at_once(service, client, tmp_path):
    with pytest.raises(ServiceError, match="no such model; choose plain, guided") as caught:
        client.submit("none", "upload:" + "0" * 32)
    assert caught.value.http_status == 404
    name = client.upload(cube(), **ABOUT | {"cellsize": 4.0})
    with pytest.raises(ServiceError, match="the store does not fit the model: cellsize=4"):
        client.submit("plain", name)
    answer = post(service, str(tmp_path))
    assert answer.status_code == 422


def test_stores_are_listed(client, fields, models, cluster, tmp_path):
    (found,) = client.stores()
    assert (found["url"], found["cells"], found["boxes"]) == (fields, 8, 3)
    with (
        serving(tmp_path, models[:1], cluster, allow=[str(Path(fields).parent)]) as service,
        Client(service.url) as c,
    ):
        assert [about["url"] for about in c.stores()] == [fields]


def slow(monkeypatch, seconds=0.3):
    """Have each job's first word take a while, so that there is time to look at it."""
    real = job_of.predict

    def waiting(client, job, progress):
        time.sleep(seconds)
        return real(client, job, progress)

    monkeypatch.setattr(job_of, "predict", waiting)


def test_a_full_queue_says_when_to_come_again(models, cluster, tmp_path, monkeypatch):
    slow(monkeypatch, 2.0)
    with serving(tmp_path, models[:1], cluster, queue=2) as service, Client(service.url, patience=0) as client:
        names = [client.upload(cube(seed), **ABOUT) for seed in range(5)]
        answers = [post(service, name) for name in names]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert refused[0].headers["Retry-After"] == "60"
        assert "the queue is full: jobs=2" in refused[0].json()["error"]
        waiting = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        assert len(waiting) in (2, 3)
        with pytest.raises(ServiceError, match=rf"the job is not over: state=queued; POST /jobs/{waiting[-1]}/cancel"):
            client.remove(waiting[-1])
        assert client.cancel(waiting[-1])["state"] == "cancelled"
        with pytest.raises(ServiceError, match=r"the job has no result: .* state=cancelled"):
            client.wait(waiting[-1])
        assert httpx.get(f"{service.url}/jobs/{waiting[-1]}/store/zarr.json").status_code == 409
        running = client.cancel(waiting[0])
        assert running["state"] in ("cancelling", "cancelled")
        until(lambda: client.status(waiting[0])["state"] == "cancelled", 240)
        assert not (tmp_path / "results" / waiting[0]).exists()
        before = client.status(waiting[0])
        assert client.cancel(waiting[0]) == before  # it is over: nothing changes
        assert client.status(waiting[0]) == before
        assert client.remove(waiting[0]) == before
        assert httpx.get(f"{service.url}/jobs/{waiting[0]}").status_code == 404
        client.wait(waiting[1], timeout=120) if len(waiting) == 3 else None


def test_results_and_uploads_expire(models, cluster, tmp_path):
    with serving(tmp_path, models[:1], cluster, keep=2.0) as service, Client(service.url) as client:
        job = client.submit("plain", client.upload(cube(), **ABOUT))
        client.wait(job, timeout=120, every=0.05)
        assert (tmp_path / "results" / job / "zarr.json").exists()
        until(lambda: httpx.get(f"{service.url}/jobs/{job}").status_code == 404, 60)
        until(lambda: not (tmp_path / "results" / job).exists(), 60)
        until(lambda: not [p for p in (tmp_path / "uploads").iterdir() if not p.name.startswith(".")], 60)
        assert not list((tmp_path / "jobs").glob("*.json"))


def test_uploads_have_their_space(models, cluster, tmp_path):
    with serving(tmp_path, models[:1], cluster, space=6000.0) as service, Client(service.url, patience=0) as client:
        client.upload(cube(), **ABOUT)
        with pytest.raises(ServiceError, match="no space for uploads: bytes="):
            client.upload(cube(1), **ABOUT)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_a_killed_service_goes_on_with_all_its_jobs(models, cluster, tmp_path):
    """Killed while one job runs and others wait; started again, all end, and their bytes are those of one that ran."""
    boxes = BoxLayout(boxsize=320.0, boxes=4, cells=16)
    given = []
    (tmp_path / "in").mkdir()
    for seed in range(3):
        given.append(str(tmp_path / "in" / f"fields-{seed}"))
        store.write_fields(given[-1], spec_of(boxes, fingerprint=f"f{seed}"), arrays_of(boxes, seed))
    state, url = tmp_path / "state", models[0]
    options = (url, "--allow", str(tmp_path / "in"), "--workers", "1")
    with process(state, *options) as (running, address), Client(address) as client:
        jobs = [client.submit("plain", one, isolated=True) for one in given]
        first = state / "results" / jobs[0]
        until(lambda: any((first / ".work").glob("*/shards/*.json")), 240)
        running.send_signal(signal.SIGKILL)
        running.wait()
    receipts = {path: path.stat().st_mtime_ns for path in first.glob("velocity/c/*/0/0/0/0")}
    assert receipts
    with process(state, *options) as (running, address), Client(address) as client:
        assert [one["id"] for one in client._json("GET", "/jobs")["jobs"]] == jobs
        for job in jobs:
            assert client.wait(job, timeout=240)["boxes"] == 64
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=90) in (0, -signal.SIGTERM)
    kept = [path for path, then in receipts.items() if path.stat().st_mtime_ns == then]
    assert len(kept) >= len(receipts) - 1  # one may have been written without its receipt
    out = str(tmp_path / "alone")
    assert job_of.predict(cluster(), job_of.prepare(url, given[0], out, isolated=True))
    alone, after = digests(Path(out) / "velocity" / "c"), digests(first / "velocity" / "c")
    assert alone == after


def test_one_service_a_folder(models, tmp_path):
    from velfield.commands.cli import main
    from velfield.service.server import own

    with own(str(tmp_path)), pytest.raises(Exception, match="another service uses this state folder: state="):
        own(str(tmp_path)).__enter__()
    assert main(["serve", models[0], "--host", "0.0.0.0", "--state", str(tmp_path)]) == 2


def test_arrays_of_a_download_are_whole(service, done):
    answer = httpx.get(f"{service.url}/jobs/{done[0]}/result/velocity.npz")
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as found:
        assert found["velocity"].shape == (27, 3, 8, 8, 8)
