"""The cube's symmetries against rotation matrices on explicit coordinates, and as a group."""

import numpy as np
import pytest

from velfield.errors import VelfieldError
from velfield.geometry.symmetry import (
    CUBE,
    Symmetry,
    apply_point,
    apply_scalar,
    apply_vector,
    compose,
    inverse,
    keeping_line_of_sight,
)
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.linear import linear_velocity
from velfield.physics.redshift_space import redshift_space

every = pytest.mark.parametrize("s", CUBE, ids=lambda s: "".join("xyz"[p] for p in s.permutation) + str(sum(s.flips)))


def matrix(s):
    """R with x' = R x."""
    r = np.zeros((3, 3))
    for i in range(3):
        r[i, s.permutation[i]] = -1 if s.flips[i] else 1
    return r


def turned_by_coordinates(field, s):
    """f'(R x) = f(x), cell by cell, x counted from the centre of the cube."""
    n = field.shape[-1]
    turned = np.empty_like(field)
    for cell in np.ndindex(n, n, n):
        x = np.array(cell) - (n - 1) / 2
        to = np.rint(matrix(s) @ x + (n - 1) / 2).astype(int)
        turned[(..., *to)] = field[(..., *cell)]
    return turned


def test_there_are_48_and_the_identity_is_first():
    assert len({matrix(s).tobytes() for s in CUBE}) == len(CUBE) == 48
    np.testing.assert_array_equal(matrix(CUBE[0]), np.eye(3))
    assert sorted(round(np.linalg.det(matrix(s))) for s in CUBE) == [-1] * 24 + [1] * 24


def test_they_are_a_group():
    for a in CUBE:
        assert compose(a, inverse(a)) == compose(inverse(a), a) == CUBE[0]
        np.testing.assert_array_equal(matrix(inverse(a)), matrix(a).T)
        for b in CUBE:
            assert compose(a, b) in CUBE
            np.testing.assert_array_equal(matrix(compose(a, b)), matrix(a) @ matrix(b))


@every
def test_scalars_and_vectors_turn_as_coordinates_do(s):
    rng = np.random.default_rng(0)
    scalar, vector = rng.normal(size=(4, 4, 4)), rng.normal(size=(3, 4, 4, 4))
    np.testing.assert_array_equal(apply_scalar(scalar, s), turned_by_coordinates(scalar, s))
    components = np.einsum("ij,jxyz->ixyz", matrix(s), turned_by_coordinates(vector, s))
    np.testing.assert_array_equal(apply_vector(vector, s), components)
    points = rng.normal(size=(7, 3))
    np.testing.assert_allclose(apply_point(points, s), points @ matrix(s).T, rtol=1e-15)


@every
def test_application_is_composition(s):
    field = np.random.default_rng(1).normal(size=(2, 3, 3, 3, 3))
    t = CUBE[29]
    np.testing.assert_array_equal(apply_vector(apply_vector(field, s), t), apply_vector(field, compose(t, s)))
    np.testing.assert_array_equal(apply_scalar(apply_scalar(field, s), t), apply_scalar(field, compose(t, s)))
    np.testing.assert_array_equal(apply_vector(apply_vector(field, s), inverse(s)), field)


@every
def test_axes_of_any_length_and_place(s):
    scalar = np.random.default_rng(2).normal(size=(2, 3, 4, 5))
    turned = apply_scalar(scalar, s)
    assert turned.shape == (2, *(scalar.shape[1 + p] for p in s.permutation))
    np.testing.assert_array_equal(turned[1], apply_scalar(scalar[1], s))
    vector = np.random.default_rng(3).normal(size=(3, 2, 4, 4, 4))  # component, box, x, y, z
    expected = np.moveaxis(apply_vector(np.moveaxis(vector, 0, 1), s), 1, 0)
    np.testing.assert_array_equal(apply_vector(vector, s, 0), expected)
    np.testing.assert_array_equal(apply_vector(vector, s, -5), expected)


@every
def test_linear_theory_commutes(s):
    # a scalar field and its velocity turn together: physics, and the sign of every component
    delta = np.random.default_rng(4).normal(size=(6, 6, 6))
    v = linear_velocity(delta, 60.0)
    turned = linear_velocity(np.ascontiguousarray(apply_scalar(delta, s)), 60.0)
    np.testing.assert_allclose(turned, apply_vector(v, s), atol=1e-12 * np.abs(v).max())


@every
def test_the_line_of_sight_is_kept_by_16(s):
    """Shift then turn, or turn then shift along the same axis: the same for those 16, and only for them."""
    rng = np.random.default_rng(5)
    pos, vel = rng.normal(size=(2, 20, 3)) * [[[30.0]], [[300.0]]]
    where = dict(redshift=0.0, cosmology=OUTER_RIM)
    for axis in range(3):
        n = np.eye(3)[axis]
        one = apply_point(redshift_space(pos, vel, **where, line_of_sight=n), s)
        other = redshift_space(apply_point(pos, s), apply_point(vel, s), **where, line_of_sight=n)
        kept = keeping_line_of_sight(axis)
        assert len(kept) == 16
        assert np.allclose(one, other, atol=1e-12) == (s in kept)


@every
def test_an_observer_must_turn_too_unless_in_the_centre(s):
    rng = np.random.default_rng(6)
    pos, vel = rng.normal(size=(2, 20, 3)) * [[[30.0]], [[300.0]]]
    where = dict(redshift=0.0, cosmology=OUTER_RIM)
    turned = apply_point(pos, s), apply_point(vel, s)
    centre, outside = np.zeros(3), np.array([500.0, 200.0, -300.0])
    for observer, seen_from, same in (
        (centre, centre, True),
        (outside, outside, s == CUBE[0]),
        (outside, apply_point(outside, s), True),
    ):
        one = apply_point(redshift_space(pos, vel, **where, observer=observer), s)
        assert np.allclose(one, redshift_space(*turned, **where, observer=seen_from), atol=1e-12) == same


@every
def test_torch_tensors_turn_as_arrays_do(s):
    import torch

    vector = np.random.default_rng(7).normal(size=(2, 3, 4, 4, 4)).astype(np.float32)
    tensor = torch.from_numpy(vector.copy())
    np.testing.assert_array_equal(apply_vector(tensor, s).numpy(), apply_vector(vector, s))
    np.testing.assert_array_equal(apply_scalar(tensor, s).numpy(), apply_scalar(vector, s))
    np.testing.assert_array_equal(tensor.numpy(), vector)


@every
def test_inputs_stay(s):
    vector = np.random.default_rng(8).normal(size=(3, 4, 4, 4))
    kept = vector.copy()
    turned = apply_vector(vector, s)
    turned += 1
    np.testing.assert_array_equal(vector, kept)


def test_mistakes_are_named():
    with pytest.raises(VelfieldError, match=r"no symmetry of the cube: permutation=\(0, 0, 1\)"):
        Symmetry((0, 0, 1), (False, False, False))
    with pytest.raises(VelfieldError, match="no such axis: los_axis=3; choose 0, 1 or 2"):
        keeping_line_of_sight(3)
    with pytest.raises(VelfieldError, match=r"no cube to turn: shape=\(4, 4\); give axes x, y, z last"):
        apply_scalar(np.zeros((4, 4)), CUBE[1])
    for field, axis in ((np.zeros((2, 4, 4, 4)), 0), (np.zeros((3, 3, 3, 3)), 1), (np.zeros((3, 3, 3)), -4)):
        with pytest.raises(VelfieldError, match=r"no vector field to turn: shape=.*, component_axis="):
            apply_vector(field, CUBE[1], axis)
    with pytest.raises(VelfieldError, match=r"no points to turn: shape=\(4, 2\)"):
        apply_point(np.zeros((4, 2)), CUBE[1])
