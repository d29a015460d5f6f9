"""What a training is asked for, and what comes of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from velfield.errors import VelfieldError
from velfield.learning.batches import LOADERS
from velfield.learning.loss import LossConfig
from velfield.network import normalisation
from velfield.network.unet import Padding, UNetConfig
from velfield.physics.condition import NUMBERS
from velfield.theory.guide import COMPONENTS, Guide

SCHEDULES = ("cosine", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")
# what changes neither weights nor what is learned: a training may go on with other values
RUNNING = ("device", "loader", "workers", "validate_every", "checkpoint_every", "compile", "guide_cache")
# came later: at their defaults they are not among the settings, so that what was trained before them is still itself
LATER = ("std", "std_share", "ema", "accumulate", "guide", "guide_smoothing", "guide_tracers", "context", "condition")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that a training is asked for.

    Parameters
    ----------
    inputs : tuple of str
        Kinds of density, one a channel: keys of `velfield.stores.store.INPUTS`.
    guide, guide_smoothing : str, float, optional
        Velocity that the network begins with and adds to (`velfield.theory.guide.GUIDES`), and its Gaussian radius
        [h⁻¹Mpc].
    guide_tracers : tuple of str
        Tracers whose velocities it has, ``number`` and ``mass``; what is added to is the first's.
    guide_cache : str, optional
        URL beneath which the boxes' guides are kept for other trainings; else they go with the checkpoint.
    context : int, optional
        Cells around a box's core that the network sees; by default all of the stores' margin. A guide sees all of it.
    condition : bool
        One network for stores of several redshifts and thresholds: scaled by linear theory, and told which it sees
        (`velfield.physics.condition`).
    steps, epochs : int, optional
        How long: a number of steps, or of passes over the training boxes. One of the two.
    batch : int
        Boxes a step.
    learning_rate, schedule, warmup, weight_decay, clip : float, str
        AdamW's peak rate; ``cosine`` falls to zero at the last step, ``constant`` stays; share of the steps in which
        the rate rises to its peak; decay; largest norm of the gradient, beyond which it is scaled down.
    seed : int
        Of first weights, order of boxes, orientations and dropout.
    width, depth, norm, groups, conv_add, upsample, padding, dropout
        As in `UNetConfig`.
    transform : {"linear", "log"}
        Of the inputs (`velfield.network.normalisation`).
    loss : LossConfig
        Terms and weights.
    augment : bool
        Turn and mirror boxes by the cube's symmetries that keep a fixed line of sight.
    std : bool
        Also learn error bars: ln σ² of each cell and component.
    std_share : float
        Share of the error bars' gradient that reaches the features that the velocity is made of. With 0 the velocities
        are those of a training without error bars.
    ema : float
        Keep an exponential average of the weights with this decay a step and use it, in validation and in the bundle;
        0 keeps none.
    accumulate : int
        Parts that a step's boxes are taken in, one after the other, for a part of the memory; with group
        normalisation the result is the same up to rounding.
    device : {"auto", "cpu", "cuda"}
        Where.
    precision : {"auto", "float32", "bfloat16"}
        Of the network's arithmetic; ``auto`` is bfloat16 on a GPU that has it, else float32. Weights stay float32.
    loader : {"auto", "resident", "stream"}
        All boxes in memory, or read as they are needed; ``auto`` keeps them if they fit in half of the free memory.
    workers : int
        Reading processes when streaming.
    validate_every, checkpoint_every : int
        Steps between.
    compile : bool
        Compile the network with torch.compile, where there is a compiler.
    """

    inputs: tuple[str, ...] = ("mass_overdensity", "number_overdensity")
    guide: str | None = None
    guide_smoothing: float | None = None
    guide_tracers: tuple[str, ...] = ("number",)
    guide_cache: str | None = None
    context: int | None = None
    condition: bool = False
    steps: int | None = None
    epochs: int | None = None
    batch: int = 4
    learning_rate: float = 4e-3
    schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 1e-4
    clip: float = 1.0
    seed: int = 1
    width: int = 8
    depth: int = 3
    norm: str = "group"
    groups: int = 4
    conv_add: bool = True
    upsample: str = "nearest"
    padding: Padding = "zeros"
    dropout: float = 0.0
    transform: str = "linear"
    loss: LossConfig = field(default_factory=LossConfig)
    augment: bool = True
    std: bool = False
    std_share: float = 0.0
    ema: float = 0.0
    accumulate: int = 1
    device: str = "auto"
    precision: str = "auto"
    loader: str = "auto"
    workers: int = 2
    validate_every: int = 100
    checkpoint_every: int = 100
    compile: bool = False

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise VelfieldError(f"how long to train: steps={self.steps}, epochs={self.epochs}; give one of the two")
        for name, value, choices in (
            ("schedule", self.schedule, SCHEDULES),
            ("precision", self.precision, PRECISIONS),
            ("loader", self.loader, LOADERS),
            ("transform", self.transform, normalisation.TRANSFORMS),
        ):
            if value not in choices:
                raise VelfieldError(f"unknown {name}: {name}={value!r}; choose {', '.join(choices)}")
        counts = ("steps", "epochs", "batch", "validate_every", "checkpoint_every", "accumulate")
        for name in (*counts, "learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise VelfieldError(f"not positive: {name}={value}; give a finite number above 0")
        if self.seed < 0:
            raise VelfieldError(f"no such seed: seed={self.seed}; give a number from 0 on")
        if self.workers < 0 or not 0 <= self.weight_decay < math.inf or not 0 <= self.warmup <= 1:
            raise VelfieldError(
                f"out of range: workers={self.workers}, weight_decay={self.weight_decay}, warmup={self.warmup}; "
                "the first two must not be negative, the last a share from 0 to 1"
            )
        self._check_guide()
        self._check_parts()
        self.network()

    def _check_guide(self) -> None:
        if self.context is not None and self.context < 0:
            raise VelfieldError(f"no such context: context={self.context}; give a number of cells from 0 on")
        asked = (self.guide_smoothing, self.guide_cache, self.guide_tracers)
        if self.guide is None and asked != (None, None, ("number",)):
            raise VelfieldError(
                f"a guide's options without a guide: guide_smoothing={self.guide_smoothing}, "
                f"guide_cache={self.guide_cache}, guide_tracers={', '.join(self.guide_tracers)}; name the guide, too"
            )
        self.guided()

    def _check_parts(self) -> None:
        if not 0 <= self.ema < 1 or not 0 <= self.std_share < math.inf or (self.std_share and not self.std):
            raise VelfieldError(
                f"out of range: ema={self.ema}, std={self.std}, std_share={self.std_share}; give a decay from 0 up to, "
                "not including, 1, and a share that is not negative, above 0 only with std"
            )
        if self.accumulate > self.batch:
            raise VelfieldError(
                f"more parts than boxes: accumulate={self.accumulate}, batch={self.batch}; a step's boxes are taken in "
                "accumulate parts: take fewer, or a larger batch"
            )

    def guided(self) -> Guide | None:
        """The guide, if one is asked for."""
        if self.guide is None:
            return None
        return Guide(name=self.guide, smoothing=self.guide_smoothing, tracers=self.guide_tracers)

    def network(self) -> UNetConfig:
        """The network's shape."""
        return UNetConfig(
            in_channels=(len(self.inputs) or 1) + (COMPONENTS * len(self.guide_tracers) if self.guide else 0),
            width=self.width,
            depth=self.depth,
            norm=self.norm,
            groups=self.groups,
            conv_add=self.conv_add,
            upsample=self.upsample,
            padding=self.padding,
            dropout=self.dropout,
            guide=len(self.guide_tracers) if self.guide else 0,
            std=self.std,
            condition=NUMBERS if self.condition else 0,
        )

    def steps_for(self, boxes: int) -> int:
        """Number of steps with ``boxes`` training boxes."""
        return self.steps if self.steps is not None else -(-(self.epochs or 0) * boxes // self.batch)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Rate of a step: a linear rise to the peak, then the schedule."""
        rise = self.warmup * steps
        if step + 1 < rise:
            return self.learning_rate * (step + 1) / rise
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))

    def settings(self) -> dict[str, Any]:
        """What fixes the result, as JSON has it: all but where and how it runs."""
        usual = {f.name: f.default for f in fields(self) if f.name in LATER}
        return {
            n: list(v) if isinstance(v, tuple) else v
            for n, v in asdict(self).items()
            if n not in RUNNING and not (n in LATER and v == usual[n])
        }


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came of a training.

    Parameters
    ----------
    model : str
        The bundle's URL.
    steps : int
        Steps done in all.
    already_done : bool
        Whether the bundle was there before; then nothing was done.
    seconds : float
        Time spent by this call.
    losses : dict
        ``train`` and ``validation``: lists of [step, loss]; the training's are means over up to 1000 equal stretches.
    """

    model: str
    steps: int
    already_done: bool
    seconds: float
    losses: dict[str, list[Any]]
