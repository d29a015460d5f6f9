"""A Gaussian universe with the paper's linear power, in which linear theory is exact, and field stores cut from it.

Its velocities come from their own few lines, not from velfield.physics.linear, so that the two can be held against each
other.
"""

import numpy as np

from velfield.geometry.boxes import BoxLayout
from velfield.physics.cosmology import OUTER_RIM
from velfield.stores import store, store_layout


def universe(ngrid=32, cellsize=10.0, seed=1, redshift=0.0, smoothing=10.0):
    """Density contrast (x, y, z) and velocity (3, x, y, z) [km/s] of a periodic cube.

    Smoothed by 10 h⁻¹Mpc, δ has an rms of 0.4: 1 + δ is nearly always positive.
    """
    boxsize = ngrid * cellsize
    k1 = 2 * np.pi * np.fft.fftfreq(ngrid, cellsize)
    k = np.stack(np.meshgrid(k1, k1, k1, indexing="ij"))
    k[:, (np.abs(k) >= np.pi / cellsize * 0.999).any(axis=0)] = 0  # no Nyquist modes: i k is not defined there
    k2 = (k**2).sum(0)
    noise = np.fft.fftn(np.random.default_rng(seed).standard_normal((ngrid,) * 3))
    power = OUTER_RIM.linear_power(np.sqrt(k2), redshift) * np.exp(-k2 * smoothing**2)
    delta = noise * np.sqrt(power * ngrid**3 / boxsize**3)
    factor = OUTER_RIM.aH(redshift) * OUTER_RIM.growth_rate(redshift)
    velocity = 1j * k * factor * delta / np.where(k2 > 0, k2, 1)
    return np.fft.ifftn(delta).real, np.fft.ifftn(velocity, axes=(1, 2, 3)).real


def write_fields(url, *, boxes=2, cells=16, cellsize=10.0, margin=0, seed=1, redshift=0.0, **changes):
    """A field store of `universe`: matter without noise, halos a Poisson draw with bias 1.5 in real space."""
    layout = BoxLayout(boxsize=boxes * cells * cellsize, boxes=boxes, cells=cells, margin=margin)
    delta, velocity = universe(layout.ngrid, cellsize, seed, redshift)
    rng = np.random.default_rng(seed + 100)
    halos = rng.poisson(20 * np.clip(1 + 1.5 * delta, 0, None))
    masses = rng.gamma(np.maximum(halos, 1e-9), 1e12)

    def cut(field):
        windows = [
            [(np.arange(layout.shape[0]) + s) % layout.ngrid for s in layout.start(b)] for b in range(layout.nbox)
        ]
        return np.stack([field[..., i[:, None, None], j[:, None], k] for i, j, k in windows])

    arrays = {
        "matter_number": cut(8 * (1 + delta)),
        "velocity": cut(velocity),
        "velocity_flag": np.zeros((layout.nbox, *layout.shape), dtype="u1"),
        "halo_number": cut(halos),
        "halo_mass": cut(masses),
    } | changes.pop("arrays", {})
    means = {"matter_number": 8.0, "halo_number": halos.mean(), "halo_mass": masses.mean()}
    names = changes.pop("only", tuple(arrays))
    values = {
        "boxes": layout,
        "cosmology": OUTER_RIM,
        "redshift": redshift,
        "periodic": True,
        "rsd": "none",
        "observer_per_box": False,
        "line_of_sight": None,
        "observer": None,
        "min_mass": 1e12,
        "assignment": "ngp",
        "seed": seed,
        "split": ["train"] * (layout.nbox - 1) + ["validation"],
        "parent": f"universe-{seed}",
        "inputs": {},
        "means": {name: float(mean) for name, mean in means.items() if name in names},
        "totals": {},
        "fingerprint": f"fields-{seed}",
    } | changes
    store.write_fields(
        url,
        store_layout.FieldSpec(**values),
        {name: arrays[name].astype("f4") if name != "velocity_flag" else arrays[name] for name in names},
    )
    return url
