"""The page while a job goes on, in a headless Chromium: it is cancelled there, and the service restarts under it."""

import threading
import time
from contextlib import ExitStack

import chrome
import pytest
from served import serving

from velfield.client.client import Client
from velfield.pipelines import predict as job_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), chrome.needed]
STATE = "document.getElementById('state').textContent"
ALIVE = "document.getElementById('alive')"


@pytest.fixture
def gate(monkeypatch):
    """Jobs get no further than this until it is set, but may be cancelled and stopped."""
    gate, real = threading.Event(), job_of.predict

    def waiting(client, job, progress):
        progress.start("predict", 27, "boxes")
        while not gate.is_set():
            progress.advance(0)
            time.sleep(0.05)
        return real(client, job, progress)

    monkeypatch.setattr(job_of, "predict", waiting)
    return gate


def ask(page):
    page.width(1280, 900)
    page.open()
    page.until("document.getElementById('store').value")
    page.click(*page.place("#submit"))
    page.until(f"{STATE} === 'running'")
    page.until("document.getElementById('pace').textContent === 'predict: 0 of 27 boxes'")


def test_a_running_job_is_cancelled_from_the_page(models, fields, cluster, gate, tmp_path):
    with (
        serving(tmp_path, models[:1], cluster, allow=[fields]) as service,
        chrome.browser(service.url) as page,
        Client(service.url) as client,
    ):
        ask(page)
        job = page.run("location.hash").removeprefix("#job=")
        assert client.status(job)["state"] == "running"
        page.click(*page.place("#cancel"))
        page.until(f"{STATE} === 'cancelled'")
        assert page.run("document.getElementById('cancel').parentElement.hidden")  # there is nothing left to cancel
        assert client.status(job)["state"] == "cancelled"
        assert not (tmp_path / "results" / job).exists()
        page.until("document.querySelector('#jobs span').textContent === 'fields.zarr by plain: cancelled'")
        assert page.run("document.getElementById('look-title').textContent") == "fields.zarr"  # as before
        gate.set()
        page.click(*page.place("#submit"))  # the same again is not refused: it runs anew
        page.until(f"{STATE} === 'done'", 600)
        page.until("document.getElementById('look-title').textContent === 'plain on fields.zarr'")
        assert page.wrong == []


def test_the_page_goes_on_when_the_service_comes_back(models, fields, cluster, gate, tmp_path):
    with ExitStack() as stack:
        with serving(tmp_path, models[:1], cluster, allow=[fields]) as service:
            page = stack.enter_context(chrome.browser(service.url))
            ask(page)
        page.until(f"{ALIVE}.textContent.startsWith('Connection lost')")
        assert page.run(f"getComputedStyle({ALIVE}).position") == "fixed"  # in sight, wherever one reads
        assert page.run("document.getElementById('error').hidden")  # said once
        assert page.run(STATE) == "running"
        gate.set()
        port = int(service.url.rpartition(":")[2])
        stack.enter_context(serving(tmp_path, models[:1], cluster, allow=[fields], port=port))
        page.until(f"{ALIVE}.textContent.startsWith('version')", 60)
        assert page.run(f"getComputedStyle({ALIVE}).position") != "fixed"
        page.until(f"{STATE} === 'done'", 600)
        page.until("document.getElementById('look-title').textContent === 'plain on fields.zarr'")
        page.until("document.querySelector('#jobs span').textContent === 'fields.zarr by plain: done'")
        assert all("net::ERR_" in one for one in page.wrong)  # what the browser itself logs of a connection
