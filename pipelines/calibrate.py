"""The calibration of a bundle's error bars over whole parents, on universes that its training did not see.

Each store is predicted as `velfield predict` does it, with the error bars of boxes by themselves, and one factor on
these is found on the errors of all stores together, each cell with the same weight (`velfield.learning.validation`). A
factor alone: as error bars of tiles are averaged with weights, it is exact, and docs/network.md has what it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from velfield.accuracy.calibration import SHARES, half_width
from velfield.analysis.judged import Test
from velfield.analysis.pieces import truth_of
from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, shipped, storage
from velfield.files.progress import Progress, Silent
from velfield.learning.validation import KEPT, calibrate
from velfield.network import bundle
from velfield.network.error_bars import WholeCalibration
from velfield.network.model import Model, load_model
from velfield.pipelines.predict import predict
from velfield.pipelines.predict_job import Job, prepare
from velfield.pipelines.predict_shown import shown_as, surrounded
from velfield.stores import store
from velfield.theory.whole import check_one_parent

WORK = ".calibrate"  # beneath OUT, while it is made


@dataclass(frozen=True, kw_only=True)
class Calibrating:
    """A calibration that is ready to be made.

    Parameters
    ----------
    model, out : str
        The bundle, and where it will be with its calibration.
    jobs : tuple of Job
        A prediction of each field store, with the error bars of boxes by themselves.
    done : bool
        Whether what is asked for is there.
    notes : tuple of str
        What is worth knowing.
    """

    model: str
    out: str
    jobs: tuple[Job, ...]
    done: bool
    notes: tuple[str, ...]


def settle(model: str, fields: Sequence[str], out: str) -> Calibrating:
    """Open the bundle and the stores, and refuse what cannot be calibrated, or not honestly."""
    shipped.refuse_as_target(out)
    loaded = load_model(model, device="cpu")
    if not loaded.has_std:
        raise VelfieldError(f"the model gives no error bars: model={model}; train it with --std")
    jobs = tuple(_job(loaded, model, url, out, number) for number, url in enumerate(fields))
    shown = {tuple(_shown(job).items()) for job in jobs}
    if len(shown) > 1:
        raise VelfieldError(
            f"the stores are shown in different tiles: tiles={' and '.join(str(dict(one)) for one in sorted(shown))}; "
            "calibrate on parents of the same kind"
        )
    tested = {parent for one in loaded.metadata.get("metrics", {}).get("tested", []) for parent in one["parents"]}
    notes = [text for job in jobs for text in job.differences]
    for job in jobs:
        if seen := sorted(tested & {*_parents(job)}):
            notes.append(f"the model was tested on this universe, which is then no test of it: parent={seen[0]}")
    return Calibrating(
        model=model, out=out, jobs=jobs, done=_done(loaded, out, jobs), notes=tuple(dict.fromkeys(notes))
    )


def run(client: Client, asked: Calibrating, progress: Progress | None = None) -> WholeCalibration:
    """Predict what is not predicted yet, calibrate, and write the bundle; the same again goes on where it stopped."""
    progress = progress or Silent()
    begun = {
        "model": asked.model,
        "fields": [job.fields for job in asked.jobs],
        "to_go_on": "run the same command again",
    }
    storage.write_json(storage.join(asked.out, WORK, "begun.json"), begun)
    for job in asked.jobs:
        predict(client, job, progress)
    model = load_model(asked.model, device="cpu")
    boxes = sum(job.layout.nbox for job in asked.jobs)
    progress.start("measure errors", boxes, "boxes")
    pairs = [_errors(model, job, boxes, progress) for job in asked.jobs]
    progress.done()
    errors, bars = (np.concatenate(some) for some in zip(*pairs, strict=True))
    found = calibrate(errors, bars, powers=(1.0,))
    stores = tuple(_about(job) | _covered(*pair, found.factor) for job, pair in zip(asked.jobs, pairs, strict=True))
    alone = model.calibration
    both = replace(found, factor=found.factor * alone.factor, power=alone.power)
    made = WholeCalibration(map=both, tiles=_shown(asked.jobs[0]), stores=stores)
    bundle.write_calibrated(asked.model, asked.out, made)
    storage.remove(storage.join(asked.out, WORK))
    return made


def _job(loaded: Model, model: str, url: str, out: str, number: int) -> Job:
    """The prediction of a store; refuses one without truth, seen in training, or without neighbours."""
    ds = store.open_fields(url, chunks=None)
    if "velocity" not in ds:
        raise StoreError(f"the store holds no truth: url={url}, variable=velocity; paint it again with --particles")
    check_one_parent(ds, "boxes by themselves are calibrated by train")
    if seen := sorted({*map(str, ds["parent"].values)} & {*loaded.metadata["parents"]}):
        raise VelfieldError(
            f"the model was trained on this universe: url={url}, parent={seen[0]}; calibrate on another seed's"
        )
    job = prepare(model, url, storage.join(out, WORK, f"{number}.zarr"), calibration=loaded.calibration)
    if job.tiling is None or not surrounded(job.tiling):
        raise VelfieldError(
            f"the parent is one tile without neighbours: url={url}, cells={ds.attrs['cells']} in a box; calibrate on a "
            "periodic or a larger one"
        )
    return job


def _done(loaded: Model, out: str, jobs: Sequence[Job]) -> bool:
    """Whether the same is there already; refuses a place that holds anything else."""
    there = storage.names(out)
    if bundle.METADATA in there:
        metadata = bundle.read_metadata(out)
        found = WholeCalibration.of(metadata)
        same = metadata["weights"]["sha256"] == loaded.metadata["weights"]["sha256"]
        wanted = [_about(job)["fingerprint"] for job in jobs]
        if same and found is not None and [one["fingerprint"] for one in found.stores] == wanted:
            return True
        raise StoreError(f"another model is here: out={out}; name another place")
    if there and WORK not in there:
        kind = "a store" if shards.ROOT in there else "something else"
        raise StoreError(f"not a place for a model: out={out} holds {kind}; name another place, or empty it")
    return False


def _shown(job: Job) -> dict[str, int]:
    assert job.tiling is not None
    return shown_as(job.tiling, job.guide_margin)


def _parents(job: Job) -> list[str]:
    return sorted({*map(str, store.open_fields(job.fields, chunks=None)["parent"].values)})


def _about(job: Job) -> dict[str, Any]:
    """What a bundle says of a store that it was calibrated on."""
    attrs = store.attributes(job.fields)
    kept = {name: attrs[name] for name in ("fingerprint", "redshift", "min_mass", "rsd")}
    return kept | {"parents": _parents(job), "boxes": job.layout.nbox}


def _errors(model: Model, job: Job, boxes: int, progress: Progress) -> tuple[NDArray[Any], NDArray[Any]]:
    """Errors and error bars [σ_v] of a store's components that count, evenly spread: `KEPT` of ``boxes`` boxes."""
    made, test = store.open_velocity(job.out, chunks=None), _test(job)
    unit = model.normalisation.velocity_unit(model.condition(test.ds))
    settings = model.metadata["training"].get("settings", {}).get("loss", {})
    largest = 1 if settings.get("count_filled", True) else 0  # of the flags that count
    residuals, sigmas = [], []
    for box in test.boxes:
        true, flag = truth_of(test, box)
        one = made.isel(box=box).transpose("component", "x", "y", "z", ...)
        velocity, std = (np.asarray(one[name]) for name in ("velocity", "velocity_std"))
        counted = (flag <= largest) & np.isfinite(velocity).all(axis=0)
        every = -(-3 * flag.size * boxes // KEPT)
        residuals.append((velocity - true)[:, counted].ravel()[::every] / unit)
        sigmas.append(std[:, counted].ravel()[::every] / unit)
        progress.advance(1)
    return np.concatenate(residuals), np.concatenate(sigmas)


def _test(job: Job) -> Test:
    ds = store.open_fields(job.fields, chunks=None)
    if ds.attrs["fingerprint"] != job.layout.attrs["input_fingerprint"]:
        raise VelfieldError(f"the input changed while it was used: fields={job.fields}; run the same command again")
    return Test(url=job.fields, ds=ds, boxes=tuple(range(ds.sizes["box"])))


def _covered(residual: NDArray[Any], sigma: NDArray[Any], factor: float) -> dict[str, float]:
    """Coverages of a store's errors with error bars so many times as wide."""
    pull = np.abs(residual) / (factor * sigma)
    return {name: float((pull <= half_width(share)).mean()) for name, share in SHARES.items()}
