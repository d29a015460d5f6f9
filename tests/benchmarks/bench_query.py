"""How fast a velocity store answers positions, against scipy's interpolation of the whole cube in memory, in one run.

Positions for each second of a processor.

python tests/benchmarks/bench_query.py [--boxes 3] [--cells 60] [--positions 1000000]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from velfield.answers.queries import query_positions
from velfield.files import shards
from velfield.geometry.boxes import BoxLayout
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.linear import smooth
from velfield.stores import store
from velfield.stores.store_layout import COMPONENTS, SCHEMA, bare_velocity_layout


def write(url: str, layout: BoxLayout) -> np.ndarray:
    """A velocity store of smooth noise of 300 km/s, seen along z; returns the whole cube (3, x, y, z)."""
    rng = np.random.default_rng(1)
    n = layout.ngrid
    whole = np.stack([smooth(rng.normal(size=(n,) * 3).astype("f4"), layout.boxsize, 10.0) for _ in range(3)])
    whole *= 300 / whole.std()
    attrs = {
        "velfield_schema": SCHEMA, "velfield_kind": "velocity", "boxsize": layout.boxsize, "boxes": layout.boxes,
        "cells": layout.cells, "margin": 0, "cellsize": layout.cellsize, "periodic": True, "rsd": "plane_parallel",
        "redshift": 0.0, "model": json.dumps({}), "cosmology": json.dumps(OUTER_RIM.to_dict()),
    }  # fmt: skip
    bare = bare_velocity_layout(attrs)
    sight = shards.Coordinate(dims=("box", "axis"), values=np.tile([0.0, 0, 1], (layout.nbox, 1)))
    made = shards.Layout(
        nbox=layout.nbox, variables=bare.variables, coords={**bare.coords, "line_of_sight": sight}, attrs=attrs
    )
    shards.create(url, made)
    boxes = np.stack(
        [whole[(..., *(slice(s, s + layout.cells) for s in layout.start(box)))] for box in range(layout.nbox)]
    )
    shards.publish(url, made, shards.write_boxes(url, made, range(layout.nbox), {"velocity": boxes}))
    assert list(COMPONENTS) == ["x", "y", "z"]
    return whole


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds of processors, whatever else runs on them, and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def main() -> None:
    """Print positions a second, and the ratio to scipy."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--boxes", type=int, default=3)
    options.add_argument("--cells", type=int, default=60)
    options.add_argument("--positions", type=int, default=1_000_000)
    given = options.parse_args()
    layout = BoxLayout(boxsize=5.0 * given.boxes * given.cells, boxes=given.boxes, cells=given.cells)
    pos = np.random.default_rng(2).uniform(0, layout.boxsize, (given.positions, 3))
    with tempfile.TemporaryDirectory() as folder:
        whole = write(f"{folder}/v.zarr", layout)

        def ours(space: str, part: np.ndarray) -> np.ndarray:
            ds = store.open_velocity(f"{folder}/v.zarr", chunks=None)
            return query_positions(ds, part, space=space)["velocity"]

        def scipys() -> np.ndarray:
            places = pos.T / layout.cellsize - 0.5
            return np.stack([ndimage.map_coordinates(c, places, order=1, mode="grid-wrap") for c in whole], axis=1)

        reference, expected = timed(scipys)
        seconds, found = timed(lambda: ours("real", pos))
        assert np.abs(found - expected).max() < 0.1  # km/s: scipy's float32 weights
        few = pos[: given.positions // 10]
        shifted, _ = timed(lambda: ours("redshift", few))
    print(f"scipy, the whole cube in memory  {len(pos) / reference:10,.0f} positions/s")  # noqa: T201
    print(f"a store, opened and read         {len(pos) / seconds:10,.0f} positions/s  {reference / seconds:.2f} of it")  # noqa: T201
    print(f"the same from redshift space     {len(few) / shifted:10,.0f} positions/s")  # noqa: T201


if __name__ == "__main__":
    main()
