"""Catalogues in other formats, painted by the real job: the same fields."""

import json
from pathlib import Path

import numpy as np
import pytest
from table_files import WRITERS, write_csv

from velfield.catalogues.catalogue import open_catalogue
from velfield.commands.cli import main
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.stores import store

HALOS = str(Path(__file__).parent.parent / "data" / "mock-outer-rim" / "m000-499.fofproperties")


def painted(client, out, url):
    config = PaintConfig(halos=url, particles=None, boxes=2, cells=8, rsd="random_radial", boxsize=512.0, redshift=0.0)
    assert paint(client, prepare(str(out), config))
    return store.open_fields(str(out)).load()


@pytest.fixture(scope="module")
def expected(client, tmp_path_factory):
    return painted(client, tmp_path_factory.mktemp("genericio") / "f", HALOS)


@pytest.mark.parametrize("form", list(WRITERS))
def test_the_same_fields_from_every_format(client, tmp_path, expected, form):
    cat = open_catalogue(HALOS)
    url = WRITERS[form](tmp_path / "c", cat.read(cat.tracer_columns()))
    found = painted(client, tmp_path / "f", url)
    np.testing.assert_array_equal(found.halo_number.values, expected.halo_number.values)
    # other blocks are added in another order: float64 sums of float32 masses, rounded to float32 once
    np.testing.assert_allclose(found.halo_mass.values, expected.halo_mass.values, rtol=2.0**-23)


def test_names_on_the_command_line(client, tmp_path, capfd):
    rng = np.random.default_rng(0)
    table = {x: (100 * rng.random(500)).astype("f4") for x in "xyz"}
    table |= {f"v{x}": (300 * rng.standard_normal(500)).astype("f4") for x in "xyz"}
    table["mass"] = (1e13 * rng.random(500)).astype("f4")
    renamed = {name.upper() if name != "mass" else "M200c": values for name, values in table.items()}
    url = write_csv(tmp_path / "c", renamed)
    names = [f"{n}={n.upper()}" for n in list(table)[:6]] + ["mass=M200c [Msun]"]
    base = ["--boxes", "2", "--cells", "4", "--boxsize", "100", "--redshift", "1", "--rsd", "none"]
    base += ["--scheduler", client.scheduler.address]
    halo_columns = [word for name in names for word in ("--halo-column", name)]
    out = str(tmp_path / "f")
    assert main(["paint", out, "--halos", url, *base]) == 2
    assert "neither halos nor particles" in capfd.readouterr().err
    assert main(["paint", out, "--halos", url, *halo_columns, *base]) == 2
    assert "the Hubble parameter is needed to convert" in capfd.readouterr().err
    assert main(["paint", out, "--halos", url, *halo_columns, "--h", "0.5", *base]) == 0
    painted = store.open_fields(out).load()
    assert float(painted.halo_mass.sum(dtype="f8")) == pytest.approx(0.5 * table["mass"].sum(dtype="f8"), rel=1e-6)
    particles = [word for name in names[:6] for word in ("--particle-column", name)]
    options = ["paint", str(tmp_path / "g"), "--particles", url, *particles, *base]
    assert main(options) == 2
    assert "give velocity (--particle-velocity on the command line)" in capfd.readouterr().err
    assert main([*options, "--particle-velocity", "comoving"]) == 0
    momentum = store.open_fields(str(tmp_path / "g")).load()
    moved = (momentum.velocity.astype("f8") * momentum.matter_number).sum(("box", "x", "y", "z")).values
    np.testing.assert_allclose(moved, [table[f"v{x}"].sum(dtype="f8") / 2 for x in "xyz"], atol=1e-2)  # float32 cells
    assert main(["paint", out, "--halos", url, *halo_columns, "--h", "0.6", *base]) == 2  # other settings, another job
    assert "another store is here" in capfd.readouterr().err
    assert main(["info", url, *[w for n in names for w in ("--column", n)], "--h", "0.5", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["tracers"]["mass"] == "M200c [Msun] × 0.5"
