"""What stands before and after a training: the normalisation, the place it is written to, the record of its losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from velfield import checkpoint, normalisation, shards, storage
from velfield.batches import Boxes
from velfield.errors import StoreError
from velfield.model import METADATA, read_metadata
from velfield.progress import Progress
from velfield.sources import FieldSource
from velfield.store import WORK
from velfield.train_config import TrainConfig, TrainResult

STATISTICS_BOXES = 128  # training boxes, evenly spread, that the normalisation is measured on: 28 million cells of 60³
STRETCHES = 1000  # at most so many means of the training loss are kept with the model


def measure(
    sources: Sequence[FieldSource],
    config: TrainConfig,
    which: list[tuple[int, int]],
    context: int,
    progress: Progress,
) -> normalisation.Normalisation:
    """Measure the normalisation on some of the training boxes, evenly spread, with ``context`` cells around."""
    some = sorted({int(i) for i in np.linspace(0, len(which) - 1, min(len(which), STATISTICS_BOXES)).round()})
    data = Boxes(sources, config.inputs, [which[i] for i in some], context=context)
    progress.start("measure the normalisation", len(some), "boxes")

    def boxes() -> Any:
        for number in range(len(data)):
            yield data.raw(number)
            progress.advance(1)

    measured = normalisation.measure(boxes(), config.inputs, config.transform)
    progress.done(f"σ_v = {measured.sigma_v:.0f} km/s")
    return measured


def finished(out: str, settings: dict[str, Any]) -> TrainResult | None:
    """The result of a training that ended here before; refuses a place that holds something else."""
    there = storage.names(out)
    if shards.ROOT in there or WORK in there:
        raise StoreError(f"a store is at the model's place: out={out}; choose another place for the model")
    if METADATA not in there:
        if there and checkpoint.FOLDER not in there:
            raise StoreError(f"this place is not empty: out={out}; choose another place for the model")
        return None
    metadata = read_metadata(out)
    training = metadata.get("training", {})
    checkpoint.refuse_other(out, training.get("settings", {}), settings)
    return TrainResult(
        model=out, steps=training["steps"], already_done=True, seconds=0.0, losses=metadata.get("losses", {})
    )


def about(
    sources: Sequence[FieldSource],
    *,
    settings: dict[str, Any],
    boxes: dict[str, int],
    losses: list[float],
    validations: list[tuple[int, float]],
    reached: dict[str, float],
) -> dict[str, Any]:
    """What a bundle's metadata say of its training, apart from how it ran."""
    return {
        "trained_on": sources[0].described,
        "parents": sorted({parent for source in sources for parent in source.parents}),
        "training": {
            "settings": settings,
            "stores": [{"url": s.url, "fingerprint": s.fingerprint} for s in sources],
            "boxes": boxes["train"],
            "validation_boxes": boxes["validation"],
        },
        "losses": {"train": stretches(losses), "validation": [list(pair) for pair in validations]},
        "metrics": {"validation": reached},
    }


def stretches(losses: list[float]) -> list[list[float]]:
    """At most `STRETCHES` pairs of a step and the mean loss up to it since the pair before."""
    length = -(-len(losses) // STRETCHES) or 1
    return [
        [min(first + length, len(losses)), float(np.mean(losses[first : first + length]))]
        for first in range(0, len(losses), length)
    ]
