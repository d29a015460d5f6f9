"""Halos that are in redshift space already, and what catalogues say of their cosmology, by the real entry points."""

import json
from pathlib import Path

import numpy as np
import pytest
from table_files import write_csv, write_hdf5, write_opencosmo

from velfield.catalogues.catalogue import open_catalogue
from velfield.commands.cli import main
from velfield.errors import CatalogueError, StoreError, VelfieldError
from velfield.physics.cosmology import OUTER_RIM, Cosmology
from velfield.physics.redshift_space import redshift_space
from velfield.pipelines.here import Threads
from velfield.pipelines.paint import _check_finite, paint
from velfield.pipelines.paint_job import PaintConfig, prepare
from velfield.pipelines.predict import prepare as prepare_predict
from velfield.stores import store
from velfield.theory import analytic
from velfield.verification.verify_store import open_store

HALOS = str(Path(__file__).parent.parent / "data" / "mock-outer-rim" / "m000-499.fofproperties")
SIDE = 512.0
PLANCK = {
    "h": 0.6766,
    "omega_m": 0.3111,
    "omega_b": 0.049,
    "omega_l": 0.6889,
    "sigma_8": 0.8102,
    "w_0": -1.0,
    "w_a": 0.0,
}


@pytest.fixture(scope="module")
def tracers():
    return open_catalogue(HALOS, 0.0).tracers()


def table_of(pos, mass=None):
    """Positions, and masses where there are any: no velocities."""
    return dict(zip("xyz", np.asarray(pos, dtype="f8").T, strict=True)) | ({} if mass is None else {"mass": mass})


def painted(out, halos, **options):
    asked = {"boxes": 2, "cells": 16, "boxsize": SIDE, "redshift": 0.0, "cosmology": OUTER_RIM} | options
    assert paint(Threads(1), prepare(str(out), PaintConfig(halos=halos, particles=None, **asked)))
    assert open_store(str(out)).findings == []
    return store.open_fields(str(out), chunks=None).load()


def whole(ds):
    return analytic.velocities(analytic.settings("linear_whole", ds), ds, range(ds.sizes["box"]))


@pytest.mark.parametrize(
    ("pattern", "moving", "given"),
    [
        ("plane_parallel", {}, {"line_of_sight": "z"}),
        ("plane_parallel", {"line_of_sight": "x"}, {"line_of_sight": "x"}),
        ("random_radial", {"observer": (100.0, 50.0, -400.0)}, {"observer": (100.0, 50.0, -400.0)}),
    ],
)
def test_observed_halos_are_those_that_velfield_moved(tmp_path, tracers, pattern, moving, given):
    moved = painted(tmp_path / "m", HALOS, rsd=pattern, **moving)
    seen_by = (
        {"observer": given["observer"]}
        if "observer" in given
        else {"line_of_sight": np.eye(3)["xyz".index(given["line_of_sight"])]}
    )
    pos = redshift_space(tracers.pos, tracers.vel, redshift=0.0, cosmology=OUTER_RIM, **seen_by) % SIDE
    url = write_hdf5(tmp_path / "c.hdf5", table_of(pos, tracers.mass))
    ds = painted(tmp_path / "o", url, rsd="observed", **given)
    for name in ("halo_number", "halo_mass"):
        np.testing.assert_array_equal(ds[name], moved[name])
    for name in ("line_of_sight", "observer"):
        assert (name in ds.coords) == (name in given)
        assert (name in ds.attrs) == (name in given)
    np.testing.assert_array_equal(whole(ds), whole(moved))
    (name,) = given
    made = prepare_predict("linear_whole", str(tmp_path / "o"), str(tmp_path / "v")).layout
    assert (made.attrs["rsd"], made.attrs[name]) == ("observed", ds.attrs[name])
    np.testing.assert_array_equal(made.coords[name].values, moved[name])


def test_an_observer_that_is_given_is_the_one_that_would_be_drawn(tmp_path):
    drawn = painted(tmp_path / "d", HALOS, rsd="random_radial", seed=4)
    place = tuple(drawn.observer.values[0].tolist())
    given = painted(tmp_path / "g", HALOS, rsd="random_radial", observer=place)
    np.testing.assert_array_equal(given.halo_mass, drawn.halo_mass)
    np.testing.assert_array_equal(given.observer, drawn.observer)
    assert given.attrs["observer"] == list(place)


def test_without_masses_and_velocities_the_number_is_painted(tmp_path, tracers, capsys):
    url = write_csv(tmp_path / "c.csv", table_of(tracers.pos[:3000]))
    ds = painted(tmp_path / "f", url, rsd="observed")
    assert set(ds.data_vars) == {"halo_number"}
    assert ds.attrs["line_of_sight"] == "unknown"
    assert float(ds.halo_number.sum()) == 3000
    about = json.loads(prepare_predict("linear_whole", str(tmp_path / "f"), "v").layout.attrs["model"])
    assert about["rsd"] == "observed from an unknown direction"
    asked = ["--boxsize", "512", "--redshift", "0", "--boxes", "2", "--cells", "8", "--plan"]
    predict = ["predict", "linear_whole", url, str(tmp_path / "v"), *asked, "--rsd"]
    assert main([*predict, "observed"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert said[0].endswith("outer-rim's is taken (omega_m=0.2648, h=0.71); --cosmology names another")
    assert [line.removeprefix("note: ").partition(",")[0].partition(":")[0] for line in said] == [
        "the catalogue states no cosmology",
        "nobody says from where the halos were observed",
        "no column of the halos is known as their mass",
    ]
    assert main([*predict, "random_radial"]) == 2
    assert "missing=vx vy vz" in capsys.readouterr().err
    assert main([*predict, "none", "--min-mass", "1e12"]) == 2
    assert "no masses to cut by: min_mass=1e+12, file=" in capsys.readouterr().err
    of_480 = ["--boxsize", "480", "--redshift", "0", "--outside", "drop", "--rsd", "observed", "--plan"]
    assert main(["predict", "pretrained", url, str(tmp_path / "v"), *of_480]) == 2
    assert "the store has no such field: variable=halo_mass" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"c.csv", "f"}


@pytest.mark.parametrize(
    "verb", [["paint", "OUT", "--halos", "CATALOGUE"], ["predict", "pretrained", "CATALOGUE", "OUT"]]
)
def test_redshift_space_is_never_assumed(tmp_path, capsys, verb):
    words = [{"OUT": str(tmp_path / "o"), "CATALOGUE": HALOS}.get(word, word) for word in verb]
    assert main([*words, "--boxes", "2", "--cells", "8"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("velfield: it is not said whether halos are in redshift space: rsd=None; give rsd (--rsd): ")
    for choice in ("none", "plane_parallel", "center_radial", "random_radial", "observed"):
        assert choice in line
    assert main([*words, "--boxes", "2", "--cells", "8", "--rsd", "observed", "--observer", "1,2"]) == 2
    assert "not a place: observer=1,2; give three numbers, as 250,250,-1000" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_particles_alone_are_in_real_space():
    asked = {"halos": None, "particles": "p", "boxes": 1, "cells": 8}
    assert PaintConfig(**asked).rsd == "none"
    with pytest.raises(VelfieldError, match="particles are in real space: rsd=observed, halos=None"):
        PaintConfig(**asked, rsd="observed")


def test_halos_of_a_simulation_were_never_observed(tmp_path):
    for path in Path(HALOS).parent.glob("m000-499*"):
        (tmp_path / path.name).symlink_to(path)
    parameters = {"cosmology": OUTER_RIM.to_dict(), "boxsize": SIDE, "particles": 55, "seed": 1}
    snapshot = {"halos": "m000-499.fofproperties", "particles": "m000.mpicosmo.499"}
    (tmp_path / "simulation.json").write_text(json.dumps({"parameters": parameters, "snapshots": [snapshot]}))
    halos = str(tmp_path / "m000-499.fofproperties")
    with pytest.raises(VelfieldError, match=r"halos of a simulation are in real space: .*rsd=observed, record=simul"):
        prepare("o", PaintConfig(halos=halos, particles=None, boxes=1, cells=8, rsd="observed"))


# ------------------------------------------------------------------------------------------ cosmology


def opencosmo(path, tracers, **header):
    names = [f"fof_halo_center_{x}" for x in "xyz"]
    table = dict(zip(names, tracers.pos.T, strict=True)) | {"fof_halo_mass": tracers.mass}
    return write_opencosmo(path, table, cosmology=header)


def test_the_cosmology_of_a_header_is_taken(tmp_path, tracers, capsys):
    url = opencosmo(tmp_path / "c.hdf5", tracers, **PLANCK, n_eff_massive=0.0)
    ds = painted(tmp_path / "f", url, rsd="none", cosmology=None, boxes=1, cells=32)
    rms = float(np.sqrt((whole(ds).astype("f8") ** 2).mean()))
    assert rms == pytest.approx(276.0, abs=1.0)  # of a component, with n_s = 0.9665; with Outer Rim's cosmology 247.3
    known = json.loads(ds.attrs["cosmology"])
    assert (known["omega_m"], known["h"], known["sigma8"]) == (0.3111, 0.6766, 0.8102)
    asked = ["paint", str(tmp_path / "w"), "--halos", url, "--boxes", "1", "--cells", "32", "--rsd", "none", "--plan"]
    assert main(asked) == 0
    assert "note: the catalogue's cosmology has no n_s: outer-rim's is taken (n_s=0.963)" in capsys.readouterr().err
    assert main([*asked, "--cosmology", "outer-rim"]) == 2
    said = capsys.readouterr().err
    assert f"two cosmologies: file={url} states omega_m=0.3111, given=outer-rim has omega_m=0.2648; leave" in said
    planck = tmp_path / "planck.json"
    planck.write_text(json.dumps({"omega_m": 0.3111, "omega_b": 0.049, "h": 0.6766, "sigma8": 0.8102, "n_s": 0.9665}))
    assert main([*asked, "--cosmology", str(planck)]) == 0
    assert "note:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"w_0": -0.9}, r"dark energy that is no cosmological constant: file=.*, w_0=-0.9, w_a=0; velfield knows flat"),
        ({"w_a": 0.3}, r"dark energy that is no cosmological constant: .*w_a=0.3"),
        ({"omega_l": 0.6}, r"a universe that is not flat: file=.*, omega_m=0.3111, omega_l=0.6"),
    ],
)
def test_what_is_not_flat_lcdm_is_refused(tmp_path, tracers, header, said):
    url = opencosmo(tmp_path / "c.hdf5", tracers, **PLANCK | header)
    assert open_catalogue(url).boxsize == SIDE  # it may be looked at
    with pytest.raises(VelfieldError, match=said):
        prepare("o", PaintConfig(halos=url, particles=None, boxes=1, cells=8, rsd="none"))


def test_neutrinos_and_a_header_that_says_all(tmp_path, tracers):
    def prepared(**header):
        url = opencosmo(tmp_path / f"{len(list(tmp_path.iterdir()))}.hdf5", tracers, **header)
        return prepare("o", PaintConfig(halos=url, particles=None, boxes=1, cells=8, rsd="none"))

    job = prepared(**PLANCK, n_s=0.9665)
    assert job.notes == []
    assert job.scene.cosmology == Cosmology(
        name="header", omega_m=0.3111, omega_b=0.049, h=0.6766, sigma8=0.8102, n_s=0.9665
    )
    (note,) = prepared(**PLANCK | {"omega_l": 0.6875}, n_s=0.9665, omega_nu=0.0014, n_eff_massive=1.0).notes
    assert note.startswith("the catalogue's universe has massive neutrinos (omega_nu=0.0014, n_eff_massive=1), which")


def test_two_hubble_parameters():
    with pytest.raises(VelfieldError, match=r"two Hubble parameters: h=0.6, cosmology=outer-rim has h=0.71"):
        PaintConfig(halos="h", particles=None, boxes=1, cells=8, rsd="none", h=0.6, cosmology=OUTER_RIM)


# ------------------------------------------------------------------------------------------ values that cannot be


@pytest.mark.parametrize(("value", "said"), [(1e300, "of an absurd mass"), (2e17, "absurd"), (np.inf, "not finite")])
@pytest.mark.filterwarnings("error")
def test_an_absurd_mass_never_gets_into_a_store(tmp_path, tracers, value, said):
    mass = tracers.mass[:50].astype("f8")
    mass[7] = value
    url = write_csv(tmp_path / "big.csv", table_of(tracers.pos[:50], mass))
    with pytest.raises(CatalogueError, match=rf"^rows that cannot be right: file={url}, .* {said}") as error:
        painted(tmp_path / "f", url, rsd="none")
    assert "(row=7, column=mass, value=" in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "f" / "zarr.json").exists()


@pytest.mark.parametrize("total", [np.inf, np.nan, 1e39])
def test_sums_that_float32_cannot_hold_are_not_published(total):
    good = {"sums": {"number": 2.0, "mass": 2e13}, "painted": {"number": 2.0, "mass": 2e13}}
    _check_finite("halos", good)
    with pytest.raises(StoreError, match=r"sums that cannot be stored: halos mass=.*, limit=3.4e\+38; check the cata"):
        _check_finite("halos", good | {"painted": {"number": 2.0, "mass": total}})
