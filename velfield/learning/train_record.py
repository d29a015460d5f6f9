"""What stands before and after a training: normalisation, guides, the place it is written to, its losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from velfield.errors import StoreError, VelfieldError
from velfield.files import shards, shipped, storage
from velfield.files.progress import Progress
from velfield.learning import checkpoint
from velfield.learning.batches import Boxes
from velfield.learning.ranks import Ranks
from velfield.learning.train_config import TrainConfig, TrainResult
from velfield.network import normalisation
from velfield.network.bundle import METADATA, read_metadata
from velfield.physics.condition import Ranges
from velfield.stores.sources import FieldSource
from velfield.stores.store import WORK, open_fields
from velfield.theory.guide import Guide, Kept, prepare

STATISTICS_BOXES = 128  # training boxes, evenly spread, that the normalisation is measured on: 28 million cells of 60³
STRETCHES = 1000  # at most so many means of the training loss are kept with the model


def context_of(source: FieldSource, config: TrainConfig) -> int:
    """Cells around the core that the network sees."""
    margin = int(source.described["margin"])
    if config.context is not None and config.context > margin:
        raise VelfieldError(
            f"the stores' margin is narrower than the context: margin={margin}, context={config.context}; "
            "paint them with a wider --margin, or ask for less context"
        )
    context = margin if config.context is None else config.context
    if (asked := config.guided()) is not None:
        asked.check_context(context)
    return context


def refuse_impossible(
    sources: Sequence[FieldSource],
    config: TrainConfig,
    which: Mapping[str, Sequence[tuple[int, int]]],
    context: int,
    ranks: Ranks,
) -> None:
    """Refuse what these stores, boxes by split, and processes cannot do together, before the work."""
    if config.accumulate * ranks.size > config.batch:
        raise VelfieldError(
            f"more parts than boxes: accumulate={config.accumulate}, processes={ranks.size}, batch={config.batch}; "
            "each process takes its parts of a step's boxes: take a larger batch, or fewer of them"
        )
    if not which["train"]:
        raise StoreError(
            f"no training box in the stores: stores={len(sources)}, validation={len(which['validation'])}; "
            "paint with a smaller share for validation"
        )
    cells = int(sources[0].described["cells"]) + 2 * context
    if config.norm == "batch" and config.batch == 1 and cells <= 2**config.depth:
        raise VelfieldError(
            f"one value cannot be normalised: norm=batch, batch=1, depth={config.depth}, cells={cells} with "
            "context, which are pooled to one; take a larger batch, less depth, or norm=group"
        )


def guides(
    sources: Sequence[FieldSource],
    config: TrainConfig,
    boxes: Sequence[tuple[int, int]],
    context: int,
    out: str,
    ranks: Ranks,
    progress: Progress,
) -> Kept | None:
    """The guides of all boxes, computed where they are not there yet; None without a guide."""
    guide, kept = config.guided(), None
    if guide is None:
        return None
    folder = config.guide_cache or storage.join(out, checkpoint.FOLDER, "guide")
    for turn in (True, False):  # the first process computes them, then all find them
        if ranks.first == turn:
            kept = prepare(guide, sources, boxes, context=context, folder=folder, progress=progress)
        ranks.wait()
    return kept


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

    conditions = [of for n, _ in data.which if (of := sources[n].condition) is not None]
    measured = normalisation.measure(boxes(), config.inputs, config.transform, conditions)
    if conditions:  # some boxes are measured, but all are learnt from
        every = [of for n in sorted({n for n, _ in which}) if (of := sources[n].condition) is not None]
        measured = dataclasses.replace(measured, condition=Ranges.of(every))
    unit = "h⁻¹Mpc · a H f D σ₈" if measured.condition else "km/s"
    progress.done(f"σ_v = {measured.sigma_v:.3g} {unit}")
    return measured


def finished(out: str, settings: dict[str, Any]) -> TrainResult | None:
    """The result of a training that ended here before; refuses a place that holds something else."""
    shipped.refuse_as_target(out)
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
    context: int,
    guide: Guide | None,
    settings: dict[str, Any],
    boxes: dict[str, int],
    losses: list[float],
    validations: list[tuple[int, float]],
    reached: dict[str, float],
) -> dict[str, Any]:
    """What a bundle's metadata say of its training, apart from how it ran."""
    settled = guide and guide.settled(open_fields(sources[0].url, chunks=None))
    return {
        "trained_on": sources[0].described,
        "context": context,
        "guide": settled and settled.to_dict(),
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
