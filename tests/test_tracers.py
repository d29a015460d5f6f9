"""What no tracer can be is found, counted and located; what is merely rounded is not."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velfield.errors import CatalogueError, VelfieldError
from velfield.geometry.extent import Extent
from velfield.painting.tracers import FASTEST, Tracers, bring_inside, check_reach, check_tracers, momentum_of

BOX = 1000.0


def tracers(rows=2000, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return Tracers(
        pos=(BOX * rng.random((rows, 3))).astype(dtype),
        vel=(300 * rng.standard_normal((rows, 3))).astype(dtype),
        mass=(1e12 * rng.random(rows)).astype(dtype),
    )


def message(found, **options):
    """The line that refuses them."""
    with pytest.raises(CatalogueError) as caught:
        check_tracers(found, **{"boxsize": BOX, "where": "file=f, rank=3"} | options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sound_tracers_pass_unchanged(dtype):
    found = tracers(dtype=dtype)
    before = {name: values.copy() for name, values in vars(found).items() if name not in ("dropped", "extent")}
    check_tracers(found, boxsize=BOX, where="")
    check_tracers(Tracers(pos=found.pos, vel=None, mass=None), boxsize=None, where="")
    check_tracers(Tracers(pos=found.pos[:0], vel=found.vel[:0], mass=found.mass[:0]), boxsize=BOX, where="")
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(found, name), values)


@pytest.mark.parametrize(
    ("field", "index", "value", "said"),
    [
        ("pos", (5, 1), np.nan, r"1 not finite \(row=1005, column=y, value=nan\); remove the rows that are not finite"),
        ("pos", (5, 1), np.inf, r"1 not finite \(row=1005, column=y, value=inf\)"),
        ("vel", (0, 2), -np.inf, r"1 not finite \(row=1000, column=vz, value=-inf\)"),
        ("mass", (7,), np.nan, r"1 not finite \(row=1007, column=mass, value=nan\)"),
        ("mass", (7,), -1.0, r"1 of negative mass \(row=1007, column=mass, value=-1\); remove the rows without a mass"),
        ("mass", (7,), np.inf, r"1 not finite \(row=1007, column=mass, value=inf\)"),
        (
            "mass",
            (7,),
            1e30,
            r"1 of an absurd mass \(row=1007, column=mass, value=1(\.0*\d*)?e\+30\); state the masses' u",
        ),
        ("pos", (5, 0), -0.5, r"1 outside the box \(row=1005, column=x, value=-0\.5, limits=-0\.000238419 to 1000\);"),
        ("pos", (5, 0), 1001.0, r"check the positions' unit and the boxsize, or choose outside=wrap or drop"),
        ("pos", (5, 0), 1450.0, r"positions' unit \(they may lack h\)"),
        ("pos", (5, 0), 7e5, r"positions' unit \(they may be in kpc\)"),
        ("vel", (9, 0), 3e5, r"1 too fast \(row=1009, column=vx, value=300000\); state the velocities' unit"),
    ],
)
def test_one_bad_value_is_located(field, index, value, said):
    found = tracers()
    getattr(found, field)[index] = value
    line = message(found, first_row=1000)
    assert line.startswith("rows that cannot be right: file=f, rank=3, rows=2000, ")
    assert re.search(said, line)


def test_all_that_is_wrong_is_counted_under_the_files_names():
    found = tracers()
    found.pos[3:6, 2] = np.nan
    found.vel[4, 0] = np.nan  # a row that is counted already
    found.pos[10:20, 0] = -7
    found.mass[[1, 2]] = -1
    found.vel[30, 1] = 1e6
    line = message(found, names=["X", "Y", "Z", "U", "V", "W", "M"])
    for part in (
        "3 not finite (row=3, column=Z, value=nan)",
        "10 outside the box (row=10, column=X, value=-7,",
        "2 of negative mass (row=1, column=M, value=-1)",
        "1 too fast (row=30, column=V, value=1000000)",
    ):
        assert part in line
    assert line.count(";") == 1


@given(row=st.integers(0, 49), axis=st.integers(0, 2), field=st.sampled_from(["pos", "vel"]))
@settings(max_examples=40, deadline=None)
def test_wherever_it_is(row, axis, field):
    found = tracers(50)
    getattr(found, field)[row, axis] = np.nan
    name = ("x", "y", "z", "vx", "vy", "vz")[axis + 3 * (field == "vel")]
    assert f"(row={row}, column={name}, value=nan)" in message(found)


def test_the_edge_belongs_to_the_box_to_float32_rounding():
    found = tracers()
    ulp = np.spacing(np.float32(BOX))
    found.pos[0] = [0, BOX, np.float32(BOX) + ulp]
    found.pos[1] = [-ulp, 0, 0]
    check_tracers(found, boxsize=BOX, where="")
    found.pos[1, 0] = -5 * ulp
    assert "1 outside the box" in message(found)


@pytest.mark.parametrize(
    ("scale", "shift", "whole", "remedy"),
    [
        (
            1 / BOX,
            -0.5,
            True,
            r"they seem to be in units of the box: name it with the column, as in 'x=NAME \[1000 Mpc/h\]', or check",
        ),
        (1 / BOX, -0.5, False, "they seem to be in units of the box"),
        (0.01, -1.0, True, "check the positions' unit and the boxsize$"),  # too little of the box for a catalogue
        (0.01, -1.0, False, "or choose outside=wrap or drop"),  # a block may be so small
        (1.0, -20.0, True, "or choose outside=wrap or drop"),
        (3.0, 0.0, True, r"check the positions' unit and the boxsize, or choose outside=drop \(--outside\)"),
    ],
)
def test_to_wrap_is_proposed_only_next_to_the_box(scale, shift, whole, remedy):
    found = tracers(dtype=np.float64)
    shifted = Tracers(pos=found.pos * scale + shift, vel=found.vel, mass=found.mass)
    assert re.search(remedy, message(shifted, whole=whole))


def test_a_catalogue_in_a_corner_of_the_box_is_refused():
    pos = tracers(dtype=np.float64).pos
    line = (
        r"positions in a corner of the box: file=f, rows=2000, from 100.* to 124.*, span=24.*, boxsize=1000; "
        r"check the positions' unit and the boxsize"
    )
    with pytest.raises(CatalogueError, match=line):
        check_reach(Extent.of(pos / 40 + 100), boxsize=BOX, where="file=f")
    with pytest.raises(
        CatalogueError, match=r"they seem to be in units of the box: name it with the column, as in 'x=N"
    ):
        check_reach(Extent.of(pos / BOX), boxsize=BOX, where="file=f")
    for sound in (Extent.of(pos), Extent.of(pos / 20), Extent.of(pos[:9] / BOX), Extent()):
        check_reach(sound, boxsize=BOX, where="file=f")
    check_reach(Extent.of(pos / BOX), boxsize=None, where="file=f")


def test_the_extent_is_that_before_wrapping():
    pos = np.array([[-1.0, 5, 5], [3, 5, 1001]])
    found = Tracers(pos=pos, vel=None, mass=None, extent=Extent.of(pos))
    for outside in ("wrap", "drop"):
        assert bring_inside(found, boxsize=BOX, outside=outside).extent == Extent.of(pos)


def test_without_a_box_positions_need_only_be_finite():
    found = tracers()
    found.pos[0] = 1e9
    check_tracers(found, boxsize=None, where="")
    found.pos[0] = np.nan
    assert "not finite" in message(found, boxsize=None)


def test_velocities_in_another_unit():
    slow = dataclasses.replace(tracers(), vel=tracers().vel / np.float32(299792.458))  # of light's speed
    assert re.search(
        r"velocities too slow to be in km/s: file=f, rank=3, rows=2000, fastest=0\.\d+, columns=vx, vy, vz; state",
        message(slow),
    )
    check_tracers(dataclasses.replace(slow, vel=0 * slow.vel), boxsize=BOX, where="")  # a catalogue at rest
    few = Tracers(pos=slow.pos[:999], vel=slow.vel[:999], mass=None)
    check_tracers(few, boxsize=BOX, where="")
    late = dataclasses.replace(slow, vel=np.where(np.arange(2000)[:, None] < 1500, slow.vel, 300).astype("f4"))
    check_tracers(late, boxsize=BOX, where="")
    fast = dataclasses.replace(tracers(), vel=tracers().vel * np.float32(1000))  # m/s
    assert f"state the velocities' unit, as {FASTEST:.0f} km/s is the limit" in message(fast)


def test_wrap():
    found = tracers()
    found.pos[0] = [-1, 1002, 500]
    check_tracers(found, boxsize=BOX, where="", outside="wrap")
    inside = bring_inside(found, boxsize=BOX, outside="wrap")
    np.testing.assert_array_equal(inside.pos[0], [999, 2, 500])
    np.testing.assert_array_equal(inside.pos[1:], found.pos[1:])
    np.testing.assert_array_equal(found.pos[0], [-1, 1002, 500])
    assert inside.pos.dtype == np.float32
    found.pos[0, 0] = 2001  # no image of a box' length away, but another unit
    assert "outside the box (row=0, column=x, value=2001, limits=-1000 to 2000)" in message(found, outside="wrap")


def test_drop():
    found = tracers()
    found.pos[[0, 7], 1] = [-1, 5e6]
    check_tracers(found, boxsize=BOX, where="", outside="drop")
    inside = bring_inside(found, boxsize=BOX, outside="drop")
    assert inside.dropped == 2
    keep = np.delete(np.arange(2000), [0, 7])
    for name in ("pos", "vel", "mass"):
        np.testing.assert_array_equal(getattr(inside, name), getattr(found, name)[keep])
    found.pos[3] = np.nan
    assert "1 not finite" in message(found, outside="drop")


def test_nothing_is_copied_where_all_is_inside():
    found = tracers()
    for outside in ("refuse", "wrap", "drop"):
        assert bring_inside(found, boxsize=BOX, outside=outside) is found


def test_no_such_choice():
    with pytest.raises(VelfieldError, match=r"no such choice: outside='keep'; choose refuse, wrap, drop"):
        check_tracers(tracers(), boxsize=BOX, where="", outside="keep")


@pytest.mark.parametrize(
    "shapes", [{"pos": (5, 2)}, {"pos": (5,)}, {"vel": (4, 3)}, {"vel": (5, 2)}, {"mass": (4,)}, {"mass": (5, 1)}]
)
def test_arrays_of_other_shapes_are_refused_before_loops_trust_them(shapes):
    given = {"pos": (5, 3), "vel": (5, 3), "mass": (5,)} | shapes
    with pytest.raises(VelfieldError, match=r"tracers' shapes do not fit: pos=.*; give \(N, 3\), \(N, 3\) and \(N,\)"):
        Tracers(**{name: np.zeros(shape) for name, shape in given.items()})
    with pytest.raises(VelfieldError, match=r"tracers' shapes do not fit: pos=\(5, 2\), vel=None, mass=None"):
        momentum_of(np.zeros((5, 2)))
