"""The particle-mesh universe against plane waves, second-order theory and linear growth."""

import dataclasses

import numpy as np
import pytest
import torch

from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.spectra import power
from velfield.simulation.gravity import deposit, displacements, force, leapfrog, linear_density, second_growth

EINSTEIN_DE_SITTER = dataclasses.replace(OUTER_RIM, name="eds", omega_m=1.0)
N, SIDE = 32, 100.0
K = 2 * np.pi / SIDE
LATTICE = np.stack(np.meshgrid(*[np.arange(N) * (SIDE / N)] * 3, indexing="ij"))


def modes(delta):
    return torch.fft.rfftn(torch.from_numpy(delta.astype(np.float32)))


def last(moving):
    return [snapshot for snapshot in moving if snapshot is not None][-1]


def steps(start, end, number):
    """Redshifts at the ends of steps equal in a."""
    return [*(1 / np.linspace(1 / (1 + start), 1 / (1 + end), number + 1)[1:-1] - 1), end]


@pytest.fixture(scope="module")
def universe():
    """Snapshots at z = 0.5 and 0 of 64³ particles, 6 h⁻¹Mpc apart, and the modes they began with."""
    delta = linear_density(OUTER_RIM, 384.0, 64, seed=5)
    legs = [steps(19.0, 0.5, 6), steps(0.5, 0.0, 4)]
    snapshots = leapfrog(delta, OUTER_RIM, 384.0, start=19.0, schedule=legs, mesh=64)
    return delta, [s for s in snapshots if s is not None]


def test_initial_density_has_the_linear_power():
    delta = torch.fft.irfftn(linear_density(OUTER_RIM, 500.0, 48, seed=1)).numpy()
    found = power(delta, 500.0, bins=np.linspace(0.02, 0.28, 8))
    # shells are wide: compare with the mean of P over them, to 4 sigma of the scatter of independent modes
    k = np.linspace(0.02, 0.28, 8 * 50 - 49)
    for i in range(7):
        inside = k[50 * i : 50 * i + 51]
        wanted = np.average(OUTER_RIM.linear_power(inside, 0.0), weights=inside**2)
        assert found.power[i] == pytest.approx(wanted, rel=4 * np.sqrt(2 / found.modes[i]) + 0.01)


def test_seed_means_one_universe():
    first, again, other = (linear_density(OUTER_RIM, 100.0, 16, seed=s).numpy() for s in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert np.abs(first - other).max() > 1


def test_displacement_of_a_plane_wave():
    first, second = displacements(modes(0.3 * np.cos(K * LATTICE[0])), SIDE)
    wanted = -0.3 / K * np.sin(K * LATTICE[0])
    # float32 transforms: 1e-6 of the amplitude
    assert np.allclose(first[0].view(N, N, N), wanted, atol=1e-5 * 0.3 / K)
    assert first[1:].abs().max() < 1e-5 * 0.3 / K
    assert second.abs().max() < 1e-5 * 0.3**2 / K


def test_second_order_displacement_of_crossed_waves():
    x, y = K * LATTICE[0], K * LATTICE[1]
    _, second = displacements(modes(0.3 * np.cos(x) + 0.2 * np.cos(y)), SIDE)
    # source φ,xx φ,yy − φ,xy² = AB cos kx cos ky, so ψ₂ = ∇∇⁻² of it = AB/2k (sin kx cos ky, cos kx sin ky, 0)
    amplitude = 0.3 * 0.2 / (2 * K)
    wanted = amplitude * np.stack((np.sin(x) * np.cos(y), np.cos(x) * np.sin(y), 0 * x))
    assert np.allclose(second.view(3, N, N, N), wanted, atol=1e-5 * amplitude)


def test_second_growth_is_exact_without_a_cosmological_constant():
    z = [9.0, 0.0, 1.0]
    d = np.array([EINSTEIN_DE_SITTER.growth(v) for v in z])
    e, de = second_growth(EINSTEIN_DE_SITTER, z)
    # the decaying part of the start at a = 1e-3 is zero; what is left is the integrator's 1e-8
    assert e == pytest.approx(-3 / 7 * d**2, rel=1e-6)
    assert de == pytest.approx(-6 / 7 * d, rel=1e-6)


def test_second_growth_today():
    e, _ = second_growth(OUTER_RIM, [0.0])
    # Bouchet et al. 1995: −3/7 D² Ω_m^(−1/143), good to a few 1e-4
    assert e[0] == pytest.approx(-3 / 7 * 0.2648 ** (-1 / 143), rel=1e-3)


def test_deposit_against_a_naive_loop():
    rng = np.random.default_rng(3)
    pos = rng.uniform(0, SIDE, (3, 50)).astype(np.float32)
    weight = rng.uniform(1, 2, 50).astype(np.float32)
    naive = np.zeros((8, 8, 8))
    for p, w in zip(pos.T.astype(float) * 8 / SIDE, weight, strict=True):
        for corner in np.ndindex(2, 2, 2):
            cell = np.floor(p) + corner
            naive[tuple(cell.astype(int) % 8)] += w * np.prod(1 - np.abs(p - cell))
    found = deposit(torch.from_numpy(pos), SIDE, 8, torch.from_numpy(weight)).numpy()
    # float32 sums of some ten shares, positions of relative 6e-8
    assert np.allclose(found, naive, atol=1e-5)


def test_force_of_a_density_wave():
    density = torch.from_numpy(1 + 0.1 * np.cos(K * LATTICE[2])).float()
    found = force(density, SIDE).view(N, N, N, 3).numpy()
    # −∇∇⁻²δ = −A/k sin kz, raised by one cloud's window, sinc⁻²(k/k_mesh), 1.003
    raised = np.sinc(1 / N) ** -2
    assert np.allclose(found[..., 2], -0.1 / K * raised * np.sin(K * LATTICE[2]), atol=1e-5 * 0.1 / K)
    assert np.abs(found[..., :2]).max() < 1e-5 * 0.1 / K


@pytest.mark.parametrize("number", [1, 6])
@pytest.mark.parametrize("redshift", [0.0, 0.212])
def test_plane_wave_follows_zeldovich_until_shells_cross(number, redshift):
    d, amplitude = OUTER_RIM.growth(redshift), 0.6
    delta = modes(amplitude * np.cos(K * LATTICE[0]))
    s = last(leapfrog(delta, OUTER_RIM, SIDE, start=19.0, schedule=[steps(19.0, redshift, number)], mesh=N))
    moved = (s.pos.reshape(N, N, N, 3) - np.moveaxis(LATTICE, 0, -1) + SIDE / 2) % SIDE - SIDE / 2
    wave = -amplitude / K * np.sin(K * LATTICE[0])
    # the theory is exact in one dimension, whatever the number of steps; the cloud's window takes 0.5 % of the force
    # that lasts, 1 % of the velocity; the rest of the error is ripples between neighbours on the mesh
    assert (moved[..., 0] * wave).sum() / (wave**2).sum() == pytest.approx(d, rel=0.01)
    assert (moved[..., 0] - d * wave).std() < 0.06 * d * wave.std()
    speed = OUTER_RIM.aH(redshift) * OUTER_RIM.growth_rate(redshift) * d
    vel = s.vel[:, 0].reshape(N, N, N)
    assert (vel * wave).sum() / (wave**2).sum() == pytest.approx(speed, rel=0.015)
    assert (vel - speed * wave).std() < 0.08 * speed * wave.std()
    assert np.abs(s.vel[:, 1:]).max() < 1e-4 * speed * amplitude / K


def test_momentum_is_conserved(universe):
    _, snapshots = universe
    for s in snapshots:
        # deposit and readout share their clouds, so forces come in pairs; left is float32 summation over ten steps
        assert np.abs(s.vel.mean(axis=0, dtype=np.float64)).max() < 1e-4 * s.vel.std()


def test_large_modes_grow_linearly(universe):
    delta, snapshots = universe
    initial = torch.fft.irfftn(delta).numpy()
    for s in snapshots:
        density = deposit(torch.from_numpy(s.pos.T.copy()), 384.0, 64).numpy()
        cross = power(density / density.mean() - 1, 384.0, initial, bins=[0.015, 0.045])
        grown = cross.power[0] / power(initial, 384.0, bins=[0.015, 0.045]).power[0]
        # second-order terms of 80 modes and 0.3 % of the cloud's window: between the two snapshots they nearly cancel
        assert grown == pytest.approx(OUTER_RIM.growth(s.redshift), rel=0.02)


def test_growth_between_snapshots(universe):
    _, (early, late) = universe
    density = [deposit(torch.from_numpy(s.pos.T.copy()), 384.0, 64).numpy() for s in (early, late)]
    first, second = (power(d / d.mean() - 1, 384.0, bins=[0.015, 0.045]).power[0] for d in density)
    wanted = (OUTER_RIM.growth(late.redshift) / OUTER_RIM.growth(early.redshift)) ** 2
    assert second / first == pytest.approx(wanted, rel=0.02)  # coupling of modes, as above


def test_positions_stay_inside(universe):
    _, snapshots = universe
    for s in snapshots:
        assert s.pos.dtype == s.vel.dtype == np.float32
        assert s.pos.min() >= 0
        assert s.pos.max() < 384.0


def test_result_does_not_depend_on_threads():
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            delta = linear_density(OUTER_RIM, 128.0, 32, seed=9)
            s = last(leapfrog(delta, OUTER_RIM, 128.0, start=19.0, schedule=[steps(19.0, 0.0, 3)], mesh=32))
            found.append(s.pos.tobytes() + s.vel.tobytes())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu():
    found = []
    for device in ("cpu", "cuda"):
        delta = linear_density(OUTER_RIM, 128.0, 32, seed=9, device=device)
        found.append(last(leapfrog(delta, OUTER_RIM, 128.0, start=19.0, schedule=[steps(19.0, 0.0, 5)], mesh=32)))
    apart = (found[0].pos - found[1].pos + 64.0) % 128.0 - 64.0
    # rounding grows where orbits are chaotic: compare typical particles
    assert np.median(np.abs(apart)) < 1e-3
