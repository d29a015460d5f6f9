"""What is measured, and how it predicts: an analytic model by its name, or a bundle by its URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield.errors import VelfieldError
from velfield.files import shipped, storage
from velfield.stores.sources import sentences, symmetries_of_boxes
from velfield.theory import analytic

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

    ``identity`` is the hash of a bundle's weights.
    """

    row: str
    predict: Predict
    parents: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]  # by the store's URL
    notes: tuple[str, ...] = ()
    identity: str = ""


def judge(model: str, tests: Sequence[Test], tracer: str, smoothing: float | None, average: int = 1) -> Judged:
    """An analytic model by its name, or a bundle by its URL or as ``pretrained``; settled for each store."""
    analytic.check_tracer(model, tracer)
    if average != 1 and model in analytic.NAMES:
        raise VelfieldError(f"only a network is averaged: model={model}, average={average}; leave it out")
    if model in analytic.NAMES:
        how = {test.url: analytic.settings(model, test.ds, tracer=tracer, smoothing=smoothing) for test in tests}

        def linear(test: Test, boxes: Sequence[int]) -> Prediction:
            return Prediction(analytic.velocities(how[test.url], test.ds, boxes))

        settings = {url: one.to_dict() for url, one in how.items()}
        return Judged(row=model, predict=linear, parents=(), settings=settings)
    if not storage.exists(shipped.place(model)):
        raise VelfieldError(
            f"no such model: model={model}; give {', '.join(analytic.NAMES)}, {shipped.PRETRAINED}, or the "
            "URL of a bundle that velfield train wrote"
        )
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

    parents = tuple(bundle.metadata["parents"])
    identity = str(bundle.metadata["weights"]["sha256"])
    return Judged(
        row=BUNDLE, predict=network, parents=parents, settings=settings, notes=tuple(notes), identity=identity
    )


def refuse_seen(judged: Judged, tests: Sequence[Test]) -> None:
    """Refuse boxes of universes that the training saw."""
    for test in tests:
        parents = test.ds["parent"].values[list(test.boxes)]
        seen = sorted(set(parents) & set(judged.parents))
        if seen:
            count = int(np.isin(parents, seen).sum())
            raise VelfieldError(
                f"the model was trained on this universe: url={test.url}, boxes={count} of {len(test.boxes)}, "
                f"parent={seen[0]}; evaluate on another seed's, or allow it with --allow-seen"
            )
