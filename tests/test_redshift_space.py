"""The shift into redshift space: size, sign, geometry; the views of all boxes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.redshift_space import nearest_image, redshift_space, sightlines

LAYOUT = BoxLayout(boxsize=900.0, boxes=3, cells=60)


def tracers(n=500, dtype=np.float64, seed=2):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 900, (n, 3)).astype(dtype), rng.normal(0, 300, (n, 3)).astype(dtype)


@pytest.mark.parametrize(("redshift", "per_km_s"), [(0.0, 0.01), (0.21, 0.011026), (0.212, 0.0110335)])
def test_size_and_sign_of_the_shift(redshift, per_km_s):
    pos, vel = np.array([[10.0, 20.0, 30.0]]), np.array([[100.0, -200.0, 300.0]])
    s = redshift_space(pos, vel, redshift=redshift, cosmology=OUTER_RIM, line_of_sight=(0, 0, 1))
    # the expected numbers have five digits; a receding tracer is seen further away
    np.testing.assert_allclose(s - pos, [[0, 0, 300 * per_km_s]], rtol=1e-4, atol=1e-13)
    exact = 300 * (1 + redshift) / (100 * math.sqrt(0.2648 * (1 + redshift) ** 3 + 0.7352))
    assert s[0, 2] == pytest.approx(30 + exact, rel=1e-15)


def test_three_axes_and_a_tilted_line_of_sight():
    pos, vel = tracers()
    for axis in range(3):
        n = np.eye(3)[axis]
        s = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, line_of_sight=n)
        np.testing.assert_allclose(s, pos + n * vel * 0.01, rtol=1e-14)
        back = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, line_of_sight=-n)
        np.testing.assert_array_equal(s, back)  # n̂ and −n̂ are one line of sight
    n = np.array([1.0, 2.0, -2.0]) / 3
    s = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, line_of_sight=n)
    np.testing.assert_allclose(s, pos + n * (vel @ n)[:, None] * 0.01, rtol=1e-14)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), redshift=st.floats(0, 3))
def test_an_observer_sees_distances_change_and_directions_stay(seed, redshift):
    pos, vel = tracers(50, seed=seed)
    observer = np.random.default_rng(seed + 1).uniform(0, 900, 3)
    s = redshift_space(pos, vel, redshift=redshift, cosmology=OUTER_RIM, observer=observer)
    n = (pos - observer) / np.linalg.norm(pos - observer, axis=1)[:, None]
    radial = np.sum(n * vel, axis=1)
    # lengths of some 10³ h⁻¹Mpc in float64: 1e-12 of a h⁻¹Mpc is 10 eps
    np.testing.assert_allclose(np.sum((s - pos) * n, axis=1), radial / OUTER_RIM.aH(redshift), rtol=0, atol=1e-12)
    np.testing.assert_allclose(np.cross(s - pos, n), 0, atol=1e-12)


def test_transverse_motion_is_not_seen():
    pos = np.array([[1.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    vel = np.array([[0.0, 700.0, -300.0], [100.0, 0.0, 50.0]])
    np.testing.assert_array_equal(redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, observer=(0, 0, 0)), pos)


def test_a_tracer_at_the_observer_stays():
    pos, vel = np.array([[3.0, 4.0, 5.0], [3.0, 4.0, 6.0]]), np.full((2, 3), 100.0)
    s = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, observer=(3.0, 4.0, 5.0))
    np.testing.assert_array_equal(s, [[3, 4, 5], [3, 4, 7]])


def test_a_far_observer_is_a_line_of_sight():
    pos, vel = tracers()
    far = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, observer=(450.0, 450.0, -1e9))
    plane = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, line_of_sight=(0, 0, 1))
    # the directions differ by 450/1e9, times shifts of 10 h⁻¹Mpc
    np.testing.assert_allclose(far, plane, rtol=0, atol=1e-5)


def test_positions_are_not_wrapped_and_inputs_stay():
    pos, vel = np.array([[899.0, 1.0, 899.5]]), np.array([[0.0, 0.0, 300.0]])
    kept = pos.copy(), vel.copy()
    s = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, line_of_sight=(0, 0, 1))
    assert s[0, 2] == 902.5
    np.testing.assert_array_equal(pos, kept[0])
    np.testing.assert_array_equal(vel, kept[1])


@pytest.mark.parametrize("view", [{"line_of_sight": (0, 0, 1)}, {"observer": (100.0, 200.0, 300.0)}])
def test_float32_and_memory_order(view):
    pos, vel = tracers(dtype=np.float32)
    s = redshift_space(pos, vel, redshift=0.0, cosmology=OUTER_RIM, **view)
    assert s.dtype == np.float64
    double = redshift_space(pos.astype(float), vel.astype(float), redshift=0.0, cosmology=OUTER_RIM, **view)
    np.testing.assert_allclose(s, double, rtol=0, atol=1e-12)
    fortran = redshift_space(np.asfortranarray(pos), vel[::-1][::-1], redshift=0.0, cosmology=OUTER_RIM, **view)
    np.testing.assert_array_equal(s, fortran)


def test_mistakes_are_named():
    pos, vel = tracers(3)
    known = dict(redshift=0.0, cosmology=OUTER_RIM)
    with pytest.raises(VelfieldError, match="no single view: line_of_sight=None, observer=None; give exactly one"):
        redshift_space(pos, vel, **known)
    with pytest.raises(VelfieldError, match=r"no single view: .*; give exactly one of the two"):
        redshift_space(pos, vel, **known, line_of_sight=(0, 0, 1), observer=(0, 0, 0))
    with pytest.raises(VelfieldError, match=r"line of sight of the wrong length: line_of_sight=\[0.0, 0.0, 2.0\]"):
        redshift_space(pos, vel, **known, line_of_sight=(0, 0, 2))
    with pytest.raises(VelfieldError, match=r"no point or direction in space: view=\[1.0, 2.0\]"):
        redshift_space(pos, vel, **known, observer=(1, 2))
    with pytest.raises(VelfieldError, match=r"no point or direction in space: view=\[nan, 0.0, 0.0\]"):
        redshift_space(pos, vel, **known, observer=(np.nan, 0, 0))
    with pytest.raises(VelfieldError, match=r"tracers' shapes do not fit: pos=\(3, 3\), vel=\(2, 3\)"):
        redshift_space(pos, vel[:2], **known, observer=(0, 0, 0))


# Views of the boxes


def test_no_pattern_and_plane_parallel():
    none = sightlines("none", LAYOUT, seed=0)
    assert none.line_of_sight is none.observer is None
    assert none.shared
    plane = sightlines("plane_parallel", LAYOUT, seed=0)
    np.testing.assert_array_equal(plane.line_of_sight, np.tile([0, 0, 1], (27, 1)))
    assert plane.observer is None
    assert plane.shared


def test_center_radial_looks_from_each_box():
    center = sightlines("center_radial", LAYOUT, seed=0)
    np.testing.assert_array_equal(center.observer[0], [150, 150, 150])
    np.testing.assert_array_equal(center.observer[5], [150, 450, 750])
    assert len(np.unique(center.observer, axis=0)) == 27
    assert not center.shared


def test_one_random_observer_for_all_boxes():
    random = sightlines("random_radial", LAYOUT, seed=4)
    assert random.observer.shape == (27, 3)
    assert random.shared
    assert len(np.unique(random.observer, axis=0)) == 1
    assert random.observer[0].tolist() in [LAYOUT.centre(b).tolist() for b in range(27)]
    np.testing.assert_array_equal(random.observer, sightlines("random_radial", LAYOUT, seed=4).observer)
    drawn = {tuple(sightlines("random_radial", LAYOUT, seed=s).observer[0]) for s in range(300)}
    assert len(drawn) == 27  # 300 draws miss one of 27 with a probability of 27 (26/27)³⁰⁰ = 3e-4; the seeds are fixed


def test_an_observer_per_box_is_in_another_box():
    each = sightlines("random_radial", LAYOUT, seed=4, observer_per_box=True)
    assert not each.shared
    centres = [LAYOUT.centre(b).tolist() for b in range(27)]
    drawn = [centres.index(o) for o in each.observer.tolist()]
    assert all(box != seen_from for box, seen_from in enumerate(drawn))
    assert len(set(drawn)) > 5
    np.testing.assert_array_equal(
        each.observer, sightlines("random_radial", LAYOUT, seed=4, observer_per_box=True).observer
    )
    other = sightlines("random_radial", LAYOUT, seed=5, observer_per_box=True)
    assert (each.observer != other.observer).any()


def test_margins_do_not_move_observers():
    wide = BoxLayout(boxsize=900.0, boxes=3, cells=60, margin=10)
    for pattern in ("center_radial", "random_radial"):
        np.testing.assert_array_equal(
            sightlines(pattern, LAYOUT, seed=7).observer, sightlines(pattern, wide, seed=7).observer
        )


def test_impossible_views_are_named():
    with pytest.raises(
        VelfieldError, match="unknown redshift-space pattern: rsd='radial'; choose none, plane_parallel"
    ):
        sightlines("radial", LAYOUT, seed=0)
    with pytest.raises(VelfieldError, match="no other box to draw an observer from: rsd='center_radial', boxes=3"):
        sightlines("center_radial", LAYOUT, seed=0, observer_per_box=True)
    with pytest.raises(VelfieldError, match="no other box to draw an observer from: rsd='random_radial', boxes=1"):
        sightlines("random_radial", BoxLayout(boxsize=9.0, boxes=1, cells=3), seed=0, observer_per_box=True)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_nearest_image_is_the_nearest_of_27(seed):
    rng = np.random.default_rng(seed)
    pos, centre = rng.uniform(0, 900, (20, 3)), rng.uniform(0, 900, 3)
    near = nearest_image(pos, centre, 900.0)
    steps = np.array(np.meshgrid(*[[-900.0, 0.0, 900.0]] * 3)).reshape(3, 27).T
    distances = np.linalg.norm(pos[:, None] + steps - centre, axis=2)
    np.testing.assert_allclose(np.linalg.norm(near - centre, axis=1), distances.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(np.mod(near - pos + 450, 900) - 450, 0, atol=1e-9)
    inside = (np.abs(pos - centre) < 449).all(axis=1)
    np.testing.assert_array_equal(near[inside], pos[inside])
