"""A small store and models of it."""

import pytest
from small_store import arrays_of, spec_of

from velfield.geometry.boxes import BoxLayout
from velfield.stores import store


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
    from velfield.learning.train import TrainConfig, train

    url = str(tmp_path_factory.mktemp("model") / "model")
    train([fields], url, TrainConfig(steps=2, width=4, depth=1, groups=2, device="cpu"))
    return url


@pytest.fixture(scope="module")
def conditioned(fields, tmp_path_factory):
    """A model that was trained on it and told its redshift; and a store of other halos at another redshift."""
    from velfield.learning.train import TrainConfig, train

    root = tmp_path_factory.mktemp("conditioned")
    other, model = str(root / "other.zarr"), str(root / "model")
    boxes = BoxLayout(boxsize=120.0, boxes=3, cells=8, margin=2)
    means = {"halo_mass": 4e12, "halo_number": 1.0, "matter_number": 8.0}
    spec = spec_of(boxes, redshift=0.0, parent="cd34", fingerprint="beef", means=means)
    store.write_fields(other, spec, arrays_of(boxes, seed=1))
    train([fields], model, TrainConfig(steps=2, width=4, depth=1, groups=2, device="cpu", condition=True))
    return model, other
