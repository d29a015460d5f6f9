"""A network that adds to linear theory: the guide is exactly what it begins with, and comes the same way everywhere."""

import dataclasses
import signal
from typing import Any

import numpy as np
import pytest
import torch
from bundle_files import weights
from fields_fixture import write_universe

from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.files.progress import Silent
from velfield.geometry import symmetry
from velfield.learning.batches import Batches, Boxes
from velfield.learning.loss import LossConfig, counted_cells, velocity_loss
from velfield.learning.samples import AS_IT_IS, StepSamples
from velfield.learning.train import TrainConfig, train
from velfield.network.model import Model, load_model
from velfield.network.normalisation import Channel, Normalisation
from velfield.network.unet import UNet, UNetConfig
from velfield.stores.sources import boxes_of, describe, open_sources
from velfield.stores.store import open_fields
from velfield.theory import analytic, guide
from velfield.theory.guide import Guide

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("number_overdensity",)
NAME = "linear_halo_padded"
SMALL = TrainConfig(
    steps=6, width=4, groups=2, depth=1, batch=3, inputs=KINDS, guide=NAME, context=1, device="cpu", checkpoint_every=2
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Two universes of 8 boxes of 6³ cells with a margin of 3; halos above 1e12, for their bias."""
    root = tmp_path_factory.mktemp("fields")
    return [write_universe(str(root / f"{s}"), seed=s, cells=6, margin=3, min_mass=1e12) for s in (1, 2)]


@pytest.fixture
def data(fields, tmp_path):
    sources = open_sources(fields, KINDS)
    which = boxes_of(sources, "train")
    kept = guide.prepare(Guide(name=NAME), sources, which, context=1, folder=str(tmp_path), progress=Silent())
    channel = Channel(kind=KINDS[0], transform="linear", scale=1.0, mean=0.0, std=0.5)
    normalisation = Normalisation(channels=(channel,), sigma_v=300.0)
    return Boxes(sources, KINDS, which, symmetry.CUBE, normalisation, context=1, guide=kept)


def config(**changes: Any) -> TrainConfig:
    return dataclasses.replace(SMALL, **changes)


def untrained(
    fields: str,
    name: str = NAME,
    context: int = 0,
    smoothing: float | None = None,
    tracers: tuple[str, ...] = ("number",),
) -> Model:
    """A model that was not trained, and so is its guide."""
    channel = Channel(kind=KINDS[0], transform="linear", scale=1.0, mean=0.0, std=0.5)
    chosen = {"guide": Guide(name=name, smoothing=smoothing, tracers=tracers).to_dict(), "context": context}
    metadata = {
        "trained_on": describe(open_fields(fields), KINDS),
        "parents": ["universe-7"],
        "training": {"boxes": 6, "steps": 10, "settings": {"batch": 4}, "parameters": 1},
    }
    net = UNet(UNetConfig(in_channels=1 + 3 * len(tracers), width=4, groups=2, depth=1, guide=len(tracers)))
    return Model(net, Normalisation(channels=(channel,), sigma_v=300.0), metadata | chosen)


def every_weight_at_random(model: Model) -> Model:
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.uniform_(-0.2, 0.2)
    return model


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("name", guide.GUIDES)
def test_an_untrained_network_is_its_guide(fields, name, context):
    ds = open_fields(fields[0], chunks=None)
    if name == "linear_halo":
        context = 0
    expected = analytic.velocities(analytic.settings(name, ds), ds, range(8))
    found = untrained(fields[0], name, context).predict(ds).velocity.values
    np.testing.assert_allclose(found, expected, atol=1e-3)  # float32 of some 300 km/s, divided and multiplied by σ_v
    assert np.abs(expected).max() > 100


def test_of_two_tracers_it_begins_with_the_first_and_sees_both(fields):
    ds = open_fields(fields[0], chunks=None)
    both = Guide(name=analytic.WHOLE, tracers=("mass", "number"))
    made = both.velocities(ds, [2, 5], 1)
    assert made.shape == (2, both.channels, 8, 8, 8)
    for at, tracer in enumerate(both.tracers):
        how = analytic.settings(analytic.WHOLE, ds, tracer=tracer)
        np.testing.assert_array_equal(made[:, 3 * at : 3 * at + 3], analytic.velocities(how, ds, [2, 5], margin=1))
    model = untrained(fields[0], analytic.WHOLE, 1, tracers=both.tracers)
    found = model.predict(ds, boxes=[2, 5]).velocity.values
    np.testing.assert_allclose(found, made[:, :3, 1:-1, 1:-1, 1:-1], atol=1e-3)
    with torch.no_grad():
        model.net.gain[1] = 0.5
    found = model.predict(ds, boxes=[2, 5]).velocity.values
    np.testing.assert_allclose(found, (made[:, :3] + 0.5 * made[:, 3:])[..., 1:-1, 1:-1, 1:-1], atol=1e-3)
    one, all48 = (every_weight_at_random(model).predict(ds, boxes=[2], average=n).velocity.values for n in (1, 8))
    assert 0 < np.abs(one - all48).max() < 1e3


def test_both_tracers_turn(data):
    inputs = torch.cat([data[3, AS_IT_IS][0], data[2, AS_IT_IS][0][1:]])
    s = symmetry.CUBE[29]
    turned = symmetry.apply_channels(inputs, s, 2)
    torch.testing.assert_close(turned[0], symmetry.apply_scalar(inputs[0], s), atol=0, rtol=0)
    for at in (1, 4):
        torch.testing.assert_close(turned[at : at + 3], symmetry.apply_vector(inputs[at : at + 3], s), atol=0, rtol=0)
    np.testing.assert_array_equal(symmetry.apply_channels(inputs.numpy(), s, 2), turned.numpy())
    with pytest.raises(VelfieldError, match="fewer channels than vectors have: channels=7, vectors=3"):
        symmetry.apply_channels(inputs, s, 3)


def test_trained_with_two_tracers(tmp_path, fields):
    out = str(tmp_path / "both")
    train(fields, out, config(guide=analytic.WHOLE, guide_tracers=("number", "mass"), steps=2))
    model = load_model(out)
    assert model.guide.tracers == ("number", "mass")
    assert model.net.gain.shape == (2,)
    assert model.metadata["training"]["settings"]["guide_tracers"] == ["number", "mass"]
    assert np.isfinite(model.predict(open_fields(fields[0], chunks=None), boxes=[0]).velocity.values).all()


def test_some_boxes_are_those_of_all(fields):
    ds = open_fields(fields[0], chunks=None)
    model = every_weight_at_random(untrained(fields[0], analytic.WHOLE, 1))
    whole = model.predict(ds, batch=8)
    some = model.predict(ds, boxes=[6, 1])
    np.testing.assert_allclose(some.velocity, whole.velocity.isel(box=[6, 1]), atol=1e-2)  # other batches
    np.testing.assert_array_equal(some.origin, whole.origin.isel(box=[6, 1]))
    with pytest.raises((StoreError, VelfieldError), match="whole"):
        model.predict(ds.isel(box=[6, 1]))


def test_arrays_take_the_guide(fields):
    ds = open_fields(fields[0], chunks=None)
    model = every_weight_at_random(untrained(fields[0], context=1))
    window = dict.fromkeys("xyz", slice(2, 10))
    inputs = np.stack([ds.velfield.input(kind).isel(window).values for kind in KINDS], axis=1)
    vector = model.guide.velocities(ds, range(8), 1)
    found = model.predict_array(inputs, guide=vector)
    np.testing.assert_array_equal(found[..., 1:-1, 1:-1, 1:-1], model.predict(ds).velocity.values)
    assert not np.allclose(found, model.predict_array(inputs, guide=2 * vector), atol=1)
    with pytest.raises(VelfieldError, match=r"the guide does not fit the model: guide=None, the model's=linear_halo_p"):
        model.predict_array(inputs)
    with pytest.raises(VelfieldError, match=r"guide=\(8, 3, 6, 6, 6\), .*shape=\(8, 3, 8, 8, 8\)"):
        model.predict_array(inputs, guide=vector[..., 1:-1, 1:-1, 1:-1])


@pytest.mark.parametrize("turn", [0, 7, 29, 46])
def test_a_turned_box_has_a_turned_guide(data, turn):
    """The untrained network passes the guide through: it must come out turned as the true velocity is."""
    net = UNet(UNetConfig(in_channels=4, width=4, groups=2, depth=1, guide=1))
    s = symmetry.CUBE[turn]
    one, other = data[3, AS_IT_IS], data[3, turn]
    with torch.no_grad():
        before, after = net(one[0][None])[0], net(other[0][None])[0]
    torch.testing.assert_close(after, symmetry.apply_vector(before, s), atol=0, rtol=0)
    torch.testing.assert_close(other[1], symmetry.apply_vector(one[1], s), atol=0, rtol=0)
    torch.testing.assert_close(other[0][0], symmetry.apply_scalar(one[0][0], s), atol=0, rtol=0)
    batch = symmetry.apply_channels(one[0][None], s, 1)
    torch.testing.assert_close(batch[0], other[0], atol=0, rtol=0)


def test_resident_and_stream_give_the_same_bits(data):
    wanted = StepSamples(steps=range(4), boxes=len(data), symmetries=48, batch=5, seed=3)
    resident = Batches(data, wanted, device=CPU, resident=True, workers=0)
    resident.load(Silent(), "read")
    for workers in (0, 1):
        streamed = Batches(data, wanted, device=CPU, resident=False, workers=workers)
        for a, b in zip(streamed, resident, strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
            assert a.inputs.shape == (5, 4, 8, 8, 8)
    assert data.nbytes == sum(t.numel() * t.element_size() for n in range(len(data)) for t in data.read(n))


def test_context_is_a_slice_of_the_margin(data):
    full = Boxes(data.sources, KINDS, data.which, (), data.normalisation)
    for context in (0, 2, 3):
        part = Boxes(data.sources, KINDS, data.which, (), data.normalisation, context=context)
        cut = slice(3 - context, 12 - 3 + context)
        assert torch.equal(part.read(2)[0], full.read(2)[0][:, cut, cut, cut])
        assert torch.equal(part.read(2)[1], full.read(2)[1])
        assert part.nbytes == sum(t.numel() * t.element_size() for n in range(len(part)) for t in part.read(n))


def test_a_network_without_a_guide_sees_its_context_alone(fields, tmp_path):
    out = str(tmp_path / "m")
    train(fields, out, config(guide=None, context=1, steps=2))
    model, ds = load_model(out, device="cpu"), open_fields(fields[0], chunks=None)
    assert (model.context, model.guide) == (1, None)
    narrow = write_universe(str(tmp_path / "narrow"), seed=1, cells=6, margin=1, min_mass=1e12)
    np.testing.assert_array_equal(  # the same universe, cut with just the margin that it needs
        model.predict(ds).velocity.values, model.predict(open_fields(narrow)).velocity.values
    )
    assert model.differences(open_fields(narrow)) == {}
    without = write_universe(str(tmp_path / "without"), seed=1, cells=6, margin=0, min_mass=1e12)
    with pytest.raises(StoreError, match="margin is narrower than the model's context: margin=0, context=1; paint"):
        model.predict(open_fields(without))
    with pytest.raises(VelfieldError, match="margin is narrower than the context: margin=3, context=4; paint them"):
        train(fields, str(tmp_path / "n"), config(context=4))


def test_training_goes_below_the_guides_own_loss(tmp_path):
    urls = [write_universe(str(tmp_path / f"{s}"), seed=s, cells=12, min_mass=1e12) for s in (1, 2)]
    out, loss = str(tmp_path / "m"), LossConfig()
    chosen = config(steps=60, width=8, depth=2, batch=4, context=0, loader="resident")
    result = train(urls, out, chosen)
    model = load_model(out, device="cpu")
    unit, own = model.normalisation.sigma_v, {"train": [], "validation": []}
    for url in urls:
        ds = open_fields(url, chunks=None)
        true, flag = ds.velfield.core(ds.velocity).values, torch.zeros(8, 12, 12, 12)
        guided = model.guide.velocities(ds, range(8), 0)
        for split, losses in own.items():
            chosen = torch.from_numpy(np.flatnonzero(ds.split.values == split))
            pair = [torch.from_numpy(v / np.float32(unit))[chosen] for v in (guided, true)]
            losses.append(float(velocity_loss(*pair, counted_cells(flag[chosen], loss), loss)["loss"]))
    reached = np.mean([value for _, value in result.losses["train"][-10:]])
    assert reached < 0.95 * np.mean(own["train"])
    assert model.metadata["metrics"]["validation"]["loss"] < np.mean(own["validation"])


class StopAt:
    """A progress that interrupts after so many steps of one stage, and keeps what the stages began with."""

    def __init__(self, stage: str, steps: int) -> None:
        self.stage, self.left, self.here = stage, steps, False
        self.before: dict[str, float] = {}

    def start(self, label: str, _total: float, _unit: str, *, before: float = 0) -> None:
        self.here = label.startswith(self.stage)
        self.before[label] = before

    def advance(self, _amount: float = 1, _note: str = "") -> None:
        self.left -= self.here
        if self.here and self.left == 0:
            signal.raise_signal(signal.SIGINT)

    def done(self, _note: str = "") -> None: ...


def test_interrupted_anywhere_it_ends_with_the_same_bits(fields, tmp_path):
    whole, out = str(tmp_path / "whole"), str(tmp_path / "out")
    train(fields, whole, config(dropout=0.2))
    with pytest.raises(KeyboardInterrupt):
        train(fields, out, config(dropout=0.2), StopAt("compute the guide", 5))
    resumed = StopAt("train", 3)
    with pytest.raises(KeyboardInterrupt):
        train(fields, out, config(dropout=0.2), resumed)
    assert resumed.before["compute the guide, linear_halo_padded"] >= 5  # those were not computed again
    last = StopAt("none", 0)
    train(fields, out, config(dropout=0.2, loader="stream", workers=1), last)
    assert "compute the guide, linear_halo_padded" not in last.before
    a, b = weights(whole), weights(out)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not storage.exists(storage.join(out, ".checkpoint"))


def test_a_cache_serves_other_trainings(fields, tmp_path, monkeypatch):
    cache = str(tmp_path / "cache")
    train(fields, str(tmp_path / "a"), config(guide_cache=cache))
    assert len(storage.names(cache)) == 2
    with monkeypatch.context() as patch:
        patch.setattr(analytic, "velocities", lambda *_, **__: pytest.fail("computed again"))
        train(fields, str(tmp_path / "b"), config(guide_cache=cache, seed=2))
    train(fields, str(tmp_path / "c"), config(guide_cache=cache, guide_smoothing=8.0))
    train(fields, str(tmp_path / "d"), config(guide_cache=cache, context=2))
    assert len(storage.names(cache)) == 6  # what was computed otherwise is kept apart
    without = str(tmp_path / "e")
    train(fields, without, config())
    a, e = weights(str(tmp_path / "a")), weights(without)
    assert all(torch.equal(a[name], e[name]) for name in a)


def test_the_bundle_says_its_guide(fields, tmp_path):
    out = str(tmp_path / "m")
    train(fields, out, config(guide_smoothing=7.0))
    model = load_model(out, device="cpu")
    assert model.guide == Guide(name=NAME, smoothing=7.0)
    assert model.metadata["guide"] == {"name": NAME, "smoothing": 7.0, "tracers": ["number"]}
    assert "linear_halo_padded" in storage.read_bytes(storage.join(out, "README.md")).decode()
    assert "gain" in weights(out)
    ds = open_fields(fields[0], chunks=None)
    assert model.differences(ds) == {}
    wider = write_universe(str(tmp_path / "w"), seed=1, cells=6, margin=4, min_mass=1e12)
    assert model.differences(open_fields(wider)) == {"margin": (3, 4)}  # the guide sees it
    assert Guide(name=NAME).settled(ds).smoothing == analytic.settings(NAME, ds).smoothing
    assert Guide(name="wiener").settled(ds).smoothing is None
    path = storage.join(out, "metadata.json")
    storage.write_json(path, storage.read_json(path) | {"guide": None})
    with pytest.raises(StoreError, match="metadata do not make sense"):
        load_model(out)


def test_damaged_files_are_refused(data):
    url = storage.join(data.guide.folders[0], "000003.npy")
    good = storage.read_bytes(url)
    for bad in (good[:-4], good[:20], b""):
        storage.write_bytes(url, bad)
        with pytest.raises(StoreError, match=r"the guide of a box cannot be read: file=.*000003.npy.*remove it"):
            data.guide.read(0, 3)
    storage.remove(url)
    with pytest.raises(StoreError, match="the guide of a box cannot be read"):
        data.guide.read(0, 3)
    storage.write_bytes(url, good)
    with pytest.raises(StoreError, match=r"not the guide of a box: .*shape=\(3, 8, 8, 8\), side=10"):
        dataclasses.replace(data.guide, side=10).read(0, 3)


def test_refuses(tmp_path, fields):
    with pytest.raises(VelfieldError, match="no such guide: guide='linear'; choose linear_halo, "):
        config(guide="linear")
    with pytest.raises(VelfieldError, match=r"a guide's options without a guide: guide_smoothing=2.0"):
        config(guide=None, guide_smoothing=2.0)
    with pytest.raises(VelfieldError, match="no such context: context=-1"):
        config(context=-1)
    with pytest.raises(VelfieldError, match="the guide is of the box alone: guide=linear_halo, context=1; take"):
        train(fields, str(tmp_path / "x"), config(guide="linear_halo"))
    for tracers in ((), ("mass", "mass"), ("light",)):
        with pytest.raises(VelfieldError, match="no such tracers of a guide: tracers="):
            config(guide_tracers=tracers)
    with pytest.raises(VelfieldError, match=r"noise is that of numbers: guide=wiener, tracers=mass"):
        config(guide="wiener", guide_tracers=("mass",))
    with pytest.raises(VelfieldError, match=r"a guide's options without a guide: .*guide_tracers=mass"):
        config(guide=None, guide_tracers=("mass",))
    with pytest.raises(VelfieldError, match="a guide and nothing else: in_channels=3"):
        UNetConfig(in_channels=3, guide=1)
    only = write_universe(str(tmp_path / "m"), seed=1, cells=6, leave_out=("halo_number", "halo_mass"))
    with pytest.raises(StoreError, match=r"no such field: variable=halo_number; .*--halos"):
        train([only], str(tmp_path / "n"), config(inputs=("matter_overdensity",), context=0))
