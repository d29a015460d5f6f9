"""Catalogues in Parquet, HDF5, CSV and FITS: the same values give the same tracers, and nothing is guessed."""

import json
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pyarrow
import pytest
from astropy.io import fits
from pyarrow import parquet
from table_files import (
    OPENCOSMO_UNITS,
    UNITS,
    WRITERS,
    write_csv,
    write_hdf5,
    write_opencosmo,
    write_parquet,
)

from velfield.catalogues.catalogue import describe, open_catalogue
from velfield.catalogues.table_format import reading
from velfield.commands.cli import main
from velfield.errors import CatalogueError, VelfieldError

MOCK = Path(__file__).parent / "data" / "mock-outer-rim"
HALOS, PARTICLES = str(MOCK / "m000-499.fofproperties"), str(MOCK / "m000.mpicosmo.499")
FORMATS = list(WRITERS)
OURS = ("x", "y", "z", "vx", "vy", "vz", "mass")


@pytest.fixture(scope="module")
def halos():
    cat = open_catalogue(HALOS)
    return cat.read(cat.tracer_columns())


def small(rows=40, seed=0, dtype=np.float32):
    """Halos under our own names in a box of 100 h⁻¹Mpc."""
    rng = np.random.default_rng(seed)
    table = {x: 100 * rng.random(rows) for x in "xyz"}
    table |= {f"v{x}": 300 * rng.standard_normal(rows) for x in "xyz"} | {"mass": 1e12 + 1e13 * rng.random(rows)}
    return {name: values.astype(dtype) for name, values in table.items()}


def write(form, path, table, *args, **options):
    return WRITERS[form](path, table, *args, **options)


def assert_same(found, expected):
    for name in ("pos", "vel", "mass"):
        values = getattr(expected, name)
        np.testing.assert_array_equal(getattr(found, name), values, strict=getattr(found, name).dtype == values.dtype)


# ------------------------------------------------------------------------------------------ one truth in every format


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_values_give_the_same_tracers(tmp_path, halos, form):
    expected = open_catalogue(HALOS).tracers()
    url = write(form, tmp_path / "c", halos)
    cat = open_catalogue(url, 0.0, boxsize=512.0)
    assert (cat.kind, len(cat), cat.boxsize, cat.redshift) == ("halos", 31446, 512.0, 0.0)
    found = cat.tracers()
    assert_same(found, expected)
    assert found.pos.dtype == (np.float64 if form == "csv" else np.float32)
    table = cat.read(["fof_halo_mass", "fof_halo_mean_vz"])
    np.testing.assert_array_equal(table["fof_halo_mean_vz"], halos["fof_halo_mean_vz"])
    assert cat.stored_bytes(["fof_halo_mass"]) <= cat.stored_bytes() <= cat.nbytes
    with_rows = cat.tracers(blocks=[0], rows=(7, 19))
    np.testing.assert_array_equal(with_rows.vel, expected.vel[7:19])
    parts = list(cat.chunks(0, rows=3000))
    assert {len(part.pos) for part in parts[:-1]} <= {3000}
    np.testing.assert_array_equal(np.concatenate([part.mass for part in parts]), cat.tracers([0]).mass)
    assert_same(pickle.loads(pickle.dumps(cat)).tracers([0]), cat.tracers([0]))
    json.dumps(describe(cat))


@pytest.mark.parametrize("form", FORMATS)
def test_other_values_have_another_fingerprint_and_a_copy_the_same(tmp_path, form):
    one = open_catalogue(write(form, tmp_path / "a", small()))
    fs = fsspec.filesystem("memory")
    for name in one.files:
        fs.pipe_file(f"/copy/{form}{name.removeprefix(one.url)}", Path(name).read_bytes())
    copy = open_catalogue(f"memory://copy/{form}", 0.0, boxsize=None if form == "opencosmo" else 100.0)
    assert copy.fingerprint == one.fingerprint
    assert_same(copy.tracers(), open_catalogue(one.url, 0.0, velocity="proper").tracers())
    changed = small()
    changed["vy"][17] += 1
    assert open_catalogue(write(form, tmp_path / "b", changed)).fingerprint != one.fingerprint


@pytest.mark.parametrize("form", ["parquet", "hdf5", "csv", "fits"])
def test_many_rows_are_many_blocks(tmp_path, monkeypatch, form):
    monkeypatch.setattr("velfield.catalogues.table_csv.PIECE", 4096)
    for module in ("table_hdf5", "table_fits", "table_parquet"):
        monkeypatch.setattr(f"velfield.catalogues.{module}.BLOCK_ROWS", 300)
    table = small(1000)
    url = write(form, tmp_path / "c", table, **({"row_group_size": 100} if form == "parquet" else {}))
    cat = open_catalogue(url, 0.0, boxsize=100.0)
    assert len(cat.blocks) >= 4
    assert max(block.nrows for block in cat.blocks) <= 300
    assert sum(block.nrows for block in cat.blocks) == len(cat) == 1000
    np.testing.assert_array_equal(cat.tracers().mass, table["mass"])
    pieces = [cat.tracers([block.index]).pos for block in cat.blocks]
    np.testing.assert_array_equal(np.concatenate(pieces)[:, 1], table["y"])
    table["z"][777] = np.nan
    url = write(form, tmp_path / "d", table, **({"row_group_size": 100} if form == "parquet" else {}))
    with pytest.raises(CatalogueError, match=r"rank=\d+, rows=\d+, 1 not finite \(row=777, column=z, value=nan\)"):
        open_catalogue(url, 0.0, boxsize=100.0).tracers()


def test_only_the_wanted_columns_are_fetched(tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFile

    table = small(20_000) | {f"more{i}": np.random.default_rng(i).random(20_000) for i in range(20)}
    url = write("parquet", tmp_path / "c", table)
    fsspec.filesystem("memory").pipe_file("/wanted.parquet", Path(url).read_bytes())
    cat = open_catalogue("memory://wanted.parquet", 0.0)
    fetched = []
    plain = MemoryFile.read
    monkeypatch.setattr(MemoryFile, "read", lambda self, n=-1: fetched.append(n) or plain(self, n))
    cat.tracers()
    wanted = cat.stored_bytes(cat.tracer_columns())
    assert 0 < sum(fetched) <= 1.02 * wanted
    assert wanted < 0.2 * cat.nbytes


# ------------------------------------------------------------------------------------------ names, units, frames


def as_file(form, path, table, units):
    """The table with these units stated, where the format can."""
    return write(form, path, table, units)


@pytest.mark.parametrize("form", ["parquet", "hdf5", "csv", "fits"])
def test_stated_units_are_converted(tmp_path, form):
    table = small(dtype=np.float64)
    expected = open_catalogue(as_file(form, tmp_path / "a", table, UNITS), 0.0).tracers()
    np.testing.assert_array_equal(expected.pos[:, 0], table["x"])
    h = 0.7
    other = {n: v * {"x": 1e3 / h, "y": 1e3 / h, "z": 1e3 / h, "mass": 1e-10 / h}.get(n, 1e3) for n, v in table.items()}
    url = as_file(form, tmp_path / "b", other, {"length": "kpc", "speed": "m/s", "mass": "1e10 Msun"})
    found = open_catalogue(url, 0.0, h=h).tracers()
    for name in ("pos", "vel", "mass"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-14)  # some roundings
    with pytest.raises(
        CatalogueError, match=r"the Hubble parameter is needed to convert: file=.*, column=x, unit='kpc'"
    ):
        open_catalogue(url, 0.0)


def test_names_units_and_components_can_be_given(tmp_path):
    table = small()
    vectors = {
        "pos": np.stack([table[x] for x in "xyz"], 1),
        "velocity": np.stack([table[f"v{x}"] for x in "xyz"], 1),
        "M200c": table["mass"] / np.float32(0.5),
    }
    url = write_parquet(tmp_path / "c", vectors)
    with pytest.raises(CatalogueError, match=r"neither halos nor particles: file=.*, columns=pos, velocity, M200c; h"):
        open_catalogue(url)
    names = {x: f"pos[{i}]" for i, x in enumerate("xyz")} | {f"v{x}": f"velocity[{i}]" for i, x in enumerate("xyz")}
    names |= {"mass": "M200c [Msun]"}
    expected = open_catalogue(write_parquet(tmp_path / "d", table), 0.0).tracers()
    for given in (names, [f"{k}={v}" for k, v in names.items()]):
        cat = open_catalogue(url, 0.0, columns=given, h=0.5)
        assert cat.kind == "halos"
        assert_same(cat.tracers(), expected)
    assert cat.tracer_columns() == ["pos", "velocity", "M200c"]
    assert describe(cat)["tracers"]["mass"] == "M200c [Msun] × 0.5"
    assert describe(cat)["tracers"]["vy"] == "velocity[1] [no unit stated]"


def test_columns_of_genericio_can_be_named_too():
    cat = open_catalogue(HALOS, columns={"x": "fof_halo_mean_x", "y": "fof_halo_mean_y", "z": "fof_halo_mean_z"})
    np.testing.assert_array_equal(cat.tracers().pos[:, 2], cat.read(["fof_halo_mean_z"])["fof_halo_mean_z"])
    particles = open_catalogue(PARTICLES, columns=["vx=vy", "vy=vx"])
    np.testing.assert_array_equal(particles.tracers().vel[:, 0], particles.read(["vy"])["vy"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"mass": "M500"}, r"no such column: file=.*, column=M500, wanted for=mass; the file has x, y, z, vx"),
        ({"weight": "mass"}, r"no such name: column=weight; the names to give are x y z vx vy vz mass"),
        (["mass"], r"not a name and a column: column='mass'; write it as mass=NAME"),
        ({"x": "x [furlong]"}, r"not a unit of length: file=.*, column=x, unit='furlong'; .* 'NAME \[Mpc/h\]'"),
        ({"x": "x [km/s]"}, r"not a unit of length: .*unit='km/s'"),
        (
            {"vx": "vx [km/s/h]"},
            r"a speed with h in its unit: file=.*, column=vx, unit='km/s/h'; give velocities",
        ),
        ({"mass": "mass [Mpc/h]"}, r"not a unit of mass: .*unit='Mpc/h'; .* 'NAME \[Msun/h\]'"),
        ({"x": "x[0]"}, r"not a single number a row: file=.*, column=x\[0\], components=1"),
        ({"mass": "name"}, r"not a column of numbers: file=.*, column=name, dtype=object; name another for mass"),
        (
            {"vx": "vx [comoving km/s]", "vy": "vy [proper km/s]"},
            r"different frames: file=.*, stated=None, units of vx=",
        ),
    ],
)
def test_what_cannot_be_meant(tmp_path, columns, message):
    url = write_csv(tmp_path / "c", small(5))
    text = Path(url).read_text().splitlines()
    Path(url).write_text("\n".join([text[0] + ",name", *(line + ",a" for line in text[1:])]))
    with pytest.raises(VelfieldError, match=message) as caught:
        open_catalogue(url, 0.0, columns=columns)
    assert "\n" not in str(caught.value)


def test_missing_columns_are_listed_with_what_is_there(tmp_path):
    table = small(5)
    del table["vy"], table["mass"]
    cat = open_catalogue(write_csv(tmp_path / "c", table), 0.0, kind="halos")
    message = r"missing columns: file=.*, missing=vy mass; say .*--halo-column vy=NAME\), the file has x, y, z, vx, vz"
    for ask in (cat.tracers, cat.tracer_columns):
        with pytest.raises(CatalogueError, match=message):
            ask()
    assert cat.tracers(velocities=False, masses=False).mass is None


def test_kind_is_by_content_and_what_the_user_says(tmp_path):
    table = small(5)
    url = write_csv(tmp_path / "c", table)
    assert open_catalogue(url).kind == "halos"  # it has masses
    assert open_catalogue(url, 0.0, kind="particles").tracers().mass is None
    del table["mass"]
    massless = write_csv(tmp_path / "d", table)
    assert open_catalogue(massless).kind == "particles"
    assert open_catalogue(massless, kind="halos").kind == "halos"
    assert open_catalogue(PARTICLES, kind="halos").kind == "particles"  # HACC's names leave no choice
    assert open_catalogue(HALOS, kind="particles").kind == "halos"


def test_comoving_or_proper_is_never_guessed(tmp_path):
    table = small()
    url = write_csv(tmp_path / "c", table)
    proper = np.stack([table[f"v{x}"] for x in "xyz"], 1)
    message = r"not said whether velocities are comoving or proper: file=.*, redshift=1.0; give velocity \(--halo-"
    with pytest.raises(VelfieldError, match=message):
        open_catalogue(url, 1.0).tracers()
    with pytest.raises(VelfieldError, match=r"redshift=None; give velocity"):
        open_catalogue(url).tracers()
    np.testing.assert_array_equal(open_catalogue(url, 0.0).tracers().vel, proper)  # the same at z = 0
    np.testing.assert_array_equal(open_catalogue(url, velocity="proper").tracers().vel, proper)
    np.testing.assert_array_equal(open_catalogue(url, 1.0, velocity="comoving").tracers().vel, proper / 2)
    stated = {f"v{x}": f"v{x} [comoving km/s]" for x in "xyz"}
    np.testing.assert_array_equal(open_catalogue(url, 1.0, columns=stated).tracers().vel, proper / 2)
    hacc = {f"fof_halo_mean_{name}" if name[0] == "v" else name: values for name, values in table.items()}
    np.testing.assert_array_equal(open_catalogue(write_csv(tmp_path / "d", hacc), 1.0).tracers().vel, proper / 2)
    mock = open_catalogue(HALOS, redshift=1.0, velocity="proper")
    np.testing.assert_array_equal(mock.tracers([0]).vel, open_catalogue(HALOS, redshift=0.0).tracers([0]).vel)


def test_proper_lengths_become_comoving(tmp_path):
    table = small(dtype=np.float64)
    url = write_csv(tmp_path / "c", {n: v / 3 if n in OURS[:3] else v for n, v in table.items()})
    columns = {x: f"{x} [proper Mpc/h]" for x in "xyz"}
    found = open_catalogue(url, 2.0, columns=columns, velocity="proper").tracers()
    np.testing.assert_allclose(found.pos[:, 0], table["x"], rtol=1e-15)  # one rounding each way
    with pytest.raises(VelfieldError, match=r"proper lengths need the redshift: file=.*; give redshift"):
        open_catalogue(url, columns=columns, velocity="proper").tracers()


@pytest.mark.parametrize("form", ["parquet", "hdf5", "fits"])
def test_a_redshift_in_the_file(tmp_path, form):
    url = write(form, tmp_path / "c", small(), redshift=0.5)
    assert open_catalogue(url).redshift == 0.5
    assert open_catalogue(url, redshift=0.5).redshift == 0.5
    with pytest.raises(CatalogueError, match=r"does not agree on the redshift: file=.*, given=0\.7, in the file=0\.5"):
        open_catalogue(url, redshift=0.7)


@pytest.mark.parametrize("value", [{"boxsize": 0.0}, {"boxsize": float("nan")}, {"h": 70.0}])
def test_out_of_range(value):
    with pytest.raises(VelfieldError, match=r"out of range: boxsize=.*, h=.*; give the side in h⁻¹Mpc and h as"):
        open_catalogue(HALOS, **value)
    with pytest.raises(CatalogueError, match=r"does not agree on the boxsize: file=.*, given=300, in the file=512"):
        open_catalogue(HALOS, boxsize=300)
    with pytest.raises(VelfieldError, match=r"no such choice: velocity=fast, kind=None; velocities are comoving"):
        open_catalogue(HALOS, velocity="fast")


# ------------------------------------------------------------------------------------------ rows that cannot be right


@pytest.mark.parametrize("form", ["parquet", "hdf5", "opencosmo", "csv", "fits"])
def test_rows_are_checked_in_every_format(tmp_path, form):
    table = small()
    table["x"][[3, 9]] = np.nan
    table["y"][4] = 700
    table["mass"][5] = -1
    options = {"boxsize": 100.0} if form == "opencosmo" else {}
    cat = open_catalogue(write(form, tmp_path / "c", table, **options), 0.0, boxsize=100.0)
    for read in (cat.tracers, lambda: list(cat.chunks(0, rows=10))):
        with pytest.raises(CatalogueError, match=r"rows that cannot be right: file=.*, 2 not finite|1 not finite"):
            read()
    with pytest.raises(CatalogueError, match=r"1 outside the box \(row=4, column=y, value=700, .*1 of negative mass"):
        cat.tracers()


def test_outside_the_box_wrapped_or_dropped(tmp_path):
    table = small()
    table["x"][:2] = [-1, 101]
    url = write_csv(tmp_path / "c", table)
    with pytest.raises(CatalogueError, match=r"2 outside the box \(row=0, column=x, value=-1, limits=-2\.38419e-05 to"):
        open_catalogue(url, 0.0, boxsize=100.0).tracers()
    wrapped = open_catalogue(url, 0.0, boxsize=100.0, outside="wrap").tracers()
    np.testing.assert_array_equal(wrapped.pos[:2, 0], [99, 1])
    dropped = open_catalogue(url, 0.0, boxsize=100.0, outside="drop").tracers()
    assert (len(dropped.pos), dropped.dropped) == (38, 2)
    with pytest.raises(VelfieldError, match=r"no such choice: outside='keep'; choose refuse, wrap, drop"):
        open_catalogue(url, outside="keep")


# ------------------------------------------------------------------------------------------ OpenCosmo


def opencosmo(path, table, **options):
    return write_opencosmo(path, table, **options)


def test_opencosmo_says_box_redshift_and_frame(tmp_path):
    table = small()
    cat = open_catalogue(opencosmo(tmp_path / "c", table, boxsize=100.0, redshift=1.0))
    assert (cat.kind, cat.boxsize, cat.redshift) == ("halos", 100.0, 1.0)
    np.testing.assert_array_equal(cat.tracers().vel[:, 0], table["vx"] / 2)
    assert cat.columns["mass"].description == "the mass"
    assert describe(cat)["tracers"] | {"x": "", "y": "", "z": "", "vy": "", "vz": "", "mass": ""} == {
        "x": "", "y": "", "z": "", "vx": "vx [comoving km/s]", "vy": "", "vz": "", "mass": "", "velocities": "comoving",
    }  # fmt: skip
    # as the toolkit writes units of astropy
    astropy = {"length": "Mpc / littleh", "speed": "km / s", "mass": "solMass / littleh"}
    other = open_catalogue(opencosmo(tmp_path / "d", table, boxsize=100.0, redshift=1.0, units=astropy))
    assert_same(other.tracers(), cat.tracers())
    names = open_catalogue(opencosmo(tmp_path / "e", table, boxsize=100.0, redshift=1.0, units=None))
    assert_same(names.tracers(), cat.tracers())


def test_opencosmo_conventions_are_one_truth(tmp_path):
    table, h, z = small(dtype=np.float64), 0.71, 1.0
    scalefree = open_catalogue(opencosmo(tmp_path / "a", table, boxsize=100.0, redshift=z)).tracers()
    hless = {n: v if n[0] == "v" else v / h for n, v in table.items()}
    units = {"length": "Mpc", "speed": "km / s", "mass": "solMass"}
    comoving = opencosmo(tmp_path / "b", hless, boxsize=100.0, redshift=z, convention="comoving", units=units)
    physical = {n: v if n == "mass" else v / (1 + z) for n, v in hless.items()}
    physical = opencosmo(tmp_path / "c", physical, boxsize=100.0, redshift=z, convention="physical", units=units)
    for url in (comoving, physical):
        found = open_catalogue(url).tracers()
        for name in ("pos", "vel", "mass"):
            np.testing.assert_allclose(getattr(found, name), getattr(scalefree, name), rtol=1e-14)  # some roundings
    bare = opencosmo(tmp_path / "d", hless, boxsize=100.0, convention="comoving", units=None)
    with pytest.raises(CatalogueError, match=r"not a unit of length: .*unit='not stated'"):
        open_catalogue(bare)
    mixed = opencosmo(tmp_path / "e", hless, boxsize=100.0, convention="physical", units=OPENCOSMO_UNITS)
    with pytest.raises(CatalogueError, match=r"different frames: file=.*, stated=proper, units of vx=comoving"):
        open_catalogue(mixed)
    odd = opencosmo(tmp_path / "f", table, convention="natural")
    with pytest.raises(CatalogueError, match=r"unknown convention of units: file=.*, unit_convention=natural; known"):
        open_catalogue(odd)


def test_opencosmo_with_several_tables(tmp_path):
    table = small()
    url = opencosmo(tmp_path / "c", table, boxsize=100.0, group="halo_properties")
    particles = {name: table[name][:7] for name in OURS[:6]}
    opencosmo(tmp_path / "c", particles, boxsize=100.0, group="halo_particles")
    assert (open_catalogue(url, kind="halos").kind, len(open_catalogue(url, kind="halos"))) == ("halos", 40)
    assert (open_catalogue(url, kind="particles").kind, len(open_catalogue(url, kind="particles"))) == ("particles", 7)
    assert len(open_catalogue(url, table="halo_particles")) == 7
    with pytest.raises(CatalogueError, match=r"which table is not clear: .*tables=halo_particles, halo_properties"):
        open_catalogue(url)
    with pytest.raises(CatalogueError, match=r"which table is not clear: file=.*, table=stars, tables=halo_particles"):
        open_catalogue(url, table="stars")


def test_a_light_cone_is_refused(tmp_path):
    with pytest.raises(CatalogueError, match=r"a light cone, not a snapshot: file=.*; choose a snapshot's"):
        open_catalogue(opencosmo(tmp_path / "c", small(), lightcone=True))


# ------------------------------------------------------------------------------------------ each format's own mistakes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.replace("\n", "\nabc,", 3).replace("abc,", "", 2),
            r"wrong number of fields: file=.*, line=4, fields=8",
        ),
        (lambda t: t.replace("7.5", "seven", 1), r"not a number: file=.*, line=3, column=vy, value='seven'; mend it"),
        (lambda t: t.replace("7.5", "", 1), r"not a number: file=.*, line=3, column=vy, value=''; mend it"),
        (
            lambda t: t.replace("8.5\n", "8.5\n\n", 1),
            r"wrong number of fields: file=.*, line=4, fields=1, columns=7",
        ),
        (
            lambda t: t.partition("\n")[2],
            r"no line of names: file=.*, line=1, found='1.0,2.0.*; the first line",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    rows = [[1, 2, 3, 4, 5, 6, 1e12], [1.5, 2.5, 3.5, 4.5, 7.5, 6.5, 8.5], [2, 2, 2, 2, 2, 2, 2], [3, 3, 3, 3, 3, 3, 3]]
    url = write_csv(tmp_path / "c", dict(zip(OURS, np.array(rows).T, strict=True)))
    Path(url).write_text(change(Path(url).read_text()))
    with pytest.raises(CatalogueError, match=message):
        open_catalogue(url, 0.0, boxsize=100.0).tracers()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_text_tables_as_people_write_them(tmp_path, delimiter):
    table = small(5, dtype=np.float64)
    plain = Path(write_csv(tmp_path / "c", table, UNITS, delimiter))
    expected = open_catalogue(str(plain), 0.0).tracers()
    np.testing.assert_array_equal(expected.pos[:, 2], table["z"])
    text = plain.read_text()
    variants = {
        "windows": text.replace("\n", "\r\n"),
        "comments": "# made by hand\n# h = 0.7\n" + text,
        "mark": "\ufeff" + text,
        "end": text.rstrip("\n"),
        "blank end": text + "\n\n",
        "spaces": text.replace(delimiter, " " + delimiter + " ") if delimiter != "\t" else text,
    }
    for name, variant in variants.items():
        path = tmp_path / name
        path.write_text(variant, newline="")
        cat = open_catalogue(str(path), 0.0)
        assert_same(cat.tracers(), expected)
        assert list(cat.columns) == list(OURS)


def test_numbers_come_back_to_the_last_bit(tmp_path):
    table = small(200, dtype=np.float64)
    np.testing.assert_array_equal(open_catalogue(write_csv(tmp_path / "c", table), 0.0).read(["vx"])["vx"], table["vx"])


def test_missing_values_in_parquet(tmp_path):
    table = {name: values.tolist() for name, values in small(5).items()}
    table["vz"][2] = None
    parquet.write_table(pyarrow.table(table), tmp_path / "c")
    with pytest.raises(CatalogueError, match=r"values are missing: file=.*, block=0, column=vz, nulls=1; fill"):
        open_catalogue(str(tmp_path / "c"), 0.0).tracers()


def test_parts_of_one_table_only(tmp_path):
    (tmp_path / "c").mkdir()
    write_parquet(tmp_path / "c" / "a.parquet", small(5))
    write_parquet(tmp_path / "c" / "b.parquet", small(5, dtype=np.float64))
    with pytest.raises(CatalogueError, match=r"parts differ in columns: file=.*b\.parquet, other=.*a\.parquet; keep"):
        open_catalogue(str(tmp_path / "c"))


def test_fits_with_scaled_unsigned_and_other_columns(tmp_path):
    table = small(5)
    scaled = np.array([1, 2, 3, 4, 5], "i2")
    columns = [fits.Column(n, "E", array=v) for n, v in table.items()]
    columns += [
        fits.Column("u", "J", bzero=2**31, array=np.array([0, 1, 2**31, 2**32 - 1, 7], "u4")),
        fits.Column("half", "I", array=scaled),
        fits.Column("name", "3A", array=["a", "b", "c", "d", "e"]),
        fits.Column("mark", "L", array=[True] * 5),
        fits.Column("list", "PE()", array=np.array([[1.0]] * 5, dtype=object)),
    ]
    made = fits.BinTableHDU.from_columns(columns)
    number = 1 + [c.name for c in columns].index("half")
    made.header[f"TSCAL{number}"], made.header[f"TZERO{number}"] = 0.5, 10.0
    made.writeto(tmp_path / "c")
    cat = open_catalogue(str(tmp_path / "c"), 0.0)
    found = cat.read(["u", "half", "x"])
    np.testing.assert_array_equal(found["u"], np.array([0, 1, 2**31, 2**32 - 1, 7], "u4"), strict=True)
    np.testing.assert_array_equal(found["half"], 10 + 0.5 * scaled)
    np.testing.assert_array_equal(found["x"], table["x"], strict=True)
    assert cat.columns["u"].dtype == np.uint32
    for name in ("name", "mark", "list"):
        with pytest.raises(CatalogueError, match=rf"not a column of numbers: file=.*, column={name}; only numbers"):
            cat.read([name])


def test_which_fits_or_hdf5_table_is_asked(tmp_path):
    made = [fits.BinTableHDU.from_columns([fits.Column(n, "E", array=v) for n, v in small(n).items()]) for n in (3, 4)]
    made[0].name, made[1].name = "ONE", "TWO"
    fits.HDUList([fits.PrimaryHDU(), *made]).writeto(tmp_path / "c")
    with pytest.raises(CatalogueError, match=r"which table is not clear: file=.*, table=None, binary tables=ONE, TWO"):
        open_catalogue(str(tmp_path / "c"))
    assert [len(open_catalogue(str(tmp_path / "c"), table=t)) for t in ("ONE", "TWO", "2")] == [3, 4, 4]
    url = write_hdf5(tmp_path / "h", small(3), group="a/b")
    assert len(open_catalogue(url)) == 3
    import h5py

    with h5py.File(url, "a") as root:
        root["other"] = np.zeros(4, [("x", "f4"), ("y", "f4"), ("z", "f4")])
    with pytest.raises(CatalogueError, match=r"which table is not clear: .*tables=a/b, other; name one"):
        open_catalogue(url)
    assert len(open_catalogue(url, table="/other")) == 4
    with h5py.File(url, "a") as root:
        root["a/b/short"] = np.zeros(2)
    with pytest.raises(CatalogueError, match=r"columns of different lengths: file=.*, group=/a/b, rows=\[2, 3\]; keep"):
        open_catalogue(url, table="a/b")
    with pytest.raises(VelfieldError, match=r"the file holds one table only: file=.*, table=halos; leave it out"):
        open_catalogue(HALOS, table="halos")


@pytest.mark.parametrize("form", ["parquet", "hdf5", "opencosmo", "fits", "csv"])
def test_a_damaged_file_is_one_line(tmp_path, form):
    """Cut anywhere, or with a byte changed anywhere: read, or one line; never another error."""
    url = write(form, tmp_path / "c", small(30))
    data = Path(url).read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for trial in range(60):
        damaged = bytearray(data)
        if trial % 2:
            del damaged[int(rng.integers(8, len(data))) :]
        else:
            damaged[int(rng.integers(8, len(data)))] ^= 1 << int(rng.integers(8))
        Path(url).write_bytes(damaged)
        try:
            open_catalogue(url, 0.0, boxsize=None if form == "opencosmo" else 100.0).tracers()
        except VelfieldError:
            refused += 1
    assert refused > 10


def test_no_catalogue(tmp_path):
    for name, data in {"a": b"", "b": b"x", "c": b"# Title\n\nA text, with commas, in it.\n", "d": b"\0" * 100}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CatalogueError, match=r"not a catalogue in a known format: file=.*, first_bytes=b'.*'; Gen"):
            open_catalogue(str(tmp_path / name))


# ------------------------------------------------------------------------------------------ the command line


def test_wrapping_needs_a_parent_that_repeats(tmp_path, capfd):
    options = [
        "paint",
        str(tmp_path / "f"),
        "--halos",
        HALOS,
        "--boxes",
        "2",
        "--cells",
        "8",
        "--rsd",
        "none",
        "--workers",
        "1",
    ]
    assert main([*options, "--outside", "wrap", "--not-periodic"]) == 2
    assert "only a parent that repeats can be wrapped" in capfd.readouterr().err


def test_info_on_a_folder_of_parts(tmp_path, capfd):
    write("parquet parts", tmp_path / "c", small())
    assert main(["info", str(tmp_path / "c"), "--json"]) == 0
    what = json.loads(capfd.readouterr().out)
    assert (what["format"], what["files"], what["rows"]) == ("Parquet", 3, 40)


@pytest.mark.parametrize("form", ["parquet", "hdf5", "csv", "fits"])
def test_ranges_of_a_large_block_need_little_memory(tmp_path, monkeypatch, form):
    """Measured: what is held while a block is read range by range, against what the plan counts on."""
    import tracemalloc

    monkeypatch.setattr("velfield.catalogues.table_parquet.AT_ONCE", 2**20)  # as a block far larger than memory is read
    monkeypatch.setattr("velfield.catalogues.table_csv.PIECE", 4 * 2**20)
    url = write(form, tmp_path / "c", small(200_000))
    cat = open_catalogue(url, 0.0, boxsize=100.0)
    table, columns = cat._table, cat.tracer_columns()
    sum(len(part["x"]) for part in table.chunks(columns, 0, 5000))  # imported and compiled
    tracemalloc.start()
    for part in table.chunks(columns, 0, 5000):
        assert len(part["x"]) <= 5000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= table.chunk_bytes(columns, 5000)
    if form != "csv":  # of which a whole block is read
        assert table.chunk_bytes(columns, 5000) < table.chunk_bytes(columns, 200_000)
    large = open_catalogue(write(form, tmp_path / "d", small(100_000)), 0.0, boxsize=100.0)
    np.testing.assert_array_equal(
        np.concatenate([part.mass for b in large.blocks for part in large.chunks(b.index, rows=7000)]),
        small(100_000)["mass"],
    )


def test_a_thread_that_has_no_memory_is_no_damage():
    with pytest.raises(MemoryError), reading("halos.arrow", "Arrow"):
        raise RuntimeError("can't start new thread")
    with pytest.raises(CatalogueError, match="cannot be read as Arrow"), reading("halos.arrow", "Arrow"):
        raise RuntimeError("another one")
