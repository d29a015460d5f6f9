"""How long pictures of a whole parent take, against plainly reading the same chunks one after the other.

python tests/benchmarks/bench_slices.py [FIELDS] [--boxes 4]

FIELDS is a field store of one parent with velocities; without it one of `boxes`³ boxes of 60³ cells is made, of noise,
which packs badly. The plain loop reads the boxes that a plane meets with xarray and keeps nothing.
"""

# ruff: noqa: T201 - a table for people

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from small_store import arrays_of, spec_of

from velfield.files import shards
from velfield.geometry.boxes import BoxLayout
from velfield.service.slices import Slices, Source
from velfield.stores import store, store_layout
from velfield.theory.whole import layout_of


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("fields", nargs="?")
    asked.add_argument("--boxes", type=int, default=4)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(given.fields or make(f"{folder}/fields", given.boxes))


def make(url: str, boxes: int) -> str:
    """A store of noise, shard by shard."""
    layout = store_layout.field_layout(spec_of(BoxLayout(boxsize=300.0 * boxes, boxes=boxes, cells=60)))
    shards.create(url, layout)
    written = {}
    for shard in range(layout.nshard):
        some = layout.boxes_of(shard)
        part = BoxLayout(boxsize=300.0, boxes=1, cells=60)
        each = [arrays_of(part, seed=box) for box in some]
        arrays = {name: np.concatenate([one[name] for one in each]) for name in layout.variables}
        written |= shards.write_boxes(url, layout, some, arrays)
    shards.publish(url, layout, written)
    return url


def measure(url: str) -> None:
    ds, looked, source = store.open_fields(url, chunks=None), Slices(), Source(fields=url)
    layout = layout_of(ds)
    print(f"{layout.nbox} boxes of {layout.cells}³ cells; {peak():.0f} MiB before")
    met = [box for box in range(layout.nbox) if layout.index(box)[2] == 0]

    def plain() -> None:
        for box in met:
            np.asarray(ds["velocity"][box])

    loop = timed(f"plain loop over the {len(met)} boxes that a plane meets", plain)
    for name, work in {
        "first slice, velocities": lambda: looked.plane(source, "velocity", None, "z", 0),
        "another of the same boxes": lambda: looked.plane(source, "velocity", None, "z", layout.cells // 2),
        "first slice across x": lambda: looked.plane(source, "velocity", None, "x", 0),
        "in three dimensions": lambda: looked.block(source, "velocity", None, 32),
        "a slice of one box": lambda: looked.plane(source, "velocity", layout.nbox // 2, "z", 0),
    }.items():
        timed(name, work, loop)


def timed(name: str, work: Callable[[], object], loop: float | None = None) -> float:
    start = time.process_time()  # others use this machine as well
    work()
    took = time.process_time() - start
    ratio = "" if loop is None else f"{took / loop:8.3f} of the loop"
    print(f"{name:56s}{took:8.3f} CPU s{ratio}; {peak():.0f} MiB", flush=True)
    return took


def peak() -> float:
    """Most memory of the process so far [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
