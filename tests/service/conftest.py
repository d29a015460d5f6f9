"""Small models, a store, and a service that most tests share."""

import chrome
import pytest
from page_steps import READY, side_by_side
from served import serving, write_model
from small_store import arrays_of, spec_of

from velfield.client.client import Client
from velfield.geometry.boxes import BoxLayout
from velfield.stores import store


@pytest.fixture(scope="session")
def fields(tmp_path_factory):
    """A store of 27 small boxes."""
    url = str(tmp_path_factory.mktemp("allowed") / "fields.zarr")
    boxes = BoxLayout(boxsize=120.0, boxes=3, cells=8)
    store.write_fields(url, spec_of(boxes), arrays_of(boxes))
    return url


@pytest.fixture(scope="session")
def models(fields, tmp_path_factory):
    """A model with error bars, and one that is told redshift and threshold and adds to the Wiener filter.

    Nobody trained them: what the service does with them does not depend on their weights.
    """
    root = tmp_path_factory.mktemp("models")
    write_model(str(root / "plain"), fields)
    write_model(str(root / "guided"), fields, guided=True)
    return [str(root / "plain"), str(root / "guided")]


@pytest.fixture(scope="session")
def cluster(shared_cluster):
    return shared_cluster


@pytest.fixture(scope="module")
def service(models, fields, cluster, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("state"), models, cluster, allow=[fields]) as service:
        yield service


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        yield client


@pytest.fixture(scope="module")
def looked(models, fields, cluster, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("state"), models[:1], cluster, allow=[fields]) as service:
        yield service


@pytest.fixture(scope="module")
def job(looked, fields):
    """A job that is done: its id, and its velocities (component, x, y, z) side by side."""
    with Client(looked.url) as client:
        name = client.submit("plain", fields)
        client.wait(name, timeout=600, every=0.2)
        return name, side_by_side(client.open(name)["velocity"].values)


@pytest.fixture(scope="module")
def browser(looked):
    with chrome.browser(looked.url) as browser:
        yield browser


@pytest.fixture
def page(browser, job):
    """The page as it is when it is opened at a job."""
    browser.width(1280, 900)
    browser.call("Page.navigate", url="about:blank")
    browser.open(f"/#job={job[0]}")
    browser.until(READY)
    yield browser
    assert browser.wrong == []
