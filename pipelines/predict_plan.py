"""What a prediction will read, make and need, by arithmetic that can be read here; nothing is run for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from distributed import Client

from velfield.pipelines import paint_plan
from velfield.pipelines.cluster import KEPT
from velfield.pipelines.paint_plan import Need, check_need, in_lines, size
from velfield.pipelines.predict_job import Job
from velfield.pipelines.predict_shown import FEATURES
from velfield.pipelines.predict_tasks import blocks_of
from velfield.stores import store
from velfield.theory.analytic import NAMES, WholeSettings, whole_bytes
from velfield.theory.whole import READERS

if TYPE_CHECKING:
    from velfield.network.model import Model

WORKER_BASE = 550 * 2**20  # bytes of a worker that has imported torch and what else the tasks need


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

    def lines(self) -> list[tuple[str, str]]:
        """Names and values, for a person."""
        whole = 1 if self.whole_memory else 0
        kinds = [f"{whole} of linear theory"] if whole else []
        kinds += [f"{self.observed:,} statistics"] if self.observed else []
        kinds += [f"{self.rows:,} rows of tiles"] if self.rows else []
        kinds.append(f"{self.shards:,} shards")
        rows = [
            ("boxes", f"{self.boxes:,} in {self.shards:,} shards, {self.cells:,} cells"),
            ("tasks", f"{whole + self.observed + self.rows + self.shards:,}: {', '.join(kinds)}"),
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
        return rows

    def table(self) -> str:
        """Lines for a person."""
        return in_lines(self.lines())


def both(painting: paint_plan.Plan, prediction: Plan) -> str:
    """The plan of a catalogue's prediction: its painting, what follows, and what both need; lines for a person."""
    rows = []
    for verb, plan in (("paint", painting), ("predict", prediction)):
        rows += [(f"{verb}: {name}", value) for name, value in plan.lines()]
    at_once = painting.store_bytes + max(painting.patch_bytes, prediction.work_bytes + prediction.store_bytes)
    rows.append(("on disk", f"at most {size(at_once)} before compression, {size(prediction.store_bytes)} at the end"))
    needs = (Need(painting.worker_memory, paint_plan.WORKER_BASE), *prediction.needs)
    most = max(sum(need) for need in needs)
    rows.append(("memory of a worker", f"at most {size(most)} with the process"))
    return in_lines(rows)


def plan_of(job: Job, ds: xr.Dataset | None = None) -> Plan:
    """Count what the job reads and writes, and the memory of its largest tasks.

    ``ds`` is the field store where it is not there yet (`velfield.pipelines.predict_catalogue`).
    """
    layout, tiles = job.layout, job.tiling
    per_box = {n: int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for n, v in layout.variables.items()}
    n = layout.variables["velocity"].shape[-1]
    ds = store.open_fields(job.fields, chunks=None) if ds is None else ds
    window = (n + 2 * int(ds.attrs["margin"])) ** 3 * 4  # of one variable of one box
    cells = layout.nbox * n**3
    # what is written, and encoded once more, a variable at a time
    shard = layout.boxes_per_shard * (sum(per_box.values()) + 3 * max(per_box.values()))
    row = read = work = 0
    model, channels = _model(job), 3 * sum(name != "velocity_flag" for name in layout.variables)
    inputs = 1 if model is None else len({store.INPUTS[kind][0] for kind in model.inputs})
    if tiles is not None:
        count, side = len(tiles.starts), tiles.side + 2 * (job.guide_margin - tiles.context)
        wide = {tiles.support(i).stop - tiles.support(i).start for i in range(count)}
        held = 4 * channels * tiles.ngrid * max(wide) ** 2
        columns = 4 * inputs * side**2 * tiles.ngrid
        batch = min(job.batch, count) * (2 * 4 * inputs * side**3 + _network_bytes(model, tiles.side, inputs, channels))
        row = columns + READERS * window + batch + 3 * held
        if job.observed and model is not None:
            row = max(row, READERS * window + _network_bytes(model, model.trained_side, inputs, channels))
        shard += 2 * 4 * channels * n**3 + READERS * 4 * channels * n * max(min(w, n) for w in wide) ** 2
        read = 4 * inputs * side**2 * tiles.ngrid * count**2
        work = sum(blocks_of(tiles, n, i, j, channels)[1] for i in range(count) for j in range(count))
    else:
        read = 4 * inputs * layout.nbox * (n + 2 * job.context) ** 3
        shard += layout.boxes_per_shard * 4 * inputs * (n + 2 * job.context) ** 3
        shard += min(job.batch, layout.boxes_per_shard) * _network_bytes(model, n + 2 * job.context, inputs, channels)
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
        whole_memory=max((KEPT + whole_bytes(how, ds) for how in job.how if isinstance(how, WholeSettings)), default=0),
    )


def check_fits(plan: Plan, client: Client) -> None:
    """Refuse a plan whose tasks do not fit into the cluster's workers."""
    for need in plan.needs:
        check_need(need, client)


def _network_bytes(model: Model | None, side: int, inputs: int, channels: int) -> int:
    """The most bytes that a network holds for a cube of so many cells a side; none without one.

    Its features are of the cells that it pools, a multiple of 2ᵈ; what it is given and gives is copied on its way some
    four times.
    """
    if model is None:
        return 0
    pooled = 2**model.net.config.depth
    features = FEATURES * model.net.config.width * (-(-side // pooled) * pooled) ** 3
    return 4 * (features + 4 * (inputs + 3 * int(model.net.config.guide) + channels) * side**3)


def _model(job: Job) -> Model | None:
    """The network of a job; None of an analytic model."""
    if job.model in NAMES:
        return None
    from velfield.network.model import load_model

    return load_model(job.model, device="cpu")
