"""Measures by scale: amplitudes, gradients of fields with known ones, and nothing from the faces."""

import numpy as np
import pytest
from gaussian import universe

from velfield.accuracy.scales import by_scale, derivatives, taper

CELL = 10.0


@pytest.fixture(scope="module")
def box():
    """A cube cut out of a periodic universe of twice its side: not periodic, and without vorticity."""
    return universe(ngrid=32, cellsize=CELL, seed=3)[1][:, :16, :16, :16]


def test_a_scaled_field_has_its_scale_at_every_k(box):
    found = by_scale(0.6 * box + 40, box, CELL)  # a bulk motion is taken out
    np.testing.assert_allclose(found["transfer"][1], 0.6, rtol=1e-9)
    np.testing.assert_allclose(found["divergence_ratio"][1], 0.36, rtol=1e-9)
    np.testing.assert_allclose(found["vorticity_ratio"][1], 0.36, rtol=1e-6)
    np.testing.assert_allclose(found["divergence_r"][1], 1, rtol=1e-9)
    assert {len(k) for k, _ in found.values()} == {len(found["r_of_k"][0])}


def test_transfer_sees_at_which_scale_power_is_missing():
    true = universe(ngrid=32, cellsize=CELL, seed=3)[1]
    k1 = 2 * np.pi * np.fft.fftfreq(32, CELL)
    high = np.sqrt(k1[:, None, None] ** 2 + k1[:, None] ** 2 + k1**2) > 0.15
    smooth = np.fft.ifftn(np.fft.fftn(true, axes=(1, 2, 3)) * np.where(high, 0.5, 1), axes=(1, 2, 3)).real
    k, transfer = by_scale(smooth, true, CELL)["transfer"]
    assert np.abs(transfer[k < 0.1] - 1).max() < 0.01  # the window mixes neighbouring shells only
    assert np.abs(transfer[k > 0.2] - 0.5).max() < 0.05


def test_a_waves_divergence_and_vorticity():
    # v = (sin q x, sin q x, 0): ∇·v = q cos q x, (∇×v)_z = q cos q x, for a q that does not fit the box
    n, q = 32, 2 * np.pi / 130.0
    x = (np.arange(n) + 0.5) * CELL
    wave = np.broadcast_to(np.sin(q * x)[:, None, None], (n, n, n))
    divergence, vorticity = derivatives(np.stack([wave, wave, 0 * wave]), CELL)
    expected = taper((n, n, n)) * (q * np.cos(q * x))[:, None, None]
    # the tapered wave of 13 cells ends in a tail beyond Nyquist: 2·10⁻³ of q in the outermost cells
    np.testing.assert_allclose(divergence, expected, atol=3e-3 * q)
    np.testing.assert_allclose(vorticity[2], expected, atol=3e-3 * q)
    assert np.abs(vorticity[:2]).max() < 1e-9


def test_a_potential_flow_gets_no_vorticity_from_faces_or_window(box):
    divergence, vorticity = derivatives(box, CELL)
    # 2·10⁻⁴ here: what the tapered field has beyond Nyquist; the Fourier derivative of the bare box has 0.7
    assert (vorticity**2).sum() < 2e-3 * (divergence**2).sum()


def test_noise_in_the_truth_has_a_vorticity_that_linear_theory_lacks(box):
    true = box + np.random.default_rng(1).normal(0, 100, box.shape)
    k, ratio = by_scale(box, true, CELL)["vorticity_ratio"]
    assert (ratio[k > 0.1] < 0.05).all()
    assert (by_scale(box, true, CELL)["divergence_r"][1][:2] > 0.5).all()


def test_no_power_is_not_a_number_and_inputs_stay(box):
    before = box.copy()
    found = by_scale(box, np.zeros_like(box), CELL)
    assert all(np.isnan(values).all() for _, values in found.values())
    np.testing.assert_array_equal(before, box)


def test_a_truth_without_vorticity_has_no_ratio():
    true = universe(ngrid=16, cellsize=CELL, seed=3)[1]
    x = np.sin(2 * np.pi * (np.arange(16) + 0.5) / 16)[:, None, None]
    wave = np.stack([np.broadcast_to(x, (16, 16, 16)), np.zeros((16, 16, 16)), np.zeros((16, 16, 16))])
    assert np.isnan(by_scale(true, wave, CELL)["vorticity_ratio"][1]).all()
    assert np.isfinite(by_scale(true, wave, CELL)["divergence_ratio"][1][:3]).all()
