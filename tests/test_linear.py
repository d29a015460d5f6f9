"""Linear theory: plane waves exact, the periodic and the padded cube, and what it must not do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import velfield as vf
from velfield.errors import VelfieldError
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.linear import linear_velocity, smooth


def centres(shape, sides):
    return np.meshgrid(*[(np.arange(n) + 0.5) * s / n for n, s in zip(shape, sides, strict=True)], indexing="ij")


def gaussian_field(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(("redshift", "f", "aH"), [(0.0, 0.4779, 100.0), (0.212, 0.5949, 90.63)])
@pytest.mark.parametrize("wave", [(1, 0, 0), (0, 2, 0), (0, 0, -1), (1, -2, 3), (-3, 1, 2)])
def test_a_plane_wave_is_exact(redshift, f, aH, wave):
    shape, sides = (16, 12, 15), np.array([100.0, 90.0, 80.0])
    k = 2 * np.pi * np.array(wave) / sides
    x = centres(shape, sides)
    phase = sum(ki * xi for ki, xi in zip(k, x, strict=True)) + 0.3
    velocity = linear_velocity(0.1 * np.cos(phase), sides, redshift=redshift)
    # ∇·v = −aHf δ, so v = −aHf A k/k² sin(k·x): towards the crest on both sides of it
    amplitude = -OUTER_RIM.aH(redshift) * OUTER_RIM.growth_rate(redshift) * 0.1 * k / (k @ k)
    expected = amplitude[:, None, None, None] * np.sin(phase)
    np.testing.assert_allclose(velocity, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
    assert OUTER_RIM.growth_rate(redshift) == pytest.approx(f, abs=6e-5)
    assert OUTER_RIM.aH(redshift) == pytest.approx(aH, abs=6e-3)


def test_matter_falls_towards_an_overdensity():
    x = centres((32,) * 3, (100.0,) * 3)
    delta = np.exp(-sum((xi - 50) ** 2 for xi in x) / (2 * 5**2))
    velocity = linear_velocity(delta, 100.0)
    outward = sum(v * (xi - 50) for v, xi in zip(velocity, x, strict=True))
    distance = np.sqrt(sum((xi - 50) ** 2 for xi in x))
    assert (outward[(distance > 4) & (distance < 30)] < 0).all()


def test_divergence_is_the_density():
    shape, sides = (12, 10, 9), np.array([60.0, 70.0, 50.0])
    delta = gaussian_field(shape)
    velocity = linear_velocity(delta, sides, redshift=0.5)
    modes = np.fft.fftn(velocity, axes=(1, 2, 3))
    k = [2 * np.pi * np.fft.fftfreq(n, s / n) for n, s in zip(shape, sides, strict=True)]
    kx, ky, kz = np.meshgrid(*k, indexing="ij")
    divergence = 1j * (kx * modes[0] + ky * modes[1] + kz * modes[2])
    expected = -OUTER_RIM.aH(0.5) * OUTER_RIM.growth_rate(0.5) * np.fft.fftn(delta)
    inner = np.ones(shape, dtype=bool)
    inner[0, 0, 0] = False  # the mean makes no velocity
    inner[6] = False  # Nyquist planes of the two even axes
    inner[:, 5] = False
    np.testing.assert_allclose(divergence[inner], expected[inner], rtol=1e-11)
    np.testing.assert_allclose(
        np.stack([ky * modes[2] - kz * modes[1], kz * modes[0] - kx * modes[2]])[:, inner], 0, atol=1e-9
    )
    np.testing.assert_allclose(velocity.mean(axis=(1, 2, 3)), 0, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nyquist_of_its_own_axis_is_zero(axis):
    wave = np.where(np.arange(8) % 2, -1.0, 1.0).reshape([8 if a == axis else 1 for a in range(3)])
    delta = np.broadcast_to(wave, (8, 8, 8))
    np.testing.assert_allclose(linear_velocity(delta, 10.0), 0, atol=1e-13)
    # along another axis the same mode is an ordinary wave
    other = (axis + 1) % 3
    x = centres((8,) * 3, (10.0,) * 3)[other]
    velocity = linear_velocity(delta * np.cos(2 * np.pi * x / 10), 10.0)
    k, k_nyquist = 2 * np.pi / 10, np.pi * 8 / 10
    expected = -100 * OUTER_RIM.growth_rate(0) * k / (k**2 + k_nyquist**2) * np.sin(2 * np.pi * x / 10) * delta
    np.testing.assert_allclose(velocity[other], expected, atol=1e-12)
    np.testing.assert_allclose(velocity[axis], 0, atol=1e-12)


def slowly(delta, sides, redshift, bias, shape, smoothing):
    """The same by a full complex transform of an explicitly padded cube."""
    padded = np.zeros(shape)
    padded[tuple(slice(n) for n in delta.shape)] = delta
    k = [2 * np.pi * np.fft.fftfreq(m, s / n) for m, n, s in zip(shape, delta.shape, sides, strict=True)]
    vectors = np.array(np.meshgrid(*k, indexing="ij"))
    k2 = (vectors**2).sum(0)
    k2[0, 0, 0] = 1
    modes = np.fft.fftn(padded) * np.exp(-0.5 * k2 * smoothing**2) / k2 / bias
    modes[0, 0, 0] = 0
    for a, n in enumerate(shape):
        if n % 2 == 0:
            vectors[a][tuple(n // 2 if b == a else slice(None) for b in range(3))] = 0
    factor = OUTER_RIM.aH(redshift) * OUTER_RIM.growth_rate(redshift)
    v = [np.fft.ifftn(1j * factor * kv * modes) for kv in vectors]
    assert max(np.abs(c.imag).max() for c in v) < 1e-9  # Nyquist zeroed: the field is real
    return np.array([c.real[tuple(slice(n) for n in delta.shape)] for c in v])


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    pad=st.sampled_from([1, 1.5, 2, 2.4, 3]),
    bias=st.floats(0.3, 3),
    smoothing=st.sampled_from([0.0, 2.0, 10.0]),
    redshift=st.sampled_from([0.0, 0.212, 1.0]),
)
def test_equals_a_full_complex_transform(shape, pad, bias, smoothing, redshift):
    delta, sides = gaussian_field(shape), np.array([50.0, 60.0, 45.0])
    velocity = linear_velocity(delta, sides, redshift=redshift, bias=bias, pad=pad, smoothing=smoothing)
    expected = slowly(delta, sides, redshift, bias, tuple(round(n * pad) for n in shape), smoothing)
    np.testing.assert_allclose(velocity, expected, rtol=0, atol=1e-12 * max(np.abs(expected).max(), 1))


def test_padding_frees_a_box_from_its_images():
    # a lump near one face: the periodic cube pulls the far side through the face, the padded one does not
    x = centres((24,) * 3, (120.0,) * 3)
    delta = np.exp(-((x[0] - 20) ** 2 + (x[1] - 60) ** 2 + (x[2] - 60) ** 2) / (2 * 8**2))
    far = (23, 12, 12)
    assert linear_velocity(delta, 120.0)[0][far] > 0
    assert linear_velocity(delta, 120.0, pad=2)[0][far] < 0
    # an isolated lump M = ∫δ dV at distance d: v = −aHf M/(4π d²); images of the padded cube are 4 times further
    mass = delta.sum() * 5.0**3
    along = x[0][far] - 20
    d = np.sqrt(along**2 + 2.5**2 + 2.5**2)  # the cell's centre is half a cell off the axis in y and z
    expected = -100 * OUTER_RIM.growth_rate(0) * mass / (4 * np.pi * d**2) * along / d
    assert linear_velocity(delta, 120.0, pad=4)[0][far] == pytest.approx(expected, rel=0.05)


def test_float32_stays_and_inputs_stay():
    delta = gaussian_field((16, 16, 16)).astype(np.float32)
    kept = delta.copy()
    single = linear_velocity(delta, 100.0, pad=2, smoothing=3.0)
    double = linear_velocity(delta.astype(float), 100.0, pad=2, smoothing=3.0)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    np.testing.assert_array_equal(delta, kept)
    np.testing.assert_allclose(single, double, rtol=0, atol=3e-6 * np.abs(double).max())  # some 30 float32 eps
    assert linear_velocity(np.zeros((4, 4, 4), dtype=np.int32), 100.0).dtype == np.float64


def test_threads_change_nothing():
    delta = gaussian_field((16, 12, 10))
    np.testing.assert_array_equal(
        linear_velocity(delta, 100.0, pad=2, workers=2), linear_velocity(delta, 100.0, pad=2, workers=1)
    )


def test_is_velfields_public_name():
    assert vf.linear_velocity is linear_velocity


def test_smoothing_multiplies_a_wave():
    x = centres((16, 16, 16), (100.0,) * 3)
    k = 2 * np.pi / 100 * np.sqrt(1 + 4)
    wave = np.cos(2 * np.pi / 100 * (x[0] - 2 * x[2]))
    np.testing.assert_allclose(smooth(wave, 100.0, 8.0), wave * np.exp(-0.5 * (k * 8) ** 2), atol=1e-14)
    np.testing.assert_allclose(smooth(wave, 100.0, 0.0), wave, atol=1e-14)
    velocity = linear_velocity(wave, 100.0, smoothing=8.0)
    np.testing.assert_allclose(velocity, smooth(linear_velocity(wave, 100.0), 100.0, 8.0), atol=1e-11)


def test_smoothing_is_a_gaussian_in_space():
    delta = np.zeros((32, 32, 32))
    delta[16, 16, 16] = 1
    x = np.arange(32) - 16.0
    kernel = np.exp(-(x**2) / (2 * 2.5**2))
    expected = kernel[:, None, None] * kernel[:, None] * kernel / (2 * np.pi * 2.5**2) ** 1.5
    # cells of 1 and R = 2.5: what a Gaussian has beyond Nyquist, exp(−(2.5π)²/2) = 4e-14, and beyond the box 1e-9
    np.testing.assert_allclose(smooth(delta, 32.0, 2.5), expected, atol=1e-10)


def test_smoothing_takes_stacks_and_odd_sides():
    field = gaussian_field((2, 3, 5, 6, 7)).astype(np.float32)
    smoothed = smooth(field, (50.0, 60.0, 70.0), 5.0)
    assert smoothed.shape == field.shape
    assert smoothed.dtype == np.float32
    np.testing.assert_allclose(smoothed[1, 2], smooth(field[1, 2], (50.0, 60.0, 70.0), 5.0), atol=1e-6)
    np.testing.assert_allclose(smoothed.mean(axis=(2, 3, 4)), field.mean(axis=(2, 3, 4)), atol=1e-6)


def test_mistakes_are_named():
    delta = np.zeros((4, 4, 4))
    with pytest.raises(VelfieldError, match=r"density contrast of the wrong shape: delta=\(4, 4\); give one cube"):
        linear_velocity(delta[0], 10.0)
    with pytest.raises(VelfieldError, match=r"no such cube: shape=\(4, 4, 4\), boxsize=\[10.0, 10.0\]"):
        linear_velocity(delta, (10.0, 10.0))
    with pytest.raises(VelfieldError, match=r"no such cube: shape=\(4, 4, 4\), boxsize=0.0"):
        linear_velocity(delta, 0.0)
    with pytest.raises(VelfieldError, match=r"no such cube: shape=\(4, 4, 4\), boxsize=inf"):
        linear_velocity(delta, np.inf)
    for wrong in ({"bias": 0.0}, {"pad": 0.5}, {"smoothing": -1.0}, {"bias": np.nan}):
        with pytest.raises(VelfieldError, match=r"no such reconstruction: bias=.*, pad=.*, smoothing="):
            linear_velocity(delta, 10.0, **wrong)
    holed = delta.copy()
    holed[1, 2, 3] = np.nan
    with pytest.raises(VelfieldError, match="density contrast with holes: not finite=1 of 64 cells"):
        linear_velocity(holed, 10.0)
    with pytest.raises(VelfieldError, match=r"no such smoothing: radius=-1.0; give 0 or a positive length"):
        smooth(delta, 10.0, -1.0)
    with pytest.raises(VelfieldError, match=r"no such cube: shape=\(4, 4\)"):
        smooth(delta[0], 10.0, 1.0)
