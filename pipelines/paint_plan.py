"""What a painting job will read, make and need, by arithmetic that can be read here; nothing is run for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from distributed import Client

from velfield.catalogues.catalogue import Catalogue
from velfield.catalogues.table_catalogue import PART
from velfield.errors import VelfieldError
from velfield.files import shards
from velfield.painting import patches
from velfield.painting.clouds import CELLS_PER_AXIS
from velfield.pipelines.paint_job import FIELDS, HELD_BYTES, ROWS, Job, painted_of, reads, spec_of
from velfield.pipelines.patch_files import AHEAD
from velfield.stores import store_layout

SPREAD_OUT = 16  # cells a tracer from which on a plan counts with sorting; it happens later, at `patches.SPARSE`
WORKER_BASE = 350 * 2**20  # bytes of a worker that has done nothing but import what the tasks need


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a job will read, make and need; `plan_of` shows the arithmetic."""

    boxes: int
    shards: int
    blocks: int
    tasks: int
    rows: int
    bytes_to_read: int
    patch_bytes: int
    store_bytes: int
    block_memory: int
    shard_memory: int

    @property
    def worker_memory(self) -> int:
        """The most that one task holds at a time [bytes]."""
        return max(self.block_memory, self.shard_memory)

    def lines(self) -> list[tuple[str, str]]:
        """Names and values, for a person."""
        return [
            ("boxes", f"{self.boxes:,} in {self.shards:,} shards"),
            ("tasks", f"{self.tasks:,}: {self.blocks:,} blocks to read, {self.shards:,} shards to write"),
            ("to read", f"{size(self.bytes_to_read)}, {self.rows:,} rows"),
            ("work folder", f"at most {size(self.patch_bytes)}, removed at the end"),
            ("store", f"{size(self.store_bytes)} before compression"),
            ("memory per worker", f"{size(self.worker_memory)} a task, {size(WORKER_BASE)} for the process"),
        ]

    def table(self) -> str:
        """Lines for a person."""
        return in_lines(self.lines())


def in_lines(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values below each other, for a person."""
    width = max(18, *(len(name) for name, _ in rows))
    return "\n".join(f"{name:<{width}} {value}" for name, value in rows)


def plan_of(job: Job) -> Plan:
    """Count what the job reads and writes, and the memory of its largest tasks."""
    boxes, cats = job.scene.boxes, job.catalogues
    layout = store_layout.field_layout(spec_of(job, dict.fromkeys(painted_of(job), 1.0), {}))
    return Plan(
        boxes=boxes.nbox,
        shards=layout.nshard,
        blocks=len(job.blocks),
        tasks=len(job.blocks) + layout.nshard,
        rows=sum(len(cat) for cat in cats.values()),
        bytes_to_read=sum(_bytes_to_read(cat, job) for cat in cats.values()),
        patch_bytes=sum(_patch_bytes(cat, job) for cat in cats.values()),
        store_bytes=sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in layout.variables.values())
        * boxes.nbox,
        block_memory=max(_block_memory(cat, job) for cat in cats.values()),
        shard_memory=_shard_memory(job, layout),
    )


def _block_memory(cat: Catalogue, job: Job) -> int:
    """The most bytes that a block task holds: it depends on the block's extent, not on its number of rows.

    A range of rows in hand and the next; in redshift space the places of a part of it before and after the shift,
    float64; a canvas and the one that replaces it when it grows; patches held until they are written, as arrays and as
    a file.
    """
    shifted = cat.kind == "halos" and job.scene.sightlines.moves
    rows = min(PART, max((block.nrows for block in cat.blocks), default=0))  # that are painted at a time
    ranges = cat.chunk_bytes(ROWS, **reads(cat, job.scene))
    places = rows * 2 * 24 * shifted
    canvas = 2 * min(patches.CANVAS_BYTES, 8 * FIELDS[cat.kind] * _canvas_cells(cat, job))
    cloud = CELLS_PER_AXIS[job.config.assignment] ** 3
    # sorted by cell: number of the cell, weight, values, and their order, of each cell of each tracer's cloud
    spread = rows * cloud * 8 * (4 + 2 * FIELDS[cat.kind]) if _canvas_cells(cat, job) > SPREAD_OUT * rows else 0
    held = 3 * min(HELD_BYTES + rows * cloud * 8 * (1 + FIELDS[cat.kind]), _patch_bytes(cat, job))
    return int(ranges + places + max(canvas, spread) + held)


def _shard_memory(job: Job, layout: shards.Layout) -> int:
    """The most bytes that a shard task holds: sums of its boxes, what is stored of them, and that encoded."""
    window = int(np.prod(job.scene.boxes.shape))
    sums = 8 * window * max(FIELDS[kind] for kind in job.catalogues)
    stored = sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in layout.variables.values())
    # a variable at a time is encoded: chunks, shard, and the bytes that are hashed
    encoded = 3 * max(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in layout.variables.values())
    one_box = 2 * sums + 3 * 8 * window  # its sums split up, and velocities in float64 while empty cells are filled
    files = 2 * AHEAD * 8 * (1 + max(FIELDS[kind] for kind in job.catalogues)) * window
    return layout.boxes_per_shard * (sums + stored + encoded) + one_box + files


def _canvas_cells(cat: Catalogue, job: Job) -> int:
    """Cells of the canvas of the largest block: its extent, the reach of shifts and clouds, and some room."""
    boxes = job.scene.boxes
    cells = np.full(3, boxes.ngrid, dtype=float)
    extents = [np.subtract(b.upper, b.lower) for b in cat.blocks if b.lower is not None and b.upper is not None]
    if cat.blocks and len(extents) == len(cat.blocks):
        sides = np.array(extents).max(0)
        reach = job.config.max_shift if cat.kind == "halos" and job.scene.sightlines.moves else 0.0
        around = 2 * (reach / boxes.cellsize + CELLS_PER_AXIS[job.config.assignment] // 2 + patches.ROOM + 1)
        cells = np.minimum(cells, np.ceil(sides / boxes.cellsize + around))
    if not job.scene.sightlines.shared and cat.kind == "halos":
        cells = np.minimum(cells, boxes.shape)
    return int(np.prod(cells))


def _patch_bytes(cat: Catalogue, job: Job) -> int:
    """The most bytes of patches that lie in the work folder, all blocks together: no more cells than tracers touch."""
    boxes, blocks = job.scene.boxes, max(1, len(cat.blocks))
    in_windows = (boxes.shape[0] / boxes.cells) ** 3  # boxes that a cell belongs to
    cells = min(len(cat) * CELLS_PER_AXIS[job.config.assignment] ** 3, blocks * _canvas_cells(cat, job))
    return int(cells * in_windows * 8 * (1 + FIELDS[cat.kind]))


def check_fits(plan: Plan, client: Client) -> None:
    """Refuse a plan whose tasks do not fit into the cluster's workers."""
    check_need(Need(plan.worker_memory, WORKER_BASE), client)


class Need(NamedTuple):
    """Bytes that a task holds, and that its worker's process has before."""

    task: int
    base: int


def check_need(need: Need, client: Client) -> None:
    """Refuse a task that does not fit into a thread's share of the cluster's workers."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] // worker["nthreads"] for worker in workers if worker["memory_limit"]]
    if limits and min(limits) < sum(need):
        raise VelfieldError(
            f"a task does not fit into a worker: needed={size(sum(need))}, "
            f"a thread's share={size(min(limits))}; start fewer --workers or larger ones"
        )


def _bytes_to_read(cat: Catalogue, job: Job) -> int:
    return cat.stored_bytes(cat.tracer_columns(**reads(cat, job.scene)))


def size(nbytes: float) -> str:
    """Bytes, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.3g} TiB"
