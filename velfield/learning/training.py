"""The state of a training while it runs: network, optimiser, batches, error bars, and the record of its losses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from velfield.errors import VelfieldError
from velfield.files.progress import Progress
from velfield.learning import checkpoint, train_record
from velfield.learning.batches import Batch, Batches, Boxes, fits_in_memory
from velfield.learning.compiled import Compiled
from velfield.learning.ema import Average
from velfield.learning.loss import counted_cells, loss_sums
from velfield.learning.ranks import Ranks
from velfield.learning.samples import AS_IT_IS, StepSamples
from velfield.learning.step import gradients
from velfield.learning.train_config import TrainConfig
from velfield.learning.validation import calibrate_on, validate
from velfield.network.error_bars import Calibration
from velfield.network.model import Model
from velfield.network.unet import UNet
from velfield.stores.sources import FieldSource, boxes_of, symmetries_of

RECENT = 20  # steps whose mean loss is shown


class Training:
    """The state of a training: network, optimiser, batches, and the record of its losses."""

    def __init__(
        self,
        sources: Sequence[FieldSource],
        config: TrainConfig,
        device: torch.device,
        settings: dict[str, Any],
        ranks: Ranks,
        progress: Progress,
        note: Callable[[str], None] | None,
        out: str,
    ) -> None:
        self.sources, self.config, self.device, self.settings = sources, config, device, settings
        self.ranks = ranks
        self.which = {split: boxes_of(sources, split) for split in ("train", "validation")}
        self.context = train_record.context_of(sources[0], config)
        train_record.refuse_impossible(sources, config, self.which, self.context, ranks)
        self.steps = config.steps_for(len(self.which["train"]))
        self.normalisation = train_record.measure(sources, config, self.which["train"], self.context, progress)
        boxes = [box for split in self.which.values() for box in split]
        self.guides = train_record.guides(sources, config, boxes, self.context, out, ranks, progress)
        self.net = UNet(config.network()).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.bfloat16 = config.precision == "bfloat16" or (
            config.precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self.average = Average(self.net, config.ema) if config.ema else None
        self.averaged = self.average.net if self.average else None
        self.forward_net = Compiled(self.net, note) if config.compile else self.net
        self.calibration = Calibration()
        self.done, self.seconds = 0, 0.0
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []
        self.reached: dict[str, float] = {}

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go back to the state of a checkpoint."""
        checkpoint.restore(saved, self.net, self.optimizer, self.averaged)
        record = saved.part("record")
        self.done, self.seconds = saved.step, float(record["seconds"])
        self.losses = record["train"].tolist()
        self.validations = [(int(step), loss) for step, loss in record["validation"].tolist()]

    def run(self, out: str, progress: Progress, began: float, stop: Callable[[], bool]) -> None:
        """Do the steps that are left; interrupted, write a checkpoint first."""
        training, validation = self._batches(progress)
        before = self.seconds
        progress.start("train", self.steps, "steps", before=self.done)
        with checkpoint.StopAsked() as signals:
            parts: list[Batch] = []
            for part in training:
                parts.append(part)
                if len(parts) < self.config.accumulate:
                    continue
                loss, parts = self._step(parts), []
                self.losses.append(loss)
                self.done += 1
                last = self.done == self.steps
                if validation is not None and (last or self.done % self.config.validate_every == 0):
                    self.reached = validate(self._predicted, validation, self.config.loss)
                    self.validations.append((self.done, self.reached["loss"]))
                progress.advance(1, self._note())
                asked = self.ranks.any(signals.asked or stop(), self.device)
                if self.ranks.first and (asked or last or self.done % self.config.checkpoint_every == 0):
                    self.seconds = before + time.monotonic() - began
                    self._checkpoint(out)
                if asked and not last:
                    raise KeyboardInterrupt(f"stopped after step {self.done} of {self.steps}: {out}")
        if validation is not None and not self.reached:  # interrupted between the last step and the bundle
            self.reached = validate(self._predicted, validation, self.config.loss)
        progress.done(self._note())
        if validation is not None and self.config.std:
            boxes = len(self.which["validation"])
            self.calibration = calibrate_on(self._predicted, validation, boxes)

    def bundle(self, seconds: float) -> Model:
        """The model as it is now, with all that its metadata say."""
        metadata = train_record.about(
            self.sources,
            context=self.context,
            guide=self.config.guided(),
            settings=self.settings,
            boxes={split: len(which) for split, which in self.which.items()},
            losses=self.losses,
            validations=self.validations,
            reached=self.reached,
        )
        metadata["training"] |= {
            "steps": self.steps,
            "seconds": round(seconds, 1),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "precision": "bfloat16" if self.bfloat16 else "float32",
            "parameters": self.net.parameters_count,
            "weights": "exponential average over the steps" if self.average else "of the last step",
            "processes": self.ranks.size,
        }
        if self.config.std:
            metadata["calibration"] = self.calibration.to_dict()
        return Model(self.final, self.normalisation, metadata, self.device)

    @property
    def final(self) -> UNet:
        """The network that is validated and kept: the average, where there is one."""
        return self.averaged or self.net

    def _batches(self, progress: Progress) -> tuple[Batches, Batches | None]:
        config, inputs = self.config, self.config.inputs
        turns = symmetries_of(self.sources) if config.augment else ()
        seen: dict[str, Any] = {"context": self.context, "guide": self.guides}
        train = Boxes(self.sources, inputs, self.which["train"], turns, self.normalisation, **seen)
        validation = Boxes(self.sources, inputs, self.which["validation"], (), self.normalisation, **seen)
        copies = self.ranks.here if self.device.type == "cpu" else 1
        resident = config.loader == "resident" or (
            config.loader == "auto" and fits_in_memory((train.nbytes + validation.nbytes) * copies, self.device)
        )
        mine = self.ranks.rank * config.accumulate
        steps = StepSamples(
            steps=range(self.done, self.steps),
            boxes=len(train),
            symmetries=len(turns),
            batch=config.batch,
            seed=config.seed,
            parts=range(mine, mine + config.accumulate),
            of=self.ranks.size * config.accumulate,
        )
        each = [(box, AS_IT_IS) for box in range(len(validation))] if self.ranks.first else []
        batched = [each[first : first + config.batch] for first in range(0, len(each), config.batch)]
        both = [
            Batches(data, wanted, device=self.device, resident=resident, workers=config.workers)
            for data, wanted in ((train, steps), (validation, batched))
        ]
        for name, batches in zip(("training", "validation"), both, strict=True):
            if len(batches.data) and (batches is both[0] or each):
                batches.load(progress, f"read {name} boxes")
        return both[0], both[1] if each else None

    def _forward(self, net: Callable[..., Tensor], batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """Predicted velocity on the cores [σ_v], its ln σ² if the network gives it, and which cells count."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            x = batch.inputs.contiguous(memory_format=torch.channels_last_3d)
            made = net(x, self.config.std_share, batch.condition)
        margin = (made.shape[-1] - batch.flag.shape[-1]) // 2
        core = slice(margin, made.shape[-1] - margin)
        made = made[..., core, core, core].float()
        log_variance = made[:, 3:] if self.config.std else None
        return made[:, :3], log_variance, counted_cells(batch.flag, self.config.loss)

    def _predicted(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor]:
        """The same by the network that is kept, as it predicts."""
        return self._forward(self.final.eval(), batch)

    def _sums(self, batch: Batch) -> Tensor:
        predicted, log_variance, counted = self._forward(self.forward_net, batch)
        return loss_sums(predicted, batch.velocity, counted, self.config.loss, log_variance)

    def _step(self, parts: Sequence[Batch]) -> float:
        """One step of the optimiser; its loss."""
        rate = self.config.learning_rate_at(self.done, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.ranks.seed_step(self.config.seed, self.done)
        loss = gradients(self.net, parts, self._sums, self.config.loss, self.ranks)
        clip = self.config.clip  # of the velocity and of the error bars apart: these leave those as they are
        norms = [torch.nn.utils.clip_grad_norm_(some, clip) for some in self.net.trained_together()]
        value, size = float(loss), max(float(norm) for norm in norms)
        if not (math.isfinite(value) and all(bool(norm.isfinite()) for norm in norms)):
            raise VelfieldError(
                f"training diverged: step={self.done + 1}, loss={value:g}, gradient={size:g}, learning_rate={rate:g}; "
                "train at another place with a lower learning rate"
            )
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.net, self.done + 1)
        return value

    def _note(self) -> str:
        """The mean loss of the last steps, lest a step's few boxes be taken for how the training goes."""
        recent = self.losses[-RECENT:]
        note = f"mean loss {sum(recent) / max(len(recent), 1):.4f}"
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
            out,
            step=self.done,
            settings=self.settings,
            net=self.net,
            optimizer=self.optimizer,
            record=record,
            average=self.averaged,
        )
