"""The field and velocity stores: schema, whole shards, metadata last."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from small_store import BOXES, arrays_of, spec_of

from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, storage
from velfield.geometry.boxes import BoxLayout
from velfield.stores import store, store_layout


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "fields.zarr")


def test_round_trip_through_plain_xarray(url):
    arrays = arrays_of(BOXES)
    store.write_fields(url, spec_of(BOXES), arrays)
    ds = xr.open_zarr(url)  # nothing of ours
    for name, values in arrays.items():
        np.testing.assert_array_equal(ds[name].values, values)
    assert ds["velocity"].dims == ("box", "component", "x", "y", "z")
    assert ds["velocity"].attrs["units"] == "km/s"
    np.testing.assert_allclose(ds.x.values, (np.arange(8) - 0.5) * 5.0)
    np.testing.assert_allclose(ds.origin.values[5], [0.0, 30.0, 60.0])
    assert list(ds.split.values[-2:]) == ["train", "validation"]
    assert json.loads(ds.attrs["cosmology"])["omega_m"] == 0.2648
    assert set(ds.coords) >= {"origin", "observer", "split", "parent", "component"}


def test_memory_file_system(url):
    url = f"memory://{url}"
    arrays = arrays_of(BOXES)
    store.write_fields(url, spec_of(BOXES), arrays)
    np.testing.assert_array_equal(store.open_fields(url)["velocity"].values, arrays["velocity"])


def test_chunk_is_a_box_and_shards_are_several(url):
    store.write_fields(url, spec_of(BOXES), arrays_of(BOXES))
    array = zarr.open_array(f"{url}/velocity", mode="r")
    assert array.chunks == (1, 3, 8, 8, 8)
    assert array.shards == (4, 3, 8, 8, 8)  # 27 boxes over at least 8 shards


def test_shards_stay_below_their_size():
    layout = store_layout.field_layout(spec_of(BoxLayout(boxsize=3000.0, boxes=10, cells=60)))
    assert layout.boxes_per_shard == shards.SHARD_BYTES // (3 * 60**3 * 4)
    assert [b for s in range(layout.nshard) for b in layout.boxes_of(s)] == list(range(1000))


def test_store_opens_only_when_published(url):
    layout = store_layout.field_layout(spec_of(BOXES))
    shards.create(url, layout)
    with pytest.raises(StoreError, match=r"no store here, or an unfinished one: url=.*; .*velfield paint"):
        store.open_fields(url)
    storage.write_json(f"{url}/{store.WORK}/job.json", {})
    with pytest.raises(StoreError, match="not finished"):
        store.open_fields(url)
    written = shards.write_boxes(url, layout, range(BOXES.nbox), arrays_of(BOXES))
    shards.publish(url, layout, written)
    assert store.open_fields(url).sizes["box"] == 27


def test_what_killed_writers_leave_is_not_published(url):
    layout = store_layout.field_layout(spec_of(BOXES))
    shards.create(url, layout)
    kept = sorted(path for path in Path(url).rglob("*") if path.is_file())
    shard = Path(url) / "velocity" / "c" / "0"
    shard.mkdir(parents=True)
    (shard / "0.5e1f.partial").write_bytes(b"half a shard")  # as zarr's LocalStore names it
    (Path(url) / "velocity" / "zarr.json.5e1f.part").write_bytes(b"half a document")
    shards.publish(url, layout, {})
    new = [Path(url) / "zarr.json", Path(url) / "manifest" / "zarr.json"]
    assert sorted(path for path in Path(url).rglob("*") if path.is_file()) == sorted([*kept, *new])


def test_unwritten_boxes_read_as_nan(url):
    layout = store_layout.field_layout(spec_of(BOXES))
    shards.create(url, layout)
    shards.publish(url, layout, {})
    ds = store.open_fields(url)
    assert np.isnan(ds.velocity.values).all()
    assert (ds.velocity_flag.values == 255).all()


@pytest.mark.parametrize("boxes", [range(0, 3), range(1, 4), range(2, 10), [0, 2, 1, 3]])
def test_parts_of_shards_are_refused(url, boxes):
    layout = store_layout.field_layout(spec_of(BOXES))
    shards.create(url, layout)
    some = {k: v[: len(boxes)] for k, v in arrays_of(BOXES).items()}
    with pytest.raises(StoreError, match=r"does not cover whole shards: .* boxes per shard=4"):
        shards.write_boxes(url, layout, boxes, some)


def test_wrong_arrays_are_refused(url):
    layout = store_layout.field_layout(spec_of(BOXES))
    shards.create(url, layout)
    arrays = arrays_of(BOXES)
    with pytest.raises(StoreError, match="variables do not match"):
        shards.write_boxes(url, layout, range(27), {"velocity": arrays["velocity"]})
    with pytest.raises(StoreError, match=r"variable=velocity, got .*float64"):
        shards.write_boxes(url, layout, range(27), arrays | {"velocity": arrays["velocity"].astype("f8")})


def test_shards_written_apart_equal_one_write(tmp_path):
    arrays, layout = arrays_of(BOXES), store_layout.field_layout(spec_of(BOXES))
    for name, order in (("a", [range(27)]), ("b", [layout.boxes_of(s) for s in reversed(range(layout.nshard))])):
        shards.create(str(tmp_path / name), layout)
        written = {}
        for boxes in order:
            part = {k: v[boxes[0] : boxes[-1] + 1] for k, v in arrays.items()}
            written |= shards.write_boxes(str(tmp_path / name), layout, boxes, part)
        shards.publish(str(tmp_path / name), layout, written)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) > 30
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_overdensity_and_density(url):
    arrays = arrays_of(BOXES)
    store.write_fields(url, spec_of(BOXES), arrays)
    ds = store.open_fields(url)
    delta = ds.velfield.overdensity("halo_number")
    assert delta.chunks is not None  # lazy
    np.testing.assert_allclose(delta.values, arrays["halo_number"] / 0.5 - 1, rtol=1e-6)
    own = ds.velfield.overdensity("halo_mass", mean="box")
    np.testing.assert_allclose(ds.velfield.core(own).mean(("x", "y", "z")), 0, atol=1e-6)  # float32 of 216 cells
    np.testing.assert_allclose(ds.velfield.density("halo_number").values, arrays["halo_number"] / 125, rtol=1e-6)
    assert ds.velfield.input("mass_density").attrs["units"] == "solMass littleh2 / Mpc3"
    assert ds.velfield.core(ds).sizes["x"] == 6


def test_unknown_names_are_refused(url):
    store.write_fields(url, spec_of(BOXES, means={"halo_mass": 1.0}), {"halo_mass": arrays_of(BOXES)["halo_mass"]})
    ds = store.open_fields(url)
    with pytest.raises(StoreError, match=r"no such field: variable=matter_number; paint it again with --particles"):
        ds.velfield.overdensity("matter_number")
    with pytest.raises(VelfieldError, match=r"unknown input: input='mass'; choose from mass_overdensity"):
        ds.velfield.input("mass")
    with pytest.raises(VelfieldError, match="unknown mean"):
        ds.velfield.overdensity("halo_mass", mean="all")


def test_velocity_store_has_the_cores_coordinates(tmp_path, url):
    arrays = arrays_of(BOXES)
    store.write_fields(url, spec_of(BOXES), arrays)
    ds = store.open_fields(url)
    layout = store_layout.velocity_layout(ds, model={"name": "m"}, source=url, fingerprint="aa")
    out = str(tmp_path / "velocity.zarr")
    shards.create(out, layout)
    truth = ds.velfield.core(ds.velocity)
    shards.publish(out, layout, shards.write_boxes(out, layout, range(27), {"velocity": truth.values}))
    predicted = store.open_velocity(out).velocity
    assert float(abs(truth - predicted).max()) == 0.0
    xr.testing.assert_equal(truth.coords.to_dataset().load(), predicted.coords.to_dataset().load())
    with pytest.raises(StoreError, match="kind=velocity"):
        store.open_fields(out)


def test_opening_gives_no_warning(url):
    store.write_fields(url, spec_of(BOXES), arrays_of(BOXES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.open_fields(url)
        names = set(xr.open_zarr(url).variables)
        assert set(xr.open_zarr(url, consolidated=False).variables) == names  # the manifest is no variable
        assert set(zarr.open_group(url, mode="r").array_keys()) == names
        listed = zarr.open_group(url, mode="r", use_consolidated=False)
        assert {name for name, _ in listed.members(max_depth=None)} == {*names, "manifest"}
        xr.open_datatree(url, engine="zarr", consolidated=False)


def test_objects_that_went_elsewhere_are_not_published(url, tmp_path):
    """As where workers have another folder, or another disk: the store would open and be empty."""
    layout = store_layout.field_layout(spec_of(BOXES))
    shards.create(url, layout)
    elsewhere = str(tmp_path / "elsewhere")
    shards.create(elsewhere, layout)
    written = shards.write_boxes(elsewhere, layout, range(BOXES.nbox), arrays_of(BOXES))
    with pytest.raises(
        StoreError, match=r"what the workers wrote is not here: out=.*, objects=(\d+) of \1, .*; name a"
    ):
        shards.publish(url, layout, written)
    assert not shards.published(url)
    shards.publish(elsewhere, layout, written)
