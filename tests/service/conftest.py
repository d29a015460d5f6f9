"""Small models, a store, and a service that most tests share."""

import pytest
from served import serving
from small_store import arrays_of, spec_of

from velfield import store
from velfield.boxes import BoxLayout
from velfield.client import Client
from velfield.pipelines.cluster import connect
from velfield.train import TrainConfig, train


@pytest.fixture(scope="session")
def fields(tmp_path_factory):
    """A store of 27 small boxes."""
    url = str(tmp_path_factory.mktemp("allowed") / "fields.zarr")
    boxes = BoxLayout(boxsize=120.0, boxes=3, cells=8)
    store.write_fields(url, spec_of(boxes), arrays_of(boxes))
    return url


@pytest.fixture(scope="session")
def models(fields, tmp_path_factory):
    """A model with error bars, and one that is told redshift and threshold and adds to the Wiener filter."""
    root = tmp_path_factory.mktemp("models")
    small = {"steps": 2, "width": 4, "depth": 1, "groups": 2, "device": "cpu"}
    train([fields], str(root / "plain"), TrainConfig(std=True, **small))
    train([fields], str(root / "guided"), TrainConfig(guide="wiener", condition=True, **small))
    return [str(root / "plain"), str(root / "guided")]


@pytest.fixture(scope="session")
def dask_client():
    """One small cluster, also for the services' jobs."""
    with connect(workers=2, quiet=True) as client:
        yield client


@pytest.fixture(scope="module")
def service(models, fields, dask_client, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("state"), models, dask_client, allow=[fields]) as service:
        yield service


@pytest.fixture
def client(service):
    with Client(service.url) as client:
        yield client
