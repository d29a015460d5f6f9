"""The Wiener filter: what it must give where the answer is known, and that it is the best where it can be measured."""

import numpy as np
import pytest
import scipy.fft

from velfield.errors import VelfieldError
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.linear import derivative, linear_velocity, wavevectors
from velfield.physics.wiener import Survey, _Problem, wiener_velocity

N, SIDE = 16, 160.0  # 10 h⁻¹Mpc cells


def gaussian(n, side, seed, density=None):
    """Modes of a density contrast with the power that the filter takes for the truth, and the noise of a count."""
    rng = np.random.default_rng(seed)
    of = _Problem((n,) * 3, np.full(3, side), Survey(boxsize=side, bias=1.0, density=1.0), OUTER_RIM, 0.0, 1, 1)
    modes = scipy.fft.rfftn(rng.standard_normal((n,) * 3)) * np.sqrt(of.power)
    noise = 0 if density is None else rng.standard_normal((n,) * 3) / np.sqrt(density * (side / n) ** 3)
    return modes, noise


def velocity_of(modes, n, side):
    return linear_velocity(scipy.fft.irfftn(modes, s=(n,) * 3), side)


@pytest.mark.parametrize("direction", [None, (0.0, 0.0, 1.0), (1.0, 2.0, 0.0)])
def test_in_a_periodic_cube_every_mode_is_weighted_alone(direction):
    bias, density = 1.3, 1e-3
    modes, noise = gaussian(N, SIDE, 1, density)
    survey = Survey(boxsize=SIDE, bias=bias, density=density, line_of_sight=direction)
    of = _Problem((N,) * 3, np.full(3, SIDE), survey, OUTER_RIM, 0.0, 1, 1)
    data = of.observed(modes) + noise
    found = wiener_velocity(data, survey, cosmology=OUTER_RIM, redshift=0.0, pad=1, tolerance=1e-6)
    k = wavevectors((N,) * 3, np.full(3, SIDE))
    k2 = np.where((square := k[0] ** 2 + k[1] ** 2 + k[2] ** 2) > 0, square, np.inf)
    response = np.full(k2.shape, bias)
    if direction is not None:
        along = sum(
            n * derivative(k, (N,) * 3, a) for a, n in enumerate(np.array(direction) / np.linalg.norm(direction))
        )
        response = bias + OUTER_RIM.growth_rate(0.0) * along**2 / k2
    weight = response * of.power / (response**2 * of.power + 1 / (density * (SIDE / N) ** 3))
    expected = velocity_of(weight * scipy.fft.rfftn(data), N, SIDE)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_two_ways_are_each_others_adjoint():
    """⟨R m, x⟩ = ⟨m, Rᵀ x⟩, with an observer inside the cube."""
    survey = Survey(boxsize=SIDE, bias=1.3, density=1.0, observer=(30.0, 85.0, 145.0))
    of = _Problem((N,) * 3, np.full(3, SIDE), survey, OUTER_RIM, 0.0, 1.5, 1)
    rng = np.random.default_rng(2)
    matter, cells = rng.standard_normal(of.shape), rng.standard_normal((N,) * 3)
    seen = of.observed(scipy.fft.rfftn(matter))
    back = scipy.fft.irfftn(of.spread(cells), s=of.shape)
    assert np.sum(seen * cells) == pytest.approx(np.sum(matter * back), rel=1e-4)


def test_an_observer_sees_the_divergence_of_the_displacements_along_the_sight():
    """B δ − ∇·(r̂ r̂·ψ) of two plane waves, by differences of what is known between the cells, up to the faces."""
    observer, bias, f = np.array([-20.0, 170.0, 300.0]), 1.3, OUTER_RIM.growth_rate(0.0)
    survey = Survey(boxsize=SIDE, bias=bias, density=1.0, observer=observer)
    of = _Problem((N,) * 3, np.full(3, SIDE), survey, OUTER_RIM, 0.0, 1.5, 1)
    waves = 2 * np.pi / 240 * np.array([[1, 0, -2], [2, 1, 1]])  # of the padded volume

    def flow(x):  # r̂ r̂·ψ at (3, …), ψ = −f k/k² sin(k·x) for δ = cos(k·x)
        r = x - observer[:, None, None, None]
        r = r / np.sqrt((r**2).sum(0))
        psi = sum(-f * k[:, None, None, None] / (k @ k) * np.sin(np.tensordot(k, x, 1)) for k in waves)
        return r * (r * psi).sum(0)

    def cells(n):
        return np.stack(np.meshgrid(*[(np.arange(n) + 0.5) * 10] * 3, indexing="ij"))

    step = 0.01 * np.eye(3)[:, :, None, None, None]
    divergence = sum((flow(cells(N) + e)[a] - flow(cells(N) - e)[a]) / 0.02 for a, e in enumerate(step))
    wave = sum(np.cos(np.tensordot(k, cells(24), 1)) for k in waves)
    expected = bias * wave[:N, :N, :N] - divergence
    np.testing.assert_allclose(of.observed(scipy.fft.rfftn(wave.astype("f4"))), expected, atol=1e-4)


def test_an_observer_far_away_sees_along_one_direction():
    modes, noise = gaussian(N, SIDE, 3, 1e-3)
    data = scipy.fft.irfftn(modes, s=(N,) * 3) + noise
    fixed, far = (
        wiener_velocity(data, Survey(boxsize=SIDE, bias=1.0, density=1e-3, **seen), cosmology=OUTER_RIM, redshift=0.0)
        for seen in ({"line_of_sight": (0, 0, 1)}, {"observer": (80.0, 80.0, -1e6)})
    )
    assert np.sqrt(((fixed - far) ** 2).mean()) < 0.01 * fixed.std()


def test_it_is_better_than_smoothing_in_an_isolated_box_around_which_nothing_is_known():
    """Against zero-padded linear theory at its best smoothing, on the truth; and knowing of redshift space helps."""
    n, side, bias, density = 2 * N, 2 * SIDE, 1.2, 2e-3
    box, errors = (slice(N),) * 3, {}
    for seed in range(4):
        modes, noise = gaussian(n, side, seed, density)
        observer = (-60.0, 70.0, 400.0)
        survey = Survey(boxsize=side, bias=bias, density=density, observer=observer)
        data = (_Problem((n,) * 3, np.full(3, side), survey, OUTER_RIM, 0.0, 1, 1).observed(modes) + noise)[box]
        true = velocity_of(modes, n, side)[(slice(None), *box)]
        rows = {
            f"smoothed by {radius}": linear_velocity(data, SIDE, bias=bias, pad=2, smoothing=radius)
            for radius in (5.0, 10.0, 15.0, 20.0)
        }
        for name, seen in (("wiener", {"observer": observer}), ("wiener, real space", {})):
            about = Survey(boxsize=SIDE, bias=bias, density=density, **seen)
            rows[name] = wiener_velocity(data, about, cosmology=OUTER_RIM, redshift=0.0)
        for name, found in rows.items():
            errors.setdefault(name, []).append(((found - true) ** 2).mean())
    rms = {name: np.sqrt(np.mean(of)) for name, of in errors.items()}
    assert rms["wiener"] < rms["wiener, real space"] < min(v for name, v in rms.items() if name.startswith("smoothed"))


def test_what_is_masked_does_not_matter_and_is_filled_from_around():
    modes, noise = gaussian(N, SIDE, 5, 1e-2)
    data = scipy.fft.irfftn(modes, s=(N,) * 3) + noise
    mask = np.ones(data.shape, dtype=bool)
    mask[6:9, 6:9, 6:9] = False
    found = [
        wiener_velocity(
            np.where(mask, data, hole),
            Survey(boxsize=SIDE, bias=1.0, density=1e-2, mask=mask),
            cosmology=OUTER_RIM,
            redshift=0.0,
            pad=1,
        )
        for hole in (np.nan, 1e6)
    ]
    np.testing.assert_array_equal(*found)
    true = velocity_of(modes, N, SIDE)[(slice(None), *np.nonzero(~mask))]
    there = found[0][(slice(None), *np.nonzero(~mask))]
    assert ((there - true) ** 2).mean() < 0.2 * (true**2).mean()


@pytest.mark.parametrize(
    ("delta", "survey", "said"),
    [
        (np.zeros((4, 4)), {}, "shapes do not fit"),
        (np.zeros((4, 4, 4)), {"mask": np.ones((4, 4, 3), bool)}, "shapes do not fit"),
        (np.zeros((4, 4, 4)), {"boxsize": -1.0}, "no such cube"),
        (np.zeros((4, 4, 4)), {"bias": 0.0}, "no such reconstruction: bias=0"),
        (np.zeros((4, 4, 4)), {"density": np.inf}, "no such reconstruction"),
        (np.full((4, 4, 4), np.nan), {}, "density contrast with holes: cells with data=64, not finite among them=64"),
        (np.zeros((4, 4, 4)), {"line_of_sight": (0, 0, 1), "observer": (0, 0, 0)}, "two kinds"),
    ],
)
def test_what_makes_no_sense_is_refused(delta, survey, said):
    with pytest.raises(VelfieldError, match=said):
        wiener_velocity(
            delta,
            Survey(**{"boxsize": 40.0, "bias": 1.0, "density": 1.0} | survey),
            cosmology=OUTER_RIM,
            redshift=0.0,
        )
