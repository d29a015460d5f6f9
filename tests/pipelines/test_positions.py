"""Positions in another unit than the volume's: converted where it is said, refused where it is not, by real jobs."""

import csv
import re
from pathlib import Path

import astropy.cosmology.units as cu
import astropy.units as u
import numpy as np
import pytest
import xarray as xr
from table_files import write_csv

import velfield as vf
from velfield.answers.query_table import query_table
from velfield.catalogues import table_csv
from velfield.catalogues.catalogue import open_catalogue
from velfield.commands.cli import main
from velfield.errors import CatalogueError, VelfieldError
from velfield.files import storage
from velfield.pipelines.here import Threads
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.stores import store
from velfield.theory import analytic

HALOS = str(Path(__file__).parent.parent / "data" / "mock-outer-rim" / "m000-499.fofproperties")
POS = np.array([[160.0, 80, 120], [300, 40, 200], [50, 450, 10]])
# linear theory of the mock's halos in 32³ cells [km/s]
RIGHT = np.array([[-154.08, 59.39, -25.10], [-5.73, -73.09, -426.70], [-250.09, 132.23, 201.49]])
H = vf.OUTER_RIM.h


@pytest.fixture(scope="module")
def ds(tmp_path_factory):
    out = str(tmp_path_factory.mktemp("mock") / "fields")
    assert paint(Threads(2), prepare(out, PaintConfig(halos=HALOS, particles=None, boxes=1, cells=32, rsd="none")))
    fields = store.open_fields(out, chunks=None)
    velocity = analytic.velocities(analytic.settings("linear_whole", fields), fields, [0])
    return fields.assign(velocity=(("box", "component", "x", "y", "z"), velocity))


def table_of(path, pos, name="in.csv", titles="xyz"):
    with open(path / name, "w", newline="") as file:
        csv.writer(file).writerows([titles, *pos.tolist()])
    return str(path / name)


def answered(url):
    found = np.genfromtxt(url, delimiter=",", names=True)
    return np.stack([found[v] for v in ("vx", "vy", "vz")], axis=1), found["flag"].astype(int)


@pytest.mark.filterwarnings("ignore:h=0.71 is applied")
def test_the_right_velocities_in_any_unit_that_is_said(ds, tmp_path):
    for given in (
        POS,
        POS * u.Mpc / cu.littleh,
        1e3 * POS * u.kpc / cu.littleh,
        1e3 * POS / H * u.kpc,  # 160 h⁻¹Mpc are 225 Mpc: h is applied, with a warning
        POS - 512,  # images next to the parent
        xr.DataArray(POS.T, dims=("axis", "points")),
    ):
        found = vf.query(ds, given)
        np.testing.assert_allclose(found["velocity"], RIGHT, atol=0.006)
        assert not found["flag"].any()
    kpc = table_of(tmp_path, 1e3 * POS)
    out = str(tmp_path / "out.csv")
    query_table(ds, kpc, out, columns=["x=x [kpc/h]", "y=y [kpc/h]", "z=z [kpc/h]"])
    velocity, flag = answered(out)
    np.testing.assert_allclose(velocity, RIGHT, atol=0.006)
    assert not flag.any()


def test_kpc_without_a_unit_are_refused(ds, tmp_path):
    said = (
        r"positions far outside the volume: {}, rows=3, boxsize=512, 3 rows more than a side outside, from 10000 to "
        r"450000; they may be in kpc or kpc/h: "
    )
    with pytest.raises(VelfieldError, match=said.format(r"positions=\(3, 3\)") + "give a Quantity"):
        vf.query(ds, 1e3 * POS)
    table, out = table_of(tmp_path, 1e3 * POS), tmp_path / "out.csv"
    with pytest.raises(VelfieldError, match=said.format(".*") + r"state the unit, as --column 'x=x \[kpc/h\]'"):
        query_table(ds, table, str(out))
    with pytest.raises(VelfieldError, match="positions far outside the volume"):
        query_table(ds, table, str(out), rows=1)
    assert not out.exists()


def test_single_rows_far_outside_are_flagged(ds, tmp_path):
    stray = np.concatenate([POS, [[160e3, 80, 120], [1024.0, 0, 0], [-512.1, 0, 0], [1e300, 0, 0]], POS])
    for found in (vf.query(ds, stray), vf.query(ds, stray[3:4])):
        assert set(found["flag"].tolist()) <= {0, 1}
        np.testing.assert_array_equal(np.isnan(found["velocity"]).all(axis=1), found["flag"] == 1)
    assert vf.query(ds, stray)["flag"].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert vf.query(ds, stray[3:4])["flag"].tolist() == [1]
    query_table(ds, table_of(tmp_path, stray), str(tmp_path / "out.csv"), rows=4)
    velocity, flag = answered(tmp_path / "out.csv")
    assert flag.tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    np.testing.assert_allclose(velocity[flag == 0], np.concatenate([RIGHT, RIGHT]), atol=0.006)
    # to the last one within a side, wrapped as before
    image, beside = vf.query(ds, [[671.9, 80, 120]]), vf.query(ds, [[159.9, 80, 120]])
    np.testing.assert_allclose(image["velocity"], beside["velocity"])
    assert vf.query(ds, [[1023.9, -511.9, 5]])["flag"].tolist() == [0]


@pytest.mark.parametrize(
    ("side", "shift", "unit"),
    [(1.0, 0, "units of the box"), (1.0, -0.5, "units of the box"), (0.512, 0, "units of the box")],
)
def test_a_table_in_units_of_the_box_is_refused(ds, tmp_path, side, shift, unit):
    pos = side * (np.random.default_rng(1).uniform(size=(400, 3)) + shift)
    said = rf"positions that fill a corner of the volume: .*, rows=400, boxsize=512, span=.*; they may be in {unit}"
    with pytest.raises(VelfieldError, match=said):
        vf.query(ds, pos)
    table, out = table_of(tmp_path, pos), tmp_path / "out.csv"
    with pytest.raises(VelfieldError, match=said):
        query_table(ds, table, str(out), rows=100)
    assert not out.exists()
    query_table(ds, table, str(out), columns=[f"{x}={x} [512 Mpc/h]" for x in "xyz"])
    right = vf.query(ds, 512 * pos)["velocity"]
    np.testing.assert_allclose(answered(out)[0], right, rtol=1e-5, atol=1e-3)
    # whoever says that they are in Mpc/h is believed
    query_table(ds, table, str(out), columns=[f"{x}={x} [Mpc/h]" for x in "xyz"], overwrite=True)
    assert vf.query(ds, pos * u.Mpc / cu.littleh)["flag"].max() == 0


def test_a_small_region_may_be_asked(ds):
    rng = np.random.default_rng(2)
    for pos in (
        rng.uniform(100, 101, (500, 3)),
        rng.uniform(0, 10, (500, 3)),
        np.full((500, 3), 0.5),
        rng.uniform(0, 1, (9, 3)),
        np.linspace(0, 1, 500)[:, None] * [1, 0, 0],
    ):
        assert not vf.query(ds, pos)["flag"].any()


def catalogue(path, *, scale, shift=0.0, form=write_csv, rows=300):
    rng = np.random.default_rng(3)
    columns = {x: scale * (rng.random(rows) + shift) for x in "xyz"}
    columns |= {f"v{x}": 300 * rng.standard_normal(rows) for x in "xyz"}
    return form(path / "c", columns | {"mass": np.full(rows, 1e13)})


def config(url, **how):
    return PaintConfig(
        **{"halos": url, "particles": None, "boxes": 1, "cells": 8, "rsd": "none", "redshift": 0.0, "boxsize": 32.0}
        | how
    )


@pytest.mark.parametrize("outside", ["wrap", "drop"])
def test_a_catalogue_in_units_of_the_box_is_not_painted(tmp_path, outside):
    url, out = catalogue(tmp_path, scale=1.0, shift=-0.5), str(tmp_path / "fields")
    said = (
        r"positions in a corner of the box: halos=.*, rows=300, from -0.49.* to 0.49.*, span=0.99.*, boxsize=32; they "
        r"seem to be in units of the box: name it with the column, as in 'x=NAME \[32 Mpc/h\]', or check the boxsize"
    )
    for _ in range(2):  # and again from the receipts of its blocks
        with pytest.raises(CatalogueError, match=said):
            paint(Threads(1), prepare(out, config(url, outside=outside)))
        assert not storage.exists(storage.join(out, "zarr.json"))
    named = {"halo_column": tuple(f"{x}={x} [32 Mpc/h]" for x in "xyz"), "outside": "wrap"}
    assert paint(Threads(1), prepare(out, config(url, **named)))
    found = store.open_fields(out, chunks=None)
    assert found.halo_number.sum() == 300
    assert (found.halo_number > 0).sum() > 200  # all over the box


def test_nor_read_and_nothing_proposes_to_wrap_it(tmp_path):
    url = catalogue(tmp_path, scale=1.0, shift=-0.5)
    with pytest.raises(CatalogueError, match=r"outside the box .*; they seem to be in units of the box") as caught:
        paint(Threads(1), prepare(str(tmp_path / "fields"), config(url)))
    assert "wrap" not in str(caught.value)
    with pytest.raises(CatalogueError, match="positions in a corner of the box: file="):
        open_catalogue(url, 0.0, boxsize=32.0, outside="wrap").tracers()
    # the same in Mpc/h, around the corner: to wrap is right there, and proposed
    (tmp_path / "halos").mkdir()
    url = catalogue(tmp_path / "halos", scale=32.0, shift=-0.5)
    with pytest.raises(CatalogueError, match=r"outside the box .*, or choose outside=wrap or drop \(--outside\)"):
        paint(Threads(1), prepare(str(tmp_path / "again"), config(url)))
    assert paint(Threads(1), prepare(str(tmp_path / "again"), config(url, outside="wrap")))


def test_the_reach_is_that_of_all_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(table_csv, "PIECE", 4096)  # bytes of a block
    small = catalogue(tmp_path, scale=10.0)
    job = prepare(str(tmp_path / "fields"), config(small, boxsize=512.0))
    assert len(job.blocks) > 5
    with pytest.raises(
        CatalogueError, match=r"in a corner of the box: .*, rows=300, .*, span=9\.9.*, boxsize=512; check"
    ):
        paint(Threads(2), job)
    # each block in a corner of its own: that is no corner
    rows = Path(small).read_text().splitlines(keepends=True)
    far = [re.sub("^[0-9.]+", lambda x: str(float(x[0]) + 400), row) for row in rows[1:]]
    (tmp_path / "two").write_text("".join([*rows, *far]))
    assert paint(Threads(2), prepare(str(tmp_path / "again"), config(str(tmp_path / "two"), boxsize=512.0)))


def test_all_dropped_is_said(tmp_path):
    url = catalogue(tmp_path, scale=32e3, shift=0.01)
    said = r"no tracers left to paint: halos=.*, rows=300, .*; all lie outside the box, boxsize=32: check"
    with pytest.raises(VelfieldError, match=said):
        paint(Threads(1), prepare(str(tmp_path / "fields"), config(url, outside="drop")))


def test_predict_refuses_it_too(client, tmp_path, capfd):
    url, out = catalogue(tmp_path, scale=1.0, shift=-0.5), str(tmp_path / "v")
    options = [
        "--boxsize",
        "32",
        "--redshift",
        "0",
        "--boxes",
        "1",
        "--cells",
        "8",
        "--rsd",
        "none",
        "--outside",
        "wrap",
    ]
    assert main(["predict", "linear_whole", url, out, *options, "--scheduler", client.scheduler.address]) == 2
    assert "positions in a corner of the box" in capfd.readouterr().err
    assert not storage.exists(out)


def test_an_astropy_cosmology_paints():
    from astropy.cosmology import FlatLambdaCDM, Planck18

    made = config(HALOS, cosmology=Planck18, rsd="plane_parallel", boxsize=512.0)
    assert made.cosmology == vf.Cosmology.from_astropy(Planck18)
    with pytest.raises(VelfieldError, match="the cosmology does not say all that is needed: name=FlatLambdaCDM"):
        config(HALOS, cosmology=FlatLambdaCDM(H0=70, Om0=0.3))
