"""Growth, power and halos against differential equations, closed forms, fits written out, colossus and CAMB."""

import dataclasses

import numpy as np
import pytest
from scipy import integrate, special

from velfield.errors import VelfieldError
from velfield.physics.cosmology import OUTER_RIM, RHO_CRITICAL, Cosmology

REDSHIFTS = [0.0, 0.21, 0.212, 1.0, 9.0, 200.0]
EINSTEIN_DE_SITTER = dataclasses.replace(OUTER_RIM, name="eds", omega_m=1.0)


def test_outer_rim_is_the_papers():
    assert OUTER_RIM.to_dict() == {
        "name": "outer-rim",
        "omega_m": 0.2648,
        "omega_b": 0.0448,
        "h": 0.71,
        "sigma8": 0.8,
        "n_s": 0.963,
    }
    assert Cosmology.from_dict(OUTER_RIM.to_dict()) == OUTER_RIM


def test_conformal_hubble_rate():
    assert OUTER_RIM.E(0.0) == 1
    assert OUTER_RIM.aH(0.0) == 100  # in km/s per h⁻¹Mpc, whatever h
    assert 1 / OUTER_RIM.aH(0.21) == pytest.approx(0.011026, abs=5e-7)  # the digits given
    z = np.array([0.0, 0.21, 3.0])
    np.testing.assert_allclose(OUTER_RIM.aH(z), 100 * np.sqrt(0.2648 * (1 + z) ** 3 + 0.7352) / (1 + z), rtol=1e-15)


def hypergeometric_growth(a, omega_m):
    """D ∝ a ₂F₁(1/3, 1; 11/6; −a³ ΩΛ/Ωm), the closed form."""
    return a * special.hyp2f1(1 / 3, 1, 11 / 6, -(a**3) * (1 - omega_m) / omega_m)


@pytest.mark.parametrize("z", REDSHIFTS)
def test_growth_is_the_closed_form(z):
    expected = hypergeometric_growth(1 / (1 + z), 0.2648) / hypergeometric_growth(1.0, 0.2648)
    assert OUTER_RIM.growth(z) == pytest.approx(expected, rel=1e-11)  # the integral's 1e-12 and its normalisation's
    assert OUTER_RIM.growth(0.0) == 1


def test_growth_and_rate_solve_the_differential_equation():
    # D'' + (2 + dlnH/dlna) D' = 3/2 Ωm(a) D in ln a, from deep in matter domination, where D = a
    def slope(lna, y):
        matter = 0.2648 * np.exp(-3 * lna)
        omega = matter / (matter + 0.7352)
        return [y[1], 1.5 * omega * y[0] - (2 - 1.5 * omega) * y[1]]

    a = np.array([1 / (1 + z) for z in REDSHIFTS[:5]])[::-1]
    start = np.log(1e-4)
    solved = integrate.solve_ivp(slope, [start, 0], [1e-4, 1e-4], t_eval=np.log(a), rtol=1e-10, atol=1e-14)
    growth, rate = solved.y[0][::-1], (solved.y[1] / solved.y[0])[::-1]
    # the decaying mode that the start excites, and Λ at 1e-4, are below 1e-8
    np.testing.assert_allclose([OUTER_RIM.growth(z) for z in REDSHIFTS[:5]], growth / growth[0], rtol=1e-7)
    np.testing.assert_allclose([OUTER_RIM.growth_rate(z) for z in REDSHIFTS[:5]], rate, rtol=1e-7)


@pytest.mark.parametrize("z", REDSHIFTS)
def test_growth_rate_is_the_derivative_of_growth(z):
    step = 1e-4
    up, down = (OUTER_RIM.growth((1 + z) * np.exp(-s) - 1) for s in (step, -step))
    # error step²/6 d³lnD/dlna³, some 1e-9, and rounding 1e-12/1e-4
    assert OUTER_RIM.growth_rate(z) == pytest.approx((np.log(up) - np.log(down)) / (2 * step), abs=5e-8)


def test_growth_rate_values():
    assert OUTER_RIM.growth_rate(0.0) == pytest.approx(0.4779, abs=5e-5)
    assert OUTER_RIM.growth_rate(0.0) == pytest.approx(0.2648**0.55, rel=0.01)  # Linder's fit, 0.4815: 0.8 % high
    assert OUTER_RIM.growth_rate(0.21) == pytest.approx(0.5939, abs=5e-5)
    assert EINSTEIN_DE_SITTER.growth_rate(0.7) == pytest.approx(1, rel=1e-11)
    assert EINSTEIN_DE_SITTER.growth(0.7) == pytest.approx(1 / 1.7, rel=1e-11)


def test_growth_equals_colossus():
    from colossus.cosmology import cosmology

    peer = cosmology.Cosmology(
        name="peer", flat=True, H0=71, Om0=0.2648, Ob0=0.0448, sigma8=0.8, ns=0.963, relspecies=False, persistence=""
    )
    for z in (0.212, 1.0, 3.0):
        assert OUTER_RIM.growth(z) == pytest.approx(peer.growthFactor(z), rel=1e-4)  # it interpolates to some 2e-5
        assert OUTER_RIM.E(z) == pytest.approx(peer.Ez(z), rel=1e-12)


def sigma_by_integration(radius, z):
    """Top-hat rms of `linear_power`, by a plain sum over ln k."""
    lnk = np.linspace(np.log(1e-5), np.log(2e3), 40_001)
    k = np.exp(lnk)
    x = k * radius
    window = np.where(x < 1e-2, 1 - x**2 / 10, 3 * (np.sin(x) - x * np.cos(x)) / x**3)
    return np.sqrt(np.trapezoid(k**3 * OUTER_RIM.linear_power(k, z) * window**2 / (2 * np.pi**2), lnk))


def test_linear_power_is_normalised_and_grows():
    assert sigma_by_integration(8.0, 0.0) == pytest.approx(0.8, rel=1e-3)  # colossus's own precision
    for radius in (1.0, 8.0, 20.0):
        assert OUTER_RIM.sigma(radius, 0.5) == pytest.approx(sigma_by_integration(radius, 0.5), rel=2e-3)
    k = np.array([0.0, 0.01, 0.1, 1.0])
    today, early = OUTER_RIM.linear_power(k, 0.0), OUTER_RIM.linear_power(k, 1.0)
    assert today[0] == early[0] == 0
    np.testing.assert_allclose(early[1:], today[1:] * OUTER_RIM.growth(1.0) ** 2, rtol=1e-14)


def test_linear_power_falls_with_the_primordial_slope_on_large_scales():
    k = np.array([1e-4, 2e-4])
    low = OUTER_RIM.linear_power(k, 0.0)
    assert np.log2(low[1] / low[0]) == pytest.approx(0.963, abs=0.02)  # the transfer function bends by then


@pytest.mark.peers
def test_linear_power_equals_camb():
    camb = pytest.importorskip("camb", reason="the peers extra is not installed")
    parameters = camb.set_params(
        H0=71, ombh2=0.0448 * 0.71**2, omch2=0.22 * 0.71**2, ns=0.963, As=2e-9, mnu=0, omk=0, num_massive_neutrinos=0
    )
    parameters.set_matter_power(redshifts=[0.0], kmax=20.0)
    results = camb.get_results(parameters)
    boltzmann = results.get_matter_power_interpolator(nonlinear=False, hubble_units=True, k_hunit=True)
    k = np.geomspace(2e-3, 5.0, 60)
    expected = boltzmann.P(0.0, k) * (0.8 / results.get_sigma8_0()) ** 2
    # Eisenstein & Hu (1998) promise some 5 %
    np.testing.assert_allclose(OUTER_RIM.linear_power(k, 0.0), expected, rtol=0.06)


def test_mean_density():
    # m_p of the paper's table 1: Ωm ρc (3000/10240)³ = 1.85e9 h⁻¹M⊙
    assert OUTER_RIM.mean_matter_density * (3000 / 10240) ** 3 == pytest.approx(1.85e9, rel=2e-3)
    # ρc = 3 H² / 8πG with G = 4.30091e-9 Mpc (km/s)² / M⊙
    assert pytest.approx(3 * 100**2 / (8 * np.pi * 4.30091e-9), rel=1e-5) == RHO_CRITICAL


@pytest.mark.parametrize("z", [0.0, 0.212])
def test_mass_function_is_crocces_fit_in_these_units(z):
    mass = np.array([4e10, 1e12, 1e14])
    rho = OUTER_RIM.mean_matter_density

    def sigma(m):
        return np.array([sigma_by_integration(r, z) for r in (3 * m / (4 * np.pi * rho)) ** (1 / 3)])

    s, step = sigma(mass), 0.01
    steepness = -(np.log(sigma(mass * np.exp(step))) - np.log(sigma(mass * np.exp(-step)))) / (2 * step)
    # the fit of Crocce et al. 2010 with its redshift dependence
    amplitude, a = 0.58 * (1 + z) ** -0.13, 1.37 * (1 + z) ** -0.15
    b, c = 0.3 * (1 + z) ** -0.084, 1.036 * (1 + z) ** -0.024
    f = amplitude * (s**-a + b) * np.exp(-c / s**2)
    np.testing.assert_allclose(OUTER_RIM.mass_function(mass, z), rho / mass * f * steepness, rtol=0.01)


def test_halo_density_is_the_papers():
    assert OUTER_RIM.halo_density(3.7e10, 0.0) == pytest.approx(0.0686, rel=0.01)
    assert OUTER_RIM.halo_density(1e12, 0.0) == pytest.approx(0.0036, rel=0.02)
    lnm = np.linspace(np.log(3.7e10), np.log(1e15), 4000)
    between = np.trapezoid(OUTER_RIM.mass_function(np.exp(lnm), 0.0), lnm)
    difference = OUTER_RIM.halo_density(3.7e10, 0.0) - OUTER_RIM.halo_density(1e15, 0.0)
    assert difference == pytest.approx(between, rel=1e-4)  # two step widths


def test_effective_biases_are_the_papers():
    assert 0.73 <= OUTER_RIM.effective_bias(3.7e10, 0.0, weight="number") <= 0.82
    assert 1.44 <= OUTER_RIM.effective_bias(3.7e10, 0.0, weight="mass") <= 1.52
    assert 1.0 <= OUTER_RIM.effective_bias(1e12, 0.0, weight="number") <= 1.1
    m = np.geomspace(3.7e10, 10**15.9, 3000)
    n, b = OUTER_RIM.mass_function(m, 0.0), OUTER_RIM.halo_bias(m, 0.0)
    lnm = np.log(m)
    expected = np.trapezoid(m * n * b, lnm) / np.trapezoid(m * n, lnm)
    assert OUTER_RIM.effective_bias(3.7e10, 0.0, weight="mass") == pytest.approx(expected, rel=1e-4)


def test_bias_rises_with_mass_and_redshift():
    mass = np.geomspace(1e11, 1e15, 9)
    b = OUTER_RIM.halo_bias(mass, 0.0)
    assert (np.diff(b[2:]) > 0).all()
    assert b[-1] > 4 * b[0]
    assert (OUTER_RIM.halo_bias(mass[4:], 0.5) > b[4:]).all()


def test_two_universes_do_not_mix():
    # colossus keeps one current cosmology for the whole process
    other = dataclasses.replace(OUTER_RIM, name="other", sigma8=0.9)
    before = OUTER_RIM.mass_function(np.array([1e14]), 0.0)
    assert other.mass_function(np.array([1e14]), 0.0) > 1.1 * before
    np.testing.assert_array_equal(OUTER_RIM.mass_function(np.array([1e14]), 0.0), before)
    assert other.sigma(8.0, 0.0) == pytest.approx(0.9, rel=1e-3)
    assert OUTER_RIM.halo_bias(1e14, 0.0) > other.halo_bias(1e14, 0.0)


def test_mistakes_are_named():
    with pytest.raises(VelfieldError, match=r"matter densities out of order: omega_m=0.2648, omega_b=0.3; a flat"):
        dataclasses.replace(OUTER_RIM, omega_b=0.3)
    with pytest.raises(VelfieldError, match=r"matter densities out of order: omega_m=1.2, omega_b=0.0448"):
        dataclasses.replace(OUTER_RIM, omega_m=1.2)
    with pytest.raises(VelfieldError, match="unknown bias weight: weight='volume'; choose mass or number"):
        OUTER_RIM.effective_bias(1e12, 0.0, weight="volume")
