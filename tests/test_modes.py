"""Transforms in place against SciPy's, and what linear theory of a large cube holds while it is made."""

import held
import numpy as np
import pytest
import scipy.fft

from velfield.physics import modes as modes_module
from velfield.physics.linear import components, derivative, linear_velocity, wavevectors
from velfield.physics.modes import backward, cells_of, forward, room
from velfield.physics.reconstruction import matter_contrast, matter_modes


@pytest.mark.parametrize("shape", [(8, 8, 8), (6, 5, 7), (5, 9, 4), (3, 2, 1)])
@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("part", [1, 2**22])
def test_a_cube_and_its_modes_have_the_same_memory(monkeypatch, shape, real, part):
    monkeypatch.setattr(modes_module, "PART_BYTES", part)  # lines plane by plane, and all at once
    cube = np.random.default_rng(1).standard_normal(shape).astype(real)
    modes = room(shape, real)
    cells_of(modes, shape[2])[...] = cube
    forward(modes, shape[2])
    atol = 40 * np.finfo(real).eps * np.sqrt(cube.size)  # rounding of sums of so many cells
    np.testing.assert_allclose(modes, scipy.fft.rfftn(cube), rtol=0, atol=atol)
    back = backward(modes, shape[2])
    assert np.shares_memory(back, modes)
    assert back.dtype == real
    np.testing.assert_allclose(back, cube, rtol=0, atol=40 * np.finfo(real).eps)


def test_a_library_that_does_not_overwrite_gives_the_same(monkeypatch):
    cube = np.random.default_rng(2).standard_normal((6, 4, 5))
    original = scipy.fft.fftn
    monkeypatch.setattr(scipy.fft, "fftn", lambda x, **given: original(x, **(given | {"overwrite_x": False})))
    modes = room(cube.shape, np.float64)
    cells_of(modes, 5)[...] = cube
    forward(modes, 5)
    np.testing.assert_allclose(modes, scipy.fft.rfftn(cube), atol=1e-12)


@pytest.mark.parametrize("n", [30, 31])
def test_whole_arrays_at_once_give_the_same_velocity(n):
    """The same formulas written with whole cubes, in float32 as they were until they were made in place."""
    rng, side, bias, f = np.random.default_rng(3), 10.0 * n, 1.3, 0.5
    delta = rng.standard_normal((n,) * 3).astype("f4")
    k = wavevectors(delta.shape, np.full(3, side))
    k2 = k[0] ** 2 + k[1] ** 2 + k[2] ** 2
    k2[0, 0, 0] = np.inf
    along = sum(derivative(k, delta.shape, axis) for axis in (0, 2)) / np.sqrt(2)
    matter = scipy.fft.irfftn(scipy.fft.rfftn(delta) / (bias + f * along**2 / k2).astype("f4"), s=delta.shape)
    expected = []
    for axis in range(3):
        ik = (1j * derivative(k, delta.shape, axis)).astype("c8")
        expected.append(scipy.fft.irfftn(scipy.fft.rfftn(matter) / k2.astype("f4") * ik, s=delta.shape))
    modes = room(delta.shape, np.float32)
    cells_of(modes, n)[...] = delta
    forward(modes, n)
    sides = np.full(3, side)
    modes = matter_modes(modes, delta.shape, sides, bias=bias, growth_rate=f, line_of_sight=(1, 0, 1))
    found = [np.array(component) for component in components(modes, delta.shape, sides, 1.0)]
    # float32 rounds to 6e-8; some tens of operations on a number
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def linear_theory(n, **seen):
    """Linear theory of a cube, its components made and dropped one by one."""
    modes_module.PART_BYTES = 1
    sides = np.full(3, 640.0)
    modes = room((n,) * 3, np.float32)
    cells_of(modes, n)[...] = 0
    forward(modes, n)
    modes = matter_modes(modes, (n,) * 3, sides, bias=1.2, growth_rate=0.5, **seen)
    for _ in components(modes, (n,) * 3, sides, 1.0, smoothing=3.0):
        pass


@pytest.mark.parametrize(("seen", "cubes"), [({}, 2), ({"line_of_sight": (0, 0, 1)}, 2), ({"observer": (9, 9, 9)}, 4)])
def test_what_is_held_is_what_must_be(seen, cubes):
    """The modes and a component; around an observer what is found, what is left, and one field's modes and cells."""
    n = 64
    peak = held.most(linear_theory, n, **seen) / (4 * n**3)
    assert peak == pytest.approx(cubes, rel=0.15)  # planes of float64, a 64th of a cube twice, and n + 2


def test_inputs_are_left_as_they_are():
    delta = np.random.default_rng(5).standard_normal((8,) * 3)
    before = delta.copy()
    linear_velocity(delta, 80.0, pad=2)
    matter_contrast(delta, 80.0, bias=1.2, growth_rate=0.5, observer=(1, 2, 3))
    np.testing.assert_array_equal(delta, before)
