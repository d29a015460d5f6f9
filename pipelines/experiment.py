"""An experiment from nothing to its table and figures: what is there is not made again, nor what nothing needs.

Steps are the verbs of the same names (`velfield.pipelines.steps`). A finished evaluation needs no model, a finished
model no stores, a finished store no universe. A universe that is not kept is not written either: its snapshots are
painted in this process as they come, all stores that are still needed of each (docs/design.md, "Painting").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from dask.system import CPU_COUNT  # cores that this process may use, not all that there are
from distributed import Client

from velfield.analysis import figure_style, figures
from velfield.analysis.experiment_figures import palette
from velfield.analysis.judged import Test, judge
from velfield.analysis.pieces import truth_of
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.files.progress import Progress
from velfield.pipelines import cluster
from velfield.pipelines.deadline import Deadline
from velfield.pipelines.diary import Diary, machine
from velfield.pipelines.experiment_file import read_experiment
from velfield.pipelines.experiment_plan import Plan, plan
from velfield.pipelines.experiment_report import begin, complete_cards, finished, record_of, write
from velfield.pipelines.experiment_scale import pick_scale, read_scales
from velfield.pipelines.here import Threads
from velfield.pipelines.steps import Evaluate, Note, Paint, Simulate, Train
from velfield.stores.store import open_fields
from velfield.theory import analytic
from velfield.version import __version__

MINIATURE = "miniature"
LAST = "last_seconds"  # of the run in which a step ended
CONTOURS = {"contours": "", "contours_centre": "centre"}  # figure: part of the box


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Where an experiment's results lie, and whether anything was left to do."""

    out: str
    new: bool


def experiment(
    name: str,
    folder: str,
    *,
    scale: str | None = None,
    scales: str | None = None,
    minutes: float | None = None,
    workers: int | None = None,
    keep_universes: bool | None = None,
    progress: Progress,
    note: Note = None,
) -> Outcome:
    """Run what is left of an experiment.

    Parameters
    ----------
    name : str
        An experiment that comes with velfield, or a file's path or URL.
    folder : str
        Beneath it universes, stores, models and evaluations of all experiments lie, and a folder of each one's results.
    scale, scales : str
        Name of the scale, and the file that has it; by default the experiment's own, or miniature, of those that come
        with velfield.
    minutes : float, optional
        Stop then, as at Ctrl-C, with an `OutOfTimeError`.
    workers : int, optional
        Local processes that paint and filter, threads where universes are painted from memory; by default one for
        each core.
    keep_universes : bool, optional
        Whether universes are written, and stay, or painted as they are drawn and never written; by default as the scale
        says. One that is there is painted from, and stays.
    progress, note :
        Are told of every step, and of what is worth knowing.
    """
    asked = read_experiment(name)
    at = pick_scale(scale or asked.scale or MINIATURE, read_scales() if scales is None else read_scales(scales))
    settled = plan(asked, at, folder, _device())
    keep = at.keep_universes if keep_universes is None else keep_universes
    with Deadline(minutes) as deadline:
        run = _Run(settled, deadline, workers, keep, progress, note)
        if finished(settled):
            return Outcome(out=settled.out, new=False)
        run.everything()
    return Outcome(out=settled.out, new=True)


@dataclass(kw_only=True)
class _Needed:
    """What is to be made, in the end to have the results."""

    evaluations: list[Evaluate]
    trainings: list[Train]
    stores: list[Paint]


@dataclass
class _Run:
    plan: Plan
    deadline: Deadline
    workers: int | None
    keep: bool
    progress: Progress
    note: Note
    ended: int = field(default=0, init=False)  # steps, in this run

    def everything(self) -> None:
        """Make what is needed, then the results."""
        begin(self.plan)
        needed = self.needed()
        self.make_stores(needed.stores)
        for training in needed.trainings:
            self.timed(training, partial(training.run, self.progress, self.note))
        with ExitStack() as stack:
            client = None
            filtered = {one.url for one in self.plan.trainings if one.config.guide == analytic.WIENER}
            for evaluation in needed.evaluations:
                spread = evaluation.model == analytic.WIENER or evaluation.model in filtered  # seconds a box
                if spread and client is None:
                    client = stack.enter_context(cluster.connect(None, self.workers, quiet=True))
                where = client if spread else None
                self.timed(evaluation, partial(evaluation.run, self.progress, self.note, where))
        for name in self.missing_contours():
            self.draw_contours(name)
        complete_cards(self.plan)
        write(self.plan)

    def needed(self) -> _Needed:
        """Backwards from the results: what is there needs nothing."""
        evaluations = [one for one in self.plan.evaluations if not one.done()]
        contours = bool(self.missing_contours())
        models = {one.model for one in (self.plan.evaluations if contours else evaluations)}
        trainings = [one for one in self.plan.trainings if one.url in models and not one.done()]
        urls = {url for one in (self.plan.evaluations if contours else evaluations) for url in one.stores}
        urls |= {url for one in trainings for url in one.stores}
        stores = [store for url, store in self.plan.stores.items() if url in urls and not store.done()]
        return _Needed(evaluations=evaluations, trainings=trainings, stores=stores)

    def make_stores(self, stores: list[Paint]) -> None:
        """Universe by universe, so that not all need to be there at once."""
        with ExitStack() as stack:
            client: Client | None = None
            for url, universe in self.plan.universes.items():
                wanted = [store for store in stores if self.plan.universe_of[store.url] == url]
                if wanted and not universe.done():
                    for store in wanted:  # half painted from a universe that is gone
                        storage.remove(store.url)
                    if not self.keep:
                        self.draw(universe, wanted)
                        continue
                    self.timed(universe, partial(universe.run, self.progress))
                for store in wanted:
                    if client is None:
                        client = stack.enter_context(cluster.connect(None, self.workers))
                    self.timed(store, partial(store.run, client, self.progress))

    def draw(self, universe: Simulate, wanted: list[Paint]) -> None:
        """Paint a universe's stores from memory; interrupted, it is drawn again for those that are not finished."""
        self.begin_again(universe)
        threads = Threads(self.workers or CPU_COUNT)
        began = time.monotonic()
        with self.in_one_go(universe):
            diary = self.diary(universe, written=False)
            snapshots = universe.draw(wanted, self.progress)
            while True:
                with diary.stage(_verb(universe)):
                    drawn = next(snapshots, None)
                if drawn is None:
                    return
                for store in drawn.stores:
                    self.timed(store, partial(store.run_drawn, drawn, threads, self.progress))
                    diary.settings.setdefault(LAST, time.monotonic() - began)  # from when on it was not for nothing
                    diary.keep()
                del drawn  # it makes room for what comes

    def timed(self, step: Simulate | Paint | Train | Evaluate, run: Callable[[], None]) -> None:
        """Run a step and note how it was made; if it could not be done in the time, say so or do not begin."""
        again = isinstance(step, Simulate | Evaluate)  # begins again when it is interrupted
        if again:
            self.begin_again(step)
        diary = self.diary(step)
        began = time.monotonic()
        with self.in_one_go(step) if again else nullcontext(), diary.stage(_verb(step)):
            run()
        self.ended += 1
        diary.settings[LAST] = time.monotonic() - began
        diary.keep()

    def diary(self, step: Simulate | Paint | Train | Evaluate, **also: Any) -> Diary:
        """Where it is noted how a step was made."""
        about = {"command": step.command(), "machine": machine(), "velfield_version": __version__} | also
        return Diary(url=f"{step.url}.json", settings=about, seconds=record_of(step.url).get("seconds", {}))

    def begin_again(self, step: Simulate | Evaluate) -> None:
        """Do not begin what would not come to an end, unless it is the first."""
        if self.ended and self.expected(step) > self.deadline.left():
            raise self.deadline.out_of_time()

    @contextmanager
    def in_one_go(self, step: Simulate | Evaluate) -> Iterator[None]:
        """Say so if all the time that is given went by and no step ended."""
        try:
            yield
        except KeyboardInterrupt:
            if self.deadline.passed and not self.ended:
                raise VelfieldError(
                    f"a step that cannot be interrupted takes longer than the time that is given: {_verb(step)}="
                    f"{step.url}, minutes={self.deadline.minutes:g}; give more"
                ) from None
            raise

    def expected(self, step: Simulate | Evaluate) -> float:
        """Seconds that a step will take, as those like it at this scale took; 0 where none is there."""
        folder = step.url.rpartition("/")[0]
        like = f"{self.plan.scale.name}-"
        if isinstance(step, Evaluate) and step.model in analytic.NAMES:
            like += f"{step.model}-on-"
        names = [name for name in storage.names(folder) if name.startswith(like) and name.endswith(".json")]
        records = [storage.read_json(storage.join(folder, name)) for name in names]
        return max((record["settings"].get(LAST, 0.0) for record in records), default=0.0)

    def missing_contours(self) -> list[str]:
        """Figures of a box that are asked for and not there."""
        return [
            name
            for name in self.plan.experiment.figures
            if name in CONTOURS and not storage.exists(storage.join(self.plan.out, f"{name}.png"))
        ]

    def draw_contours(self, name: str) -> None:
        """Predicted against true components of one box, the same for all rows."""
        rows = self.plan.rows
        self.progress.start(f"draw {name}", len(rows), "rows")
        true: dict[str, Any] = {}
        shown: dict[str, Any] = {}
        for plan_ in rows:
            how = plan_.evaluate
            ds = open_fields(how.stores[0], chunks=None)
            box = int(np.random.default_rng(0).choice(ds.sizes["box"]))
            test = Test(url=how.stores[0], ds=ds, boxes=(box,))
            label = plan_.row.label
            true[label], _ = truth_of(test, box)
            judged = judge(how.model, [test], how.tracer, how.smoothing, how.average)
            shown[label] = judged.predict(test, [box]).velocity[0]
            self.progress.advance()
        cellsize = float(ds.attrs["cellsize"])
        colours = palette([plan_.row.label for plan_ in rows])
        figure = figures.contours(true, shown, cellsize, CONTOURS[name], colours)
        figure_style.save(figure, storage.join(self.plan.out, f"{name}.png"))
        self.progress.done()


def _verb(step: Simulate | Paint | Train | Evaluate) -> str:
    return type(step).__name__.lower()


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
