"""One small cluster for all pipeline tests."""

import pytest
from small_store import arrays_of, spec_of

from velfield import store
from velfield.boxes import BoxLayout
from velfield.pipelines.cluster import connect


@pytest.fixture(scope="session")
def client():
    with connect(workers=2, quiet=True) as client:
        yield client


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """A store of 27 small boxes, for what predicts or measures it."""
    url = str(tmp_path_factory.mktemp("fields") / "fields.zarr")
    boxes = BoxLayout(boxsize=120.0, boxes=3, cells=8, margin=2)
    store.write_fields(url, spec_of(boxes), arrays_of(boxes))
    return url


@pytest.fixture(scope="module")
def bundle(fields, tmp_path_factory):
    """A model that was trained on it for two steps."""
    from velfield.train import TrainConfig, train

    url = str(tmp_path_factory.mktemp("model") / "model")
    train([fields], url, TrainConfig(steps=2, width=4, depth=1, groups=2, device="cpu"))
    return url
