"""What is measured, and how it predicts: an analytic model by its name, a bundle by its URL, or what one predicted.

A bundle is shown each box by itself. What `velfield predict` made of a whole parent is measured as it stands in its
velocity store, with the error bars that it has there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import SENSELESS, StoreError, VelfieldError
from velfield.files import shards, shipped, storage
from velfield.stores.coordinates import as_written
from velfield.stores.sources import sentences, symmetries_of_boxes
from velfield.stores.store import INPUTS, decoding, open_velocity
from velfield.theory import analytic, plausible

BUNDLE = "unet"  # the row's name of every bundle


@dataclass(frozen=True, kw_only=True)
class Test:
    """A field store and the boxes of it that are measured."""

    url: str
    ds: xr.Dataset
    boxes: tuple[int, ...]

    __test__ = False  # not for pytest


class Prediction(NamedTuple):
    """Velocities (box, 3, x, y, z) [km/s] of some boxes, and their standard deviations where the model gives any."""

    velocity: NDArray[Any]
    std: NDArray[Any] | None = None


Predict = Callable[[Test, Sequence[int]], Prediction]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is measured: its row's name, how it predicts, what it saw in training, and its settings on each store.

    ``identity`` is the hash of a bundle's weights, ``average`` how many orientations its predictions are averaged over.
    ``takes`` are the store's variables that it is given, none where it has predicted already, and ``far`` counts cells
    that are far from a network's training.
    """

    row: str
    predict: Predict
    parents: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]  # by the store's URL
    notes: tuple[str, ...] = ()
    identity: str = ""
    average: int = 1
    takes: tuple[str, ...] = ()
    far: plausible.Far | None = None


def judge(model: str, tests: Sequence[Test], tracer: str, smoothing: float | None, average: int = 1) -> Judged:
    """An analytic model by its name, a bundle by its URL or as ``pretrained``, or a velocity store; settled."""
    analytic.check_tracer(model, tracer)
    if average != 1 and model in analytic.NAMES:
        raise VelfieldError(f"only a network is averaged: model={model}, average={average}; leave it out")
    if model in analytic.NAMES:
        how = {test.url: analytic.settings(model, test.ds, tracer=tracer, smoothing=smoothing) for test in tests}

        def linear(test: Test, boxes: Sequence[int]) -> Prediction:
            return Prediction(analytic.velocities(how[test.url], test.ds, boxes))

        settings = {url: one.to_dict() for url, one in how.items()}
        takes = tuple({one.variable for one in how.values()})
        return Judged(row=model, predict=linear, parents=(), settings=settings, takes=takes)
    if not storage.exists(shipped.place(model)):
        raise VelfieldError(
            f"no such model: model={model}; give {', '.join(analytic.NAMES)}, {shipped.PRETRAINED}, or the "
            "URL of a bundle that velfield train wrote"
        )
    if shards.published(shipped.place(model)):
        return _predicted(model, tests, tracer, smoothing, average)
    if smoothing is not None:
        raise VelfieldError(f"a bundle takes no smoothing: model={model}, smoothing={smoothing:g}; leave it out")
    from velfield.network.model import load_model  # torch: only where a network is asked for

    bundle = load_model(model)
    settings, notes = {}, []
    for test in tests:
        bundle.check(test.ds)
        symmetries_of_boxes(test.ds, average)
        unlike = bundle.differences(test.ds)
        settings[test.url] = {"bundle": model, "unlike_training": unlike}
        notes += sentences(unlike, test.url)

    def network(test: Test, boxes: Sequence[int]) -> Prediction:
        made = bundle.predict(test.ds, average=average, boxes=boxes).transpose("box", "component", "x", "y", "z", ...)
        return Prediction(
            made["velocity"].values, made["velocity_std"].values if "velocity_std" in made.data_vars else None
        )

    return Judged(
        row=BUNDLE,
        predict=network,
        parents=bundle.parents,
        settings=settings,
        notes=tuple(notes),
        identity=str(bundle.metadata["weights"]["sha256"]),
        average=average,
        takes=tuple(INPUTS[kind][0] for kind in bundle.inputs),
        far=bundle.far,
    )


def _predicted(url: str, tests: Sequence[Test], tracer: str, smoothing: float | None, average: int) -> Judged:
    """What `velfield predict` wrote, on the one field store that it was made from."""
    made = as_written(open_velocity(url, chunks=None))
    if average != 1 or smoothing is not None or tracer != "number":
        raise VelfieldError(
            f"these velocities are there already: store={url}, average={average}, smoothing={smoothing}, "
            f"tracer={tracer}; leave the options out, or name the model"
        )
    for test in tests:
        if made.attrs["input_fingerprint"] != test.ds.attrs["fingerprint"]:
            raise VelfieldError(
                f"the velocities are of another store: velocities={url}, made from={made.attrs['input']}, "
                f"fields={test.url}; give the store that they were predicted from"
            )
        if not np.array_equal(made["origin"].values, test.ds["origin"].values):
            raise StoreError(
                f"the velocities are of other boxes, or in another order: velocities={url}, "
                f"boxes={made.sizes['box']}, fields={test.url}, boxes={test.ds.sizes['box']}; predict again"
            )
    try:
        about, prediction = (json.loads(made.attrs.get(name, "{}")) for name in ("model", "prediction"))
        identity, orientations = str(about.get("weights", "")), int(about.get("average", 1))
        row = BUNDLE if identity else str(about["name"])
        parents = about.get("parents")
    except SENSELESS as error:
        raise StoreError(f"the store does not say what made it: store={url}, at={error}; predict again") from error
    notes = []
    if identity and parents is None:
        notes.append(f"{url} does not say which universes its model saw; look whether they are others than these")
    settings = {
        "velocities": url,
        "bundle": about.get("url"),
        "shown": prediction.get("boxes", "isolated"),
        "prediction": prediction,
        "calibration": about.get("calibration"),
    }

    def read(_: Test, boxes: Sequence[int]) -> Prediction:
        values = []
        for name in ("velocity", "velocity_std"):
            if name in made.data_vars:
                some = made[name].isel(box=list(boxes)).transpose("box", "component", "x", "y", "z")
                with decoding(made, name, f"{boxes[0]} to {boxes[-1]}"):
                    values.append(some.values)
        return Prediction(*values)

    return Judged(
        row=row,
        predict=read,
        parents=tuple(parents or ()),
        settings={test.url: settings for test in tests},
        notes=tuple(notes),
        identity=identity,
        average=orientations,
    )


def refuse_seen(judged: Judged, tests: Sequence[Test]) -> None:
    """Refuse boxes of universes that the training saw, or a calibration over whole parents."""
    for test in tests:
        parents = test.ds["parent"].values[list(test.boxes)]
        seen = sorted(set(parents) & set(judged.parents))
        if seen:
            count = int(np.isin(parents, seen).sum())
            raise VelfieldError(
                f"the model was calibrated or trained on this universe: url={test.url}, boxes={count} of "
                f"{len(test.boxes)}, parent={seen[0]}; evaluate on another seed's, or allow it with --allow-seen"
            )
