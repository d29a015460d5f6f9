"""Small field stores with physics: a Gaussian universe whose velocity is the linear one, cut into boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.geometry.boxes import BoxLayout
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.linear import linear_velocity
from velfield.stores import store, store_layout

CELLSIZE = 10.0  # h⁻¹Mpc: rms contrast of some 0.5, so 1 + δ is seldom negative


def gaussian_density(ngrid: int, seed: int) -> NDArray[np.float64]:
    """Linear density contrast (x, y, z) of a periodic cube of cells of `CELLSIZE`."""
    boxsize = ngrid * CELLSIZE
    white = np.fft.rfftn(np.random.default_rng(seed).standard_normal((ngrid,) * 3))
    k = 2 * np.pi * np.fft.fftfreq(ngrid, CELLSIZE)
    kz = 2 * np.pi * np.fft.rfftfreq(ngrid, CELLSIZE)
    size = np.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + kz**2)
    power = OUTER_RIM.linear_power(size, 0.0) * np.exp(-((0.5 * size * CELLSIZE) ** 2))
    return np.fft.irfftn(white * np.sqrt(power * ngrid**3 / boxsize**3), s=(ngrid,) * 3, axes=(0, 1, 2))


def universe(ngrid: int, seed: int) -> dict[str, NDArray[Any]]:
    """Fields of a whole periodic universe: counts follow the density, masses scatter about the counts."""
    delta = np.maximum(gaussian_density(ngrid, seed), -1)
    rng = np.random.default_rng([seed, 1])
    number = 4 * (1 + delta)
    return {
        "halo_number": number,
        "halo_mass": 1e12 * number * rng.lognormal(0, 0.5, number.shape),
        "matter_number": 8 * (1 + delta),
        "velocity": linear_velocity(delta, ngrid * CELLSIZE),
        "velocity_flag": np.zeros(delta.shape, dtype=np.uint8),
    }


def write_universe(
    url: str, *, seed: int, boxes: int = 2, cells: int = 8, margin: int = 0, validation: int = 2, **changes: Any
) -> str:
    """Write a field store of ``boxes``³ boxes of ``cells``³ cells at ``url``, its last boxes for validation."""
    layout = BoxLayout(boxsize=boxes * cells * CELLSIZE, boxes=boxes, cells=cells, margin=margin)
    whole = universe(layout.ngrid, seed)
    names = [name for name in whole if name not in changes.get("leave_out", ())]
    arrays = {
        name: np.stack([_cut(whole[name], layout, b) for b in range(layout.nbox)]).astype(
            "u1" if name == "velocity_flag" else "f4"
        )
        for name in names
    }
    for name, change in changes.get("edits", {}).items():
        change(arrays[name])
    values: dict[str, Any] = {
        "boxes": layout,
        "cosmology": OUTER_RIM,
        "redshift": 0.0,
        "periodic": True,
        "rsd": "none",
        "observer_per_box": False,
        "line_of_sight": None,
        "observer": None,
        "min_mass": 0.0,
        "assignment": "ngp",
        "seed": seed,
        "split": ["train"] * (layout.nbox - validation) + ["validation"] * validation,
        "parent": f"universe-{seed}",
        "inputs": {},
        "means": {n: float(whole[n].mean()) for n in names if not n.startswith("velocity")},
        "totals": {},
        "fingerprint": f"store-{seed}",
    }
    values |= {name: value for name, value in changes.items() if name not in ("edits", "leave_out")}
    store.write_fields(url, store_layout.FieldSpec(**values), arrays)
    return url


def _cut(field: NDArray[Any], layout: BoxLayout, box: int) -> NDArray[Any]:
    """A box's window of the periodic parent."""
    for axis, first in zip((-3, -2, -1), layout.start(box), strict=True):
        field = field.take(range(first, first + layout.shape[0]), axis=axis, mode="wrap")
    return field
