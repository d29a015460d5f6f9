"""What a table means: kinds, units, redshifts, and the one place that multiplies by a."""

import json
import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import velfield
from velfield.catalogues import genericio
from velfield.catalogues.catalogue import (
    describe,
    open_catalogue,
    outer_rim_names,
    redshift_to_step,
    step_to_redshift,
)
from velfield.errors import CatalogueError, VelfieldError

DATA = Path(__file__).parent / "data"
MOCK_HALOS = str(DATA / "mock-outer-rim" / "m000-499.fofproperties")
MOCK_PARTICLES = str(DATA / "mock-outer-rim" / "m000.mpicosmo.499")
HACC = str(DATA / "hacc" / "m000.full.mpicosmo.50")


def write(path, table, *, boxsize=100.0, **options):
    genericio.write(str(path), [table], dims=(1, 1, 1), boxsize=boxsize, **options)
    return str(path)


def particles(rows=20, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {name: (100 * rng.random(rows)).astype(dtype) for name in ("x", "y", "z", "vx", "vy", "vz")}


# ------------------------------------------------------------------------------------------ steps and names


def test_steps_of_the_release():
    assert step_to_redshift(499) == 0.0
    assert step_to_redshift(487) == pytest.approx(0.024, abs=5e-4)  # the release quotes three decimals
    assert step_to_redshift(331) == pytest.approx(0.502, abs=5e-4)
    assert step_to_redshift(411) == pytest.approx(0.212, abs=5e-4)
    assert 1 / (1 + step_to_redshift(0)) == pytest.approx(1 / 201 + 200 / 201 / 500, rel=1e-15)  # one rounding
    assert (redshift_to_step(0.212), redshift_to_step(0)) == (411, 499)


@given(step=st.integers(0, 499))
def test_step_and_redshift_invert(step):
    assert redshift_to_step(step_to_redshift(step)) == step


@given(redshift=st.floats(0, 142))
def test_step_is_the_nearest_in_a(redshift):
    a = 1 / (1 + redshift)
    distances = [abs(1 / (1 + step_to_redshift(s)) - a) for s in range(500)]
    assert distances[redshift_to_step(redshift)] <= min(distances) + 1e-12  # a tie may fall either way


@pytest.mark.parametrize("step", [-1, 500])
def test_no_such_step(step):
    with pytest.raises(VelfieldError, match=rf"no such step: step={step}; Outer Rim's steps are 0 to 499"):
        step_to_redshift(step)


@pytest.mark.parametrize("redshift", [-0.1, 200.0, float("nan")])
def test_no_step_near(redshift):
    with pytest.raises(
        VelfieldError, match=r"no step near this redshift: redshift=.*; Outer Rim's steps go from z = 143"
    ):
        redshift_to_step(redshift)


@pytest.mark.parametrize(
    ("name", "redshift"),
    [
        (outer_rim_names(499)[0], 0.0),
        (outer_rim_names(411)[1], step_to_redshift(411)),
        ("m000-331.fofproperties#7", step_to_redshift(331)),
        ("m000-500.fofproperties", None),
        ("m000.full.mpicosmo.50", None),
        ("m001-499.fofproperties", None),
        ("m000-499.fofproperties.old", None),
        ("catalogue", None),
    ],
)
def test_redshift_comes_from_outer_rim_names_only(tmp_path, name, redshift):
    url = write(tmp_path / name, particles())
    assert open_catalogue(url).redshift == redshift
    assert open_catalogue(url, redshift=0.7).redshift == 0.7


def test_names_of_the_release():
    assert outer_rim_names(331) == ("m000-331.fofproperties", "m000.mpicosmo.331")


@pytest.mark.parametrize("redshift", [-0.5, float("nan"), float("inf")])
def test_no_such_redshift(redshift):
    with pytest.raises(VelfieldError, match=r"no such redshift: redshift=.*; give a number from 0 on"):
        open_catalogue(HACC, redshift=redshift)


# ------------------------------------------------------------------------------------------ what is read


def test_halos():
    cat = velfield.open_catalogue(MOCK_HALOS)
    assert (cat.kind, cat.format, len(cat), cat.boxsize, cat.redshift) == ("halos", "GenericIO", 31446, 512.0, 0.0)
    assert cat.columns["fof_halo_mass"].unit == "h⁻¹M⊙"
    assert cat.columns["fof_halo_center_y"].unit == "h⁻¹Mpc"
    assert cat.columns["fof_halo_mean_vx"].unit == "km/s"
    assert cat.columns["fof_halo_tag"].dtype == np.int64
    assert len(cat.blocks) == 8
    tracers, table = cat.tracers(), cat.read()
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(tracers.pos[:, axis], table[f"fof_halo_center_{name}"])
        np.testing.assert_array_equal(tracers.vel[:, axis], table[f"fof_halo_mean_v{name}"])  # a = 1
    np.testing.assert_array_equal(tracers.mass, table["fof_halo_mass"])
    assert {a.dtype for a in (tracers.pos, tracers.vel, tracers.mass)} == {np.dtype(np.float32)}


def test_particles():
    cat = open_catalogue(MOCK_PARTICLES)
    assert (cat.kind, len(cat)) == ("particles", 167772)
    tracers = cat.tracers(blocks=[5], rows=(10, 60))
    edge = sum(b.nrows for b in cat.blocks[:5])
    table = cat.read(["x", "vz"])
    np.testing.assert_array_equal(tracers.pos[:, 0], table["x"][edge + 10 : edge + 60])
    np.testing.assert_array_equal(tracers.vel[:, 2], table["vz"][edge + 10 : edge + 60])
    assert tracers.mass is None


def test_mock_halos_move_with_their_matter():
    """Physics: a halo's velocity is that of the particles around it, in the truth that was made from all particles."""
    tracers = open_catalogue(MOCK_HALOS).tracers()
    truth = np.load(DATA / "mock-outer-rim" / "truth_499.npz")
    cell = (tracers.pos / 8).astype(int) % 64
    local = truth["vel_proper_kms"][:, cell[:, 0], cell[:, 1], cell[:, 2]].T
    # found 0.897: halos also move within their cells of 8 h⁻¹Mpc; with axes exchanged at most 0.33
    assert np.corrcoef(local.ravel(), tracers.vel.ravel())[0, 1] > 0.85


@given(redshift=st.floats(0, 10), dtype=st.sampled_from([np.float32, np.float64]))
@settings(deadline=None)  # the first call compiles
def test_proper_velocity_is_a_times_the_column(tmp_path_factory, redshift, dtype):
    url = write(tmp_path_factory.mktemp("a") / "p", particles(dtype=dtype))
    cat = open_catalogue(url, redshift=redshift)
    table, tracers = cat.read(), cat.tracers()
    expected = np.stack([table[v] for v in ("vx", "vy", "vz")], axis=1) / (1 + redshift)
    assert tracers.vel.dtype == dtype
    np.testing.assert_allclose(tracers.vel, expected, rtol=3 * np.finfo(dtype).eps)  # a and the product are rounded
    np.testing.assert_array_equal(tracers.pos, np.stack([table[v] for v in "xyz"], axis=1))
    np.testing.assert_array_equal(cat.read(["vx"])["vx"], particles(dtype=dtype)["vx"])  # the file's own stays


def test_velocities_need_a_redshift():
    cat = open_catalogue(HACC)
    assert cat.redshift is None
    assert cat.tracers(velocities=False).vel is None
    message = r"velocities need the redshift, which the files do not hold: file=.*mpicosmo\.50, redshift=None; give red"
    with pytest.raises(VelfieldError, match=message):
        cat.tracers()
    a = 0.12
    vel = open_catalogue(HACC, redshift=1 / a - 1).tracers().vel
    np.testing.assert_allclose(vel[:, 0], a * cat.read(["vx"])["vx"], rtol=1e-6)  # float32


def test_halos_without_centres_have_their_means(tmp_path):
    table = open_catalogue(MOCK_HALOS).read(blocks=[0])
    kept = {k: v for k, v in table.items() if "center" not in k}
    cat = open_catalogue(write(tmp_path / "h", kept, boxsize=512.0), redshift=0)
    assert cat.kind == "halos"
    np.testing.assert_array_equal(cat.tracers().pos[:, 1], table["fof_halo_mean_y"])


def test_only_what_is_asked_for(tmp_path):
    cat = open_catalogue(MOCK_HALOS)
    assert cat.tracer_columns(velocities=False, masses=False) == [f"fof_halo_center_{x}" for x in "xyz"]
    assert len(cat.tracer_columns()) == 7
    assert cat.stored_bytes(cat.tracer_columns()) == 7 * (4 * len(cat) + 8 * 8)
    assert cat.tracers(masses=False).mass is None
    massless = {k: v for k, v in cat.read(blocks=[0]).items() if k != "fof_halo_mass"}
    other = open_catalogue(write(tmp_path / "h", massless, boxsize=512.0), redshift=0)
    assert other.tracers(masses=False).mass is None
    with pytest.raises(
        CatalogueError,
        match=r"missing columns: file=.*, kind=halos, missing=mass; .*--halo-column mass=NAME",
    ):
        other.tracers()


def test_positions_count_from_the_corner(tmp_path):
    table = particles()
    shifted = {k: v + np.float32(64) if k in "xyz" else v for k, v in table.items()}
    cat = open_catalogue(write(tmp_path / "p", shifted, origin=(64.0, 64.0, 64.0)), redshift=0)
    np.testing.assert_allclose(cat.tracers().pos[:, 0], table["x"], atol=164 * 2**-23)  # float32 at 164 h⁻¹Mpc
    assert (cat.blocks[0].lower, cat.blocks[0].upper) == ((0.0, 0.0, 0.0), (100.0, 100.0, 100.0))
    np.testing.assert_array_equal(cat.read(["x"])["x"], shifted["x"])


def test_vector_columns_keep_their_shape(tmp_path):
    table = particles() | {"spin": np.arange(60, dtype=np.float32).reshape(20, 3)}
    cat = open_catalogue(write(tmp_path / "p", table))
    assert cat.columns["spin"].dtype == np.dtype((np.float32, (3,)))
    np.testing.assert_array_equal(cat.read(["spin"])["spin"], table["spin"])
    assert describe(cat)["columns"]["spin"] == {"dtype": "float32", "components": 3, "unit": "", "description": ""}


def test_a_catalogue_on_the_sky_is_called_that(tmp_path):
    url = write(tmp_path / "t", {name: np.zeros(3, "f4") for name in ("RA", "Dec", "z")})
    said = (
        r"a catalogue on the sky, without places in a box: file=.*, columns=RA, Dec, z; .* a survey needs its selection"
    )
    with pytest.raises(CatalogueError, match=said):
        open_catalogue(url, 0.0)


def test_neither_halos_nor_particles(tmp_path):
    url = write(tmp_path / "t", {"x": np.zeros(3, "f4"), "temperature": np.zeros(3, "f4")})
    with pytest.raises(
        CatalogueError, match=r"neither halos nor particles: file=.*, columns=x, temperature; halos need"
    ):
        open_catalogue(url)


def test_other_formats_are_named(tmp_path):
    (tmp_path / "c.txt").write_text("x y z\n1 2 3\n")
    with pytest.raises(CatalogueError, match=r"not a catalogue in a known format: file=.*c\.txt, first_bytes=b'x y z"):
        open_catalogue(str(tmp_path / "c.txt"))
    with pytest.raises(CatalogueError, match=r"no such file: file=.*nothing; check the path"):
        open_catalogue(str(tmp_path / "nothing"))
    with pytest.raises(CatalogueError, match=r"file cannot be read: file=.*; check path and permissions"):
        open_catalogue(str(tmp_path))


def test_opens_where_cat_file_counts_versions(monkeypatch):
    """In s3fs the second positional argument of cat_file is a version: ranges must go by name."""
    fs = fsspec.filesystem("memory")
    plain = type(fs).cat_file

    def versioned(self, path, version_id=None, start=None, end=None):
        assert version_id is None
        return plain(self, path, start=start, end=end)

    def ranges(self, paths, starts, ends, on_error="return"):  # noqa: ARG001 - nothing fails here
        return [plain(self, *each) for each in zip(paths, starts, ends, strict=True)]

    monkeypatch.setattr(type(fs), "cat_file", versioned)
    monkeypatch.setattr(type(fs), "cat_ranges", ranges)
    monkeypatch.setattr(
        "velfield.catalogues.genericio_read.FIRST_READ", 100
    )  # so that the rest of a header is asked for too
    fs.pipe_file("/versions.gio", Path(HACC).read_bytes())
    assert len(open_catalogue("memory://versions.gio")) == 32**3


# ------------------------------------------------------------------------------------------ identity


def test_fingerprint_follows_a_copy(tmp_path):
    cat = open_catalogue(MOCK_HALOS)
    fs = fsspec.filesystem("memory")
    for path in (DATA / "mock-outer-rim").glob("m000-499*"):
        shutil.copy(path, tmp_path / path.name.replace("m000-499", "mine"))
        fs.pipe_file(f"/elsewhere/{path.name}", path.read_bytes())
    assert open_catalogue(str(tmp_path / "mine.fofproperties")).fingerprint == cat.fingerprint
    assert open_catalogue("memory://elsewhere/m000-499.fofproperties").fingerprint == cat.fingerprint
    assert open_catalogue(MOCK_PARTICLES).fingerprint != cat.fingerprint
    one, two = (open_catalogue(write(tmp_path / str(seed), particles(seed=seed))) for seed in (1, 2))
    assert one.fingerprint != two.fingerprint


def test_pickles():
    cat = open_catalogue(MOCK_HALOS)
    other = pickle.loads(pickle.dumps(cat))
    assert other.fingerprint == cat.fingerprint
    np.testing.assert_array_equal(other.tracers(blocks=[3]).vel, cat.tracers(blocks=[3]).vel)


def test_describe_is_plain(tmp_path):
    found = json.loads(json.dumps(describe(open_catalogue(MOCK_HALOS))))
    assert {k: found[k] for k in ("format", "kind", "rows", "blocks", "files", "boxsize", "redshift")} == {
        "format": "GenericIO",
        "kind": "halos",
        "rows": 31446,
        "blocks": 8,
        "files": 3,
        "boxsize": 512.0,
        "redshift": 0.0,
    }
    assert found["bytes"] == 1824 + 625928 + 667256 + 480456
    assert found["spatial_blocks"] is True
    assert found["columns"]["fof_halo_mass"]["unit"] == "h⁻¹M⊙"
    assert len(found["fingerprint"]) == 64
    empty = describe(open_catalogue(write(tmp_path / "e", {k: v[:0] for k, v in particles().items()})))
    assert (empty["rows"], empty["largest_block"]) == (0, 0)
