"""The prediction job: a model and a field store in, a velocity store out (`velfield.pipelines.predict_tasks`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from distributed import Client

from velfield.files import shards
from velfield.files.progress import Progress, Silent
from velfield.physics.plausible import VelocitySums
from velfield.pipelines import lease
from velfield.pipelines.predict_job import Job, prepare, receipts_name
from velfield.pipelines.predict_network import fields_of, observe_tile
from velfield.pipelines.predict_tasks import (
    blend_shard,
    compute_whole,
    flag_shard,
    look_at_shard,
    predict_row,
    predict_shard,
)
from velfield.pipelines.receipts import bytes_of
from velfield.pipelines.tasks import run_tasks
from velfield.stores import store
from velfield.theory import plausible
from velfield.theory.plausible import Seen, Verdict

__all__ = ["Job", "predict", "prepare", "remarks"]


def predict(client: Client, job: Job, progress: Progress | None = None) -> bool:
    """Run the job, or what is left of it. Returns False if the store was finished already."""
    progress = progress or Silent()
    about = {"model": job.model, "fields": job.fields, "fingerprint": job.fingerprint}
    with lease.hold(job.receipts) as held:
        if held is None or not job.receipts.begin(about):
            return False
        shards.create(job.out, job.layout)
        looked = _look(client, job, progress)
        if job.takes_whole:
            _run(client, job, progress, "whole", compute_whole, ["velocity"], "linear-whole", "linear theory", 1)
        if job.observed:
            names = [receipts_name(tile) for tile in range(len(job.observed))]
            _run(client, job, progress, "norm", observe_tile, names, "observe-tiles", "statistics", 1)
        if job.tiling is not None:
            names = [receipts_name(row) for row in range(job.rows)]
            along = len(job.tiling.starts)
            _run(client, job, progress, "rows", predict_row, names, "predict-tiles", "predict tiles", along)
        layout, objects = _judged(client, job, progress, looked, _run_shards(client, job, progress))
        held.check()
        shards.publish(job.out, layout, objects)
    job.receipts.clear()
    return True


def remarks(out: str) -> list[str]:
    """What is worth knowing of a finished prediction: what was found in its input, and whether it is implausible."""
    attrs = store.attributes(out)
    found = plausible.notes_of(json.loads(attrs.get("checks", "{}")))
    why = attrs.get("implausible")
    return found if why is None else [*found, f"accepted as implausible, every cell is flagged: {why}"]


def _look(client: Client, job: Job, progress: Progress) -> Verdict:
    """Look at the input, and refuse one that cannot be right."""
    done = job.receipts.all("looks")
    names = [receipts_name(shard) for shard in range(job.layout.nshard)]
    left = [shard for shard, name in enumerate(names) if name not in done]
    progress.start("look at the input", sum(len(job.layout.boxes_of(s)) for s in left), "boxes")
    for shard, done[names[shard]] in run_tasks(client, look_at_shard, left, job, name="look-input"):
        progress.advance(len(job.layout.boxes_of(shard)))
    progress.done()
    verdict = plausible.judge_input(fields_of(job), job.expected, Seen.total(done[name] for name in names))
    plausible.refuse(verdict.reason, job.accept)
    return verdict


def _judged(
    client: Client, job: Job, progress: Progress, looked: Verdict, written: dict[int, Any]
) -> tuple[shards.Layout, dict[str, Any]]:
    """Refuse velocities that cannot be right, or flag them; the layout with what was found, and all objects' hashes."""
    sums = VelocitySums.total([VelocitySums.from_dict(written[shard]["sums"]) for shard in sorted(written)])
    made = plausible.judge_velocity(fields_of(job), sums)
    plausible.refuse(made.reason, job.accept)
    receipts = list(written.values())
    attrs = dict(job.layout.attrs) | plausible.attributes(looked, made)
    if looked.reason or made.reason:
        done = job.receipts.all("flagged")
        left = [shard for shard in range(job.layout.nshard) if receipts_name(shard) not in done]
        progress.start("flag", len(left), "shards")
        for _, receipt in run_tasks(client, flag_shard, left, job, name="flag-shards"):
            receipts.append(receipt)
            progress.advance()
        progress.done()
        receipts += done.values()
    objects = {key: entry for receipt in receipts for key, entry in receipt["objects"].items()}
    return replace(job.layout, attrs=attrs), objects


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


def _run_shards(client: Client, job: Job, progress: Progress) -> dict[int, Any]:
    """Write the shards that are not written yet; returns the receipts of all."""
    done = {int(name): receipt for name, receipt in job.receipts.all("shards").items() if "sums" in receipt}
    left = [s for s in range(job.layout.nshard) if s not in done]
    before = len(done)
    blend = job.tiling is not None
    task, name = (blend_shard, "blend-write") if blend else (predict_shard, "predict-write")
    progress.start("blend tiles" if blend else "predict", sum(len(job.layout.boxes_of(s)) for s in left), "boxes")
    resource = None if blend or job.how else job.resource
    for shard, done[shard] in run_tasks(client, task, left, job, name=name, resource=resource):
        progress.advance(len(job.layout.boxes_of(shard)), nbytes=bytes_of(done[shard], "write"))
    progress.done(f"{len(left)} shards" + (f", {before} were done before" if before else ""))
    return done
