"""An experiment as a file: what of the paper it reproduces, and its rows.

A row is a network that is trained for it, an analytic model (``model``), or another row's network (``model_of``), and
the painting on whose test boxes it is measured. docs/experiments.md has all keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from velfield.accuracy.measures import MEASURES, PARTS
from velfield.errors import VelfieldError
from velfield.learning.loss import LossConfig
from velfield.learning.train_config import RUNNING, TrainConfig
from velfield.physics.redshift_space import MOVING
from velfield.pipelines.checked_toml import checked, choose, need, one_of, read, said_of
from velfield.pipelines.paint_job import PaintConfig
from velfield.stores.store import INPUTS
from velfield.theory import analytic

KNOWN = (*(name + part for part in PARTS for name in MEASURES), "rms_dense")
SHOWN = ("slope", "slope_inverse", "residuals_200", "cos_theta", "coherence", "coherence_median", "r", "rms")
DRAWN = ("measures", "depth", "contours", "contours_centre")
LOSS = get_type_hints(LossConfig)
TRAINING = {n: h for n, h in get_type_hints(TrainConfig).items() if n not in (*RUNNING, "loss")} | LOSS
PAINTED = ("rsd", "observer_per_box", "min_mass", "margin", "redshift", "assignment")
PAINTING = {n: h for n, h in get_type_hints(PaintConfig).items() if n in PAINTED}
EVALUATION = {"tracer": str, "smoothing": float, "average": int}
FILE = {
    "title": str,
    "reproduces": str,
    "says": str,
    "scale": str,
    "measures": tuple[str, ...],
    "figures": tuple[str, ...],
    "painting": dict,
    "training": dict,
    "row": tuple[dict, ...],
}
ROW = {
    "name": str,
    "label": str,
    "model": str,
    "model_of": str,
    "painting": dict,
    "training": dict,
    "trained_on": tuple[dict, ...],
    "dealt": bool,
    "evaluation": dict,
    "paper": dict,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes
    ----------
    name, label : str
        As other rows call it, and as the table does.
    model : str or None
        An analytic model.
    model_of : str or None
        The row whose network this one measures. With neither, a network is trained for the row.
    painting : mapping
        Options of `PaintConfig`: on what it is measured.
    training : mapping
        Options of `TrainConfig` and `LossConfig`, less how long and how fast, which the scale says unless they do.
    trained_on : tuple of mapping
        Paintings that the network learns from together; by default the one that it is measured on.
    dealt : bool
        Whether these are dealt to the universes in turn, instead of each universe painted in all ways.
    evaluation : mapping
        ``tracer``, ``smoothing``, ``average`` as of `velfield.analysis.evaluate`.
    paper : mapping
        The paper's numbers, by measure.
    """

    name: str
    label: str
    model: str | None = None
    model_of: str | None = None
    painting: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[Mapping[str, Any], ...] = ()
    dealt: bool = False
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        """Whether a network is trained for it."""
        return self.model is None and self.model_of is None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a file says; ``name`` is the file's, ``scale`` the one that it is meant for, if it is meant for one."""

    name: str
    title: str
    reproduces: str
    says: str
    scale: str | None
    measures: tuple[str, ...]
    figures: tuple[str, ...]
    rows: tuple[Row, ...]

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)


def read_experiment(name: str) -> Experiment:
    """Read a file: the bare name of one that comes with velfield, or a path or URL."""
    bare, document = read(name)
    where = f"file={name}"
    about = checked(where, document, FILE)
    need(where, about, "title", "reproduces", "row")
    shared = {
        "painting": checked(f"{where}, section=painting", about.get("painting", {}), PAINTING),
        "training": checked(f"{where}, section=training", about.get("training", {}), TRAINING),
    }
    rows = tuple(_row(where, number, table, shared) for number, table in enumerate(about["row"], start=1))
    if not rows:
        raise VelfieldError(f"an experiment without rows: {where}; add a [[row]]")
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            raise VelfieldError(f"two rows of one name: {where}, row={row.name}; name them apart")
        trained = [other.name for other in rows if other.trained]
        if row.model_of is not None and row.model_of not in trained:
            raise VelfieldError(
                f"no row that trains a network has this name: {where}, row={row.name}, key=model_of, "
                f"value={row.model_of}; {choose(row.model_of, trained) if trained else 'add one'}"
            )
    measures, figures = about.get("measures", SHOWN), about.get("figures", DRAWN[:1])
    for key, values, known in (("measures", measures, KNOWN), ("figures", figures, DRAWN)):
        one_of(f"{where}, key={key}", values, known)
    return Experiment(
        name=bare,
        title=about["title"],
        reproduces=about["reproduces"],
        says=about.get("says", ""),
        scale=about.get("scale"),
        measures=measures,
        figures=figures,
        rows=rows,
    )


def _row(where: str, number: int, table: Mapping[str, Any], shared: Mapping[str, Mapping[str, Any]]) -> Row:
    here = f"{where}, row={table.get('name', number)}"
    about = checked(here, table, ROW)
    need(here, about, "name")
    if "model" in about and "model_of" in about:
        raise VelfieldError(
            f"a row has one model: {here}, model={about['model']}, model_of={about['model_of']}; take one"
        )
    trained = "model" not in about and "model_of" not in about
    if not trained and (about.keys() & {"training", "trained_on", "dealt"}):
        raise VelfieldError(f"nothing is trained for this row: {here}; leave training and trained_on out, or its model")
    if about.get("dealt") and not about.get("trained_on"):
        raise VelfieldError(f"nothing to deal: {here}, key=dealt, value=True; give trained_on, a list of paintings")
    if "model" in about:
        one_of(f"{here}, key=model", (about["model"],), analytic.NAMES)
    for key, known in (("painting", PAINTING), ("training", TRAINING), ("evaluation", EVALUATION)):
        about[key] = checked(f"{here}, section={key}", about.get(key, {}), known)
    about["paper"] = checked(f"{here}, section=paper", about.get("paper", {}), dict.fromkeys(KNOWN, float))
    _check_evaluation(here, about.get("model"), about["evaluation"])
    about["painting"] = {**shared["painting"], **about["painting"]}
    about["trained_on"] = tuple(
        {**shared["painting"], **checked(f"{here}, section=trained_on", one, PAINTING)}
        for one in about.get("trained_on", ())
    )
    if trained:
        about["training"] = {**shared["training"], **about["training"]}
    row = Row(**({"label": about["name"]} | about))
    for painting in (row.painting, *row.trained_on):
        _check_painting(here, painting)
    if trained:
        _check_training(here, row.training)
    return row


def _check_evaluation(where: str, model: str | None, evaluation: Mapping[str, Any]) -> None:
    """Refuse now what `evaluate` would refuse after the training."""
    known = ("average",) if model is None else (() if model == analytic.WIENER else ("tracer", "smoothing"))
    for key, value in evaluation.items():
        if key not in known:
            raise VelfieldError(
                f"an option that this row's model does not have: {where}, model={model or 'network'}, key={key}, "
                f"value={value}; leave it out"
            )


def _check_painting(where: str, painting: Mapping[str, Any]) -> None:
    if "rsd" in painting:
        one_of(f"{where}, key=rsd", (painting["rsd"],), ("none", *MOVING))  # simulated halos are in real space
    options = {key: value for key, value in painting.items() if key != "redshift"}
    with said_of(where):
        PaintConfig(halos="halos", particles="particles", boxes=1, cells=1, **options)


def _check_training(where: str, training: Mapping[str, Any]) -> None:
    one_of(f"{where}, key=inputs", training.get("inputs", ()), INPUTS)
    with said_of(where):
        trained_by({} if training.keys() & {"steps", "epochs"} else {"steps": 1}, training)


def trained_by(usual: Mapping[str, Any], training: Mapping[str, Any]) -> TrainConfig:
    """A training by a file's options, and the usual ones where it has none; steps and epochs replace each other."""
    replaced = {"steps", "epochs"} if training.keys() & {"steps", "epochs"} else set()
    options = {key: value for key, value in usual.items() if key not in replaced} | dict(training)
    loss = {key: options.pop(key) for key in LOSS if key in options}
    return TrainConfig(loss=LossConfig(**loss), **options)
