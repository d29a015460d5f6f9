"""What a prediction will read, make and need, by arithmetic that can be read here; nothing is run for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from distributed import Client

from velfield.pipelines.paint_plan import Need, check_need, size
from velfield.pipelines.predict_job import Job
from velfield.pipelines.predict_tasks import blocks_of
from velfield.stores import store
from velfield.theory.whole import READERS

WORKER_BASE = 550 * 2**20  # bytes of a worker that has imported torch and what else the tasks need
WHOLE_CELL = 62  # bytes a cell of linear theory on the whole parent, while it is made (`velfield.theory.analytic`)
FEATURES = 26  # floats a cell and channel of width that a network holds while it predicts: docs/prediction.md


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a job will read, make and need; `plan_of` shows the arithmetic."""

    boxes: int
    shards: int
    cells: int
    tiles: int
    side: int
    overlap: int
    overhead: float
    observed: int
    rows: int
    bytes_to_read: int
    work_bytes: int
    store_bytes: int
    row_memory: int
    shard_memory: int
    whole_memory: int

    @property
    def needs(self) -> tuple[Need, ...]:
        """The most bytes that a task of each kind holds, and the worker's own."""
        return tuple(
            Need(nbytes, WORKER_BASE) for nbytes in (self.row_memory, self.shard_memory, self.whole_memory) if nbytes
        )

    def table(self) -> str:
        """Lines for a person."""
        whole = 1 if self.whole_memory else 0
        tasks = f"{whole + self.observed + self.rows + self.shards:,}: "
        tasks += f"{self.observed:,} statistics, " if self.observed else ""
        rows = [
            ("boxes", f"{self.boxes:,} in {self.shards:,} shards, {self.cells:,} cells"),
            ("tasks", f"{tasks}{self.rows:,} rows of tiles, {self.shards:,} shards"),
        ]
        if self.tiles:
            tiles = f"{self.tiles:,} of {self.side}³ cells, neighbours share {self.overlap}"
            rows.append(("tiles", f"{tiles}; {self.overhead:.3g} × the cells of the boxes"))
        rows.append(("to read", f"{size(self.bytes_to_read)} before compression"))
        if self.work_bytes:
            rows.append(("work folder", f"{size(self.work_bytes)}, removed at the end"))
        rows.append(("store", f"{size(self.store_bytes)} before compression"))
        parts = [f"{size(self.row_memory)} a row"] if self.row_memory else []
        parts.append(f"{size(self.shard_memory)} a shard")
        if self.whole_memory:
            parts.append(f"{size(self.whole_memory)} the one of linear theory")
        rows.append(("memory per worker", f"{', '.join(parts)}; {size(WORKER_BASE)} for the process"))
        return "\n".join(f"{name:<18} {value}" for name, value in rows)


def plan_of(job: Job) -> Plan:
    """Count what the job reads and writes, and the memory of its largest tasks."""
    layout, tiles = job.layout, job.tiling
    per_box = {n: int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for n, v in layout.variables.items()}
    n = layout.variables["velocity"].shape[-1]
    ds = store.open_fields(job.fields, chunks=None)
    window = (n + 2 * int(ds.attrs["margin"])) ** 3 * 4  # of one variable of one box
    cells = layout.nbox * n**3
    # what is written, and encoded once more, a variable at a time
    shard = layout.boxes_per_shard * (sum(per_box.values()) + 3 * max(per_box.values()))
    row = read = work = 0
    inputs, width, channels = _network(job)
    if tiles is not None:
        count, side = len(tiles.starts), tiles.side + 2 * (job.guide_margin - tiles.context)
        wide = {tiles.support(i).stop - tiles.support(i).start for i in range(count)}
        held = 4 * channels * tiles.ngrid * max(wide) ** 2
        columns = 4 * inputs * side**2 * tiles.ngrid
        batch = 4 * job.batch * (2 * inputs * side**3 + (FEATURES * width + 2 * (inputs + 3)) * tiles.side**3)
        row = columns + READERS * window + batch + 3 * held
        shard += 2 * 4 * channels * n**3 + READERS * 4 * channels * n * max(min(w, n) for w in wide) ** 2
        read = 4 * inputs * side**2 * tiles.ngrid * count**2
        work = sum(blocks_of(tiles, n, i, j, channels)[1] for i in range(count) for j in range(count))
    else:
        read = 4 * inputs * layout.nbox * (n + 2 * job.context) ** 3
        shard += layout.boxes_per_shard * 4 * inputs * (n + 2 * job.context) ** 3
        shard += 4 * job.batch * FEATURES * width * (n + 2 * job.context) ** 3
    return Plan(
        boxes=layout.nbox,
        shards=layout.nshard,
        cells=cells,
        tiles=tiles.count if tiles else 0,
        side=tiles.side if tiles else 0,
        overlap=tiles.overlap if tiles else 0,
        overhead=tiles.overhead if tiles else 1.0,
        observed=len(job.observed),
        rows=job.rows,
        bytes_to_read=read + (4 * cells * len(job.how) if job.takes_whole else 0),
        work_bytes=work + (12 * cells * len(job.how) if job.takes_whole else 0),
        store_bytes=sum(per_box.values()) * layout.nbox,
        row_memory=row,
        shard_memory=shard,
        whole_memory=WHOLE_CELL * cells if job.takes_whole else 0,
    )


def check_fits(plan: Plan, client: Client) -> None:
    """Refuse a plan whose tasks do not fit into the cluster's workers."""
    for need in plan.needs:
        check_need(need, client)


def _network(job: Job) -> tuple[int, int, int]:
    """Variables that are read, the network's width, and channels of what is written."""
    channels = 3 * sum(name != "velocity_flag" for name in job.layout.variables)
    if job.how and job.tiling is None:  # an analytic model
        return 1, 0, channels
    from velfield.network.model import load_model

    model = load_model(job.model, device="cpu")
    return len({store.INPUTS[kind][0] for kind in model.inputs}), model.net.config.width, channels
