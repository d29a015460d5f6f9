"""Simulations' own tables answered: whatever paint reads, with its names, units, frames and corners."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from table_files import write_fits, write_hdf5, write_opencosmo, write_parquet
from test_queries import OBSERVER, linear, observed
from velocity_stores import SIDE, in_memory

from velfield.answers.queries import GOOD, query_positions
from velfield.answers.query_table import query_table
from velfield.catalogues import genericio, hacc
from velfield.catalogues.catalogue import open_catalogue
from velfield.errors import CatalogueError, DamagedError
from velfield.files.progress import Silent
from velfield.physics import sky
from velfield.physics.cosmology import OUTER_RIM

RNG = np.random.default_rng(5)
POS = RNG.uniform(15, SIDE - 15, (60, 3))
CENTRE = dict(zip(hacc.CENTRES, POS.T, strict=True))
ENDS = ("csv", "parquet", "fits", "h5")


class Told(Silent):
    note = ""

    def done(self, note=""):
        self.note = note


@pytest.fixture(scope="module")
def ds():
    return in_memory(linear, periodic=False)


def columns(file, *names):
    """Columns of an answer, by its own format's library."""
    if file.endswith(".csv"):
        table = np.genfromtxt(file, delimiter=",", names=True, dtype=None, encoding="utf-8", deletechars="")
        wanted = {name: next(n for n in table.dtype.names if n.partition("_[")[0] == name) for name in names}
        return [table[wanted[name]] for name in names]
    if file.endswith(".parquet"):
        import pyarrow.parquet as pq

        table = pq.read_table(file)
        return [table[name].to_numpy() for name in names]
    if file.endswith(".fits"):
        from astropy.io import fits

        with fits.open(file) as hdus:
            return [np.array(hdus[1].data[name]) for name in names]
    import h5py

    with h5py.File(file) as root:
        node = root.get("data", root)
        return [node[name][:] for name in names]


def velocities(file):
    return np.stack(columns(file, "vx", "vy", "vz"), axis=1)


def particles(path, *, origin=(0.0, 0.0, 0.0), **how):
    """Rows of four ranks, one of them empty, numbered in no order."""
    table = {x: (along + corner).astype("f4") for x, along, corner in zip("xyz", POS.T, origin, strict=True)}
    table |= {"id": 2**60 + RNG.permutation(60), "mask": np.arange(60, dtype="u2"), "phi": np.ones(60, "f4")}
    cuts = [slice(0, 11), slice(11, 11), slice(11, 40), slice(40, 60)]
    ranks = [{name: values[rows] for name, values in table.items()} for rows in cuts]
    genericio.write(str(path), ranks, dims=(4, 1, 1), boxsize=SIDE, origin=origin, **how)
    return str(path), table


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("how", [{"partitions": 3}, {"compress": True}], ids=["partitioned", "compressed"])
def test_ranks_of_genericio_in_order_with_every_column(ds, tmp_path, how, end):
    url, table = particles(tmp_path / "m000.mpicosmo.499", **how)
    out = str(tmp_path / f"out.{end}")
    assert query_table(ds, url, out, rows=7)[GOOD] == 60
    assert_allclose(velocities(out), linear(POS.T).T, atol=1e-3)  # float32 positions, and velocities of 300 km/s
    for name, found in zip(table, columns(out, *table), strict=True):
        assert_array_equal(found.astype(table[name].dtype), table[name])
    if end != "csv":
        assert columns(out, "id")[0].dtype.newbyteorder("=") == np.int64


def test_units_of_genericio_are_written_in_plain_letters(ds, tmp_path):
    table = {name: values.astype("f4") for name, values in CENTRE.items()}
    table |= {"fof_halo_mass": np.full(60, 1e13, "f4"), **{n: np.ones(60, "f4") for n in hacc.HALO_VELOCITIES}}
    table |= {"axes": np.arange(180, dtype="f4").reshape(60, 3)}
    url = str(tmp_path / "m000-411.fofproperties")
    genericio.write(url, [table], dims=(1, 1, 1), boxsize=SIDE)
    query_table(ds, url, str(tmp_path / "o.fits"))
    with fits.open(tmp_path / "o.fits") as hdus:
        units = dict(zip(hdus[1].columns.names, hdus[1].columns.units, strict=True))
        assert_array_equal(hdus[1].data["axes"], table["axes"])
    assert [units[n] for n in ("fof_halo_center_x", "fof_halo_mass")] == ["Mpc/h", "Msun/h"]
    assert units["fof_halo_mean_vx"] == "comoving km/s"
    # so that the answer can be painted in its place
    again = open_catalogue(str(tmp_path / "o.fits"), 0.2, kind="halos")
    assert again.meaning.velocity == "comoving"
    query_table(ds, url, str(tmp_path / "o.parquet"))
    assert pq.read_schema(tmp_path / "o.parquet").field("fof_halo_mass").metadata[b"unit"] == b"Msun/h"
    with pytest.raises(CatalogueError, match=r"a column of vectors, which CSV has not: .*column=axes; let"):
        query_table(ds, url, str(tmp_path / "o.csv"))


def test_genericio_from_another_corner_and_of_another_volume(ds, tmp_path):
    url, _ = particles(tmp_path / "in.gio", origin=(100.0, -50.0, 0.0))
    out = str(tmp_path / "out.csv")
    query_table(ds, url, out)
    assert_allclose(velocities(out), linear(POS.T).T, atol=1e-3)
    other = in_memory(linear, periodic=False)
    other.attrs["boxsize"] = 2 * SIDE
    with pytest.raises(CatalogueError, match=r"a table of another volume: .*in.gio, boxsize=120, store's boxsize=240"):
        query_table(other, url, out, overwrite=True)


def test_a_damaged_rank_leaves_no_answer(ds, tmp_path):
    url, _ = particles(tmp_path / "in.gio")
    data = bytearray(Path(url).read_bytes())
    data[-20] ^= 1
    Path(url).write_bytes(data)
    with pytest.raises(DamagedError, match=r"data are damaged, their CRC does not match: file=.*in\.gio, rank=3"):
        query_table(ds, url, str(tmp_path / "out.csv"), rows=7)
    assert [p.name for p in tmp_path.iterdir()] == ["in.gio"]


@pytest.mark.parametrize("convention", ["scalefree", "comoving", "physical"])
def test_opencosmo_in_its_units_h_and_frame(ds, tmp_path, convention):
    h, z = 0.6, 0.5  # neither is the store's
    factor = {"scalefree": 1.0, "comoving": 1 / h, "physical": 1 / h / (1 + z)}[convention]
    table = {name: values * factor for name, values in CENTRE.items()} | {"fof_halo_tag": 2**60 + np.arange(60)}
    url = write_opencosmo(
        tmp_path / "in.hdf5", table, {"length": "Mpc/h" if convention == "scalefree" else "Mpc"},
        boxsize=SIDE, redshift=z, h=h, convention=convention,
    )  # fmt: skip
    with h5py.File(url, "a") as root:
        root["data/fof_halo_tag"].attrs["unit"] = ""
    told = Told()
    query_table(ds, url, str(tmp_path / "out.parquet"), rows=7, progress=told)
    assert told.note.startswith("positions in x=fof_halo_center_x [Mpc")
    made = pq.read_table(tmp_path / "out.parquet")
    assert_allclose(velocities(str(tmp_path / "out.parquet")), linear(POS.T).T, atol=1e-4)
    assert made["fof_halo_tag"].to_pylist() == table["fof_halo_tag"].tolist()
    assert b"unit" not in made.schema.field("fof_halo_tag").metadata  # which says nothing, not "not stated"
    query_table(ds, url, str(tmp_path / "out.hdf5"))
    assert_allclose(velocities(str(tmp_path / "out.hdf5")), linear(POS.T).T, atol=1e-4)


def light_cone(path, **names):
    """Rows around the observer, under the names that are given of ra, dec [deg], phi, theta [rad], z and a."""
    away = POS - OBSERVER
    length = np.sqrt((away**2).sum(axis=1))
    grid = np.linspace(0, 0.1, 20_001)
    ra, dec = np.arctan2(away[:, 1], away[:, 0]), np.arcsin(away[:, 2] / length)
    z = np.interp(length, OUTER_RIM.comoving_distance(grid), grid)
    seen = {"ra": np.degrees(ra), "dec": np.degrees(dec), "phi": ra, "theta": np.pi / 2 - dec, "z": z, "a": 1 / (1 + z)}
    table = {column: seen[name] for name, column in names.items()} | dict(zip("xyz", away.T, strict=True))
    return write_opencosmo(path, table, None, lightcone=True, boxsize=512.0, redshift=0.05)


@pytest.mark.parametrize(
    "names",
    [
        {"phi": "phi", "theta": "theta", "a": "fof_halo_center_a"},
        {"ra": "ra", "dec": "dec", "z": "redshift"},
        {"ra": "ra", "dec": "dec", "z": "redshift_true"},
    ],
)
def test_a_light_cone_is_seen_on_the_sky(tmp_path, names):
    ds = in_memory(linear, periodic=False, **observed())
    url = light_cone(tmp_path / "cone.hdf5", **names)
    out = str(tmp_path / "out.hdf5")
    assert query_table(ds, url, out, coordinates="sky")[GOOD] == 60
    assert_allclose(velocities(out), linear(POS.T).T, atol=1e-3)  # of a table of 20,001 distances
    with pytest.raises(CatalogueError, match=r"a light cone is seen on the sky: .*coordinates=box; ask by ra, dec and"):
        query_table(ds, url, str(tmp_path / "box.hdf5"))


def test_a_light_cone_without_a_redshift_is_not_asked_by_its_z(tmp_path):
    ds = in_memory(linear, periodic=False, **observed())
    url = light_cone(tmp_path / "cone.hdf5", ra="ra", dec="dec")
    with pytest.raises(CatalogueError, match=r"no such column: .*column=redshift, wanted for=z; .*--column z=NAME"):
        query_table(ds, url, str(tmp_path / "out.hdf5"), coordinates="sky")


@pytest.mark.parametrize("end", ["parquet", "fits", "h5"])
def test_a_component_of_a_vector_column(ds, tmp_path, end):
    table = {"pos": POS, "a": np.ones(60), "b": np.zeros(60)}
    url = {"parquet": write_parquet, "fits": write_fits, "h5": write_hdf5}[end](tmp_path / f"in.{end}", table)
    out = str(tmp_path / f"out.{end}")
    query_table(ds, url, out, columns=["x=pos[0] [Mpc/h]", "y=pos[1]", "z=pos[2]"], rows=7)
    if end == "h5":
        import h5py

        with h5py.File(out) as root:
            found = root["halos/vx"][:]
    else:
        (found,) = columns(out, "vx")
    assert_allclose(found, linear(POS.T)[0], atol=1e-4)
    with pytest.raises(CatalogueError, match=r"not a single number a row: .*column=pos\[3\], .*as in x=pos\[0\]"):
        query_table(ds, url, str(tmp_path / f"no.{end}"), columns=["x=pos[3]", "y=pos[1]", "z=pos[2]"])


def test_a_redshift_in_km_s_and_in_no_unit_of_one(tmp_path):
    ds = in_memory(linear, periodic=False, **observed())
    (tmp_path / "in.csv").write_text("ra,dec,cz [km/s],d [Mpc/h]\n10,20,1500,15\n")
    found = query_table(ds, str(tmp_path / "in.csv"), str(tmp_path / "o.csv"), coordinates="sky", columns=["z=cz"])
    assert found[GOOD] == 1
    place = sky.positions([10], [20], [1500 / 299792.458], cosmology=OUTER_RIM, observer=OBSERVER)
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert_allclose([float(v) for v in lines[1].split(",")[4:7]], linear(place[0]), rtol=1e-6)
    assert_allclose(query_positions(ds, place)["velocity"][0], linear(place[0]), rtol=1e-6)
    with pytest.raises(CatalogueError, match=r"not a unit of redshift: .*column=d, unit='Mpc/h'; give a number, or cz"):
        query_table(ds, str(tmp_path / "in.csv"), str(tmp_path / "p.csv"), coordinates="sky", columns=["z=d"])
