"""What users of xarray type, on every kind of store: opened today, and written by an older version."""

import importlib.util
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from astropy import units
from astropy.cosmology import units as with_h
from numpy.testing import assert_allclose, assert_array_equal
from older_stores import older
from small_store import arrays_of, spec_of

from velfield.answers.export import NAMES, export
from velfield.answers.queries import query_positions
from velfield.errors import StoreError
from velfield.files import shards
from velfield.geometry.boxes import BoxLayout
from velfield.physics.cosmology import OUTER_RIM
from velfield.stores import store, store_layout
from velfield.verification import verify_store

BOXES = BoxLayout(boxsize=60.0, boxes=2, cells=6, margin=1)
OPEN = {"fields": store.open_fields, "velocity": store.open_velocity}
STORES = [(kind, age) for kind in OPEN for age in ("today", "older")]

pytestmark = pytest.mark.filterwarnings(  # of zarr 3, to whoever lets xarray write a store
    "ignore:Consolidated metadata is currently not part:UserWarning"
)


def write(url, layout, arrays):
    shards.create(url, layout)
    shards.publish(url, layout, shards.write_boxes(url, layout, range(layout.nbox), arrays))
    return url


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, urls = tmp_path_factory.mktemp("stores"), {}
    arrays = arrays_of(BOXES)
    predicted = {name: arrays[name][..., 1:-1, 1:-1, 1:-1] for name in ("velocity", "velocity_flag")}
    predicted["velocity_std"] = np.abs(predicted["velocity"]) + 1
    for age, written in (("today", lambda layout: layout), ("older", older)):
        fields = write(str(folder / f"fields-{age}"), written(store_layout.field_layout(spec_of(BOXES))), arrays)
        layout = store_layout.velocity_layout(
            store.open_fields(fields),
            model={"name": "m", "error_bars": True},
            source=fields,
            fingerprint="aa",
            prediction={"boxes": "whole"},
        )
        urls["fields", age] = fields
        urls["velocity", age] = write(str(folder / f"velocity-{age}"), written(layout), predicted)
    return urls


@pytest.fixture(params=OPEN)
def ds(stores, request):
    return OPEN[request.param](stores[request.param, "today"])


def whole_velocity():
    """Velocity (3, x, y, z) of the parent, put together cell by cell."""
    arrays, n = arrays_of(BOXES), BOXES.cells
    out = np.empty((3, 12, 12, 12), "f4")
    for box in range(8):
        i, j, k = (n * place for place in BOXES.index(box))
        out[:, i : i + n, j : j + n, k : k + n] = arrays["velocity"][box, :, 1:-1, 1:-1, 1:-1]
    return out


@pytest.mark.parametrize("kind", OPEN)
def test_an_older_store_opens_as_one_of_today_does(stores, kind):
    plain = xr.open_zarr(stores[kind, "older"])
    assert (plain.x.units, plain.attrs["periodic"]) == ("Mpc/h", True)  # it is older
    assert "long_name" not in plain.component.attrs
    made = [OPEN[kind](stores[kind, age]).load().assign_attrs(input="") for age in ("today", "older")]
    xr.testing.assert_identical(*made)
    for name in made[0].variables:
        assert str(made[0][name].encoding) == str(made[1][name].encoding)
    assert [store.attributes(stores[kind, age])["periodic"] for age in ("today", "older")] == [1, True]


@pytest.mark.parametrize(("kind", "age"), STORES)
def test_verify_takes_stores_of_every_age(stores, kind, age):
    found = verify_store.open_store(stores[kind, age]).findings
    assert not [finding.line() for finding in found if "metadata" in finding.line() or "coordinate" in finding.line()]


def test_coordinates_are_in_memory_and_everything_has_a_name(ds):
    for name, values in ds.variables.items():
        assert values.attrs["long_name"], name
        assert (values.chunks is None) == (name in ds.coords), name
    for value in ds.attrs.values():
        assert type(value) in (str, int, float)
    assert ds.velocity_flag.attrs["flag_values"].dtype == ds.velocity_flag.dtype


def test_coordinates_are_in_memory_without_dask(stores, monkeypatch):
    ds = store.open_fields(stores["fields", "today"], chunks=None)
    monkeypatch.setattr(type(store.shards.zarr_store("x")), "get", None)  # nothing can be read any more
    assert set(ds["split"].values) == {"train", "validation"}
    assert_array_equal(ds["origin"][1], [0, 0, 30])
    with pytest.raises(TypeError):
        _ = ds["velocity"][0, 0, 0, 0].values


def test_damaged_coordinates_are_said_in_a_line(tmp_path):
    url = write(str(tmp_path / "f"), store_layout.field_layout(spec_of(BOXES)), arrays_of(BOXES))
    (tmp_path / "f" / "split" / "c" / "0").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"is damaged: store=.*, variable=split, box=all, because=.*velfield verify"):
        store.open_fields(url)


def test_chunks(ds):
    n = ds.sizes["x"]
    assert ds.chunks == {"box": (1,) * 8, "x": (n,), "y": (n,), "z": (n,), "component": (3,)}
    assert ds.unify_chunks().chunks == ds.chunks


def test_chunks_where_only_the_velocity_of_a_box_is_cut(tmp_path, monkeypatch):
    boxes = BoxLayout(boxsize=60.0, boxes=1, cells=16)
    monkeypatch.setattr(shards, "CHUNK_BYTES", 4 * 16**3)  # a mass fits, three components do not
    monkeypatch.setattr(shards, "CHUNK_CELLS", (4, 8))
    spec = spec_of(boxes, observer=None, rsd="none", split=["train"])
    url = write(str(tmp_path / "f"), store_layout.field_layout(spec), arrays_of(boxes))
    ds = store.open_fields(url)
    assert ds.chunks["x"] == (8, 8)
    assert_array_equal(ds.halo_mass, arrays_of(boxes)["halo_mass"])
    ds.to_zarr(tmp_path / "copy")
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "copy").load(), ds.load())


def test_map_blocks_and_apply_ufunc(ds):
    doubled = xr.map_blocks(lambda block: block * 2, ds[["velocity"]], template=ds[["velocity"]])
    assert_array_equal(doubled.velocity, ds.velocity.values * 2)
    means = ds[["velocity"]].map_blocks(lambda block: block.mean(("x", "y", "z"))).velocity
    assert_allclose(means, ds.velocity.values.mean((-3, -2, -1)), rtol=1e-4, atol=1e-3)
    speed = xr.apply_ufunc(
        lambda v: np.sqrt((v**2).sum(-1)), ds.velocity, input_core_dims=[["component"]], dask="allowed"
    )
    assert_allclose(speed, np.sqrt((ds.velocity.values**2).sum(1)), rtol=1e-6)


def test_groups(ds):
    parts = dict(ds.groupby("split"))
    assert {name: part.sizes["box"] for name, part in parts.items()} == {"train": 7, "validation": 1}
    means = ds.groupby("split").mean()
    velocity = ds.velocity.values
    assert_allclose(means.velocity.sel(split="train"), velocity[:7].mean(0), rtol=1e-4, atol=1e-3)
    assert_allclose(means.velocity.sel(split="validation"), velocity[7], rtol=1e-6)
    assert ds.groupby("parent").count().velocity.values.max() == 8


def test_selections(ds):
    assert_array_equal(ds.isel(box=3).velocity, ds.velocity.values[3])
    assert_array_equal(ds.sel(component="y").sel(x=13.0, method="nearest").x, 12.5)
    assert ds.where(ds.split == "validation", drop=True).sizes["box"] == 1
    one = ds.velocity.isel(box=2).assign_coords(component=["vx", "vy", "vz"]).to_dataset("component")
    assert_array_equal(one.vy, ds.velocity.values[2, 1])


PARTS = {
    "all": lambda ds: ds,
    "one box": lambda ds: ds.isel(box=3),
    "boxes in another order": lambda ds: ds.isel(box=[5, 1, 2]),
    "one split": lambda ds: ds.isel(box=(ds.split == "train").values),
    "cores": lambda ds: ds.velfield.core(ds),
    "other chunks": lambda ds: ds.chunk(box=3, x=4),
    "in memory": lambda ds: ds.copy().load(),
    "whole": lambda ds: ds.velfield.whole(),
    "one variable": lambda ds: ds[["velocity"]].isel(box=0, z=2),
}


@pytest.mark.parametrize("part", PARTS)
def test_netcdf_comes_back(tmp_path, ds, part):
    chosen, engine = PARTS[part](ds), "h5netcdf"
    chosen.to_netcdf(tmp_path / "a.nc", engine=engine)
    with xr.open_dataset(tmp_path / "a.nc", engine=engine) as made:
        xr.testing.assert_identical(made.load(), chosen.load())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("bare", [False, True], ids=["as it is", "drop_encoding"])
def test_zarr_comes_back(tmp_path, ds, part, bare):
    chosen = PARTS[part](ds)
    (chosen.drop_encoding() if bare else chosen).to_zarr(tmp_path / "a")
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "a").load(), chosen.load())


def test_zarr_of_version_two_and_of_a_variable_alone(tmp_path, ds):
    ds.to_zarr(tmp_path / "two", zarr_format=2)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "two").load(), ds.load())
    ds.velocity.isel(box=0).to_zarr(tmp_path / "one")
    assert_array_equal(xr.open_dataarray(tmp_path / "one", engine="zarr"), ds.velocity.values[0])


@pytest.mark.parametrize(("kind", "age"), STORES)
def test_a_copy_is_a_store(tmp_path, stores, kind, age):
    ds = OPEN[kind](stores[kind, age])
    ds.to_zarr(tmp_path / "copy")
    xr.testing.assert_identical(OPEN[kind](str(tmp_path / "copy")).load(), ds.load())


def test_pickle_concat_merge(ds):
    xr.testing.assert_identical(pickle.loads(pickle.dumps(ds)).load(), ds.load())
    twice = xr.concat([ds, ds], dim="box")
    assert_array_equal(twice.velocity[8:], ds.velocity)
    merged = xr.merge([ds[["velocity"]], ds[["velocity_flag"]]], compat="override", join="exact")
    xr.testing.assert_identical(merged.velocity_flag, ds.velocity_flag)


def test_data_frame(ds):
    pytest.importorskip("dask.dataframe")
    table = (
        ds[["velocity"]].drop_vars(["split", "parent"]).to_dask_dataframe(dim_order=["box", "component", "x", "y", "z"])
    )
    assert_array_equal(table["velocity"].compute(), ds.velocity.values.ravel())


def test_plots_are_labelled_and_reprs_are_made(ds):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    drawn = ds.velocity.isel(box=0, component=0, z=1).plot()
    assert drawn.axes.get_xlabel().replace("\n", " ") == "y of the cell centre from the box's corner [Mpc / littleh]"
    pyplot.close("all")
    assert "velocity" in repr(ds)
    assert "littleh" in ds._repr_html_()


def length_of(text):
    """A unit of length without h [Mpc], of mass [solMass], of speed [km/s]; of astropy."""
    unit = units.Unit(text)
    for wanted in (
        units.Mpc,
        units.solMass,
        units.km / units.s,
        units.Mpc**-3,
        units.solMass / units.Mpc**3,
        units.one,
    ):
        try:
            return (1 * unit).to_value(wanted, with_h.with_H0(100 * OUTER_RIM.h * units.km / units.s / units.Mpc))
        except units.UnitConversionError:
            continue
    raise AssertionError(text)


def test_units_are_what_astropy_takes_them_for(ds):
    h = OUTER_RIM.h
    with units.add_enabled_units(with_h):
        for values in ds.variables.values():
            if "units" in values.attrs:
                length_of(values.attrs["units"])  # none else
        assert length_of(ds.x.units) == pytest.approx(1 / h)
        assert length_of(ds.velocity.units) == 1
        if "halo_mass" in ds:
            assert length_of(ds.halo_mass.units) == pytest.approx(1 / h)
            assert length_of(ds.velfield.density("halo_mass").units) == pytest.approx(h**2)
            assert length_of(ds.velfield.density("halo_number").units) == pytest.approx(h**3)


def test_units_of_cf(ds):
    h, made = OUTER_RIM.h, ds.velfield.cf()
    for name in ("x", "origin", *(["observer"] if "observer" in ds.coords else [])):
        assert made[name].units == "megaparsec"
        assert_allclose(made[name], ds[name].values / h)
    assert made.sel(x=2.5 / h, method="nearest").x == pytest.approx(2.5 / h)  # the index, too
    assert_array_equal(made.velocity, ds.velocity)
    assert made.attrs["boxsize"] == f"{60 / h:.15g} megaparsec"
    if "halo_mass" in ds:
        assert made.halo_mass.dtype == np.float32
        assert_allclose(made.halo_mass, ds.halo_mass.values / h, rtol=1e-6)
        assert made.halo_mass.attrs["mean"] == pytest.approx(2e12 / h)
        assert units.Unit(made.halo_mass.units).to("solMass") == pytest.approx(1, rel=1e-4)
    assert made.velocity.chunks == ds.velocity.chunks  # lazy


def test_what_is_in_units_of_cf_is_not_taken_for_a_store(stores):
    made = store.open_fields(stores["fields", "today"]).velfield.cf()
    for use in (
        lambda: query_positions(made, np.ones((1, 3))),
        lambda: made.velfield.whole(),
        lambda: made.velfield.density("halo_mass"),
        lambda: made.velfield.cf(),
    ):
        with pytest.raises(StoreError, match=r"a store in the units of CF, which is no store .*: boxsize=84.5\d* mega"):
            use()


def test_the_whole_has_the_parents_coordinates(ds):
    whole = ds.velfield.whole()
    assert whole.velocity.dims == ("component", "x", "y", "z")
    assert whole.velocity.chunks == ((3,), (6, 6), (6, 6), (6, 6))
    assert_allclose(whole.x, (np.arange(12) + 0.5) * 5)
    assert_array_equal(whole.velocity, whole_velocity())
    assert whole.sel(component="z", x=2.5, y=52.5, z=32.5).velocity == whole_velocity()[2, 0, 10, 6]
    assert (whole.attrs["boxes"], whole.attrs["cells"], whole.attrs["margin"]) == (1, 12, 0)
    assert_array_equal(whole.observer, [10, 20, 30])
    assert_array_equal(whole.origin, [0, 0, 0])
    assert "split" not in whole.coords
    xr.testing.assert_identical(whole.velfield.whole().load(), whole.load())
    pos = np.random.default_rng(1).uniform(0, 60, (50, 3))
    apart, together = query_positions(ds, pos), query_positions(whole, pos)
    for name in ("velocity", "flag"):
        assert_array_equal(apart[name], together[name])


def test_the_whole_of_a_field_store_keeps_its_means(stores):
    url = stores["fields", "today"]
    whole = store.open_fields(url, chunks=None).velfield.whole()  # without Dask
    assert isinstance(whole.halo_mass.variable._data, np.ndarray)
    delta = whole.velfield.overdensity("halo_mass")
    boxes = store.open_fields(url).velfield.core(store.open_fields(url).velfield.overdensity("halo_mass"))
    assert_array_equal(delta[6:, :6, 6:], boxes[5])
    shuffled = store.open_fields(url).isel(box=[3, 1, 0, 2, 7, 6, 5, 4]).velfield.whole()
    xr.testing.assert_identical(shuffled.load(), whole)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda ds: ds.isel(box=[0, 1, 2]),
            "the boxes do not fill their parent: store=.*, boxes=3 of 8; give the whole",
        ),
        (lambda ds: ds.isel(box=4), "the boxes do not fill their parent: store=.*, boxes=1 of 8"),
        (
            lambda ds: xr.concat([ds, ds], "box"),
            "several boxes at one place: store=.*, boxes=16, places=8; take the boxes",
        ),
        (
            lambda ds: ds.isel(y=slice(1, 4)),
            "boxes that lack cells: .* cells along y=3 .*, the store's cells=6, margin=0; take the store as it was",
        ),
        (
            lambda ds: ds.assign(n=ds.velocity.mean(("x", "y", "z"))),
            r"a variable that has no cells: .*n, .*drop_vars\(\['n'",
        ),
    ],
    ids=["boxes", "box", "twice", "cropped", "derived"],
)
def test_what_is_no_whole_is_refused(stores, change, text):
    with pytest.raises(StoreError, match=text):
        change(store.open_velocity(stores["velocity", "today"])).velfield.whole()


def test_a_whole_of_turned_boxes_is_the_same(stores):
    ds = store.open_velocity(stores["velocity", "today"])
    turned = ds.isel(z=slice(None, None, -1), component=[2, 0, 1]).transpose("z", "x", "y", "component", "box", "axis")
    xr.testing.assert_equal(turned.velfield.whole(), ds.velfield.whole())


def test_boxes_of_two_universes_are_no_whole(stores):
    ds = store.open_velocity(stores["velocity", "today"])
    other = ds.assign_coords(parent=("box", np.array(["cd34"] * 8, dtype=object)))
    with pytest.raises(
        StoreError, match=r"boxes of another universe: store=.*, parent=cd34, the store's parent=ab12; take the boxes"
    ):
        xr.concat([ds.isel(box=slice(4)), other.isel(box=slice(4, 8))], "box").velfield.whole()


def test_halos_that_several_observers_see_are_no_whole(tmp_path):
    each = np.random.default_rng(4).uniform(0, 60, (8, 3))
    spec = spec_of(BOXES, observer=each, observer_per_box=True)
    url = write(str(tmp_path / "f"), store_layout.field_layout(spec), arrays_of(BOXES))
    ds = store.open_fields(url)
    with pytest.raises(StoreError, match=r"each is seen by an observer of its own: .*halo_mass; drop it first, with"):
        ds.velfield.whole()
    whole = ds.drop_vars(["halo_mass", "halo_number"]).velfield.whole()
    assert_array_equal(whole.velocity, whole_velocity())
    assert "observer" not in whole.coords


def test_netcdf_follows_cf(tmp_path, stores):
    if importlib.util.find_spec("compliance_checker") is None:
        pytest.skip("the CF checker is not installed: pip install 'velfield[peers]'")
    for (kind, _), url in stores.items():
        ds = OPEN[kind](url)
        ds.velfield.cf().to_netcdf(tmp_path / f"{kind}.nc", engine="h5netcdf")
        ds.velfield.whole().velfield.cf().to_netcdf(tmp_path / f"{kind}-whole.nc", engine="h5netcdf")
    export(stores["velocity", "today"], str(tmp_path / "export.nc"), quantities=NAMES)
    export(stores["velocity", "today"], str(tmp_path / "boxes.nc"), quantities=["velocity", "divergence"], boxes=[6, 1])
    store.open_fields(stores["fields", "today"]).to_netcdf(tmp_path / "littleh.nc", engine="h5netcdf")
    found = complaints(sorted(tmp_path.glob("*.nc")))
    assert len(found) == 7
    # what this test is for: the checker finds a unit that UDUNITS does not know, and nothing else there
    unknown = {text.split(",")[0] for text in found.pop("littleh.nc") if "recognized by UDUNITS" in text}
    assert unknown == {f"units for {name}" for name in ("x", "y", "z", "origin", "observer", "halo_mass")}
    assert found == {name: [] for name in found}


CHECK = """
import sys
from compliance_checker.runner import CheckSuite, ComplianceChecker

CheckSuite.load_all_available_checkers()
for file in sys.argv[1:]:
    ComplianceChecker.run_checker(file, ["cf:1.11"], 0, "strict", output_filename=file + ".json", output_format="json")
"""


def complaints(files):
    """What the IOOS compliance checker says of files against CF 1.11; in a process of its own, which loads netCDF4."""
    done = subprocess.run([sys.executable, "-c", CHECK, *map(str, files)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = {}
    for file in files:
        report = json.loads(file.with_name(f"{file.name}.json").read_text())["cf:1.11"]
        groups = [group for level in ("high", "medium", "low") for group in report[f"{level}_priorities"]]
        found[file.name] = [text for group in groups for text in group["msgs"]]
    return found
