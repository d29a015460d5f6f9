import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import xarray as xr
from fields_fixture import write_universe

from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, storage
from velfield.geometry.symmetry import apply_scalar, apply_vector, inverse
from velfield.network.model import Model, load_model, pick_device
from velfield.network.normalisation import Channel, Normalisation
from velfield.network.unet import UNet, UNetConfig
from velfield.stores import store, store_layout
from velfield.stores.sources import describe, symmetries_of_boxes
from velfield.stores.store import open_fields

KINDS = ("mass_overdensity", "number_density")


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return write_universe(str(tmp_path_factory.mktemp("fields") / "a"), seed=1, cells=6, margin=1)


@pytest.fixture(scope="module")
def model(fields):
    torch.manual_seed(3)
    channels = (
        Channel(kind=KINDS[0], transform="log", scale=1.0, mean=0.6, std=0.4),
        Channel(kind=KINDS[1], transform="linear", scale=0.004, mean=0.004, std=0.002),
    )
    metadata = {
        "trained_on": describe(open_fields(fields), KINDS),
        "parents": ["universe-7"],
        "training": {"boxes": 6, "steps": 10, "settings": {"batch": 4}, "parameters": 1},
    }
    net = UNet(UNetConfig(in_channels=2, width=4, groups=2, depth=2))
    return Model(net, Normalisation(channels=channels, sigma_v=300.0), metadata)


@pytest.fixture
def bundle(model, tmp_path):
    url = str(tmp_path / "bundle")
    model.save(url)
    return url


CHANNEL = {"kind": "number_overdensity", "transform": "linear", "scale": 1.0, "mean": 0.0, "std": 1.0}


def edit(url: str, **changes: Any) -> None:
    path = storage.join(url, "metadata.json")
    storage.write_json(path, storage.read_json(path) | changes)


def test_bundle_round_trip(model, bundle, fields):
    loaded = load_model(bundle, device="cpu")
    ds = open_fields(fields)
    xr.testing.assert_identical(loaded.predict(ds), model.predict(ds))
    assert loaded.inputs == KINDS
    assert loaded.parents == ("universe-7",)
    assert loaded.metadata["architecture"]["width"] == 4
    files = {p.rsplit("/", 1)[1] for p in storage.filesystem(bundle)[0].ls(bundle, detail=False)}
    assert files == {"model.safetensors", "metadata.json", "README.md"}
    card = storage.read_bytes(storage.join(bundle, "README.md")).decode()
    assert "Cells of 10 h⁻¹Mpc, boxes of 6 cells a side with a margin of 1" in card
    assert "universe-7" in card


def test_other_file_systems(model, fields):
    model.save("memory://bundles/a")
    ds = open_fields(fields)
    xr.testing.assert_identical(load_model("memory://bundles/a", device="cpu").predict(ds), model.predict(ds))


def test_metadata_are_last(model, tmp_path, monkeypatch):
    order = []
    written = storage.write_bytes
    monkeypatch.setattr(storage, "write_bytes", lambda url, data: (order.append(url), written(url, data))[1])
    model.save(str(tmp_path / "b"))
    assert order[-1].endswith("metadata.json")


def test_predictions_lie_on_the_cores(model, fields):
    ds = open_fields(fields)
    predicted = model.predict(ds)
    assert predicted.velocity.dims == ("box", "component", "x", "y", "z")
    assert predicted.velocity.shape == (8, 3, 6, 6, 6)
    assert predicted.velocity.attrs["units"] == "km/s"
    assert predicted.velocity.dtype == np.float32
    truth = ds.velfield.core(ds.velocity)
    difference = truth - predicted.velocity  # aligned by coordinates, nothing dropped
    assert difference.shape == truth.shape
    xr.testing.assert_identical(truth.coords.to_dataset().load(), predicted.velocity.coords.to_dataset())


def test_arrays_give_the_same_as_datasets(model, fields):
    ds = open_fields(fields)
    inputs = np.stack([ds.velfield.input(kind).values for kind in KINDS], axis=1)
    velocity = model.predict_array(inputs)
    assert velocity.shape == (8, 3, 8, 8, 8)
    np.testing.assert_array_equal(velocity[..., 1:-1, 1:-1, 1:-1], model.predict(ds).velocity.values)


def test_predictions_fit_the_velocity_store(model, fields, tmp_path):
    ds = open_fields(fields)
    layout = store_layout.velocity_layout(ds, model={"url": "m"}, source=fields, fingerprint="f")
    out = str(tmp_path / "velocity")
    shards.create(out, layout)
    shards.publish(
        out, layout, shards.write_boxes(out, layout, range(8), {"velocity": model.predict(ds).velocity.values})
    )
    xr.testing.assert_equal(store.open_velocity(out).velocity.load(), model.predict(ds).velocity)


def test_neither_batch_nor_order_matters(model, fields):
    ds = open_fields(fields)
    whole = model.predict(ds, batch=8).velocity.values
    # float32: a convolution may sum in another order for another batch; σ_v · 1e-6 · √(27·16) terms ≈ 6e-3 km/s
    for batch in (1, 3):
        np.testing.assert_allclose(model.predict(ds, batch=batch).velocity.values, whole, atol=1e-2)
    order = [5, 0, 7, 2, 1, 6, 3, 4]
    shuffled = model.predict(ds.isel(box=order), batch=3).velocity.values
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-2)
    assert np.abs(whole).max() > 10  # km/s: the tolerance is small beside the values


def test_dropout_is_off(fields, model):
    torch.manual_seed(0)
    net = UNet(UNetConfig(in_channels=2, width=4, groups=2, dropout=0.5))
    dropping = Model(net, model.normalisation, model.metadata)
    ds = open_fields(fields)
    xr.testing.assert_identical(dropping.predict(ds), dropping.predict(ds))


def test_lazy_and_plain_datasets_are_the_same(model, fields):
    xr.testing.assert_identical(model.predict(open_fields(fields)), model.predict(open_fields(fields, chunks=None)))


def test_inputs_are_left_alone(model):
    inputs = np.random.default_rng(0).exponential(1, (2, 2, 5, 6, 7)).astype("f4") - 1
    before = inputs.copy()
    assert model.predict_array(inputs).shape == (2, 3, 5, 6, 7)
    np.testing.assert_array_equal(inputs, before)


def test_another_cell_size_is_refused(model, fields):
    ds = open_fields(fields)
    model.check(ds)
    places = {name: ds[name] * 1.25 for name in ("x", "y", "z", "origin")}
    coarse = ds.assign_attrs(cellsize=12.5).assign_coords(places)
    with pytest.raises(StoreError, match=r"does not fit the model: cellsize=12.5, the model's cellsize=10.0"):
        model.predict(coarse)
    model.check(ds.assign_attrs(cellsize=10 * (1 + 1e-9)))  # a quotient rounded otherwise


def test_another_unit_is_refused(model, fields):
    ds = open_fields(fields).load()
    ds.halo_number.attrs["units"] = "Msun/h"
    with pytest.raises(StoreError, match=r"units of number_density=solMass .*, the model's .*=littleh3 / Mpc3"):
        model.check(ds)


def test_a_missing_input_is_refused(model, fields):
    with pytest.raises(StoreError, match=r"no such field: variable=halo_mass; paint it again with --halos"):
        model.check(open_fields(fields).drop_vars("halo_mass"))


def test_other_differences_are_told(model, fields, tmp_path):
    assert model.differences(open_fields(fields)) == {}
    other = write_universe(
        str(tmp_path / "b"), seed=2, cells=6, margin=2, redshift=0.212, rsd="center_radial", min_mass=1e12
    )
    ds = open_fields(other)
    assert model.differences(ds) == {
        "redshift": (0.0, 0.212),
        "rsd": ("none", "center_radial"),
        "min_mass": (0.0, 1e12),
    }
    assert model.predict(ds).velocity.shape == (8, 3, 6, 6, 6)  # used there all the same


def test_wrong_arrays_are_refused(model):
    with pytest.raises(
        VelfieldError, match=r"inputs do not fit the model: shape=\(1, 1, 8, 8, 8\), batch=4; .*channel"
    ):
        model.predict_array(np.zeros((1, 1, 8, 8, 8)))
    with pytest.raises(VelfieldError, match="batch=0"):
        model.predict_array(np.zeros((1, 2, 8, 8, 8)), batch=0)
    with pytest.raises(VelfieldError, match="inputs are not finite: cells=1"):
        model.predict_array(np.where(np.arange(1024).reshape(1, 2, 8, 8, 8) == 7, np.nan, 0))


def test_no_boxes_are_refused(model, fields):
    with pytest.raises(VelfieldError, match="no box to predict: box=0"):
        model.predict(open_fields(fields).isel(box=slice(0, 0)))


def test_not_a_bundle(bundle, fields, tmp_path):
    with pytest.raises(StoreError, match=r"no model here, or an unfinished one: model=.*velfield train"):
        load_model(fields)
    storage.write_bytes(f"{tmp_path}/x/metadata.json", b"{")
    with pytest.raises(StoreError, match="the model's metadata cannot be read"):
        load_model(f"{tmp_path}/x")
    storage.write_bytes(f"{tmp_path}/x/metadata.json", b"[1]")
    with pytest.raises(StoreError, match=r"not a model that this version reads: .*None"):
        load_model(f"{tmp_path}/x")
    edit(bundle, velfield_schema=99)
    with pytest.raises(
        StoreError, match=r"not a model that this version reads: .*\('model', 99\); expected \('model', 1\)"
    ):
        load_model(bundle)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"in_channels": 2, "layers": 3}},
        {"architecture": None},
        {"architecture": {"in_channels": 2, "depth": 10**400}},
        {"normalisation": {"channels": []}},
        {"normalisation": {"channels": [], "sigma_v": float("nan")}},
        {"normalisation": {"channels": [CHANNEL | {"std": 0.0}], "sigma_v": 1.0}},
        {"normalisation": {"channels": [CHANNEL | {"mean": 10**400}], "sigma_v": 1.0}},
        {"normalisation": {"channels": [CHANNEL | {"transform": "sqrt"}], "sigma_v": 1.0}},
        {"normalisation": {"channels": [CHANNEL | {"kind": "stars"}], "sigma_v": 1.0}},
        {"context": None},
        {"trained_on": {"cellsize": 10.0, "margin": 0}},
        {"weights": {}},
        {"trained_on": {}},
        {"parents": None},
    ],
)
def test_senseless_metadata(bundle, change):
    edit(bundle, **change)
    with pytest.raises(StoreError, match=r"metadata do not make sense: model=.*train or fetch it again"):
        load_model(bundle)


def test_an_architecture_that_makes_no_network(bundle):
    architecture = storage.read_json(storage.join(bundle, "metadata.json"))["architecture"]
    edit(bundle, architecture=architecture | {"width": 8.0})
    with pytest.raises(StoreError, match=r"the model's architecture makes no network: model=.*; train or fetch it"):
        load_model(bundle)


def test_metadata_that_lead_nowhere(tmp_path):
    storage.write_bytes(f"{tmp_path}/x/metadata.json", b"[" * 100_000)
    with pytest.raises(StoreError, match="the model's metadata cannot be read"):
        load_model(f"{tmp_path}/x")


def test_a_flipped_bit_or_a_cut_file_is_refused(bundle):
    path = storage.join(bundle, "model.safetensors")
    data = bytearray(storage.read_bytes(path))
    data[-5] ^= 1
    storage.write_bytes(path, bytes(data))
    with pytest.raises(StoreError, match="weights are not those that its metadata name"):
        load_model(bundle)
    storage.write_bytes(path, bytes(data[:-100]))
    with pytest.raises(StoreError, match="weights are not those that its metadata name"):
        load_model(bundle)
    storage.remove(path)
    with pytest.raises(StoreError, match=r"a file of the model is missing: file=.*model.safetensors"):
        load_model(bundle)


def test_weights_of_another_network_are_refused(bundle):
    architecture = storage.read_json(storage.join(bundle, "metadata.json"))["architecture"]
    edit(bundle, architecture=architecture | {"width": 8})
    with pytest.raises(StoreError, match=r"weights do not fit the architecture: model=.*tensors="):
        load_model(bundle)


def test_too_large_files_are_refused_unread(bundle, monkeypatch):
    monkeypatch.setattr("velfield.network.bundle.LARGEST_WEIGHTS", 100)
    with pytest.raises(StoreError, match=r"a file of the model is too large: .*limit=100"):
        load_model(bundle)


def test_an_enormous_architecture_is_refused_without_its_memory(bundle):
    architecture = storage.read_json(storage.join(bundle, "metadata.json"))["architecture"]
    edit(bundle, architecture=architecture | {"width": 8000, "depth": 7})
    with pytest.raises(StoreError, match="weights do not fit the architecture"):
        load_model(bundle)


def test_nothing_is_unpickled(bundle):
    # the way in, in a fresh process that has no pickle to call
    script = (
        "import pickle, sys, velfield.network.model\n"
        "def no(*a, **k): raise SystemExit('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = no\n"
        "import torch; torch.load = no\n"
        "velfield.network.model.load_model(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", script, bundle], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_weights_are_plain_safetensors(model, bundle):
    tensors = safetensors.torch.load(storage.read_bytes(storage.join(bundle, "model.safetensors")))
    assert sum(t.numel() for t in tensors.values()) == model.net.parameters_count
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    json.loads(storage.read_bytes(storage.join(bundle, "metadata.json")))


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(VelfieldError, match=r"unknown device: device='tpu'; choose auto, cpu or cuda"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        assert pick_device("auto") == torch.device("cpu")
        with pytest.raises(VelfieldError, match=r"torch sees no GPU: device=cuda; use --device cpu"):
            pick_device("cuda")


@pytest.fixture(scope="module")
def with_bars(model):
    torch.manual_seed(4)
    net = UNet(UNetConfig(in_channels=2, width=4, groups=2, depth=2, std=True))
    calibration = {"factor": 1.5, "power": 0.8, "residuals": 10, "coverage_68": 0.68, "coverage_95": 0.95}
    return Model(net, model.normalisation, model.metadata | {"calibration": calibration})


def test_error_bars_are_those_of_the_network_calibrated(with_bars, fields, tmp_path):
    ds = open_fields(fields)
    predicted = with_bars.predict(ds)
    assert predicted.velocity_std.attrs["units"] == "km/s"
    assert predicted.velocity_std.dims == predicted.velocity.dims
    inputs = np.stack([ds.velfield.input(kind).values for kind in KINDS], axis=1)
    with torch.inference_mode():
        log_variance = with_bars.net(torch.from_numpy(with_bars.normalisation.inputs(inputs)))[:, 3:].numpy()
    expected = 300 * 1.5 * np.exp(0.5 * log_variance) ** 0.8
    np.testing.assert_allclose(predicted.velocity_std, expected[..., 1:-1, 1:-1, 1:-1], rtol=1e-4)
    with_bars.save(str(tmp_path / "m"))
    xr.testing.assert_identical(load_model(str(tmp_path / "m"), device="cpu").predict(ds), predicted)


def test_models_without_error_bars_give_none(model, fields):
    assert set(model.predict(open_fields(fields)).data_vars) == {"velocity"}
    assert model.predict_arrays(np.ones((1, 2, 8, 8, 8), "f4"))[1] is None


@pytest.mark.parametrize("average", [8, 16, 48])
def test_averages_turn_with_the_box(with_bars, fields, average):
    """A set of orientations that is a group makes the network equivariant under it."""
    ds = open_fields(fields).isel(box=slice(0, 2))
    inputs = np.stack([ds.velfield.input(kind).values for kind in KINDS], axis=1)
    group = symmetries_of_boxes(ds, average)
    assert len(group) == average
    velocity, std = with_bars.predict_arrays(inputs, symmetries=group)
    s = group[-1]
    turned, turned_std = with_bars.predict_arrays(np.ascontiguousarray(apply_scalar(inputs, s)), symmetries=group)
    np.testing.assert_allclose(turned, apply_vector(velocity, s), atol=1e-2)  # float32 sums in another order
    np.testing.assert_allclose(turned_std, np.abs(apply_vector(std, s)), rtol=1e-3)
    alone = with_bars.predict_arrays(inputs)[0]
    assert np.abs(alone - velocity).max() > 1


def test_an_average_by_hand(with_bars, fields):
    ds = open_fields(fields).isel(box=slice(0, 1))
    inputs = np.stack([ds.velfield.input(kind).values for kind in KINDS], axis=1)
    velocities, variances = [], []
    for s in symmetries_of_boxes(ds, 8):
        v, std = with_bars.predict_arrays(np.ascontiguousarray(apply_scalar(inputs, s)))
        velocities.append(apply_vector(v, inverse(s)))
        variances.append(apply_vector(std, inverse(s)) ** 2)
    predicted = with_bars.predict(ds, average=8)
    core = (..., slice(1, -1), slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(predicted.velocity, np.mean(velocities, 0)[core], atol=1e-2)
    mean = np.mean(variances, 0)
    expected = np.maximum(mean - np.var(velocities, 0), 0.1 * mean)
    np.testing.assert_allclose(predicted.velocity_std, np.sqrt(expected)[core], rtol=1e-3)


def test_orientations_that_are_refused(model, fields, tmp_path):
    ds = open_fields(fields)
    with pytest.raises(VelfieldError, match="average=3, rsd=none; choose 1, 8, 16, 48"):
        model.predict(ds, average=3)
    los = np.tile([0.0, 1.0, 0.0], (8, 1))
    url = write_universe(str(tmp_path / "p"), seed=1, cells=6, margin=1, rsd="plane_parallel", line_of_sight=los)
    along_y = open_fields(url)
    with pytest.raises(VelfieldError, match="average=48, rsd=plane_parallel along y; choose 1, 8, 16"):
        model.predict(along_y, average=48)
    assert all(s.permutation[1] == 1 for s in symmetries_of_boxes(along_y, 16))
    assert model.predict(along_y, average=16).velocity.shape == (8, 3, 6, 6, 6)


@pytest.mark.parametrize("calibration", [{"factor": 0.0}, {"power": -1.0}, {"slope": 1.0}, {"factor": "x"}])
def test_senseless_calibrations(with_bars, tmp_path, calibration):
    with_bars.save(str(tmp_path / "m"))
    edit(str(tmp_path / "m"), calibration=calibration)
    with pytest.raises(StoreError, match="metadata do not make sense"):
        load_model(str(tmp_path / "m"))
