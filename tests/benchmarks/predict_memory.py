"""What the tasks of a prediction hold at most, each in a process of its own, over what `predict --plan` says.

python tests/benchmarks/predict_memory.py FOLDER whole [--cells 128 256] [--rsd none plane_parallel random_radial]
python tests/benchmarks/predict_memory.py FOLDER rows [--norm batch group] [--depth 2 3 4] [--width 4 8 16] …

``whole``: the one task of linear theory, on field stores of so many cells a side in boxes of ``--box``, whose halos are
a Poisson draw of nothing: memory does not depend on what they are. ``rows``: the first row of tiles of a network with
arbitrary weights, as many tiles as go through it together, and before it a tile by which GroupNorm is settled.
``process`` is VmHWM when all is imported, ``held`` by how much more it is after the task; ``planned`` is what
`velfield.pipelines.predict_plan` says of the task, beside which the plan of the peak counts `WORKER_BASE` for the
process. The stores stay in FOLDER.
"""
# ruff: noqa: T201 - a table for people

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from velfield.files import shards
from velfield.geometry.boxes import BoxLayout
from velfield.pipelines.cluster import CapThreads
from velfield.pipelines.predict_job import Job, prepare
from velfield.pipelines.predict_network import observe_tile
from velfield.pipelines.predict_plan import WORKER_BASE, plan_of
from velfield.pipelines.predict_tasks import compute_whole, predict_row
from velfield.pipelines.stages import peak_memory
from velfield.stores import store_layout

sys.path.insert(0, str(Path(__file__).parents[1]))
from arbitrary_bundle import bundle
from small_store import spec_of

CELLSIZE, MEAN = 5.0, 0.5


def fields(folder: Path, cells: int, box: int, rsd: str) -> str:
    """A field store of a periodic parent with ``cells`` along a side, made a shard at a time if it is not there."""
    url = str(folder / f"fields-{cells}-{box}-{rsd}")
    if shards.published(url):
        return url
    shutil.rmtree(url, ignore_errors=True)
    layout = BoxLayout(boxsize=cells * CELLSIZE, boxes=cells // box, cells=box)
    every = {"rsd": rsd, "redshift": 0.0, "split": ["train"] * layout.nbox, "totals": {}, "inputs": {}}
    along = {"line_of_sight": np.tile([0.0, 0.0, 1.0], (layout.nbox, 1)), "observer": None}
    seen = {"none": {"observer": None}, "plane_parallel": along, "random_radial": {}}[rsd]
    spec = spec_of(layout, **every, **seen, means={"halo_number": MEAN, "halo_mass": MEAN}, fingerprint=Path(url).name)
    made = store_layout.field_layout(spec)
    shards.create(url, made)
    written: dict[str, Any] = {}
    for shard in range(made.nshard):
        shape = (len(made.boxes_of(shard)), *layout.shape)
        number = np.random.default_rng(shard).poisson(MEAN, shape).astype("f4")
        written |= shards.write_boxes(url, made, made.boxes_of(shard), {"halo_number": number, "halo_mass": number})
    shards.publish(url, made, written)
    return url


def measured(job: Job, kind: str) -> dict[str, float]:
    """Bytes that a task needs, as planned and as it was, in this process."""
    CapThreads().setup(None)  # threads, and memory that is kept, as a worker has them
    job.receipts.begin({})
    plan = plan_of(job)
    planned = {"whole": plan.whole_memory, "rows": plan.row_memory}[kind]
    before, began = peak_memory(), time.perf_counter()
    if kind == "whole":
        compute_whole(0, job)
    else:
        job = dataclasses.replace(job, observed=job.observed[:1])  # one of the tiles that GroupNorm is settled by
        if job.observed:
            observe_tile(0, job)
        predict_row(0, job)
    seconds = time.perf_counter() - began
    return {"planned": planned, "process": before, "held": peak_memory() - before, "seconds": seconds}


def apart(kind: str, asked: dict[str, Any]) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "-", "one", "--one", json.dumps({"kind": kind, **asked})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    shutil.rmtree(asked["out"])
    return dict(json.loads(done.stdout))


def whole(folder: Path, asked: argparse.Namespace) -> None:
    """Linear theory of the whole parent."""
    print(f"{'':<26} {'planned':>9} {'held':>9} {'process':>9} {'peak / plan':>12} {'bytes a cell':>13} {'seconds':>8}")
    for rsd, cells in product(asked.rsd, asked.cells):
        url = fields(folder, cells, asked.box, rsd)
        found = apart("whole", {"model": "linear_whole", "fields": url, "out": str(folder / "out")})
        line(f"{rsd} {cells}³", found, f"{found['held'] / cells**3:>13.2f}")


def rows(folder: Path, asked: argparse.Namespace) -> None:
    """Rows of a network's tiles."""
    print(f"{'':<26} {'planned':>9} {'held':>9} {'process':>9} {'peak / plan':>12} {'floats':>13} {'seconds':>8}")
    for norm, depth, width, tile, batch in product(asked.norm, asked.depth, asked.width, asked.tile, asked.batch):
        step = tile // 2
        url = fields(folder, max(batch, 2) * step, step, "none")
        model = str(folder / "model")
        shutil.rmtree(model, ignore_errors=True)
        bundle(model, url, cells=tile, norm=norm, depth=depth, width=width, groups=4, std=asked.std)
        options = {"tile": tile, "overlap": tile - step, "batch": batch, "average": asked.average}
        found = apart("rows", {"model": model, "fields": url, "out": str(folder / "out"), **options})
        floats = found["held"] / (4 * batch * width * tile**3)  # of a cell and channel of width
        line(f"{norm} {depth} {width} {tile}³ × {batch}", found, f"{floats:>13.1f}")


def line(name: str, found: dict[str, float], more: str) -> None:
    """Show what was measured."""
    planned, held, process = (found[n] / 2**20 for n in ("planned", "held", "process"))
    peak = (held + process) / (planned + WORKER_BASE / 2**20)
    print(
        f"{name:<26} {planned:>9.0f} {held:>9.0f} {process:>9.0f} {peak:>12.2f} {more} {found['seconds']:>8.1f}",
        flush=True,
    )


def main() -> None:
    """Measure each, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("kind", choices=["whole", "rows", "one"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, nargs="*", default=[128, 256], help="Along the parent's side.")
    parser.add_argument("--box", type=int, default=64)
    parser.add_argument("--rsd", nargs="*", default=["none", "plane_parallel", "random_radial"])
    parser.add_argument("--norm", nargs="*", default=["batch", "group"])
    parser.add_argument("--depth", type=int, nargs="*", default=[2, 3, 4])
    parser.add_argument("--width", type=int, nargs="*", default=[4, 8, 16])
    parser.add_argument("--tile", type=int, nargs="*", default=[32, 64, 96])
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--average", type=int, default=1)
    parser.add_argument("--std", action="store_true")
    asked = parser.parse_args()
    if asked.kind == "one":
        one = json.loads(asked.one)
        kind = one.pop("kind")
        print(json.dumps(measured(prepare(**one), kind)))
        return
    Path(asked.folder).mkdir(parents=True, exist_ok=True)
    print(f"MiB; the plan counts {WORKER_BASE / 2**20:.0f} for the process")
    {"whole": whole, "rows": rows}[asked.kind](Path(asked.folder), asked)


if __name__ == "__main__":
    main()
