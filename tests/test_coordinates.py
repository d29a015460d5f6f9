"""Whatever xarray made of an opened store: the store's own numbers or a refusal in a line, never another number."""

import re

import numpy as np
import pytest
import xarray as xr
from arbitrary_bundle import bundle
from fields_fixture import write_universe
from hypothesis import event, given, settings
from hypothesis import strategies as st
from velocity_stores import SIDE, in_memory, written

import velfield as vf
from velfield.answers.cells import Box, Cells
from velfield.answers.export import export
from velfield.answers.interpolate import trilinear
from velfield.errors import StoreError, VelfieldError
from velfield.stores import coordinates
from velfield.theory import analytic
from velfield.theory.whole import read_overdensity, whole_cube

# of hypothesis, which prints a failing example's stores
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
CELLS = 6  # along a side of a box
DIMS = ("box", "component", "x", "y", "z", "axis")
KINDS = (
    "select",
    "select",
    "select",
    "transpose",
    "transpose",
    "coarsen",
    "join",
    "drop",
)  # as often as they are drawn
POSITIONS = np.random.default_rng(0).uniform(0, SIDE, (400, 3))


def wave(pos):
    k = 2 * np.pi / SIDE
    return np.stack([300 * np.sin(k * pos[0]), 200 * np.cos(k * pos[2]), -250 * np.sin(k * pos[1] + 1)])


@pytest.fixture(scope="module")
def velocity(tmp_path_factory):
    url = written(str(tmp_path_factory.mktemp("coordinates") / "velocity.zarr"), wave, cells=CELLS, std=50.0)
    return vf.open_velocity(url, chunks=None).load()


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("coordinates") / "fields.zarr")
    write_universe(url, seed=5, boxes=2, cells=CELLS, margin=1, min_mass=1e12)
    return vf.open_fields(url, chunks=None).load()


@pytest.fixture(scope="module")
def model(tmp_path_factory, fields):
    url = str(tmp_path_factory.mktemp("coordinates") / "bundle")
    return vf.load_model(bundle(url, fields.encoding["source"], cells=CELLS, context=1, margin=1), device="cpu")


@pytest.fixture(scope="module")
def answers(velocity, fields, model):
    """Of the stores as they were opened."""
    ours = analytic.settings("linear_halo", fields)
    return {
        "query": vf.query_positions(velocity, POSITIONS),
        "overdensity": fields.velfield.overdensity("halo_mass"),
        "own": fields.velfield.overdensity("halo_mass", mean="box"),
        "core": fields.velfield.core(fields),
        "linear": analytic.velocities(ours, fields, range(8)),
        "predict": model.predict(fields),
    }


def along(n):
    """Selections along a dimension of n: parts, steps, mirror images, orders."""
    return st.one_of(
        st.just(slice(None)),
        st.just(slice(None, None, -1)),
        st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(lambda ab: slice(ab[0], ab[0] + ab[1])),
        st.tuples(st.integers(0, 2), st.sampled_from([2, 3, -2])).map(lambda fs: slice(fs[0], None, fs[1])),
        st.permutations(range(n)),
        st.lists(st.integers(0, n - 1), min_size=1, max_size=n),
        st.integers(0, n - 1),
    )


def chosen(n):
    """Boxes: some, each once or more often, in any order."""
    return st.one_of(
        st.just(slice(None)), st.lists(st.integers(0, n - 1), min_size=1, max_size=n), st.integers(0, n - 1)
    )


@st.composite
def changes(draw, cells=CELLS, kinds=KINDS):
    """What somebody does to an opened store, as a function of it."""
    steps = []
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)):
        if kind == "select":
            dim = draw(st.sampled_from(DIMS))
            size = {"box": 8, "component": 3, "axis": 3}.get(dim, cells)
            steps.append((kind, dim, draw(chosen(8) if dim == "box" else along(size))))
        elif kind == "transpose":
            steps.append((kind, draw(st.permutations(DIMS)), None))
        elif kind == "coarsen":
            steps.append((kind, draw(st.sampled_from("xyz")), (draw(st.integers(2, 4)), draw(st.booleans()))))
        elif kind == "join":
            steps.append((kind, draw(st.sampled_from(["box", "x", "y", "z"])), draw(st.integers(0, 4))))
        else:
            steps.append((kind, draw(st.sampled_from(["x", "z", "component", "origin", "axis"])), None))
    return steps


def changed(ds, steps):
    """The store after these steps; a step that xarray itself refuses is left out."""
    for kind, what, how in steps:
        try:
            if kind == "select":
                ds = ds.isel({what: how})
            elif kind == "transpose":
                ds = ds.transpose(*what, missing_dims="ignore")
            elif kind == "coarsen":
                coarse = ds.coarsen({what: how[0]}, boundary="trim")
                ds = (coarse.sum() if how[1] else coarse.mean()).assign_coords(box=ds.box)
            elif kind == "join":
                parts = [ds.isel({what: slice(how, None)}), ds.isel({what: slice(0, how + 1)})]
                ds = xr.concat(parts, what, data_vars="minimal", coords="minimal", compat="override", join="override")
            else:
                ds = ds.drop_vars(what)
        except (ValueError, KeyError, TypeError, IndexError):
            continue
    return ds


def ask(function):
    """Its answer, or None where it is refused in a line that says what is wrong, and what to do."""
    try:
        answer = function()
    except VelfieldError as refused:
        said = str(refused)
        assert re.fullmatch(r"[^;\n]+: [^;\n]*=[^\n]*; [^\n]+", said), said
        event("refused")
        return None
    event("answered")
    return answer


def same_cells(found, reference):
    """Whether each value is the one that the reference has of the same box and cell, or NaN."""
    labels = {dim: found[dim] for dim in ("box", *reference.dims[1:]) if dim in found.coords}
    wanted = reference.sel(labels).transpose(*found.dims)
    assert wanted.shape == found.shape
    same = (found.values == wanted.values) | np.isnan(found.values)
    return bool(same.all())


@given(steps=changes())
@settings(max_examples=100, deadline=None)
def test_queries(velocity, answers, steps):
    store = changed(velocity, steps)
    found, reference = ask(lambda: vf.query_positions(store, POSITIONS)), answers["query"]
    if found is not None:
        good = found["flag"] == 0
        for name in ("velocity", "velocity_std"):
            known = np.isfinite(found[name]).all(axis=1)
            assert known[good].all()
            np.testing.assert_array_equal(found[name][known], reference[name][known])
        event(f"said good: {'some' if good.any() else 'none'}")


@given(steps=changes(kinds=("select", "transpose")))
@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("end", ["nc", "fits"])
def test_exports(velocity, tmp_path_factory, steps, end):
    folder = tmp_path_factory.mktemp("export")
    whole, some = str(folder / f"whole.{end}"), str(folder / f"some.{end}")
    store = changed(velocity, steps)
    # of the boxes that are there each for itself, of all as one grid
    boxes = None if store.sizes.get("box") == 8 else [*range(store.sizes.get("box", 1))]
    if ask(lambda: export(store, some, boxes=boxes) or True):
        numbers = None if boxes is None else np.atleast_1d(store.box.values).tolist()
        export(velocity, whole, boxes=numbers)
        for found, reference in zip(exported(some), exported(whole), strict=True):
            known = np.isfinite(found)
            np.testing.assert_array_equal(found[known], reference[known])


def exported(path):
    """The arrays of a file, those of FITS an image each."""
    if path.endswith(".nc"):
        with xr.open_dataset(path, engine="h5netcdf") as ds:
            velocity = ds["velocity"].values
        return [velocity] if velocity.ndim == 4 else list(velocity)
    from astropy.io import fits

    with fits.open(path) as file:
        return [np.array(image.data) for image in file[1:]]


@given(steps=changes(cells=CELLS + 2))
@settings(max_examples=40, deadline=None)
def test_overdensities(fields, answers, steps):
    store = changed(fields, steps)
    for name, options in (("overdensity", {}), ("own", {"mean": "box"})):
        delta = ask(lambda options=options: store.velfield.overdensity("halo_mass", **options))
        if delta is not None:
            assert same_cells(delta, answers[name])


@given(steps=changes(cells=CELLS + 2))
@settings(max_examples=25, deadline=None)
def test_cores(fields, answers, steps):
    store = changed(fields, steps)
    for of in (store["halo_number"], store):
        core = ask(lambda of=of: store.velfield.core(of))
        if core is not None:
            found = core if isinstance(core, xr.DataArray) else core["halo_number"]
            assert ((found.x > 0) & (found.x < SIDE / 2)).all()
            assert same_cells(found, answers["core"]["halo_number"])


@given(steps=changes(cells=CELLS + 2))
@settings(max_examples=30, deadline=None)
def test_linear_theory(fields, answers, steps):
    store = changed(fields, steps)
    numbers = np.atleast_1d(store["box"].values) if "box" in store.coords else np.arange(8)

    def velocities():
        how = analytic.settings("linear_halo", store)
        return analytic.velocities(how, store, range(len(numbers)))

    found = ask(velocities)
    if found is not None:
        np.testing.assert_array_equal(found, answers["linear"][numbers])
    found = ask(lambda: whole_cube(store, "halo_number"))
    if found is not None:
        np.testing.assert_array_equal(found, whole_cube(fields, "halo_number"))


@given(steps=changes(cells=CELLS + 2, kinds=("select", "transpose", "join", "coarsen")))
@settings(max_examples=12, deadline=None)
def test_predictions(fields, model, answers, steps):
    store = changed(fields, steps)
    made = ask(lambda: model.predict(store, batch=1))
    if made is not None:
        wanted = answers["predict"]["velocity"].sel(box=np.atleast_1d(made["box"].values))
        np.testing.assert_allclose(made["velocity"].values, wanted.values, atol=1e-3)  # km/s, float32 of other batches


@given(one=changes(kinds=("select", "transpose")), other=changes(kinds=("select", "transpose")), same=st.booleans())
@settings(max_examples=40, deadline=None)
def test_metrics(velocity, one, other, same):
    truth = velocity["velocity"]
    noise = np.random.default_rng(3).normal(0, 100, truth.shape).astype("f4")
    predicted = 0.9 * truth + noise
    p, t = changed(predicted, one), changed(truth, one if same else other)
    row = ask(lambda: vf.metrics(p, t))
    if row is not None:
        cells = {dim: np.sort(np.atleast_1d(t[dim].values)) for dim in ("component", "x", "y", "z") if dim in t.dims}
        cells["box"] = np.atleast_1d(t["box"].values)
        plain = vf.metrics(predicted.sel(cells).values, truth.sel(cells).values)
        for name in ("slope", "r", "rms", "rms_centre"):
            mean = plain[name]["mean"]  # None where a single cell leaves it undefined
            assert row[name]["mean"] == (None if mean is None else pytest.approx(mean, rel=1e-12))


@pytest.mark.parametrize("n", [31, 24, 16, 8, 2])
def test_a_crop_answers_within_itself_and_flags_the_rest(n):
    whole = in_memory(wave, boxes=1, cells=32)
    crop, size = whole.isel(x=slice(0, n), y=slice(0, n), z=slice(0, n)), SIDE / 32
    pos = np.random.default_rng(n).uniform(0, SIDE, (2000, 3))
    pos[:200] *= n / 32
    found, reference = vf.query_positions(crop, pos), vf.query_positions(whole, pos)
    inside = ((pos > size / 2) & (pos < (n - 0.5) * size)).all(axis=1)  # between centres of cells that are there
    assert inside.any()
    np.testing.assert_array_equal(found["flag"] == 0, inside)
    np.testing.assert_array_equal(found["velocity"][inside], reference["velocity"][inside])
    assert (found["flag"][~inside] == 2).all()  # a surrounding cell is not known
    assert np.isnan(found["velocity"][~inside]).all()
    one = whole.isel(x=slice(0, 1), y=slice(0, 1), z=slice(0, 1))
    with pytest.raises(
        StoreError, match=r"one cell, which may be an average: store=None, x=1.875, cellsize=3.75, cells"
    ):
        vf.query_positions(one, pos)


def test_a_crop_is_exported_with_what_it_has(tmp_path, velocity):
    crop = velocity.isel(x=slice(1, 4), component=[2, 0, 1]).isel(z=slice(None, None, -1))
    export(crop, str(tmp_path / "crop.nc"), quantities=["velocity", "divergence"])
    export(velocity, str(tmp_path / "whole.nc"), quantities=["velocity", "divergence"])
    with xr.open_dataset(tmp_path / "crop.nc") as found, xr.open_dataset(tmp_path / "whole.nc") as whole:
        places = np.rint(found.x * 0.71)  # NetCDF has megaparsec
        known = places.isin([15, 25, 35, 75, 85, 95])
        np.testing.assert_array_equal(found.velocity.sel(x=known), whole.velocity.sel(x=known))
        assert found.velocity.sel(x=~known).isnull().all()
        inside = places.isin([25, 85])  # both neighbours are there
        np.testing.assert_array_equal(found.divergence.sel(x=inside), whole.divergence.sel(x=inside))
        assert found.divergence.sel(x=~inside).isnull().all()


def test_what_a_selection_gives_is_selected_from_what_the_store_gives(fields, answers):
    crop = fields.isel(x=slice(2, 5), box=[3, 1], z=slice(None, None, -1))
    delta = crop.velfield.overdensity("halo_mass")
    xr.testing.assert_identical(delta, answers["overdensity"].isel(x=slice(2, 5), box=[3, 1], z=slice(None, None, -1)))
    plane = fields.isel(box=0, z=3).velfield.overdensity("halo_mass")
    xr.testing.assert_identical(plane, answers["overdensity"].isel(box=0, z=3))
    assert fields.isel(box=0)["halo_mass"].identical(fields["halo_mass"].isel(box=0))
    one = fields.isel(box=3).transpose()
    how = analytic.settings("linear_halo", one)
    np.testing.assert_array_equal(analytic.velocities(how, one, [0])[0], answers["linear"][3])
    some = fields[["halo_number"]]  # a selection of variables has no origin
    np.testing.assert_array_equal(analytic.velocities(how, some, [3])[0], answers["linear"][3])
    mirrored = fields.isel(x=slice(None, None, -1), box=slice(None, None, -1))
    np.testing.assert_array_equal(read_overdensity(mirrored, "halo_mass", 7, 1), answers["overdensity"][0].values)


def test_metrics_go_by_coordinates(velocity):
    true = velocity["velocity"]
    predicted = (0.9 * true).transpose()
    expected = vf.metrics(0.9 * true.values, true.values, cellsize=10.0)
    for turned in (
        predicted.isel(component=slice(None, None, -1)),
        predicted.isel(x=slice(None, None, -1)),
        predicted.isel(box=[3, 1, 0, 2, 7, 6, 5, 4]),
    ):
        row = vf.metrics(turned, true, cellsize=10.0)
        assert row["slope"]["mean"] == pytest.approx(0.9, rel=1e-6)
        assert row["rms"]["boxes"] == pytest.approx(expected["rms"]["boxes"], rel=1e-6)
    flag = velocity["velocity_flag"].copy()
    flag[1] = 2
    row = vf.metrics(predicted, true, flag=flag.isel(box=slice(None, None, -1), x=slice(None, None, -1)))
    assert row["cells"]["boxes"] == [216, 0, *[216] * 6]
    mirrored = vf.metrics(true.isel(x=slice(None, None, -1)).values, true.isel(x=slice(None, None, -1)), flag=flag)
    assert mirrored["rms"]["mean"] == 0  # an array stands as the field whose coordinates it does not have
    for other, text in (
        (predicted.isel(x=slice(0, 3)), r"different cells: x of true=6 from 5 to 55, x of predicted=3 from 5 to 25"),
        (predicted.assign_coords(y=predicted.y + 60), r"different cells: y of true=6 from 5 to 55, y of predicted=6 f"),
        (predicted.isel(component=[0, 0, 1]), r"different components: component of true=3 from x to z, component of"),
        (
            predicted.isel(box=[0, 1]),
            r"different boxes: box of true=8 from 0 to 7, box of predicted=2 from 0 to 1; give",
        ),
        (predicted.isel(box=[0, *range(7)]), r"fields of different boxes: .*; give the same cells of both \(xarray.al"),
    ):
        with pytest.raises(VelfieldError, match=text):
            vf.metrics(other, true)
    thin = {"x": slice(None, None, 2)}
    assert vf.metrics(predicted.isel(thin), true.isel(thin))["slope"]["mean"] == pytest.approx(0.9, rel=1e-6)
    with pytest.raises(
        VelfieldError, match=r"not lie side by side: x of true=5 and 25, cellsize=10; measure all cells"
    ):
        vf.metrics(predicted.isel(thin), true.isel(thin), cellsize=10.0)
    gaps = {"x": [0, 1, 4]}
    with pytest.raises(VelfieldError, match=r"not lie side by side: x of true=15 and 45, cellsize=10; measure all"):
        vf.metrics(predicted.isel(gaps), true.isel(gaps))
    twice, back = predicted.isel(box=[0, 0, 1]), true.isel(box=[1, 0, 0])
    with pytest.raises(VelfieldError, match=r"the same label twice, in different orders: box of true and predicted="):
        vf.metrics(twice, back)


REFUSED = {  # what is done to a velocity store, and how it is refused, whatever is asked of it
    "coarsened": (
        lambda ds: ds.coarsen(x=2).mean(),
        r"x is not at the centres of the store's cells: store=.*, x=10, spacing=20, cellsize=10, cells=6, margin=0; "
        r"take the store as it was opened, and coarsen, interpolate or shift what you compute from it$",
    ),
    "coarsened by three": (
        lambda ds: ds.coarsen(y=3).sum(),
        r"cells are left out, or averaged over: store=.*, y=15 and 45, cellsize=10, cells=6, margin=0; take the store",
    ),
    "thinned out": (
        lambda ds: ds.isel(z=slice(None, None, 2)),
        r"cells are left out, or averaged over: store=.*velocity.zarr, z=5 and 25, cellsize=10, cells=6, margin=0; .*",
    ),
    "one cell": (
        lambda ds: ds.isel(x=[2]),
        r"one cell, which may be an average: store=.*, x=25, cellsize=10, cells=6, margin=0; take several",
    ),
    "no cell": (lambda ds: ds.isel(x=slice(0, 0)), r"no cells: store=.*, cells along x=0; take the store as it was"),
    "without x": (
        lambda ds: ds.drop_vars("x"),
        r"a store without the places of its cells: store=.*, missing coordinate=x; keep x, y and z as they were",
    ),
    "numbered": (
        lambda ds: ds.assign_coords(x=np.arange(6)),
        r"x is not at the centres of the store's cells: store=.*, x=0, spacing=1, cellsize=10, cells=6",
    ),
    "named": (
        lambda ds: ds.assign_coords(x=list("abcdef")),
        r"x is not at the centres of the store's cells: store=.*, x=a, cellsize=10, cells=6, margin=0; take the store",
    ),
    "not numbers": (lambda ds: ds.assign_coords(y=ds.y * np.nan), r"y is not at the centres of .*, y=nan, spacing=nan"),
    "shifted": (
        lambda ds: ds.assign_coords(z=ds.z + 60),
        r"z is not at the centres of the store's cells: .*, z=65, spac",
    ),
    "in other words": (
        lambda ds: ds.rename(x="i").assign_coords(x=("i", ds.x.values)),
        r"a store without the places of its cells: store=.*, missing coordinate=x, x along=i; keep x, y and z",
    ),
    "joined to itself": (
        lambda ds: xr.concat([ds, ds], "x", data_vars="minimal", coords="minimal", compat="override"),
        r"the same cells twice: store=.*, x=5, cellsize=10, .*; join boxes along box, and along x only cells that are",
    ),
    "one component": (
        lambda ds: ds.isel(component=[0, 1]),
        r"component is not x, y and z: store=.*, component=x, y; keep all three with their labels, in any order",
    ),
    "components without labels": (
        lambda ds: ds.drop_vars("component"),
        r"component is not x, y and z: store=.*, component=without labels; keep all three",
    ),
    "axes without labels": (lambda ds: ds.drop_vars("axis"), r"axis is not x, y and z: store=.*, axis=without labels"),
    "without origin": (
        lambda ds: ds.drop_vars("origin"),
        r"boxes that do not say where they lie: store=.*, missing coordinate=origin; keep it, with its dimensions box",
    ),
    "moved": (
        lambda ds: ds.assign_coords(origin=ds.origin + 3),
        r"boxes that do not lie on their parent's cells: store=.*, origin=3, cellsize=10; keep the origin that the",
    ),
    "of two universes": (
        lambda ds: xr.concat([ds.isel(box=[0]), ds.isel(box=[1]).assign_coords(parent=("box", ["other"]))], "box"),
        r"boxes of another universe: store=.*, parent=other, the store's parent=ab12; take the boxes of one store",
    ),
    "of two times": (
        lambda ds: xr.concat([ds, ds], "time"),
        r"other dimensions than the store's: .*, variable=velocity, dimensions=time, box, component, x, y, z, the "
        r"store's=box, component, x, y, z; take the store as it was opened, and join or reduce what",
    ),
    "of other numbers": (
        lambda ds: ds.astype("c8"),
        r"a variable that is no real number: store=.*, variable=velocity, dtype=complex64; take the store as it was",
    ),
    "a plane": (lambda ds: ds.isel(y=2), r"one plane of cells: store=.*, y=25, cells=6; take a slice of several cells"),
    "without attributes": (
        lambda ds: ds.drop_attrs(deep=False),
        r"a dataset without a store's attributes: missing=boxsize, boxes, .*; open the store with open_fields or open_",
    ),
    "with other attributes": (
        lambda ds: ds.assign_attrs(cells="many"),
        r"attributes that no store has: store=.*, cellsize=10.0, cells='many', margin=0; open the store again",
    ),
    "at one place": (lambda ds: ds.isel(box=[0, 0]), r"several boxes at one place: store=.*, boxes=2, places=1; take"),
}


@pytest.mark.parametrize("done", REFUSED)
def test_what_is_no_part_of_the_store_is_refused(velocity, tmp_path, done):
    change, text = REFUSED[done]
    store = change(velocity)
    with pytest.raises(VelfieldError, match=text) as refused:
        vf.query_positions(store, POSITIONS)
    assert "\n" not in str(refused.value)
    with pytest.raises(VelfieldError, match=text):
        export(store, str(tmp_path / "a.nc"))
    assert not list(tmp_path.iterdir())


def test_whole_boxes_are_needed_where_all_of_a_box_counts(fields, model):
    crop = fields.isel(x=slice(0, 5))
    text = (
        r"boxes that lack cells: store=.*fields.zarr, cells along x=5 \(-1 to 3\), the store's cells=6, margin=1; take "
    )
    for ask_it in (
        lambda: model.predict(crop),
        lambda: model.check(crop),
        lambda: analytic.settings("linear_halo", crop),
        lambda: whole_cube(crop, "halo_number"),
        lambda: read_overdensity(crop, "halo_number", 0, 0),
        lambda: coordinates.as_written(crop),
    ):
        with pytest.raises(StoreError, match=text):
            ask_it()
    with pytest.raises(
        StoreError, match=r"a mean of boxes that lack cells: .*, cells along x=4, the store's cells=6; ta"
    ):
        crop.velfield.overdensity("halo_mass", mean="box")
    coarse = fields.coarsen(x=2).sum()
    for ask_it in (
        lambda: coarse.velfield.overdensity("halo_mass"),
        lambda: coarse.velfield.input("mass_density"),
        lambda: coarse.velfield.core(coarse),
        lambda: fields.velfield.core(coarse["halo_mass"]),
    ):
        with pytest.raises(
            StoreError, match=r"x is not at the centres of the store's cells: .*, spacing=20, cellsize=10"
        ):
            ask_it()
    with pytest.raises(
        StoreError, match=r"other dimensions than the store's: .*variable=halo_mass, dimensions=x, y, z, t"
    ):
        fields.sum("box").velfield.overdensity("halo_mass")
    bare = fields.copy()
    bare["halo_mass"] = bare["halo_mass"].drop_attrs()
    with pytest.raises(
        StoreError, match=r"a variable without its parent's mean: variable=halo_mass, missing attribute="
    ):
        bare.velfield.overdensity("halo_mass")


@pytest.mark.filterwarnings("ignore:Consolidated metadata:UserWarning")  # of Zarr, with which xarray writes
def test_a_store_in_another_order_on_disk_is_queried_and_not_trained_on(tmp_path):
    from velfield.analysis.evaluate import evaluate
    from velfield.stores.sources import open_source

    url = str(tmp_path / "fields.zarr")
    write_universe(url, seed=5, cells=CELLS)
    turned = str(tmp_path / "turned.zarr")
    fields = vf.open_fields(url, chunks=None)
    fields.load().drop_encoding().isel(x=slice(None, None, -1)).to_zarr(turned, zarr_format=3)
    for ask_it in (
        lambda: open_source(turned, ["number_overdensity"]),
        lambda: evaluate("linear", turned, figures=False),
    ):
        with pytest.raises(
            StoreError, match=r"a store whose arrays are in another order: store=.*turned.zarr, dimensions="
        ):
            ask_it()
    pos = POSITIONS[:50]
    np.testing.assert_array_equal(vf.query(turned, pos)["velocity"], vf.query(url, pos)["velocity"])


def test_a_store_as_it_was_opened_is_not_copied(velocity, fields):
    assert coordinates.in_order(velocity) is velocity
    assert coordinates.as_written(fields) is fields
    turned = coordinates.whole_boxes(fields.isel(x=slice(None, None, -1)).transpose())
    assert coordinates.whole_boxes(turned) is turned
    xr.testing.assert_equal(turned, fields)


def test_cells_that_joins_left_empty_are_not_known(velocity):
    apart = [velocity.isel(x=slice(0, 3), y=slice(0, 4)), velocity.isel(x=slice(3, 6), y=slice(2, 6))]
    joined = xr.concat(apart, "x", join="outer", data_vars="minimal", coords="minimal", compat="override")
    assert joined["velocity_flag"].dtype.kind == "f"  # NaN where nothing is
    found, reference = vf.query_positions(joined, POSITIONS), vf.query_positions(velocity, POSITIONS)
    good = found["flag"] == 0
    assert 0 < good.sum() < len(good)
    np.testing.assert_array_equal(found["velocity"][good], reference["velocity"][good])
    assert np.isnan(found["velocity"][~good]).all()


def test_a_box_that_is_not_as_its_layout_says_is_never_read(velocity, monkeypatch):
    for values in (np.zeros((6, 5, 6, 6), "f4"), np.zeros((6, 6, 6, 6)), np.zeros((6, 6, 6, 6), "f4").T):
        cells = Cells(velocity)
        monkeypatch.setattr(cells, "_read", lambda _, values=values: Box(values, None, 0.0))
        with pytest.raises(
            StoreError, match=r"a box in memory that is not as its layout says: shape=\(6, [56], 6, 6\), d"
        ):
            trilinear(cells, POSITIONS)
    with pytest.raises(VelfieldError, match=r"positions of the wrong shape: positions=\(5, 2\), directions=None; give"):
        trilinear(Cells(velocity), np.zeros((5, 2)))
