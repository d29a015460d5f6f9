"""The prediction job: a model and a field store in, a velocity store out (`velfield.pipelines.predict_tasks`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed import Client

from velfield.files import shards
from velfield.files.progress import Progress, Silent
from velfield.pipelines import lease
from velfield.pipelines.predict_job import Job, prepare, receipts_name
from velfield.pipelines.predict_network import observe_tile
from velfield.pipelines.predict_tasks import blend_shard, compute_whole, predict_row, predict_shard
from velfield.pipelines.receipts import bytes_of
from velfield.pipelines.tasks import run_tasks

__all__ = ["Job", "predict", "prepare"]


def predict(client: Client, job: Job, progress: Progress | None = None) -> bool:
    """Run the job, or what is left of it. Returns False if the store was finished already."""
    progress = progress or Silent()
    about = {"model": job.model, "fields": job.fields, "fingerprint": job.fingerprint}
    with lease.hold(job.receipts) as held:
        if held is None or not job.receipts.begin(about):
            return False
        shards.create(job.out, job.layout)
        if job.takes_whole:
            _run(client, job, progress, "whole", compute_whole, ["velocity"], "linear-whole", "linear theory", 1)
        if job.observed:
            names = [receipts_name(tile) for tile in range(len(job.observed))]
            _run(client, job, progress, "norm", observe_tile, names, "observe-tiles", "statistics", 1)
        if job.tiling is not None:
            names = [receipts_name(row) for row in range(job.rows)]
            along = len(job.tiling.starts)
            _run(client, job, progress, "rows", predict_row, names, "predict-tiles", "predict tiles", along)
        written = _run_shards(client, job, progress)
        held.check()
        shards.publish(job.out, job.layout, written)
    job.receipts.clear()
    return True


def _run(
    client: Client,
    job: Job,
    progress: Progress,
    kind: str,
    task: Callable[..., Any],
    names: list[str],
    name: str,
    label: str,
    each: int,
) -> None:
    """Run the tasks of one kind that have left no receipt, each ``each`` tiles."""
    done = job.receipts.all(kind)
    left = [number for number, receipt in enumerate(names) if receipt not in done]
    progress.start(label, len(names) * each, "volume" if kind == "whole" else "tiles", before=len(done) * each)
    resource = None if kind == "whole" else job.resource
    for _, receipt in run_tasks(client, task, left, job, name=name, resource=resource):
        progress.advance(each, nbytes=bytes_of(receipt, "write"))
    progress.done(f"{len(done) * each} were done before" if done else "")


def _run_shards(client: Client, job: Job, progress: Progress) -> dict[str, Any]:
    """Write the shards that are not written yet; returns size and hash of the objects of all."""
    done = {int(name): receipt for name, receipt in job.receipts.all("shards").items()}
    left = [s for s in range(job.layout.nshard) if s not in done]
    before = len(done)
    blend = job.tiling is not None
    task, name = (blend_shard, "blend-write") if blend else (predict_shard, "predict-write")
    progress.start("blend tiles" if blend else "predict", sum(len(job.layout.boxes_of(s)) for s in left), "boxes")
    resource = None if blend or job.how else job.resource
    for shard, done[shard] in run_tasks(client, task, left, job, name=name, resource=resource):
        progress.advance(len(job.layout.boxes_of(shard)), nbytes=bytes_of(done[shard], "write"))
    progress.done(f"{len(left)} shards" + (f", {before} were done before" if before else ""))
    return {key: entry for receipt in done.values() for key, entry in receipt["objects"].items()}
