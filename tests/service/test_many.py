"""Many clients at once, and what operators and programs are told."""

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from served import ABOUT, cube, serving, until

from velfield.client.client import Client, ServiceError
from velfield.network.model import load_model
from velfield.service.cubes import Cube, boxed, spec_of
from velfield.stores.store import fields_in_memory


@pytest.mark.slow
def test_a_hundred_clients_each_get_their_own_answer(models, cluster, tmp_path):
    cells, clients = 12, 100
    model, asked = load_model(models[0], "cpu"), Cube(**ABOUT)

    def expected(seed):
        arrays = cube(seed, cells)
        return model.predict(fields_in_memory(spec_of(asked, arrays, "f"), boxed(asked, arrays)))["velocity"].values[0]

    with serving(tmp_path, models[:1], cluster, cubes=8, patience=120.0) as service:
        seen, over = [], threading.Event()

        def watch():
            while not over.wait(0.2):
                seen.append(service.room.taken)

        def ask(seed):
            with Client(service.url, patience=240) as client:
                return client.predict("plain", cube(seed, cells), **ABOUT)["velocity"]

        ask(0)  # whatever the first pass brings with it
        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(clients) as pool:
            answers = list(pool.map(ask, range(clients)))
        over.set()
        watcher.join()
        assert len({answer.tobytes() for answer in answers}) == clients
        for seed in range(clients):  # forward passes with another number of threads may differ in the last bits
            np.testing.assert_allclose(answers[seed], expected(seed), rtol=0, atol=1e-3)
        assert max(seen) <= 8  # cubes that are in memory
        assert service.room.taken == 0


def test_too_many_cubes_are_told_when_to_come_again(models, cluster, tmp_path, monkeypatch):
    with serving(tmp_path, models[:1], cluster, cubes=1, line=1) as service:
        served = service.models.get("plain")
        go_on, real = threading.Event(), served.model.predict

        def waiting(ds):
            go_on.wait(60)
            return real(ds)

        monkeypatch.setattr(served.model, "predict", waiting)
        with ThreadPoolExecutor(2) as pool, Client(service.url, patience=0) as client:
            both = [pool.submit(lambda: client.predict("plain", cube(), **ABOUT)) for _ in range(2)]
            until(lambda: (service.room.taken, service.room.waiting) == (1, 1), 30)
            with pytest.raises(ServiceError, match="is busy: cubes=1, waiting=1; try again in") as caught:
                client.predict("plain", cube(), **ABOUT)
            assert caught.value.http_status == 429
            assert httpx.get(f"{service.url}/health").status_code == 200  # a forward pass stops nobody else
            go_on.set()
            assert all(one.result()["velocity"].shape == (3, 8, 8, 8) for one in both)
            assert client.predict("plain", cube(), **ABOUT)["velocity"].shape == (3, 8, 8, 8)


def test_more_connections_than_allowed_are_turned_away(models, cluster, tmp_path):
    with serving(tmp_path, models[:1], cluster, connections=4) as service:
        clients = [httpx.Client() for _ in range(8)]
        found = [client.get(f"{service.url}/health").status_code for client in clients]
        assert found[0] == 200
        assert found[-1] == 503
        for client in clients:
            client.close()
        until(lambda: httpx.get(f"{service.url}/health").status_code == 200, 30)


def test_alive_and_ready(service, monkeypatch):
    assert httpx.get(f"{service.url}/health").json()["status"] == "alive"
    answer = httpx.get(f"{service.url}/ready")
    assert answer.status_code == 200, answer.text
    assert all(answer.json().values())
    monkeypatch.setattr(service, "folder", "/nowhere")
    answer = httpx.get(f"{service.url}/ready")
    assert (answer.status_code, answer.json()["ready"], answer.json()["state"]) == (503, False, False)


def test_a_scheduler_that_does_not_answer():
    from velfield.service.runner import reachable

    assert reachable(None)
    assert not reachable("tcp://127.0.0.1:1")
    assert not reachable("nonsense")


def test_what_prometheus_is_told(service, client):
    client.predict("plain", cube(), **ABOUT)
    httpx.get(f"{service.url}/no/such/place")
    until(lambda: 'route="none"' in httpx.get(f"{service.url}/metrics").text, 10)
    said = httpx.get(f"{service.url}/metrics").text
    assert 'velfield_requests_total{method="POST",route="/predict/{name}",status="200"}' in said
    assert "no/such" not in said
    for line in (
        'velfield_predicted_cells_total{model="plain"}',
        'velfield_jobs{state="queued"} 0.0',
        "velfield_cubes 0.0",
        "velfield_cubes_limit 16.0",
        'velfield_request_seconds_bucket{le="0.1",route="/predict/{name}"}',
        "velfield_forward_seconds_count",
    ):
        assert line in said


def test_a_cluster_that_gives_out_is_tried_again(models, cluster, tmp_path, monkeypatch):
    from velfield.errors import ClusterError
    from velfield.pipelines import predict
    from velfield.service import runner

    monkeypatch.setattr(runner, "PAUSE", 0.01)
    real, failures = predict.predict, [ClusterError("the Dask scheduler was lost: scheduler=x; start it")] * 2

    def failing(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(predict, "predict", failing)
    with serving(tmp_path, models[:1], cluster) as service, Client(service.url) as client:
        job = client.submit("plain", client.upload(cube(), **ABOUT))
        assert client.wait(job, timeout=120, every=0.05)["state"] == "done"
        assert service.jobs.get(job).tries == 2


def test_a_job_that_fails_says_why_and_can_be_asked_for_again(models, cluster, tmp_path, monkeypatch):
    from velfield.pipelines import predict

    real = predict.predict
    monkeypatch.setattr(predict, "predict", lambda *_: 1 / 0)
    with serving(tmp_path, models[:1], cluster) as service, Client(service.url) as client:
        job = client.submit("plain", client.upload(cube(), **ABOUT))
        with pytest.raises(ServiceError, match=r"the service failed: number=.*tell its operator the number"):
            client.wait(job, timeout=60, every=0.05)
        monkeypatch.setattr(predict, "predict", real)
        assert client.submit("plain", client.upload(cube(), **ABOUT)) == job
        assert client.wait(job, timeout=120, every=0.05)["error"] is None


def test_the_api_is_described(service):
    schema = httpx.get(f"{service.url}/openapi.json").json()
    assert {"/health", "/ready", "/metrics", "/models", "/stores", "/predict/{name}", "/uploads", "/jobs"} <= set(
        schema["paths"]
    )
    text = str(schema)
    assert "HTTPValidationError" not in text
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert operation["description"], operation
    body = schema["paths"]["/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["examples"][0]["model"] == "plain"
    assert body["properties"]["model"]["enum"] == ["plain", "guided"]


def test_a_page_is_served_when_there_is_one(models, cluster, tmp_path, monkeypatch):
    from velfield.service import app

    page = tmp_path / "page"
    monkeypatch.setattr(app, "PAGE", page)
    with serving(tmp_path / "a", models[:1], cluster, tokens=["a-token-of-16-letters"]) as service:
        assert httpx.get(f"{service.url}/").status_code == 404
    page.mkdir()
    (page / "index.html").write_text("<p>velocities")
    (page / "app.js").write_text("1")
    with serving(tmp_path / "b", models[:1], cluster, tokens=["a-token-of-16-letters"]) as service:
        assert httpx.get(f"{service.url}/").text == "<p>velocities"
        assert httpx.get(f"{service.url}/app.js").status_code == 200
        assert httpx.get(f"{service.url}/other.js").status_code == 401
        token = {"Authorization": "Bearer a-token-of-16-letters"}
        assert httpx.get(f"{service.url}/other.js", headers=token).status_code == 404
        assert httpx.get(f"{service.url}/uploads", headers=token).headers["Allow"] == "POST"
        assert httpx.get(f"{service.url}/models").status_code == 401
