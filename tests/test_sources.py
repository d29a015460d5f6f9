import dataclasses

import numpy as np
import pytest
from fields_fixture import write_universe

from velfield.errors import StoreError, VelfieldError
from velfield.geometry import symmetry
from velfield.physics.cosmology import OUTER_RIM
from velfield.stores.sources import boxes_of, differing, open_source, open_sources, sentences, symmetries_of

INPUTS = ("mass_overdensity", "number_density")
TINY = {"boxes": 2, "cells": 4}


@pytest.fixture
def url(tmp_path):
    return write_universe(str(tmp_path / "a"), seed=1, **TINY)


def test_says_what_the_store_says(url):
    source = open_source(url, INPUTS)
    assert source.parents == ("universe-1",)
    assert source.split.count("train") == 6
    assert source.described["cellsize"] == 10
    assert source.described["units of number_density"] == "littleh3 / Mpc3"
    assert set(source.means) == {"halo_mass", "halo_number", "matter_number"}


def test_boxes_by_split_over_stores(tmp_path, url):
    other = write_universe(str(tmp_path / "b"), seed=2, **TINY)
    sources = open_sources([url, other], INPUTS)
    assert boxes_of(sources, "train") == [(0, b) for b in range(6)] + [(1, b) for b in range(6)]
    assert boxes_of(sources, "validation") == [(0, 6), (0, 7), (1, 6), (1, 7)]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cells": 8}, "cells=4 in "),
        ({"margin": 1}, "margin=0 in "),
        ({"redshift": 0.212}, "redshift=0.0 in "),
        ({"rsd": "center_radial"}, "rsd=none in "),
        ({"min_mass": 1e12}, "min_mass=0.0 in "),
        ({"assignment": "tsc"}, "assignment=ngp in "),
        ({"cosmology": dataclasses.replace(OUTER_RIM, sigma8=0.9)}, "cosmology={'omega_m'"),
    ],
)
def test_stores_that_do_not_go_together(tmp_path, url, change, text):
    other = write_universe(str(tmp_path / "b"), seed=2, **(TINY | change))
    with pytest.raises(StoreError) as error:
        open_sources([url, other], INPUTS)
    message = str(error.value)
    assert message.startswith("stores do not go together: ")
    assert text in message
    assert url in message
    assert other in message


def test_the_cosmologys_name_is_only_a_name(tmp_path, url):
    renamed = dataclasses.replace(OUTER_RIM, name="mine")
    other = write_universe(str(tmp_path / "b"), seed=2, cosmology=renamed, **TINY)
    assert len(open_sources([url, other], INPUTS)) == 2


def test_units_of_an_older_bundle_are_the_same_units():
    older = {"units of mass_density": "Msun/h h3 Mpc-3", "units of number_density": "h3 Mpc-3"}
    today = {"units of mass_density": "solMass littleh2 / Mpc3", "units of number_density": "littleh3 / Mpc3"}
    for one, other in ((older, today), (today, older)):
        assert differing(one, other) == {}
    assert set(differing(older, dict.fromkeys(today, "littleh3 / Mpc3"))) == {"units of mass_density"}


def test_differences_are_said_in_numbers_that_can_be_read():
    unlike = {
        "redshift": (0.0, 0.9980119284294235),
        "min_mass": (3e11, 1e12),
        "density": ("0.000387 to 0.0698", 2.4305555555555558e-05),
        "rsd": ("none", "center_radial"),
    }
    assert sentences(unlike, "f.zarr") == [
        "the model was trained at redshift=0, f.zarr has redshift=0.998012",
        "the model was trained at min_mass=3e+11, f.zarr has min_mass=1e+12 h⁻¹M⊙",
        "the model was trained at density=0.000387 to 0.0698, f.zarr has density=2.43056e-05 halos in a (h⁻¹Mpc)³",
        "the model was trained at rsd=none, f.zarr has rsd=center_radial",
    ]


def test_refuses(tmp_path, url):
    with pytest.raises(StoreError, match=r"the same store twice: store=.*; name each once"):
        open_sources([url, url], INPUTS)
    with pytest.raises(VelfieldError, match="no field store given: fields=0"):
        open_sources([], INPUTS)
    for wrong in (("mass",), (), ("mass_density", "mass_density")):
        with pytest.raises(VelfieldError, match=r"no such inputs: inputs=.*; choose some of mass_overdensity"):
            open_sources([url], wrong)
    blind = write_universe(
        str(tmp_path / "b"), seed=2, leave_out=("matter_number", "velocity", "velocity_flag"), **TINY
    )
    with pytest.raises(StoreError, match=r"no velocity to learn from: store=.*; paint it again with --particles"):
        open_sources([blind], INPUTS)


def test_which_symmetries_are_allowed(tmp_path, url):
    assert symmetries_of([open_source(url, INPUTS)]) == symmetry.CUBE
    radial = write_universe(str(tmp_path / "b"), seed=2, rsd="random_radial", **TINY)
    assert len(symmetries_of([open_source(radial, INPUTS)])) == 48
    for name, axis in (("x", 0), ("z", 2)):
        los = np.tile(np.eye(3)[axis], (8, 1))
        flat = write_universe(str(tmp_path / name), seed=2, rsd="plane_parallel", line_of_sight=los, **TINY)
        turns = symmetries_of([open_source(flat, INPUTS)])
        assert turns == symmetry.keeping_line_of_sight(axis)
        assert len(turns) == 16
    oblique = np.tile([0.6, 0.0, 0.8], (8, 1))
    slant = write_universe(str(tmp_path / "s"), seed=2, rsd="plane_parallel", line_of_sight=oblique, **TINY)
    with pytest.raises(
        VelfieldError, match=r"no symmetry keeps the line of sight: rsd=plane_parallel along \(0.6, 0, 0.8\)"
    ):
        symmetries_of([open_source(slant, INPUTS)])
