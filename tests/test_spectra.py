"""Spectra: plane waves, Parseval, a full complex transform, a known spectrum, and Kaiser's quadrupole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velfield.errors import VelfieldError
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.linear import linear_velocity
from velfield.physics.spectra import correlation, multipoles, power

EVERYTHING = [0.0, 1e9]  # one shell


def waves(shape, sides):
    """All wavevectors of the full transform (3, x, y, z)."""
    k = [2 * np.pi * np.fft.fftfreq(n, s / n) for n, s in zip(shape, sides, strict=True)]
    return np.array(np.meshgrid(*k, indexing="ij"))


@pytest.mark.parametrize("wave", [(1, 0, 0), (0, 0, 3), (2, -1, 2)])
def test_a_plane_wave_has_the_power_of_its_two_modes(wave):
    n, boxsize = 16, 100.0
    x = (np.arange(n) + 0.5) * boxsize / n
    x = np.meshgrid(x, x, x, indexing="ij")
    field = 0.3 * np.cos(2 * np.pi / boxsize * sum(w * xi for w, xi in zip(wave, x, strict=True)))
    spectrum = power(field, boxsize)
    shell = round(float(np.sqrt(np.dot(wave, wave)))) - 1
    # |δ_k|² / N² = (A/2)² for k and −k
    expected = np.zeros(len(spectrum.k))
    expected[shell] = 2 * boxsize**3 * 0.15**2 / spectrum.modes[shell]
    np.testing.assert_allclose(spectrum.power, expected, atol=1e-12 * boxsize**3)


def test_default_shells_hold_the_modes_of_a_cube():
    spectrum = power(np.zeros((8, 8, 8)), 100.0)
    fundamental = 2 * np.pi / 100
    # |n|² = 1: 6 modes and 2: 12; then by counting: (1.5, 2.5) holds 3, 4, 5, 6 = 8 + 6 + 24 + 24
    assert spectrum.modes[:2].tolist() == [18, 62]
    expected = (6 + 12 * 2**0.5) / 18 * fundamental
    assert spectrum.k[0] == pytest.approx(expected, rel=1e-14)
    assert len(spectrum.k) == 4  # up to Nyquist
    assert spectrum.modes.dtype == np.int64


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 2**32 - 1))
def test_parseval_counts_every_mode_once(shape, seed):
    field = np.random.default_rng(seed).normal(size=shape)
    spectrum = power(field, (50.0, 60.0, 70.0), bins=EVERYTHING)
    assert spectrum.modes[0] == field.size
    volume = 50.0 * 60 * 70
    # Σ_k P(k)/V = ⟨δ²⟩
    assert spectrum.power[0] * spectrum.modes[0] / volume == pytest.approx(np.mean(field**2), rel=1e-12)


@pytest.mark.parametrize("shape", [(12, 10, 8), (9, 10, 7)])
def test_shells_equal_those_of_a_full_transform(shape):
    sides = np.array([60.0, 70.0, 80.0])
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 3, *shape))
    edges = np.linspace(0.05, 0.6, 7)
    spectrum = power(a, sides, b, bins=edges)
    product = np.sum(np.fft.fftn(a, axes=(1, 2, 3)) * np.fft.fftn(b, axes=(1, 2, 3)).conj(), axis=0).real
    product *= sides.prod() / np.prod(shape) ** 2
    k = np.sqrt(np.sum(waves(shape, sides) ** 2, axis=0))
    for i in range(6):
        inside = (k >= edges[i]) & (k < edges[i + 1])
        assert spectrum.modes[i] == inside.sum() > 0
        assert spectrum.k[i] == pytest.approx(k[inside].mean(), rel=1e-12)
        assert spectrum.power[i] == pytest.approx(product[inside].mean(), rel=1e-10, abs=1e-10)


def test_a_vector_field_sums_its_components():
    v = np.random.default_rng(0).normal(size=(3, 8, 8, 8))
    total = sum(power(c, 50.0).power for c in v)
    np.testing.assert_allclose(power(v, 50.0).power, total, rtol=1e-12)


def test_white_noise_is_flat():
    # variance 1 in cells of 2³: P = 8 everywhere, and with m modes (half of them independent) rms √(2/m)
    spectrum = power(np.random.default_rng(1).normal(size=(32, 32, 32)), 64.0)
    np.testing.assert_array_less(np.abs(spectrum.power / 8 - 1), 4 * np.sqrt(2 / spectrum.modes))


def test_the_velocity_power_of_linear_theory():
    delta = np.random.default_rng(2).normal(size=(15, 15, 15))  # odd: no Nyquist
    edges = np.linspace(0.15, 0.55, 5)
    narrow = [0.2 * (1 - 1e-9), 0.2 * (1 + 1e-9)]
    boxsize = 2 * np.pi / 0.2  # one shell of exactly k = 0.2
    matter, velocity = power(delta, boxsize, bins=narrow), power(linear_velocity(delta, boxsize), boxsize, bins=narrow)
    assert matter.modes[0] == 6
    factor = (100 * OUTER_RIM.growth_rate(0) / 0.2) ** 2
    assert velocity.power[0] == pytest.approx(factor * matter.power[0], rel=1e-8)
    k, r = correlation(linear_velocity(delta, boxsize), -linear_velocity(delta, boxsize), boxsize, bins=edges)
    np.testing.assert_allclose(r, -1, rtol=1e-12)
    assert (np.diff(k) > 0).all()


def test_correlation_of_a_noisy_copy():
    rng = np.random.default_rng(5)
    a, noise = rng.normal(size=(2, 3, 32, 32, 32))
    _, r = correlation(a, a + 0.75 * noise, 64.0)
    # 1/√(1 + 0.75²) = 0.8; the lowest shell has 18 modes of 3 components
    assert r[0] == pytest.approx(0.8, abs=0.2)
    np.testing.assert_allclose(r[4:], 0.8, atol=0.03)


def test_empty_shells_and_silent_fields_are_nan():
    spectrum = power(np.ones((4, 4, 4)), 10.0, bins=[0.1, 0.2, 1.0])
    assert np.isnan(spectrum.k[0])
    assert np.isnan(spectrum.power[0])
    assert spectrum.modes[0] == 0
    _, r = correlation(np.zeros((4, 4, 4)), np.ones((4, 4, 4)), 10.0)
    assert np.isnan(r).all()


def test_a_constant_is_the_mode_at_zero():
    spectrum = power(np.full((4, 4, 4), 3.0), 10.0, bins=[0.0, 1e-6, 100.0])
    assert spectrum.modes.tolist() == [1, 63]
    np.testing.assert_allclose(spectrum.power, [9 * 1000, 0], atol=1e-9)


@pytest.mark.parametrize("los", [(0, 0, 1), (1, 0, 0), (0.6, 0.0, 0.8)])
def test_kaisers_multipoles(los):
    # δ_s = (1 + f μ²) δ: P₀ = (1 + 2f/3 + f²/5) P, P₂ = (4f/3 + 4f²/7) P, P₄ = 8f²/35 P
    n, boxsize, f = 48, 480.0, 0.4779
    delta = np.random.default_rng(8).normal(size=(n, n, n))
    vectors = waves((n, n, n), (boxsize,) * 3)
    k = np.sqrt((vectors**2).sum(0))
    k[0, 0, 0] = 1
    mu = np.tensordot(los, vectors, 1) / k
    squashed = np.fft.ifftn(np.fft.fftn(delta) * (1 + f * mu**2)).real
    edges = [0.15, 0.25]
    real = power(delta, boxsize, bins=edges)
    spectrum = multipoles(squashed, boxsize, los, ells=(0, 2, 4), bins=edges)
    assert spectrum.power.shape == (3, 1)
    expected = np.array([1 + 2 * f / 3 + f**2 / 5, 4 * f / 3 + 4 * f**2 / 7, 8 * f**2 / 35])
    # sample scatter of some 10⁴ modes, √(2/m)√(2ℓ+1), times 3
    m = spectrum.modes[0]
    assert m > 10_000
    np.testing.assert_allclose(spectrum.power[:, 0] / real.power[0], expected, atol=3 * np.sqrt(2 / m) * 3)


def test_multipoles_equal_those_of_a_full_transform():
    shape, sides, los = (10, 9, 8), np.array([50.0, 60.0, 70.0]), np.array([2.0, -1.0, 2.0]) / 3
    field = np.random.default_rng(4).normal(size=shape)
    vectors = waves(shape, sides)
    k = np.sqrt((vectors**2).sum(0))
    p = np.abs(np.fft.fftn(field)) ** 2 * sides.prod() / field.size**2
    # at Nyquist a mode's sign is a convention: stay below
    edges = [0.05, 0.2, 0.34]
    spectrum = multipoles(field, sides, los, bins=edges)
    for i in range(2):
        inside = (k >= edges[i]) & (k < edges[i + 1])
        mu = np.tensordot(los, vectors, 1)[inside] / k[inside]
        assert spectrum.power[0, i] == pytest.approx(p[inside].mean(), rel=1e-12)
        assert spectrum.power[1, i] == pytest.approx(np.mean(5 * p[inside] * (1.5 * mu**2 - 0.5)), rel=1e-10)


def test_inputs_stay():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 6, 6, 6)).astype(np.float32)
    kept = a.copy(), b.copy()
    power(a, 10.0, b)
    correlation(a, b, 10.0)
    multipoles(a[0], 10.0, (0, 0, 1))
    np.testing.assert_array_equal(a, kept[0])
    np.testing.assert_array_equal(b, kept[1])


def test_mistakes_are_named():
    field = np.zeros((4, 4, 4))
    with pytest.raises(VelfieldError, match=r"no such cube: shape=\(4, 4\), boxsize=10.0"):
        power(field[0], 10.0)
    with pytest.raises(VelfieldError, match=r"no such cube: shape=\(4, 4, 4\), boxsize=-1.0"):
        power(field, -1.0)
    with pytest.raises(VelfieldError, match=r"fields of different shapes: \(4, 4, 4\), \(2, 4, 4\)"):
        power(field, 10.0, field[:2])
    with pytest.raises(VelfieldError, match=r"shells out of order: bins=\[0.2, 0.1\]; give at least two increasing"):
        power(field, 10.0, bins=[0.2, 0.1])
    with pytest.raises(VelfieldError, match=r"no multipoles of this: field=\(4, 4, 4\), los=\[0.0, 0.0, 2.0\]"):
        multipoles(field, 10.0, (0, 0, 2))
    with pytest.raises(VelfieldError, match=r"no multipoles of this: field=\(3, 4, 4, 4\)"):
        multipoles(np.zeros((3, 4, 4, 4)), 10.0, (0, 0, 1))
