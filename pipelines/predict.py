"""The prediction job: a model and a field store in, a velocity store out. A task predicts and writes whole shards."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client

from velfield import analytic, shards, store, store_layout
from velfield.errors import VelfieldError
from velfield.pipelines import lease
from velfield.pipelines.receipts import Receipts, bytes_of
from velfield.pipelines.stages import stage
from velfield.pipelines.tasks import run_tasks
from velfield.progress import Progress, Silent
from velfield.sources import sentences, symmetries_of_boxes


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prediction that is ready to run: the input opened, the model found to fit it."""

    model: str
    fields: str
    out: str
    batch: int
    average: int
    layout: shards.Layout
    fingerprint: str
    differences: Sequence[str]

    @property
    def receipts(self) -> Receipts:
        """What is done so far."""
        return Receipts(out=self.out, fingerprint=self.fingerprint)


def prepare(model: str, fields: str, out: str, *, batch: int = 4, average: int = 1) -> Job:
    """Open the input and the model, and see that they fit.

    Parameters
    ----------
    model : str
        A bundle's URL, ``pretrained``, or one of ``linear``, ``linear_padded``, ``linear_halo``,
        ``linear_halo_padded``, ``wiener``, ``linear_whole``, for which each worker process computes the whole parent
        once.
    fields : str
        A field store's URL.
    out : str
        Where the velocity store will be.
    batch : int
        Boxes that go through a network together.
    average : int
        Orientations of each box whose predictions are averaged, as in `velfield.model.Model.predict`.
    """
    ds = store.open_fields(fields, chunks=None)
    differences: list[str] = []
    if model in analytic.NAMES:
        if average != 1:
            raise VelfieldError(f"only a network is averaged: model={model}, average={average}; leave it out")
        about: dict[str, Any] = {"name": model, **analytic.settings(model, ds).to_dict()}
    else:
        from velfield.model import load_model

        loaded = load_model(model)
        loaded.check(ds)
        about = {"url": model, "weights": loaded.metadata["weights"]["sha256"]}
        if loaded.has_std:
            about |= {"error_bars": True, "calibration": loaded.calibration.to_dict()}
        if average != 1:
            symmetries_of_boxes(ds, average)
            about["average"] = average
        differences = sentences(loaded.differences(ds), "the store")
    identity = about.get("weights", about)  # of a bundle, wherever it lies
    settings: dict[str, Any] = {"schema": store_layout.SCHEMA, "model": identity, "input": store.document_hash(fields)}
    settings |= {name: about[name] for name in ("calibration", "average") if name in about}
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    layout = store_layout.velocity_layout(ds, model=about, source=fields, fingerprint=fingerprint)
    return Job(
        model=model,
        fields=fields,
        out=out,
        batch=batch,
        average=average,
        layout=layout,
        fingerprint=fingerprint,
        differences=differences,
    )


def predict(client: Client, job: Job, progress: Progress | None = None) -> bool:
    """Run the job, or what is left of it. Returns False if the store was finished already."""
    progress = progress or Silent()
    about = {"model": job.model, "fields": job.fields, "fingerprint": job.fingerprint}
    with lease.hold(job.receipts) as held:
        if held is None or not job.receipts.begin(about):
            return False
        shards.create(job.out, job.layout)
        done = {int(name): receipt for name, receipt in job.receipts.all("shards").items()}
        left = [s for s in range(job.layout.nshard) if s not in done]
        before = len(done)
        progress.start("predict", sum(len(job.layout.boxes_of(s)) for s in left), "boxes")
        for shard, done[shard] in run_tasks(client, predict_shard, left, job, name="predict-write"):
            progress.advance(len(job.layout.boxes_of(shard)), nbytes=bytes_of(done[shard], "write"))
        progress.done(f"{len(left)} shards" + (f", {before} were done before" if before else ""))
        held.check()
        shards.publish(job.out, job.layout, {key: e for r in done.values() for key, e in r["objects"].items()})
    job.receipts.clear()
    return True


def predict_shard(shard: int, job: Job) -> dict[str, Any]:
    """Task: predict the boxes of one shard and write it; returns the receipt."""
    if found := job.receipts.find("shards", f"{shard:05d}"):
        return found  # a worker died after it had written the receipt
    boxes = job.layout.boxes_of(shard)
    with stage("read") as read:
        ds = store.open_fields(job.fields, chunks=None)
        if job.model not in analytic.NAMES:
            model = _model(job.model, json.loads(job.layout.attrs["model"])["weights"])
            if model.guide is None:  # a guide may need other boxes: it reads what it needs
                needed = sorted({store.INPUTS[kind][0] for kind in model.inputs})
                ds, within = ds[needed].isel(box=slice(boxes[0], boxes[-1] + 1)).load(), range(len(boxes))
                read.nbytes += ds.nbytes
            else:
                within = boxes
    with stage("predict"):
        if job.model in analytic.NAMES:
            how = analytic.settings(job.model, ds)
            arrays = {"velocity": analytic.velocities(how, ds, boxes)}
        else:
            made = model.predict(ds, batch=job.batch, boxes=within, average=job.average)
            arrays = {name: made[name].values for name in job.layout.variables}
    with stage("write", nbytes=sum(values.nbytes for values in arrays.values())):
        written = shards.write_boxes(job.out, job.layout, boxes, arrays)
    receipt = {"boxes": [boxes[0], boxes[-1]], "objects": written}
    return job.receipts.leave(receipt, "shards", f"{shard:05d}")


@functools.lru_cache(maxsize=2)
def _model(url: str, weights: str) -> Any:
    """A worker loads a model once, and sees that it is still the one that the job began with."""
    import torch

    from velfield.model import load_model

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = load_model(url)
    if model.metadata["weights"]["sha256"] != weights:
        raise VelfieldError(f"the model changed while it was used: model={url}; run the same command again")
    return model
