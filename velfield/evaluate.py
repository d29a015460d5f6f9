"""A model against the truth, box by box: metrics.json, a table, and the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from velfield import analytic, storage
from velfield.errors import StoreError, VelfieldError
from velfield.measures import OUTSIDE, combine, measure_box
from velfield.progress import Progress, Silent
from velfield.shards import ROOT
from velfield.sources import symmetries_of_boxes
from velfield.store import WORK, open_fields
from velfield.tables import table
from velfield.version import __version__

AT_ONCE = 8  # boxes that a network is given in one go
BUNDLE = "unet"  # the row's name of every bundle
FOREIGN = {ROOT: "a store", WORK: "an unfinished store", "metadata.json": "a model", ".checkpoint": "a training"}
RECORD, BEGUN, METRICS = "evaluation.json", "evaluation.begun.json", "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Test:
    """A field store and the boxes of it that are measured."""

    url: str
    ds: xr.Dataset
    boxes: tuple[int, ...]

    __test__ = False  # not for pytest


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The box that the figures show."""

    test: Test
    box: int


Predict = Callable[[Test, Sequence[int]], NDArray[Any]]  # store, boxes -> (box, 3, x, y, z)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is measured: its row's name, how it predicts, what it saw in training, and its settings on each store."""

    row: str
    predict: Predict
    parents: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]  # by the store's URL
    notes: tuple[str, ...] = ()


def evaluate(
    model: str,
    fields: str | Sequence[str],
    out: str | None = None,
    *,
    split: str | None = None,
    allow_seen: bool = False,
    figures: bool = True,
    compare: Sequence[str] = ("linear",),
    box: int | None = None,
    seed: int = 0,
    tracer: str = "number",
    smoothing: float | None = None,
    count_filled: bool = True,
    average: int = 1,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure a model on field stores that hold the truth.

    Parameters
    ----------
    model : str
        ``linear``, ``linear_padded``, ``linear_halo``, ``linear_halo_padded``, ``wiener``, ``linear_whole``, or
        a bundle's URL.
    fields : str or sequence of str
        Field stores with velocities, of the same cells.
    out : str, optional
        Folder that gets ``metrics.json`` (this row), ``evaluation.json`` (what was run, each box's values),
        ``table.md`` and ``figures/*.png``; what is there is replaced.
    split : str, optional
        Only boxes of this split, ``train`` or ``validation``; all by default.
    allow_seen : bool
        Take boxes of universes that the bundle was trained on, too.
    figures : bool
        Draw figures (only with ``out``).
    compare : sequence of str
        Analytic models drawn beside this one.
    box : int, optional
        The box of the first store that is drawn; by default one drawn with ``seed``.
    tracer, smoothing :
        For the analytic rows, drawn ones too, see `velfield.analytic.settings`; a bundle takes neither.
    count_filled : bool
        Whether cells without a particle, filled from their neighbours, count.
    average : int
        Orientations of each box whose predictions by a bundle are averaged, see `velfield.model.Model.predict`.
    progress : Progress, optional
        Is told of every box.
    note : callable, optional
        Is told, before the work begins, what is worth knowing: in what a store differs from the model's training.

    Returns
    -------
    dict
        ``{row: {measure: {"mean", "std"}, …, "r_of_k": …}}``, what metrics.json holds.
    """
    tests = _tests([fields] if isinstance(fields, str) else list(fields), split)
    judged = _judged(model, tests, tracer, smoothing, average)
    if not allow_seen:
        _refuse_seen(judged, tests)
    drawn = _drawn(tests, box, seed, figures)
    beside = {name: analytic.settings(name, drawn.test.ds, tracer=tracer, smoothing=smoothing) for name in compare}
    if out is not None:
        _begin(out)
    if note is not None:
        for text in judged.notes:
            note(text)
    measured, kept = _measure(judged, tests, drawn, count_filled, Silent() if progress is None else progress)
    row = combine(measured)
    rows = {judged.row: without_boxes(row)}
    if out is not None:
        about = {
            "model": model,
            "row": judged.row,
            "split": split,
            "allow_seen": allow_seen,
            "count_filled": count_filled,
            "average": average,
            "fields": [_provenance(test) | {"settings": dict(judged.settings[test.url])} for test in tests],
            "boxes": {name: value["boxes"] for name, value in row.items() if "boxes" in value},
            "figures": _draw(out, judged.row, drawn, kept, beside, rows) if figures else [],
            "figure_box": {"url": drawn.test.url, "box": drawn.box} if figures else None,
            "velfield_version": __version__,
        }
        storage.write_json(storage.join(out, RECORD), about)
        storage.write_bytes(storage.join(out, "table.md"), (table(rows, width=None) + "\n").encode())
        storage.write_json(storage.join(out, METRICS), rows)
        storage.remove(storage.join(out, BEGUN))
    return rows


def read_rows(out: str) -> dict[str, Any]:
    """The rows of an evaluation as it was written, with the values of each box."""
    rows, boxes = storage.read_json(storage.join(out, METRICS)), storage.read_json(storage.join(out, RECORD))["boxes"]
    return {
        row: {name: value | {"boxes": boxes[name]} if name in boxes else value for name, value in values.items()}
        for row, values in rows.items()
    }


def _begin(out: str) -> None:
    """Take the place, so that a mistake shows before the work; only an earlier evaluation is replaced."""
    there = storage.names(out)
    kind = next((what for name, what in FOREIGN.items() if name in there), "something else")
    if there and (kind != "something else" or not {RECORD, BEGUN} & {*there}):
        raise StoreError(f"not a place for an evaluation: out={out} holds {kind}; name another place, or empty it")
    storage.write_json(storage.join(out, BEGUN), {"velfield_version": __version__})


def without_boxes(row: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A row as metrics.json has it: mean and scatter, without each box's value."""
    return {name: {k: v for k, v in value.items() if k != "boxes"} for name, value in row.items()}


def _tests(urls: Sequence[str], split: str | None) -> list[Test]:
    """Open the stores and pick the boxes."""
    if not urls:
        raise VelfieldError("nothing to evaluate on: fields=[]; give at least one field store")
    tests = []
    for url in urls:
        ds = open_fields(url, chunks=None)
        if "velocity" not in ds:
            raise StoreError(f"the store holds no truth: url={url}, variable=velocity; paint it again with --particles")
        splits = np.asarray(ds["split"].values)
        boxes = np.arange(ds.sizes["box"]) if split is None else np.flatnonzero(splits == split)
        if boxes.size == 0:
            raise StoreError(
                f"no boxes of this split: url={url}, split={split}; choose from {', '.join(sorted(set(splits)))}"
            )
        tests.append(Test(url=url, ds=ds, boxes=tuple(int(b) for b in boxes)))
    shapes = {(int(t.ds.attrs["cells"]), float(t.ds.attrs["cellsize"])) for t in tests}
    if len(shapes) > 1:
        found = ", ".join(f"{n} cells of {size:g} Mpc/h" for n, size in sorted(shapes))
        raise VelfieldError(f"boxes of different sizes cannot be averaged: {found}; evaluate them one by one")
    return tests


def _judged(model: str, tests: Sequence[Test], tracer: str, smoothing: float | None, average: int = 1) -> Judged:
    """An analytic model by its name, or a bundle by its URL; settled for each store."""
    if tracer != "number" and model not in (*analytic.HALOS, analytic.WHOLE):
        raise VelfieldError(
            f"only halos have a tracer: model={model}, tracer={tracer}; leave it out, or name linear_halo, linear_whole"
        )
    if average != 1 and model in analytic.NAMES:
        raise VelfieldError(f"only a network is averaged: model={model}, average={average}; leave it out")
    if model in analytic.NAMES:
        how = {test.url: analytic.settings(model, test.ds, tracer=tracer, smoothing=smoothing) for test in tests}

        def linear(test: Test, boxes: Sequence[int]) -> NDArray[Any]:
            return analytic.velocities(how[test.url], test.ds, boxes)

        settings = {url: one.to_dict() for url, one in how.items()}
        return Judged(row=model, predict=linear, parents=(), settings=settings)
    if not storage.exists(model):
        raise VelfieldError(
            f"no such model: model={model}; give {', '.join(analytic.NAMES)}, or the URL of a bundle that "
            "velfield train wrote"
        )
    if smoothing is not None:
        raise VelfieldError(f"a bundle takes no smoothing: model={model}, smoothing={smoothing:g}; leave it out")
    from velfield.model import load_model  # torch: only where a network is asked for

    bundle = load_model(model)
    settings, notes = {}, []
    for test in tests:
        bundle.check(test.ds)
        symmetries_of_boxes(test.ds, average)
        unlike = bundle.differences(test.ds)
        settings[test.url] = {"bundle": model, "unlike_training": unlike}
        for name, (models, stores) in unlike.items():
            notes.append(f"the model was trained at {name}={models}, {test.url} has {name}={stores}")

    def network(test: Test, boxes: Sequence[int]) -> NDArray[Any]:
        velocity = bundle.predict(test.ds, boxes=boxes, average=average)["velocity"]
        return np.asarray(velocity.transpose("box", "component", "x", "y", "z"))

    parents = tuple(bundle.metadata["parents"])
    return Judged(row=BUNDLE, predict=network, parents=parents, settings=settings, notes=tuple(notes))


def _refuse_seen(judged: Judged, tests: Sequence[Test]) -> None:
    for test in tests:
        parents = test.ds["parent"].values[list(test.boxes)]
        seen = sorted(set(parents) & set(judged.parents))
        if seen:
            count = int(np.isin(parents, seen).sum())
            raise VelfieldError(
                f"the model was trained on this universe: url={test.url}, boxes={count} of {len(test.boxes)}, "
                f"parent={seen[0]}; evaluate on another seed's, or allow it with --allow-seen"
            )


def _measure(
    judged: Judged, tests: Sequence[Test], drawn: Drawn, count_filled: bool, progress: Progress
) -> tuple[list[dict[str, Any]], NDArray[Any] | None]:
    """Measures of each box, and the prediction of the one that is drawn."""
    measured, kept = [], None
    progress.start(f"evaluate {judged.row}", sum(len(test.boxes) for test in tests), "boxes")
    for test, number, predicted in _predictions(judged, tests):
        true, flag = _truth(test, number)
        cellsize = float(test.ds.attrs["cellsize"])
        measured.append(measure_box(predicted, true, cellsize=cellsize, flag=flag, count_filled=count_filled))
        if test is drawn.test and number == drawn.box:
            kept = predicted
        progress.advance(note=f"cos θ {measured[-1]['cos_theta']:.2f}")
    progress.done()
    return measured, kept


def _predictions(judged: Judged, tests: Sequence[Test]) -> Iterator[tuple[Test, int, NDArray[Any]]]:
    """Store, box number and prediction of each box; a few boxes in memory at a time."""
    for test in tests:
        for first in range(0, len(test.boxes), AT_ONCE):
            boxes = test.boxes[first : first + AT_ONCE]
            predicted = judged.predict(test, boxes)
            for number, velocity in zip(boxes, predicted, strict=True):
                yield test, number, velocity


def _truth(test: Test, box: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """True velocity (3, x, y, z) [km/s] and flags (x, y, z) of a box's core; refuses a box that lost its truth."""
    one = test.ds.isel(box=box)
    core = one.velfield.core(one[["velocity", "velocity_flag"]])
    velocity = np.asarray(core["velocity"].transpose("component", "x", "y", "z"))
    flag = np.asarray(core["velocity_flag"].transpose("x", "y", "z"))
    if flag.max(initial=0) > OUTSIDE or not np.isfinite(velocity[:, flag != OUTSIDE]).all():  # reads as 255, as NaN
        raise StoreError(
            f"a box of the store has lost its truth: store={test.url}, box={box}; "
            "check it with velfield verify, and paint it again"
        )
    return velocity, flag


def _drawn(tests: Sequence[Test], box: int | None, seed: int, figures: bool) -> Drawn:
    """The box that the figures show."""
    if box is not None and not figures:
        raise VelfieldError(f"a box is chosen and nothing is drawn: box={box}, figures=False; leave one out")
    if seed < 0:
        raise VelfieldError(f"no such seed: seed={seed}; give a number from 0 on")
    if box is None:
        return Drawn(test=tests[0], box=int(np.random.default_rng(seed).choice(tests[0].boxes)))
    if box not in tests[0].boxes:
        raise VelfieldError(
            f"no such box among the measured ones: box={box}, boxes={len(tests[0].boxes)}, url={tests[0].url}; "
            "choose another or leave it out"
        )
    return Drawn(test=tests[0], box=box)


def _draw(
    out: str,
    row: str,
    drawn: Drawn,
    predicted: NDArray[Any] | None,
    compare: Mapping[str, analytic.Settings],
    rows: Mapping[str, Any],
) -> list[str]:
    """Write the figures of one box and return their paths below ``out``."""
    from velfield import figures  # matplotlib: only where something is drawn

    test, box = drawn.test, drawn.box
    shown = {name: analytic.reconstruct(how, test.ds, box) for name, how in compare.items() if name != row}
    if predicted is not None:
        shown[row] = predicted
    true, _ = _truth(test, box)
    written = []
    for name, figure in figures.draw(true, shown, float(test.ds.attrs["cellsize"]), rows).items():
        figures.save(figure, storage.join(out, "figures", f"{name}.png"))
        written.append(f"figures/{name}.png")
    return written


def _provenance(test: Test) -> dict[str, Any]:
    attrs = test.ds.attrs
    kept = ("fingerprint", "redshift", "cells", "cellsize", "margin", "rsd", "min_mass", "boxsize")
    return {"url": test.url, "boxes": list(test.boxes), "parents": sorted(set(test.ds["parent"].values))} | {
        name: attrs[name] for name in kept
    }
