"""A network as the tasks of a prediction use it: loaded once a worker, shown tiles of a parent, its statistics settled.

GroupNorm's mean and variance over a whole parent are those of tiles of the training's side spread over it, each a task
that leaves them in its receipt (`velfield.network.parent_norm`).
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from velfield.errors import DamagedError, VelfieldError
from velfield.files import shards, storage
from velfield.pipelines.predict_job import Job, receipts_name
from velfield.pipelines.receipts import Receipts
from velfield.pipelines.stages import stage
from velfield.stores import store
from velfield.stores.sources import symmetries_of_boxes
from velfield.theory.parent import Corner, Parent, tiles_as_boxes, wrapped


def observe_tile(number: int, job: Job) -> dict[str, Any]:
    """Task: what the network's GroupNorm layers see of one tile of the parent."""
    if found := job.receipts.find("norm", receipts_name(number)):
        return found
    assert job.tiling is not None
    model = bare(job)
    ds = fields_of(job)
    around = job.guide_margin - job.tiling.context
    start = [first - around for first in job.observed[number]]
    side = model.trained_side + 2 * around
    with stage("read") as read:
        parent = Parent(ds)
        windows = {v: parent.window(v, start, (side,) * 3)[None] for v in variables(job, model)}
        read.nbytes += sum(values.nbytes for values in windows.values())
    with stage("predict"):
        inputs, given = shown(job, model, ds, windows, [start])
        statistics = model.statistics(inputs, 1, symmetries_of_boxes(ds, job.average), **given)
    return job.receipts.leave(statistics.to_dict(), "norm", receipts_name(number))


def load(job: Job) -> Any:
    """The model of a job, as this worker has it: with the job's error bars, of a whole parent with its statistics."""
    tiles = len(job.observed)
    model = _settled(job.model, _weights(job), job.receipts, tiles) if tiles else bare(job)
    if not model.has_std:
        return model
    from velfield.network.error_bars import Calibration

    return model.with_calibration(Calibration.from_dict(json.loads(job.layout.attrs["model"])["calibration"]))


def bare(job: Job) -> Any:
    """The model of a job without the parent's statistics."""
    return _model(job.model, _weights(job))


def variables(job: Job, model: Any) -> list[str]:
    """The store's variables that the network and its guide are shown."""
    needed = {store.INPUTS[kind][0] for kind in model.inputs}
    if not job.takes_whole:
        needed |= {how.variable for how in job.how}
    return sorted(needed)


def shown(
    job: Job, model: Any, ds: xr.Dataset, windows: dict[str, NDArray[np.float32]], starts: Sequence[Corner]
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Tiles as the network takes them: inputs (tile, channel, x, y, z), and with them its guide and condition.

    ``windows`` are by variable the tiles' cells (tile, x, y, z), and ``starts`` the first cells of these in the parent,
    both with what of the surroundings a guide sees.
    """
    assert job.tiling is not None
    around = job.guide_margin - job.tiling.context
    side = next(iter(windows.values())).shape[-1] - 2 * around
    boxes = tiles_as_boxes(ds, windows, starts, margin=job.guide_margin)
    seen = dict.fromkeys("xyz", slice(around, around + side))
    inputs = np.stack([boxes.velfield.input(kind).isel(seen).values for kind in model.inputs], axis=1)
    guide = None
    if job.takes_whole:
        guide = np.stack([whole_of(job, start, side) for start in starts])
    elif job.how:
        guide = model.guide.velocities(boxes, range(len(starts)), job.tiling.context, job.how)
    return inputs, {"guide": guide, "condition": model.condition(ds)}


def fields_of(job: Job) -> xr.Dataset:
    """The input, which must still be the one that the job began with."""
    ds = store.open_fields(job.fields, chunks=None)
    if ds.attrs["fingerprint"] != job.layout.attrs["input_fingerprint"]:
        raise VelfieldError(f"the input changed while it was used: fields={job.fields}; run the same command again")
    return ds


def whole_of(job: Job, start: Corner, side: int) -> NDArray[np.float32]:
    """Linear theory of the whole parent (channel, x, y, z) in a cube of it from ``start`` on."""
    array = zarr.open_array(shards.zarr_store(whole_url(job)), mode="r", zarr_format=3)
    velocity = wrapped(array, start, (side,) * 3)
    if not np.isfinite(velocity).all():  # a chunk that is not there reads as NaN
        raise DamagedError(
            f"the parent's linear velocity has lost a part: array={whole_url(job)}, from={tuple(start)}, side={side}; "
            "remove the unfinished store, then run the same command again"
        )
    return velocity


def whole_url(job: Job) -> str:
    """Where it lies."""
    return storage.join(job.receipts.work, "whole", "array")


def _weights(job: Job) -> str:
    return str(json.loads(job.layout.attrs["model"])["weights"])


@functools.lru_cache(maxsize=2)
def _model(url: str, weights: str) -> Any:
    """A worker loads a model once, and sees that it is still the one that the job began with."""
    import torch

    from velfield.network.model import load_model

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    model = load_model(url)
    if model.metadata["weights"]["sha256"] != weights:
        raise VelfieldError(f"the model changed while it was used: model={url}; run the same command again")
    return model


@functools.lru_cache(maxsize=2)
def _settled(url: str, weights: str, receipts: Receipts, tiles: int) -> Any:
    from velfield.network.parent_norm import Statistics

    found = [receipts.find("norm", receipts_name(number)) for number in range(tiles)]
    there = [Statistics.from_dict(receipt) for receipt in found if receipt is not None]
    if len(there) < tiles:
        raise VelfieldError(
            f"statistics of the parent are missing: tiles={tiles - len(there)} of {tiles}, folder={receipts.work}; "
            "run the same command again"
        )
    return _model(url, weights).with_statistics(Statistics.of(there))
