"""A small field store with arbitrary values, for tests of what stores are and not of what is in them."""

import numpy as np

from velfield.geometry.boxes import BoxLayout
from velfield.physics.cosmology import OUTER_RIM
from velfield.stores import store_layout


def spec_of(boxes: BoxLayout, **changes: object) -> store_layout.FieldSpec:
    values: dict = {
        "boxes": boxes,
        "cosmology": OUTER_RIM,
        "redshift": 0.212,
        "periodic": True,
        "rsd": "random_radial",
        "observer_per_box": False,
        "line_of_sight": None,
        "observer": np.tile([10.0, 20.0, 30.0], (boxes.nbox, 1)),
        "min_mass": 1e12,
        "assignment": "ngp",
        "seed": 1,
        "split": ["train"] * (boxes.nbox - 1) + ["validation"],
        "parent": "ab12",
        "inputs": {"halos": {"url": "h"}},
        "means": {"halo_mass": 2e12, "halo_number": 0.5, "matter_number": 8.0},
        "totals": {"halos": 3},
        "fingerprint": "f00d",
    }
    return store_layout.FieldSpec(**(values | changes))


def arrays_of(boxes: BoxLayout, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = boxes.nbox
    return {
        "halo_mass": rng.exponential(2e12, (n, *boxes.shape)).astype("f4"),
        "halo_number": rng.poisson(0.5, (n, *boxes.shape)).astype("f4"),
        "matter_number": rng.poisson(8.0, (n, *boxes.shape)).astype("f4"),
        "velocity": rng.normal(0, 300, (n, 3, *boxes.shape)).astype("f4"),
        "velocity_flag": rng.integers(0, 2, (n, *boxes.shape)).astype("u1"),
    }


BOXES = BoxLayout(boxsize=90.0, boxes=3, cells=6, margin=1)
