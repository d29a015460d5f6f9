"""Velocities at positions: exact where the field is linear, the same however the parent is cut, and never beyond it."""

import numpy as np
import pytest
from astropy import coordinates, cosmology, units
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from small_store import spec_of
from velocity_stores import SIDE, in_memory, written

import velfield as vf
from velfield.answers import interpolate
from velfield.answers.cells import Cells
from velfield.errors import StoreError, VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.physics import sky
from velfield.physics.cosmology import OUTER_RIM, Cosmology
from velfield.physics.redshift_space import redshift_space
from velfield.stores import store

GRADIENT = np.array([[1.5, -0.4, 0.2], [0.3, -0.8, 0.1], [-0.2, 0.5, 0.7]])  # km/s per h⁻¹Mpc
OFFSET = np.array([20.0, -30.0, 10.0])
OBSERVER = [50.0, 40.0, 70.0]


def linear(pos):
    return np.einsum("ij,j...->i...", GRADIENT, pos) + OFFSET.reshape(3, *[1] * (pos.ndim - 1))


def wave(pos):
    """A periodic flow along x, y and z."""
    k = 2 * np.pi / SIDE
    return np.stack([300 * np.sin(k * pos[0]), 200 * np.cos(k * pos[2]), -250 * np.sin(k * pos[1] + 1)])


def inside(n=200, seed=1, edge=15.0):
    return np.random.default_rng(seed).uniform(edge, SIDE - edge, (n, 3))


def observed(layout_boxes=2):
    return {"observer": np.tile(OBSERVER, (layout_boxes**3, 1)), "rsd": "random_radial"}


@pytest.mark.parametrize(("boxes", "cells", "margin"), [(1, 12, 0), (2, 6, 0), (3, 4, 2)])
def test_a_linear_field_is_exact_across_boxes(boxes, cells, margin):
    ds = in_memory(linear, boxes=boxes, cells=cells, margin=margin, periodic=False)
    pos = inside()
    found = vf.query_positions(ds, pos)
    assert_allclose(found["velocity"], linear(pos.T).T, atol=1e-4)  # float32 of some 300 km/s
    assert not found["flag"].any()
    assert set(found) == {"velocity", "position", "flag"}
    assert_array_equal(found["position"], pos)


def test_the_answer_does_not_depend_on_how_the_parent_is_cut():
    pos = np.random.default_rng(2).uniform(-SIDE, 2 * SIDE, (500, 3))
    whole, cut = (vf.query_positions(in_memory(wave, boxes=b, cells=12 // b), pos, extrapolate=True) for b in (1, 3))
    assert_array_equal(whole["velocity"], cut["velocity"])
    assert np.isfinite(cut["velocity"]).all()


@pytest.mark.parametrize("space", ["real", "redshift"])
def test_nor_where_cells_are_missing(space):
    rng = np.random.default_rng(7)
    field, state = rng.normal(size=(3, 12, 12, 12)) * 700, rng.choice([0, 1, 2], size=(12, 12, 12), p=[0.9, 0.05, 0.05])

    def answer(boxes, **how):
        def edit(arrays):
            cut = state.reshape(*(boxes, 12 // boxes) * 3).transpose(0, 2, 4, 1, 3, 5)
            arrays["velocity_flag"][:] = cut.reshape(arrays["velocity_flag"].shape)

        def of_cells(at):
            return field[(slice(None), *np.mod(np.floor(at / 10), 12).astype(int))]

        ds = in_memory(of_cells, boxes=boxes, cells=12 // boxes, edit=edit, **observed(boxes))
        return vf.query_positions(ds, pos, space=space, extrapolate=True, cells=Cells(ds, **how))

    pos = rng.uniform(-30, 150, (400, 3))
    pos[:20] = np.round(pos[:20] / 5) * 5  # centres and edges of cells
    pos[20] = OBSERVER
    one = answer(1)
    expected = [interpolate.UNSURE, interpolate.UNKNOWN, interpolate.EXTRAPOLATED]
    expected += [interpolate.SEVERAL, interpolate.UNSOLVED] if space == "redshift" else []
    assert all((one["flag"] & bit).any() for bit in expected)
    for boxes in (3, 6, 12):
        other = answer(boxes, kept_bytes=10**5)
        for name in one:
            assert_array_equal(one[name], other[name])


def test_nor_on_parts_or_what_is_kept(monkeypatch):
    pos = np.random.default_rng(2).uniform(0, SIDE, (300, 3))
    ds = in_memory(wave, boxes=3, cells=4, **observed(3))
    asked = {"space": "redshift"}
    at_once = vf.query_positions(ds, pos, **asked)
    monkeypatch.setattr("velfield.answers.reach.GATHERED", 97)
    in_parts = vf.query_positions(ds, pos, cells=Cells(ds, kept_bytes=1), **asked)
    for name in at_once:
        assert_array_equal(at_once[name], in_parts[name])


def test_a_periodic_parent_goes_on_and_another_ends():
    pos = np.array([[1.0, 60.0, 60.0], [119.0, 2.0, 118.0]])
    periodic = in_memory(wave)
    assert_allclose(
        vf.query_positions(periodic, pos + SIDE)["velocity"], vf.query_positions(periodic, pos)["velocity"], atol=1e-9
    )
    # by hand: x = 1 lies between the centres −5 and 5, at 0.6 of the way
    low, high = (wave(np.array([x, 60.0, 60.0]))[0] for x in (-5.0, 5.0))
    assert_allclose(vf.query_positions(periodic, pos)["velocity"][0, 0], 0.4 * low + 0.6 * high, rtol=1e-6)
    ends = in_memory(wave, periodic=False)
    found = vf.query_positions(ends, [*pos, [-1.0, 60, 60], [60.0, 60, SIDE]])
    assert_array_equal(found["flag"], [interpolate.UNKNOWN] * 2 + [interpolate.OUTSIDE] * 2)
    assert np.isnan(found["velocity"]).all()


def test_outside_a_partial_store_nothing_is_said():
    ds = in_memory(linear, boxes=2).isel(box=[0, 3])
    found = vf.query_positions(ds, [[20.0, 20, 20], [70.0, 20, 20], [20.0, 70, 70], [58.0, 20, 20]])
    assert_array_equal(found["flag"], [0, interpolate.OUTSIDE, 0, interpolate.UNKNOWN])
    near = vf.query_positions(ds, [[58.0, 20, 20], [70.0, 20, 20]], extrapolate=True)
    assert near["flag"].tolist() == [interpolate.UNKNOWN | interpolate.EXTRAPOLATED, interpolate.OUTSIDE]
    # nearest known centre to (58, 20, 20): (55, 15 or 25, 15 or 25), the first of equal ones
    assert_allclose(near["velocity"][0], linear(np.array([55.0, 15, 15])), rtol=1e-6)
    assert np.isnan(near["velocity"][1]).all()
    alone = vf.query_positions(in_memory(linear).isel(box=0), [[20.0, 20, 20]])
    assert_allclose(alone["velocity"][0], linear(np.array([20.0, 20, 20])), rtol=1e-6)


def test_cells_without_a_velocity_and_filled_ones_are_flagged():
    def edit(arrays):
        arrays["velocity_flag"][0, 1, 1, 1] = 1  # filled, centre at 15, 15, 15
        arrays["velocity_flag"][0, 4, 4, 4] = 2  # outside, centre at 45, 45, 45
        arrays["velocity"][0, :, 4, 1, 1] = np.nan

    ds = in_memory(linear, edit=edit)
    found = vf.query_positions(ds, [[16.0, 16, 16], [44.0, 44, 44], [44.0, 16, 16], [35.0, 45, 45], [30.0, 30, 30]])
    assert_array_equal(found["flag"], [interpolate.UNSURE, interpolate.UNKNOWN, interpolate.UNKNOWN, 0, 0])
    assert_allclose(found["velocity"][[0, 3]], linear(np.array([[16.0, 16, 16], [35, 45, 45]]).T).T, rtol=1e-5)
    predicted = ds.assign_attrs(velfield_kind="velocity")  # there 1 is a cell predicted without all of its context
    assert vf.query_positions(predicted, [[16.0, 16, 16]])["flag"] == [interpolate.UNSURE]


def test_at_a_cell_centre_the_cell_alone_counts():
    ds = in_memory(linear, periodic=False)
    found = vf.query_positions(ds, [[5.0, 115.0, 55.0]])
    assert found["flag"] == [0]
    assert_allclose(found["velocity"][0], linear(np.array([5.0, 115, 55])), rtol=1e-6)


def test_only_the_boxes_that_positions_touch_are_read(monkeypatch):
    ds = in_memory(linear, boxes=3, cells=4)
    read, original = [], Cells._read
    monkeypatch.setattr(Cells, "_read", lambda cells, box: read.append(box) or original(cells, box))
    vf.query_positions(ds, [[20.0, 20, 20], [21.0, 20, 20]])
    assert read == [0]
    read.clear()
    vf.query_positions(ds, [[39.0, 20, 20]])  # between centres at 35 and 45
    assert sorted(read) == [0, 9]


def test_bad_rows_are_flagged():
    found = vf.query_positions(in_memory(linear), [[np.nan, 1, 1], [np.inf, 1, 1], [30.0, 30, 30]])
    assert_array_equal(found["flag"], [interpolate.INVALID, interpolate.INVALID, 0])
    ds = in_memory(linear, **observed())
    sky_rows = [[10.0, 91, 0.01], [10.0, 0, -0.1], [10.0, np.nan, 0.01], [10.0, 0, 0.005]]
    for space in ("real", "redshift"):
        found = vf.query_positions(ds, sky_rows, coordinates="sky", space=space)
        assert_array_equal(found["flag"], [interpolate.INVALID] * 3 + [0])


def test_the_sky_is_the_box_seen_by_the_observer():
    ds = in_memory(linear, **observed())
    away = np.array([12.0, -9.0, 20.0])
    distance = np.sqrt(away @ away)
    z = np.linspace(0, 0.05, 5001)
    redshift = np.interp(distance, OUTER_RIM.comoving_distance(z), z)
    ra, dec = np.degrees(np.arctan2(away[1], away[0])), np.degrees(np.arcsin(away[2] / distance))
    found = vf.query_positions(ds, [[ra, dec, redshift], [ra + 360, dec, redshift]], coordinates="sky")
    # interpolation of the distance over redshift: 1e-5 h⁻¹Mpc
    assert_allclose(found["position"], np.tile(OBSERVER + away, (2, 1)), atol=1e-4)
    assert_allclose(found["velocity"][0], linear(OBSERVER + away), atol=1e-3)
    assert_allclose(found["v_los"], linear(OBSERVER + away) @ away / distance, atol=1e-3)
    # 290 h⁻¹Mpc, as the parent is seen once; and cz in km/s taken for z, and a number that is none
    far = vf.query_positions(ds, [[0.0, 0.0, z] for z in (0.1, 1500.0, 1e6, 1e300)], coordinates="sky")
    assert_array_equal(far["flag"], interpolate.OUTSIDE)


def test_distances_are_those_of_another_code():
    other = cosmology.FlatLambdaCDM(H0=100, Om0=OUTER_RIM.omega_m, Tcmb0=0)
    z = np.array([0.0, 1e-3, 0.1, 0.7, 3.0, 9.0, 100.0, 1100.0, 3e4])
    assert_allclose(OUTER_RIM.comoving_distance(z), other.comoving_distance(z).value, rtol=1e-9)
    angles = np.array([[0.0, 0], [123.4, -56.7], [300.0, 80]])
    theirs = coordinates.SkyCoord(*(angles.T * units.deg)).cartesian.xyz.value.T
    assert_allclose(sky.directions(*angles.T), theirs, atol=1e-14)


def test_distance_in_a_universe_of_matter_alone():
    matter = Cosmology(name="eds", omega_m=1.0, omega_b=0.05, h=0.7, sigma8=0.8, n_s=1.0)
    z = np.array([0.1, 1.0, 5.0, 1e6, 1e300])
    assert_allclose(matter.comoving_distance(z), 2 * 2997.92458 * (1 - (1 + z) ** -0.5), rtol=1e-14)


@pytest.mark.parametrize("view", ["observer", "line_of_sight"])
@pytest.mark.parametrize("redshift", [0.0, 0.5])
def test_what_is_seen_in_redshift_space_comes_back(view, redshift):
    direction = np.array([0.6, 0.0, 0.8])
    given = observed() if view == "observer" else {"line_of_sight": np.tile(direction, (8, 1)), "rsd": "plane_parallel"}
    ds = in_memory(wave, redshift=redshift, **given)
    pos = inside(n=100)
    real = vf.query_positions(ds, pos)
    seen_by = {"observer": OBSERVER} if view == "observer" else {"line_of_sight": direction}
    seen = redshift_space(pos, real["velocity"], redshift=redshift, cosmology=OUTER_RIM, **seen_by)
    assert np.abs(seen - pos).max() > 2  # h⁻¹Mpc: the shifts matter
    found = vf.query_positions(ds, seen, space="redshift")
    assert not found["flag"].any()
    assert_allclose(found["position"], pos, atol=1e-5)  # h⁻¹Mpc; velocities to the tolerance of the search
    assert_allclose(found["velocity"], real["velocity"], atol=1e-3)
    assert_allclose(found["v_los"], real["v_los"], atol=1e-3)


def test_several_solutions_are_flagged_and_the_nearest_is_taken():
    def collapse(pos):  # towards x = 60, faster than the expansion: three places are seen as one
        along = pos[0] - 60
        return np.stack([-200 * along * np.exp(-((along / 12) ** 2)), 0 * along, 0 * along])

    ds = in_memory(collapse, boxes=2, cells=30, line_of_sight=np.tile([1.0, 0, 0], (8, 1)), rsd="plane_parallel")
    found = vf.query_positions(ds, [[60.0, 33, 33], [61.0, 33, 33], [100.0, 33, 33]], space="redshift")
    assert_array_equal(found["flag"], [interpolate.SEVERAL, interpolate.SEVERAL, 0])
    x = found["position"][:, 0]
    assert_allclose(x[[0, 2]], [60, 100], atol=2e-3)  # at 100 the flow is 0.14 km/s
    shifted = x + vf.query_positions(ds, found["position"])["velocity"][:, 0] / 100
    assert_allclose(shifted, [60, 61, 100], atol=1e-5)
    # 61 is seen of x a little below 60, and of two places far on either side
    assert 58 < x[1] < 60


def test_the_search_finds_what_a_plain_one_finds():
    rng = np.random.default_rng(8)
    field = rng.normal(size=(3, 12, 12, 12)) * 1600
    sight = np.array([0.6, 0.0, 0.8])
    ds = in_memory(
        lambda at: field[(slice(None), *np.mod(np.floor(at / 10), 12).astype(int))],
        boxes=3,
        cells=4,
        line_of_sight=np.tile(sight, (27, 1)),
        rsd="plane_parallel",
    )
    pos, t = rng.uniform(0, SIDE, (200, 3)), np.linspace(-80, 80, 33)
    along = (pos[:, None] + t[:, None] * sight).reshape(-1, 3)
    g = t + (vf.query_positions(ds, along)["velocity"] @ sight).reshape(200, -1) / 100
    crossing = (g[:, :-1] < 0) != (g[:, 1:] < 0)
    place = t[:-1] + g[:, :-1] / (g[:, :-1] - g[:, 1:]) * 5
    nearest = np.where(crossing, abs(place), np.inf).argmin(axis=1)
    found = vf.query_positions(ds, pos, space="redshift", max_shift=80)
    assert_array_equal(found["flag"], np.where(crossing.sum(axis=1) > 1, interpolate.SEVERAL, 0))
    assert 20 < (found["flag"] > 0).sum() < 180
    at = (found["position"] - pos) @ sight
    assert_array_equal(np.searchsorted(t, at) - 1, nearest)
    assert_allclose(at + found["velocity"] @ sight / 100, 0, atol=2e-6)  # h⁻¹Mpc: 1e-7 of a cell, in the answer


def test_where_no_solution_is_found_that_is_said():
    ds = in_memory(lambda pos: 0 * pos + 1500.0, **observed())  # 15 h⁻¹Mpc in each component
    found = vf.query_positions(ds, [[60.0, 60, 60]], space="redshift", max_shift=5)
    assert found["flag"] == [interpolate.UNSOLVED]
    assert np.isnan(found["velocity"]).all()
    ends = in_memory(wave, periodic=False, **observed())
    found = vf.query_positions(ends, [[-60.0, 60, 60]], space="redshift")
    assert found["flag"] == [interpolate.OUTSIDE | interpolate.UNSOLVED]


def test_error_bars_and_a_store_by_its_url(tmp_path):
    url = written(str(tmp_path / "v.zarr"), linear, std=40.0, margin=1, **observed())
    found = vf.query(url, inside(20))
    assert_allclose(found["velocity_std"], 40, rtol=1e-6)
    assert_allclose(found["velocity"], linear(inside(20).T).T, atol=1e-3)
    assert set(found) == {"velocity", "velocity_std", "v_los", "position", "flag"}
    lazily = vf.query(store.open_velocity(url), inside(20))
    assert_array_equal(lazily["velocity"], found["velocity"])


def test_questions_that_make_no_sense_are_refused(tmp_path):
    ds = in_memory(linear)
    with pytest.raises(VelfieldError, match=r"positions of the wrong shape: positions=\(3,\); give \(N, 3\)"):
        vf.query_positions(ds, [1.0, 2, 3])
    with pytest.raises(VelfieldError, match="no such positions: coordinates=galactic, space=real; coordinates are box"):
        vf.query_positions(ds, inside(), coordinates="galactic")
    with pytest.raises(VelfieldError, match=r"no such shift: max_shift=0\.0; give a positive length"):
        vf.query_positions(ds, inside(), max_shift=0)
    with pytest.raises(StoreError, match="no sky to look at, it has no observer: store=None, rsd=none; give positions"):
        vf.query_positions(ds, inside(), coordinates="sky")
    with pytest.raises(StoreError, match=r"not seen from one place, it has no observer: .*; give positions in real"):
        vf.query_positions(ds, inside(), space="redshift")
    centres = {"observer": np.arange(24.0).reshape(8, 3), "rsd": "center_radial"}
    with pytest.raises(StoreError, match=r"no sky to look at, each box has an observer of its own: .*center_radial"):
        vf.query_positions(in_memory(linear, **centres), inside(), coordinates="sky")
    with pytest.raises(StoreError, match="the store has no velocities: store=None; paint it with --particles"):
        vf.query_positions(ds.drop_vars("velocity"), inside())
    with pytest.raises(VelfieldError, match="several boxes at one place: store=None, boxes=2, places=1; take the"):
        vf.query_positions(ds.isel(box=[0, 0]), inside())
    moved = ds.assign_coords(origin=ds.origin + 10)
    with pytest.raises(StoreError, match=r"boxes that do not lie on their parent's grid: store=None, side=60; make it"):
        vf.query_positions(moved, inside())
    with pytest.raises(StoreError, match=r"no such file or folder: url=.*; check the path, .* velfield predict"):
        vf.query(str(tmp_path / "none"), inside())


def test_field_stores_answer_with_the_truth_of_their_cores(tmp_path):
    layout = BoxLayout(boxsize=90.0, boxes=3, cells=6, margin=1)
    spec = spec_of(layout)
    arrays = {name: np.zeros((27, *layout.shape), "f4") for name in ("halo_mass", "halo_number", "matter_number")}
    velocity = np.full((27, 3, *layout.shape), 1e4, "f4")  # in the margins
    velocity[:, :, 1:-1, 1:-1, 1:-1] = 7.0
    flag = np.zeros((27, *layout.shape), "u1")
    url = str(tmp_path / "f.zarr")
    store.write_fields(url, spec, arrays | {"velocity": velocity, "velocity_flag": flag})
    assert_allclose(vf.query(url, np.random.default_rng(1).uniform(0, 90, (50, 3)))["velocity"], 7, rtol=1e-12)


def test_another_codes_interpolation_of_the_whole():
    ds = in_memory(wave, boxes=3, cells=4)
    whole = ds.velocity.values.reshape(3, 3, 3, 3, 4, 4, 4).transpose(3, 0, 4, 1, 5, 2, 6).reshape(3, 12, 12, 12)
    pos = np.random.default_rng(5).uniform(-50, 200, (400, 3))
    theirs = [ndimage.map_coordinates(c, pos.T / 10 - 0.5, order=1, mode="grid-wrap") for c in whole.astype("f8")]
    assert_allclose(vf.query_positions(ds, pos)["velocity"].T, theirs, atol=1e-9)
