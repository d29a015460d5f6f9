"""The verbs as steps of a longer journey: each knows whether it is done, how to do it, and the command that would.

A step that was interrupted goes on, or begins again, when it is run again; one that is done does nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any

from distributed import Client

from velfield.analysis.evaluate import BEGUN, METRICS, evaluate
from velfield.catalogues.hacc import outer_rim_names
from velfield.catalogues.universe import RECORD, Universe, universe_with
from velfield.files import shards, storage
from velfield.files.progress import Progress
from velfield.learning.train import TrainConfig, train
from velfield.network.bundle import METADATA
from velfield.pipelines.evaluate import evaluate as evaluate_spread
from velfield.pipelines.here import Threads
from velfield.pipelines.paint import paint
from velfield.pipelines.paint_job import PaintConfig
from velfield.pipelines.paint_job import prepare as prepare_paint
from velfield.pipelines.predict import predict
from velfield.pipelines.predict import prepare as prepare_predict
from velfield.simulation.drawn import DrawnTable
from velfield.simulation.simulate import SimulateConfig, draw, simulate

Note = Callable[[str], None] | None
NEEDED = {"boxsize", "particles", "redshifts", "seed", "boxes", "cells", "rsd"}  # said even at their defaults
OPTIONS = {  # where it is not the field's name
    "redshifts": "redshift",
    "inputs": "input",
    "guide_tracers": "guide_tracer",
    "workers": "loader_workers",
}


def typed(verb: str, *arguments: str, options: Sequence[str] = ()) -> str:
    """A command as one would type it."""
    return shlex.join(["velfield", verb, *arguments, *options])


def options_of(config: Any) -> list[str]:
    """The options of a verb that give this configuration: those that are needed, and all that are not the default."""
    words: list[str] = []
    for field in fields(config):
        value = getattr(config, field.name)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if value is None or (value == default and field.name not in NEEDED):
            continue
        if is_dataclass(value):  # the loss
            words += options_of(value)
            continue
        name = OPTIONS.get(field.name, field.name).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            for item in value if isinstance(value, tuple) else (value,):
                words += [f"--{name}", _word(item)]
    return words


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """``velfield simulate``: a universe at ``url``."""

    url: str
    config: SimulateConfig

    def command(self) -> str:
        """As typed."""
        return typed("simulate", self.url, options=options_of(self.config))

    def done(self) -> bool:
        """Whether the universe is there, whole."""
        return storage.exists(storage.join(self.url, RECORD))

    def run(self, progress: Progress) -> None:
        """Make it; interrupted, it begins again."""
        simulate(self.url, self.config, progress)

    def draw(self, stores: Sequence[Paint], progress: Progress) -> Iterator[Drawn]:
        """Run it in memory and give each snapshot that stores are to be painted from; let it go before the next."""
        by_step: dict[int, list[Paint]] = {}
        for step in self.config.outer_rim_steps:
            files = {storage.join(self.url, name) for name in outer_rim_names(step)}
            of_step = [store for store in stores if files >= set(store.config.urls.values())]
            if of_step:
                by_step[step] = of_step
        universe = universe_with(self.config.parameters())
        for step, tables in draw(self.config, by_step, progress):
            yield Drawn(stores=tuple(by_step[step]), tables=tables, universe=universe)
            del tables


@dataclass(frozen=True, kw_only=True)
class Paint:
    """``velfield paint``: a field store at ``url``."""

    url: str
    config: PaintConfig

    def command(self) -> str:
        """As typed."""
        return typed("paint", self.url, options=options_of(self.config))

    def done(self) -> bool:
        """Whether the store is there, whole; its catalogues are not looked for."""
        return shards.published(self.url)

    def run(self, client: Client, progress: Progress) -> None:
        """Paint what is left."""
        paint(client, prepare_paint(self.url, self.config), progress)

    def run_drawn(self, drawn: Drawn, threads: Threads, progress: Progress) -> None:
        """Paint it from memory, as from the files of the same universe."""
        universe = drawn.universe
        asked = replace(self.config, parent=universe.identity, cosmology=universe.cosmology)
        paint(threads, prepare_paint(self.url, asked, drawn.tables), progress)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A snapshot in memory: the stores to paint from it, its tables by kind, and the universe that it is of."""

    stores: tuple[Paint, ...]
    tables: Mapping[str, DrawnTable]
    universe: Universe


@dataclass(frozen=True, kw_only=True)
class Train:
    """``velfield train``: a bundle at ``url``, of the field stores ``stores``.

    ``remade`` lets it go on with stores that were made again, see `velfield.learning.train.train`.
    """

    url: str
    stores: tuple[str, ...]
    config: TrainConfig
    remade: bool = False

    def command(self) -> str:
        """As typed."""
        return typed("train", *self.stores, self.url, options=options_of(self.config))

    def done(self) -> bool:
        """Whether the bundle is there, whole; its stores are not looked for."""
        return storage.exists(storage.join(self.url, METADATA))

    def run(self, progress: Progress, note: Note = None) -> None:
        """Train what is left."""
        train(self.stores, self.url, self.config, progress, note, remade=self.remade)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """``velfield evaluate``: measures at ``url`` of a bundle or an analytic model on the field stores ``stores``.

    Figures are drawn where there is something to ``compare`` with.
    """

    url: str
    model: str
    stores: tuple[str, ...]
    compare: tuple[str, ...] = ()
    tracer: str = "number"
    smoothing: float | None = None
    average: int = 1

    def command(self) -> str:
        """As typed."""
        words = [word for other in self.compare for word in ("--compare", other)] or ["--no-figures"]
        words += [] if self.tracer == "number" else ["--tracer", self.tracer]
        words += [] if self.smoothing is None else ["--smoothing", _word(self.smoothing)]
        words += [] if self.average == 1 else ["--average", str(self.average)]
        return typed("evaluate", self.model, *self.stores, self.url, options=words)

    def done(self) -> bool:
        """Whether the measures are there, all."""
        return storage.exists(storage.join(self.url, METRICS)) and not storage.exists(storage.join(self.url, BEGUN))

    def run(self, progress: Progress, note: Note = None, client: Client | None = None) -> None:
        """Measure, here or on a cluster; interrupted, it begins again."""
        options: dict[str, Any] = {
            "figures": bool(self.compare),
            "compare": self.compare,
            "tracer": self.tracer,
            "smoothing": self.smoothing,
            "average": self.average,
            "progress": progress,
            "note": note,
        }
        if client is None:
            evaluate(self.model, self.stores, self.url, **options)
        else:
            evaluate_spread(client, self.model, self.stores, self.url, **options)


@dataclass(frozen=True, kw_only=True)
class Predict:
    """``velfield predict``: a velocity store at ``url``."""

    url: str
    model: str
    store: str

    def command(self) -> str:
        """As typed."""
        return typed("predict", self.model, self.store, self.url)

    def run(self, client: Client, progress: Progress) -> None:
        """Predict what is left."""
        predict(client, prepare_predict(self.model, self.store, self.url), progress)


def _word(value: Any) -> str:
    """A value as one would type it, and not a digit less."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)
