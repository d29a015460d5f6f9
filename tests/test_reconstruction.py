"""Undoing redshift space in a whole periodic volume, against fields whose matter is known."""

import numpy as np
import pytest
from gaussian import universe

from velfield.errors import VelfieldError
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.linear import linear_velocity
from velfield.physics.reconstruction import matter_contrast

N, CELL, BIAS, F = 24, 10.0, 1.3, 0.5
SIDE = N * CELL


def plane_wave(m, phase=0.3):
    x = (np.stack(np.meshgrid(*[np.arange(N) + 0.5] * 3, indexing="ij")) / N).reshape(3, -1)
    return np.cos(2 * np.pi * np.array(m) @ x + phase).reshape(N, N, N)


def in_redshift_space(delta, observer, bias=BIAS):
    """B δ − ∇·(r̂ r̂·ψ), with own few lines: displacements by whole-grid FFTs, directions as they are."""
    k = np.stack(np.meshgrid(*[2 * np.pi * np.fft.fftfreq(N, CELL)] * 3, indexing="ij"))
    ik = np.where(np.abs(k) > 0.999 * np.pi / CELL, 0, 1j * k)
    k2 = np.where((k**2).sum(0) > 0, (k**2).sum(0), 1)
    psi = np.fft.ifftn(F * ik / k2 * np.fft.fftn(delta), axes=(1, 2, 3)).real
    x = np.stack(np.meshgrid(*[(np.arange(N) + 0.5) * CELL] * 3, indexing="ij")) - np.reshape(observer, (3, 1, 1, 1))
    n = x / np.sqrt((x**2).sum(0))
    flow = n * (n * psi).sum(0)
    return bias * delta - np.fft.ifftn((ik * np.fft.fftn(flow, axes=(1, 2, 3))).sum(0)).real


@pytest.mark.parametrize(
    ("m", "direction", "mu2"),
    [((1, 2, 0), (0, 0, 1), 0.0), ((0, 0, 3), (0, 0, 2), 1.0), ((1, 2, 2), (1, 0, 0), 1 / 9), ((2, 1, 1), None, None)],
)
def test_a_plane_wave_comes_back(m, direction, mu2):
    boost = BIAS if mu2 is None else BIAS + F * mu2
    wave = plane_wave(m)
    found = matter_contrast(boost * wave, SIDE, bias=BIAS, growth_rate=F, line_of_sight=direction)
    np.testing.assert_allclose(found, wave, atol=1e-12)


@pytest.mark.parametrize("bias", [0.3, 1.3])  # below f the plain iteration of Burden et al. would diverge
@pytest.mark.parametrize("observer", [(121.0, 118.0, 123.0), (40.0, -300.0, 70.0)])
def test_an_observers_redshift_space_is_undone(observer, bias):
    delta, _ = universe(N, CELL, seed=5)
    seen = in_redshift_space(delta, observer, bias)
    left = {}
    for tolerance in (1e-2, 1e-5):
        found = matter_contrast(seen, SIDE, bias=bias, growth_rate=F, observer=observer, tolerance=tolerance)
        error = linear_velocity(found - delta, SIDE).std() / linear_velocity(delta, SIDE).std()
        left[tolerance] = error
        assert error < 4 * tolerance  # the equation amplifies what is left of it by up to (b + f)/b
    plain = linear_velocity(seen / bias - delta, SIDE).std() / linear_velocity(delta, SIDE).std()
    assert left[1e-2] < 0.2 * plain


def test_an_observer_far_away_sees_along_one_direction():
    delta, _ = universe(N, CELL, seed=6)
    far = matter_contrast(delta, SIDE, bias=BIAS, growth_rate=F, observer=(SIDE / 2, SIDE / 2, -1e7), tolerance=1e-6)
    fixed = matter_contrast(delta, SIDE, bias=BIAS, growth_rate=F, line_of_sight=(0, 0, 1))
    np.testing.assert_allclose(far, fixed, atol=1e-4)


def test_single_precision_stays_single_and_is_right():
    delta, _ = universe(N, CELL, seed=7)
    observer = (50.0, 60.0, 70.0)
    double, single = (
        matter_contrast(delta.astype(dtype), SIDE, bias=BIAS, growth_rate=F, observer=observer)
        for dtype in ("f8", "f4")
    )
    assert (double.dtype, single.dtype) == (np.float64, np.float32)
    np.testing.assert_allclose(single, double, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"delta": np.zeros((4, 4))}, "no such cube: shape=\\(4, 4\\)"),
        ({"boxsize": 0.0}, "no such cube"),
        ({"bias": 0.0}, "no such reconstruction: bias=0"),
        ({"growth_rate": np.inf}, "no such reconstruction"),
        ({"tolerance": 1.0}, "no such reconstruction"),
        ({"line_of_sight": (0, 0, 1), "observer": (0, 0, 0)}, "two kinds"),
        ({"line_of_sight": (0, 0, 0)}, "no point or direction"),
        ({"observer": (0, 0)}, "no point or direction"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, said):
    values = {"delta": np.zeros((4, 4, 4)), "boxsize": 40.0, "bias": 1.0, "growth_rate": 0.5} | changes
    with pytest.raises(VelfieldError, match=said):
        matter_contrast(values.pop("delta"), values.pop("boxsize"), **values)


def test_an_iteration_that_does_not_end_is_no_result():
    delta, _ = universe(8, CELL, seed=8)
    with pytest.raises(VelfieldError, match=r"cannot be undone: iterations=60, .*; raise the tolerance"):
        matter_contrast(delta, 80.0, bias=0.001, growth_rate=OUTER_RIM.growth_rate(0), observer=(41, 42, 43))
