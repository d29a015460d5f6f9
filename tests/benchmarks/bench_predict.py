"""What the prediction of a whole volume costs, against a plain loop over its boxes, and whether it has seams.

python tests/benchmarks/bench_predict.py FOLDER [--boxes 3] [--cells 60] [--norm group] [--workers 2] [--isolated]

Builds a periodic field store in FOLDER if it is not there: a Gaussian universe with the paper's linear power, halos a
Poisson draw of it with bias 1.5, 0.5 a cell of 5 h⁻¹Mpc, masses scattered about 10¹³ h⁻¹M⊙ (``--boxes 10`` is
600³ cells, 1.7 GB before compression, some 6 GB of memory while it is made). The network has arbitrary weights, which
cost and blend as learnt ones do; ``--model`` takes another. It is timed

- as ``velfield predict`` does it: tiles, workers, work files, store, everything from the first task to the last;
- as a plain loop: ``model.predict`` of one box after the other, in this process with as many threads as there were
  workers, over ``--loop`` boxes, nothing written; a third of them before, a third after, to see what the machine does.

Seams: v(z + 1) − v(z) averaged over sixteenths of the boxes' faces, which leaves what is common to them; its rms at the
places where a tile's weight begins or ends, and at the boxes' borders, over that at places elsewhere that lie alike in
the cells that the network pools: 1 where nothing shows. With
``--isolated`` the boxes are also predicted one by one, which shows what the statistic is where there are seams.

Tiles: ``--windows`` cubes of the parent, each around a corner where eight tiles meet, are shown to the network at once,
with as many cells around them as it reaches and the same statistics; the largest difference of a component from what
the store has there, over the store's largest there. It is that of float32 where the overlap is twice the reach.
"""
# ruff: noqa: T201 - a table for people

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; read when torch is loaded

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from velfield.files import shards
from velfield.files.progress import Terminal
from velfield.geometry.boxes import BoxLayout
from velfield.geometry.tiles import pieces
from velfield.network.model import Model, load_model
from velfield.network.parent_norm import Statistics
from velfield.physics.cosmology import OUTER_RIM
from velfield.pipelines.cluster import connect
from velfield.pipelines.predict import Job, predict, prepare
from velfield.pipelines.predict_network import shown, variables
from velfield.pipelines.predict_plan import plan_of
from velfield.pipelines.stages import peak_memory
from velfield.stores import store, store_layout
from velfield.theory.parent import Parent

sys.path.insert(0, str(Path(__file__).parents[1]))
from arbitrary_bundle import bundle
from small_store import spec_of

CELLSIZE, BIAS, DENSITY, MASS = 5.0, 1.5, 0.5, 1e13
PARTS = 4  # of a face, along each side
WINDOW = 24  # cells along the side of a cube in which tiles are held against the parent shown at once


def density(n: int, seed: int) -> NDArray[np.float32]:
    """Gaussian density contrast (x, y, z), smoothed by a cell."""
    white = np.random.default_rng(seed).standard_normal((n,) * 3, dtype=np.float32)
    modes = scipy.fft.rfftn(white, workers=-1)
    del white
    k = 2 * np.pi * np.fft.fftfreq(n, CELLSIZE)
    kz = 2 * np.pi * np.fft.rfftfreq(n, CELLSIZE)
    tabulated = np.geomspace(1e-4, 5, 4000)
    power = np.sqrt(OUTER_RIM.linear_power(tabulated, 0.0) * np.exp(-((tabulated * CELLSIZE) ** 2)) / CELLSIZE**3)
    for i in range(n):  # a plane at a time: |k| of all modes is not needed at once
        size = np.sqrt(k[i] ** 2 + k[:, None] ** 2 + kz**2)
        modes[i] *= np.interp(size, tabulated, power, left=0).astype(np.float32)
    return np.asarray(scipy.fft.irfftn(modes, s=(n,) * 3, workers=-1, overwrite_x=True), dtype=np.float32)


def build(url: str, boxes: int, cells: int, seed: int) -> None:
    """The field store, a shard at a time."""
    layout = BoxLayout(boxsize=boxes * cells * CELLSIZE, boxes=boxes, cells=cells)
    delta = density(layout.ngrid, seed)
    spec = spec_of(
        layout,
        redshift=0.0,
        split=["train"] * layout.nbox,
        means={"halo_number": DENSITY, "halo_mass": DENSITY * MASS},
        totals={},
        inputs={},
        fingerprint=f"bench-{layout.ngrid}-{seed}",
    )
    made = store_layout.field_layout(spec)
    shards.create(url, made)
    written: dict[str, Any] = {}
    for shard in range(made.nshard):
        numbers, masses = [], []
        for box in made.boxes_of(shard):
            rng = np.random.default_rng([seed, box])
            cut = tuple(slice(first, first + cells) for first in layout.start(box))
            number = rng.poisson(DENSITY * np.clip(1 + BIAS * delta[cut], 0, None)).astype("f4")
            numbers.append(number)
            masses.append((MASS * number * rng.lognormal(-0.3, 0.8, number.shape)).astype("f4"))
        arrays = {"halo_number": np.stack(numbers), "halo_mass": np.stack(masses)}
        written |= shards.write_boxes(url, made, made.boxes_of(shard), arrays)
    shards.publish(url, made, written)


def loop(model: Model, fields: str, boxes: range) -> float:
    """Seconds of a plain loop over boxes."""
    ds = store.open_fields(fields, chunks=None)
    began = time.perf_counter()
    for box in boxes:
        model.predict(ds, boxes=[box])
    return time.perf_counter() - began


def seams(url: str, places: set[int], pooled: int) -> tuple[float, float]:
    """Size of the faces' steps along z at some places over that elsewhere, and its error by the scatter over places.

    A network that pools and doubles leaves a grain of its own: each place is held against those of its kind, which lie
    alike in the ``pooled`` cells that the network pools together.
    """
    ds = store.open_velocity(url, chunks=None)
    boxes, cells = int(ds.attrs["boxes"]), int(ds.attrs["cells"])
    n = boxes * cells
    squares = np.zeros(n)
    for row in range(boxes**2):
        line = ds["velocity"][row * boxes : (row + 1) * boxes].values
        line = np.concatenate(list(line), axis=-1)  # boxes are numbered along z first
        steps = np.diff(line, axis=-1, append=line[..., :1])  # steps[…, z] is that from z to z + 1
        parts = [part.mean((1, 2), dtype=np.float64) for half in np.array_split(steps, PARTS, 1)
                 for part in np.array_split(half, PARTS, 2)]  # fmt: skip
        squares += np.square(parts).sum((0, 1))
    there, kind = np.array([(z + 1) % n in places for z in range(n)]), np.arange(n) % pooled
    relative = np.empty(n)  # 1 on average elsewhere, for each kind
    for k in range(pooled):
        relative[kind == k] = squares[kind == k] / squares[(kind == k) & ~there].mean()
    at, off = relative[there], relative[~there]
    return float(np.sqrt(at.mean())), float(0.5 * off.std() / np.sqrt(len(at)))


def stored(parent: Parent, made: Any, low: list[int]) -> NDArray[np.float32]:
    """The stored velocity (3, x, y, z) in a cube of the parent."""
    n, cells = parent.layout.ngrid, parent.layout.cells
    number = {parent.place(box): box for box in range(parent.layout.nbox)}
    out = np.empty((3, *(WINDOW,) * 3), dtype=np.float32)
    for some in product(*(pieces(first, WINDOW, cells, n, periodic=True) for first in low)):
        cut = {d: slice(p.first, p.end) for d, p in zip("xyz", some, strict=True)}
        into = tuple(slice(p.at, p.at + p.end - p.first) for p in some)
        box = number[some[0].box, some[1].box, some[2].box]
        out[(slice(None), *into)] = made["velocity"].isel(cut | {"box": box}).values
    return out


def differences(job: Job, count: int) -> list[float]:
    """Largest difference from the parent shown at once, over the largest velocity, in cubes where tiles meet."""
    tiles, model = job.tiling, load_model(job.model)
    assert tiles is not None
    fields, made = store.open_fields(job.fields, chunks=None), store.open_velocity(job.out, chunks=None)
    parent, step = Parent(fields), 2**model.net.config.depth
    needed = variables(job, model)
    if job.observed:
        side = model.trained_side
        seen = []
        for start in job.observed:
            tile = {v: parent.window(v, start, (side,) * 3)[None] for v in needed}
            inputs, given = shown(job, model, fields, tile, [start])
            seen.append(model.statistics(inputs, **given))
        model = model.with_statistics(Statistics.of(seen))
    around = -(-model.reach // step) * step
    found = []
    for corner in np.random.default_rng(1).choice(tiles.starts, (count, 3)):
        low = [int(c) + tiles.overlap // 2 - WINDOW // 2 for c in corner]  # in the middle of what two tiles share
        low = [c - (c - tiles.starts[0]) % step for c in low]  # pooled as in the tiles
        start = [c - around for c in low]
        window = {v: parent.window(v, start, (WINDOW + 2 * around,) * 3)[None] for v in needed}
        inputs, given = shown(job, model, fields, window, [start])
        at_once = model.predict_arrays(inputs, 1, **given)[0][0]
        cut = slice(around, around + WINDOW)
        there = stored(parent, made, low)
        found.append(float(np.abs(at_once[:, cut, cut, cut] - there).max() / np.abs(there).max()))
    return found


def borders(job: Job) -> dict[str, set[int]]:
    """Cells before which a tile's weight begins or ends, and before which a box begins."""
    n = job.layout.attrs["boxes"] * job.layout.attrs["cells"]
    found = {"boxes' borders": set(range(0, n, int(job.layout.attrs["cells"])))}
    if job.tiling is not None:
        tiles = job.tiling
        cuts = [tiles.support(t) for t in range(len(tiles.starts))]
        ends = [(s + c.start, s + c.stop) for s, c in zip(tiles.starts, cuts, strict=True)]
        found["tiles' borders"] = {z % n for pair in ends for z in pair}
    return found


def run(client: Any, job: Job) -> float:
    """Seconds of a prediction."""
    began = time.perf_counter()
    with Terminal() as progress:
        if not predict(client, job, progress):
            raise SystemExit(f"already there: {job.out}; remove it to time it again")
    return time.perf_counter() - began


def main() -> None:
    """Build what is missing, time both, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--boxes", type=int, default=3)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--model", help="Of a bundle, instead of one with arbitrary weights.")
    parser.add_argument("--norm", default="group")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--loop", type=int, default=12, help="Boxes of the plain loop.")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--isolated", action="store_true")
    asked = parser.parse_args()
    folder = Path(asked.folder)
    fields = str(folder / f"fields-{asked.boxes}x{asked.cells}")
    if not shards.published(fields):
        shutil.rmtree(fields, ignore_errors=True)
        build(fields, asked.boxes, asked.cells, seed=1)
    url = asked.model
    if url is None:
        url = str(folder / f"model-{asked.norm}-{asked.width}-{asked.depth}-{asked.cells}")
        if not (Path(url) / "metadata.json").exists():
            shape = {"norm": asked.norm, "width": asked.width, "depth": asked.depth, "groups": 4}
            bundle(url, fields, cells=asked.cells, **shape)
    torch.set_num_threads(asked.workers)
    model = load_model(url)
    third = max(1, asked.loop // 3)
    loop(model, fields, range(1))  # what is made once
    before = loop(model, fields, range(third))
    rows: dict[str, Any] = {}
    with connect(workers=asked.workers, quiet=True) as client:
        for label, isolated in [("tiles", False), ("box by box", True)][: 1 + asked.isolated]:
            out = folder / f"velocity-{label.replace(' ', '-')}"
            shutil.rmtree(out, ignore_errors=True)
            tiling = {} if isolated else {"tile": asked.tile, "overlap": asked.overlap}
            job = prepare(url, fields, str(out), isolated=isolated, **tiling)
            print(f"{label}:\n{plan_of(job).table()}")
            seconds = run(client, job)
            cells = plan_of(job).cells
            peak = max(client.run(peak_memory).values())
            pooled = 2**model.net.config.depth
            steps = {where: seams(str(out), places, pooled) for where, places in borders(job).items()}
            overhead = plan_of(job).overhead
            rows[label] = {"seconds": seconds, "cells": cells, "overhead": overhead, "peak": peak, "seams": steps}
            if job.tiling is not None and not job.how:
                rows[label]["differences"] = differences(job, asked.windows)
    after = loop(model, fields, range(third, 2 * third))
    per_box = (before + after) / (2 * third)
    plain = asked.cells**3 / per_box
    print(f"plain loop: {plain:,.0f} cells/s ({third / before:.2f} boxes/s before, {third / after:.2f} after)")
    for label, row in rows.items():
        rate = row["cells"] / row["seconds"]
        print(
            f"{label}: {row['cells']:,} cells in {row['seconds']:.1f} s, {rate:,.0f} cells/s: {rate / plain:.2f} × the "
            f"plain loop; {rate * row['overhead'] / plain:.2f} × counting each tile's cells "
            f"({row['overhead']:.2f} × as many); peak {row['peak'] / 2**20:.0f} MiB a worker"
        )
        for where, (ratio, error) in row["seams"].items():
            print(f"  differences across {where}: {ratio:.4f} ± {error:.4f} × those elsewhere")
        if "differences" in row:
            largest = max(row["differences"])
            print(f"  where tiles meet, {largest:.1e} of the largest velocity from the parent shown at once")
    (folder / "bench_predict.json").write_text(json.dumps({"plain": plain, **rows}, indent=2))


if __name__ == "__main__":
    main()
