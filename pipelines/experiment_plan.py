"""What an experiment needs at a scale: universes, field stores, models and evaluations, each named by what it is.

A name ends with a short hash of all settings that the thing depends on, so that experiments share what is the same and
never take one thing for another:

    FOLDER/universes/<scale>-<seed>-<hash>/
    FOLDER/fields/<scale>-<seed>-<painting>-<hash>.zarr/
    FOLDER/models/<scale>-<training>-<painting>-<hash>/
    FOLDER/evaluations/<scale>-<model>-on-<painting>-<hash>/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from velfield.files import storage
from velfield.learning.loss import LossConfig
from velfield.learning.train_config import RUNNING, TrainConfig
from velfield.pipelines.checked_toml import said_of
from velfield.pipelines.experiment_file import Experiment, Row
from velfield.pipelines.experiment_scale import Scale
from velfield.pipelines.paint_job import PaintConfig
from velfield.pipelines.steps import Evaluate, Paint, Simulate, Train, typed

LONGEST = 64  # letters of the readable part of a name
OF_SCALE = ("seed", "steps", "epochs", "batch", "learning_rate")  # said by the scale's name


@dataclass(frozen=True, kw_only=True)
class RowPlan:
    """A row, how it is measured, and the training of the network that it measures, if it is one."""

    row: Row
    evaluate: Evaluate
    train: Train | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All steps of an experiment; universes and stores by their URLs, ``universe_of`` a store by the store's."""

    experiment: Experiment
    scale: Scale
    folder: str
    out: str
    rows: tuple[RowPlan, ...]
    universes: Mapping[str, Simulate]
    stores: Mapping[str, Paint]
    universe_of: Mapping[str, str]

    @property
    def trainings(self) -> list[Train]:
        """Each training once."""
        return list({plan.train.url: plan.train for plan in self.rows if plan.train is not None}.values())

    @property
    def evaluations(self) -> list[Evaluate]:
        """Each evaluation once."""
        return list({plan.evaluate.url: plan.evaluate for plan in self.rows}.values())

    @property
    def steps(self) -> list[Simulate | Paint | Train | Evaluate]:
        """All steps, in an order in which they can be done."""
        return [*self.universes.values(), *self.stores.values(), *self.trainings, *self.evaluations]

    def commands(self) -> list[str]:
        """All commands, as typed; rows that are measured on the same stores are compared with the first."""
        first = self.rows[0].evaluate
        compared = [
            typed("compare", one.url, first.url)
            for one in self.evaluations
            if one.url != first.url and one.stores == first.stores
        ]
        return [*(step.command() for step in self.steps), *compared]

    def digest(self) -> str:
        """Hash of what the table shows: the file's words, and what is measured, wherever it lies."""
        measured = [_bare(plan.evaluate.url) for plan in self.rows]
        return _digest({"experiment": asdict(self.experiment), "rows": measured})


def plan(experiment: Experiment, scale: Scale, folder: str, device: str = "cpu") -> Plan:
    """Settle all that an experiment needs; ``device`` is where universes are simulated."""
    makes = _Makes(scale, folder, device)
    trained: dict[str, Train] = {}
    for row in experiment.rows:
        if row.trained:
            with said_of(f"experiment={experiment.name}, row={row.name}"):
                trained[row.name] = makes.training(row)
    rows = []
    for row in experiment.rows:
        train = None if row.model is not None else trained[row.model_of or row.name]
        with said_of(f"experiment={experiment.name}, row={row.name}"):
            rows.append(RowPlan(row=row, train=train, evaluate=makes.evaluation(row, train)))
    return Plan(
        experiment=experiment,
        scale=scale,
        folder=folder,
        out=storage.join(folder, f"{experiment.name}-{scale.name}"),
        rows=tuple(rows),
        universes=makes.universes,
        stores=makes.stores,
        universe_of=makes.universe_of,
    )


class _Makes:
    """Names things, and notes the universes and stores that are asked for."""

    def __init__(self, scale: Scale, folder: str, device: str) -> None:
        self.scale, self.folder, self.device = scale, folder, device
        self.universes: dict[str, Simulate] = {}
        self.stores: dict[str, Paint] = {}
        self.universe_of: dict[str, str] = {}

    def universe(self, seed: int) -> Simulate:
        config = self.scale.simulation(seed, self.device)
        name = f"{self.scale.name}-{seed}-{_digest(config.parameters())}"
        made = Simulate(url=storage.join(self.folder, "universes", name), config=config)
        return self.universes.setdefault(made.url, made)

    def store(self, painting: Mapping[str, Any], seed: int) -> str:
        universe = self.universe(seed)
        asked = self.scale.painting_of(painting, universe.url, seed)
        settings = asked.settings() | {"universe": _bare(universe.url), "redshift": painting.get("redshift", 0.0)}
        name = f"{self.scale.name}-{seed}-{_painting_name(painting, asked)}-{_digest(settings)}.zarr"
        url = storage.join(self.folder, "fields", name)
        self.stores.setdefault(url, Paint(url=url, config=asked))
        self.universe_of[url] = universe.url
        return url

    def training(self, row: Row) -> Train:
        config, seeds = self.scale.training_of(row.training), self.scale.training_seeds
        paintings = list(enumerate(row.trained_on or (row.painting,)))
        if row.dealt:  # universe by universe, each painting in one of them
            wanted = [(p, seed) for turn, seed in enumerate(seeds) for n, p in paintings if n % len(seeds) == turn]
        else:
            wanted = [(p, seed) for _, p in paintings for seed in seeds]
        stores = tuple(dict.fromkeys(self.store(painting, seed) for painting, seed in wanted))
        settings = {"settings": config.settings(), "stores": [_bare(url) for url in stores]}
        seen = _painting_name((row.trained_on or (row.painting,))[0], self.stores[stores[0]].config)
        seen += "-and-others" if len(row.trained_on) > 1 else ""
        name = f"{self.scale.name}-{_training_name(config)}-{seen}-{_digest(settings)}"
        return Train(url=storage.join(self.folder, "models", name), stores=stores, config=config, remade=True)

    def evaluation(self, row: Row, train: Train | None) -> Evaluate:
        stores = tuple(self.store(row.painting, seed) for seed in self.scale.test_seeds)
        model = str(row.model) if train is None else train.url
        asked = Evaluate(url="", model=model, stores=stores, **row.evaluation)
        settings = asdict(asked) | {"model": _bare(model), "stores": [_bare(url) for url in stores]}
        tested = self.stores[stores[0]].config
        which = model if train is None else _bare(model).removeprefix(f"{self.scale.name}-")
        name = f"{self.scale.name}-{which}-on-{_painting_name(row.painting, tested)}-{_digest(settings)}"
        url = storage.join(self.folder, "evaluations", name)
        return Evaluate(url=url, model=model, stores=stores, **row.evaluation)


def _painting_name(painting: Mapping[str, Any], config: PaintConfig) -> str:
    words = [f"z{painting.get('redshift', 0.0):g}", config.rsd]
    words += ["observers"] if config.observer_per_box else []
    words += [f"m{config.min_mass:g}"] if config.min_mass else []
    words += [f"margin{config.margin}"] if config.margin else []
    words += [config.assignment] if config.assignment != "ngp" else []
    return _spelt(words)


def _training_name(config: TrainConfig) -> str:
    """In what it is not the default's, and not the scale's."""
    usual = TrainConfig(steps=1)
    words = list(config.inputs)
    for ours, theirs in ((config, usual), (config.loss, LossConfig())):
        for field in fields(ours):
            value = getattr(ours, field.name)
            if field.name in (*OF_SCALE, *RUNNING, "inputs", "loss") or value == getattr(theirs, field.name):
                continue
            said = f"{value:g}" if isinstance(value, float) else str(value).lower()
            words.append(f"{field.name}-{said}")
    return _spelt(words)


def _spelt(words: list[str]) -> str:
    return "-".join(words).replace("+", "")[:LONGEST].rstrip("-_.")


def _bare(url: str) -> str:
    return url.rpartition("/")[2]


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
