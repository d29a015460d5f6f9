"""Training: field stores in, a model bundle out. By steps, so that the result does not depend on the machine's speed.

The same command at the same place goes on where it was interrupted; on a CPU with the same number of threads it ends
with the same weights, to the last bit, as a training that was not. On a GPU sums run in no fixed order and the last
bits differ.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from velfield import checkpoint, guide, normalisation, shards, storage
from velfield.batches import AS_IT_IS, Batch, Batches, Boxes, StepSamples, fits_in_memory
from velfield.errors import StoreError, VelfieldError
from velfield.loss import counted_cells, velocity_loss
from velfield.model import METADATA, Model, pick_device, read_metadata
from velfield.progress import Progress, Silent
from velfield.sources import FieldSource, boxes_of, open_sources, symmetries_of
from velfield.store import WORK, open_fields
from velfield.train_config import TrainConfig, TrainResult
from velfield.unet import UNet

__all__ = ["TrainConfig", "TrainResult", "train"]

STATISTICS_BOXES = 128  # training boxes, evenly spread, that the normalisation is measured on: 28 million cells of 60³
STRETCHES = 1000  # at most so many means of the training loss are kept with the model


def train(fields: Sequence[str], out: str, config: TrainConfig, progress: Progress | None = None) -> TrainResult:
    """Train a network on field stores and write a model bundle.

    Parameters
    ----------
    fields : sequence of str
        URLs of field stores, as a rule one for each simulated universe; they must have been painted alike.
    out : str
        URL of the bundle. An unfinished training there goes on, a finished one is left as it is; one with other
        settings is refused.
    config : TrainConfig
        What is asked for.
    progress : Progress, optional
        Is told of every step.
    """
    began = time.monotonic()
    progress = progress or Silent()
    sources = open_sources(fields, config.inputs)
    settings = config.settings() | {"stores": [source.fingerprint for source in sources]}
    finished = _finished(out, settings)
    if finished is not None:
        return finished
    checkpoint.begin(out)
    saved = checkpoint.read(out)
    if saved is not None:
        checkpoint.refuse_other(out, saved.settings, settings)
    device = pick_device(config.device)
    with torch.random.fork_rng(devices=[0] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        training = _Training(sources, config, device, settings, progress, out)
        if saved is not None:
            training.restore(saved)
        training.run(out, progress, began)
        bundle = training.bundle(time.monotonic() - began)
    bundle.save(out)
    checkpoint.remove(out)
    return TrainResult(
        model=out,
        steps=training.steps,
        already_done=False,
        seconds=time.monotonic() - began,
        losses=bundle.metadata["losses"],
    )


class _Training:
    """The state of a training: network, optimiser, batches, and the record of its losses."""

    def __init__(
        self,
        sources: Sequence[FieldSource],
        config: TrainConfig,
        device: torch.device,
        settings: dict[str, Any],
        progress: Progress,
        out: str,
    ) -> None:
        self.sources, self.config, self.device, self.settings = sources, config, device, settings
        self.which = {split: boxes_of(sources, split) for split in ("train", "validation")}
        if not self.which["train"]:
            raise StoreError(
                f"no training box in the stores: stores={len(sources)}, validation={len(self.which['validation'])}; "
                "paint with a smaller share for validation"
            )
        self.steps = config.steps_for(len(self.which["train"]))
        self.context = _context(sources[0], config)
        cells = int(sources[0].described["cells"]) + 2 * self.context
        if config.norm == "batch" and config.batch == 1 and cells <= 2**config.depth:
            raise VelfieldError(
                f"one value cannot be normalised: norm=batch, batch=1, depth={config.depth}, cells={cells} with "
                "context, which are pooled to one; take a larger batch, less depth, or norm=group"
            )
        self.normalisation = _measure(sources, config, self.which["train"], self.context, progress)
        self.guide = config.guided()
        self.guides: guide.Kept | None = None
        if self.guide:
            folder = config.guide_cache or storage.join(out, checkpoint.FOLDER, "guide")
            boxes = [box for split in self.which.values() for box in split]
            self.guides = guide.prepare(
                self.guide, sources, boxes, context=self.context, folder=folder, progress=progress
            )
        self.net = UNet(config.network()).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self.done, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []
        self.reached: dict[str, float] = {}

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go back to the state of a checkpoint."""
        checkpoint.restore(saved, self.net, self.optimizer)
        record = saved.part("record")
        self.done, self.seconds = saved.step, float(record["seconds"])
        self.losses = record["train"].tolist()
        self.validations = [(int(step), loss) for step, loss in record["validation"].tolist()]

    def run(self, out: str, progress: Progress, began: float) -> None:
        """Do the steps that are left; interrupted, write a checkpoint first."""
        training, validation = self._batches(progress)
        before = self.seconds
        progress.start("train", self.steps, "steps", before=self.done)
        with checkpoint.StopAsked() as stop:
            for batch in training:
                loss = self._step(batch)
                self.losses.append(loss)
                self.done += 1
                last = self.done == self.steps
                if validation is not None and (last or self.done % self.config.validate_every == 0):
                    self.reached = self._validate(validation)
                    self.validations.append((self.done, self.reached["loss"]))
                progress.advance(1, self._note())
                if stop.asked or last or self.done % self.config.checkpoint_every == 0:
                    self.seconds = before + time.monotonic() - began
                    self._checkpoint(out)
                if stop.asked and not last:
                    raise KeyboardInterrupt(f"stopped after step {self.done} of {self.steps}: {out}")
        if validation is not None and not self.reached:  # interrupted between the last step and the bundle
            self.reached = self._validate(validation)
        progress.done(self._note())

    def bundle(self, seconds: float) -> Model:
        """The model as it is now, with all that its metadata say."""
        described = self.sources[0].described
        settled = self.guide and self.guide.settled(open_fields(self.sources[0].url, chunks=None))
        metadata = {
            "trained_on": described,
            "context": self.context,
            "guide": settled and settled.to_dict(),
            "parents": sorted({parent for source in self.sources for parent in source.parents}),
            "training": {
                "settings": self.settings,
                "stores": [{"url": s.url, "fingerprint": s.fingerprint} for s in self.sources],
                "boxes": len(self.which["train"]),
                "validation_boxes": len(self.which["validation"]),
                "steps": self.steps,
                "seconds": round(seconds, 1),
                "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
                "precision": "bfloat16" if self.bfloat16 else "float32",
                "parameters": self.net.parameters_count,
            },
            "losses": {"train": _stretches(self.losses), "validation": [list(pair) for pair in self.validations]},
            "metrics": {"validation": self.reached},
        }
        return Model(self.net, self.normalisation, metadata, self.device)

    def _batches(self, progress: Progress) -> tuple[Batches, Batches | None]:
        config, inputs = self.config, self.config.inputs
        turns = symmetries_of(self.sources) if config.augment else ()
        seen: dict[str, Any] = {"context": self.context, "guide": self.guides}
        train = Boxes(self.sources, inputs, self.which["train"], turns, self.normalisation, **seen)
        validation = Boxes(self.sources, inputs, self.which["validation"], (), self.normalisation, **seen)
        resident = config.loader == "resident" or (
            config.loader == "auto" and fits_in_memory(train.nbytes + validation.nbytes, self.device)
        )
        steps = StepSamples(
            steps=range(self.done, self.steps),
            boxes=len(train),
            symmetries=len(turns),
            batch=config.batch,
            seed=config.seed,
        )
        each = [(box, AS_IT_IS) for box in range(len(validation))]
        batched = [each[first : first + config.batch] for first in range(0, len(each), config.batch)]
        both = [
            Batches(data, wanted, device=self.device, resident=resident, workers=config.workers)
            for data, wanted in ((train, steps), (validation, batched))
        ]
        for name, batches in zip(("training", "validation"), both, strict=True):
            if len(batches.data):
                batches.load(progress, f"read {name} boxes")
        return both[0], both[1] if each else None

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predicted velocity on the cores [σ_v], and which cells count."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            predicted = self.net(batch.inputs.contiguous(memory_format=torch.channels_last_3d))
        margin = (predicted.shape[-1] - batch.flag.shape[-1]) // 2
        core = slice(margin, predicted.shape[-1] - margin)
        return predicted[..., core, core, core].float(), counted_cells(batch.flag, self.config.loss)

    def _step(self, batch: Batch) -> float:
        """One step of the optimiser; its loss."""
        rate = self.config.learning_rate_at(self.done, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        predicted, counted = self._forward(batch)
        loss = velocity_loss(predicted, batch.velocity, counted, self.config.loss)["loss"]
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        value, size = float(loss.detach()), float(norm)
        if not (math.isfinite(value) and math.isfinite(size)):
            raise VelfieldError(
                f"training diverged: step={self.done + 1}, loss={value:g}, gradient={size:g}, learning_rate={rate:g}; "
                "train at another place with a lower learning rate"
            )
        self.optimizer.step()
        return value

    def _validate(self, batches: Batches) -> dict[str, float]:
        """Loss and its terms, slope of predicted on true components and their correlation, on the validation boxes."""
        self.net.eval()
        sums, boxes, moments = dict.fromkeys(("loss", "mse", "dice", "weighted"), 0.0), 0, np.zeros(6)
        with torch.inference_mode():
            for batch in batches:
                predicted, counted = self._forward(batch)
                for name, term in velocity_loss(predicted, batch.velocity, counted, self.config.loss).items():
                    sums[name] += float(term) * len(predicted)
                boxes += len(predicted)
                where = counted.unsqueeze(1).expand_as(predicted)
                p, t = predicted[where].double(), batch.velocity[where].double()
                moments += [float(m) for m in (p.sum(), t.sum(), (p * t).sum(), (p * p).sum(), (t * t).sum(), len(p))]
        mean_p, mean_t, pt, pp, tt = moments[:5] / max(moments[5], 1)
        cov, var_p, var_t = pt - mean_p * mean_t, pp - mean_p**2, tt - mean_t**2
        reached = {name: value / boxes for name, value in sums.items()}
        return reached | {"slope": float(cov / var_t), "r": float(cov / math.sqrt(max(var_p * var_t, 1e-30)))}

    def _note(self) -> str:
        recent = self.losses[-20:]
        note = f"loss {sum(recent) / max(len(recent), 1):.4f}"
        if self.validations:
            note += f", validation {self.validations[-1][1]:.4f}"
        return note

    def _checkpoint(self, out: str) -> None:
        record = {
            "train": torch.tensor(self.losses, dtype=torch.float64),
            "validation": torch.tensor(self.validations, dtype=torch.float64).reshape(-1, 2),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
        }
        checkpoint.write(
            out, step=self.done, settings=self.settings, net=self.net, optimizer=self.optimizer, record=record
        )


def _context(source: FieldSource, config: TrainConfig) -> int:
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


def _measure(
    sources: Sequence[FieldSource],
    config: TrainConfig,
    which: list[tuple[int, int]],
    context: int,
    progress: Progress,
) -> normalisation.Normalisation:
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


def _finished(out: str, settings: dict[str, Any]) -> TrainResult | None:
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


def _stretches(losses: list[float]) -> list[list[float]]:
    """At most `STRETCHES` pairs of a step and the mean loss up to it since the pair before."""
    length = -(-len(losses) // STRETCHES) or 1
    return [
        [min(first + length, len(losses)), float(np.mean(losses[first : first + length]))]
        for first in range(0, len(losses), length)
    ]
