"""Latency of one cube through the service against the bare forward pass, in the same process and run.

python tests/benchmarks/bench_service.py [--cells 60] [--times 15]

Bare is `Model.predict_arrays` on arrays that are in memory; the service adds HTTP over loopback, reading and checking
the npz, the dataset, and the answer's npz. Both take turns.
"""

# ruff: noqa: T201 - a table for people

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from served import cube, serving, write_model
from small_store import arrays_of, spec_of

from velfield.client.client import Client
from velfield.geometry.boxes import BoxLayout
from velfield.service.cubes import Cube, boxed
from velfield.service.cubes import spec_of as spec_of_cube
from velfield.stores import store

ABOUT = {"cellsize": 5.0, "redshift": 0.212, "min_mass": 1e12, "rsd": "none"}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cells", type=int, default=60)
    asked.add_argument("--times", type=int, default=15)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        boxes = BoxLayout(boxsize=80.0, boxes=2, cells=8)
        store.write_fields(f"{folder}/fields", spec_of(boxes), arrays_of(boxes))
        # as large as the pretrained one: weights do not change how long a pass takes
        write_model(f"{folder}/model", f"{folder}/fields", width=8, depth=3)
        limits = {"cells": given.cells**3, "body": 2**26}
        with (
            serving(Path(folder) / "state", [f"{folder}/model"], lambda: None, **limits) as service,
            Client(service.url) as client,
        ):
            measure(service, client, given.cells, given.times)


def measure(service, client, cells: int, times: int) -> None:
    arrays = cube(0, cells)
    asked = Cube(**ABOUT)
    model = service.models.get("model").model
    ds = store.fields_in_memory(spec_of_cube(asked, arrays, "f"), boxed(asked, arrays))
    inputs = np.stack([ds.velfield.input(kind).values for kind in model.inputs], axis=1)
    bare, served, whole = [], [], []
    for turn in range(times + 1):
        for taken, call in (
            (bare, lambda: model.predict_arrays(inputs)),
            (whole, lambda: model.predict(ds)),
            (served, lambda: client.predict("model", arrays, **ABOUT)),
        ):
            began = time.perf_counter()
            call()
            if turn:  # the first warms up
                taken.append(time.perf_counter() - began)
    medians = [statistics.median(taken) for taken in (bare, whole, served)]
    print(f"{cells}³ cells, {times} times each, seconds: median (least, most)")
    for name, taken in (("bare forward pass", bare), ("Model.predict", whole), ("service", served)):
        print(f"{name:18} {statistics.median(taken):.3f} ({min(taken):.3f}, {max(taken):.3f})")
    print(f"overhead at the median: {medians[2] / medians[0] - 1:.1%}; goal at most 20 %")
    paired = [s / b - 1 for s, b in zip(served, bare, strict=True)]
    print(f"of pairs taken one after the other: {statistics.median(paired):.1%}")


if __name__ == "__main__":
    main()
