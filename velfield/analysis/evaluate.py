"""A model against the truth, box by box: metrics.json, a table, and the paper's figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.accuracy.measures import combine
from velfield.accuracy.tables import table
from velfield.analysis.judged import BUNDLE, Judged, Test, judge, refuse_seen
from velfield.analysis.pieces import KNOWN, Answer, Asked, Piece, Spread, measure_piece, truth_of
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.files.progress import Progress, Silent
from velfield.files.shards import ROOT
from velfield.stores.coordinates import as_written
from velfield.stores.store import WORK, open_fields
from velfield.theory import analytic, plausible
from velfield.version import __version__

AT_ONCE = 8  # boxes that a network is given in one go
FOREIGN = {ROOT: "a store", WORK: "an unfinished store", "metadata.json": "a model", ".checkpoint": "a training"}
RECORD, BEGUN, METRICS = "evaluation.json", "evaluation.begun.json", "metrics.json"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The box that the figures show."""

    test: Test
    box: int


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
    accept: Sequence[str] = (),
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Measure a model on field stores that hold the truth.

    Parameters
    ----------
    model : str
        ``linear``, ``linear_padded``, ``linear_halo``, ``linear_halo_padded``, ``wiener``, ``linear_whole``,
        ``pretrained`` (the network that comes with velfield), or a bundle's URL, which is shown each box by itself; or
        a velocity store that `velfield predict` made from ``fields``, with the error bars that it has.
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
        For the analytic rows, drawn ones too, see `velfield.theory.analytic.settings`; a bundle takes neither.
    count_filled : bool
        Whether cells without a particle, filled from their neighbours, count.
    average : int
        Orientations of each box whose predictions by a bundle are averaged, see `velfield.network.model.Model.predict`.
    accept : sequence of str
        ``implausible``: measure also where input or predictions cannot be right; by default that is refused.
    progress : Progress, optional
        Is told of every box.
    note : callable, optional
        Is told, before the work begins, what is worth knowing: in what a store differs from the model's training.
    spread : callable, optional
        Runs the pieces of the work elsewhere (`velfield.pipelines.evaluate`); by default they run here, one by one.

    Returns
    -------
    dict
        ``{row: {measure: {"mean", "std"}, …, "r_of_k": …}}`` as `velfield.metrics` makes it, what metrics.json holds.
    """
    plausible.check_accept(accept)
    tests = _tests([fields] if isinstance(fields, str) else list(fields), split)
    judged = judge(model, tests, tracer, smoothing, average)
    if not allow_seen:
        refuse_seen(judged, tests)
    looked = [_look(judged, test, accept) for test in tests]
    drawn = _drawn(tests, box, seed, figures)
    beside = {name: analytic.settings(name, drawn.test.ds, tracer=tracer, smoothing=smoothing) for name in compare}
    if out is not None:
        _begin(out)
    if note is not None:
        for text in (*judged.notes, *(text for verdict in looked for text in plausible.notes_of(verdict.found))):
            note(text)
    asked = Asked(
        model=model,
        tracer=tracer,
        smoothing=smoothing,
        average=average,
        count_filled=count_filled,
        tracers=tuple(name for name in KNOWN if all(name in test.ds for test in tests)),
        identity=judged.identity,
    )
    pieces = _pieces(judged, tests, drawn if figures and out is not None else None)

    def here(pieces: Sequence[Piece], asked: Asked) -> Iterable[tuple[Piece, Answer]]:
        return ((piece, measure_piece(piece, asked, judged, tests[piece.number])) for piece in pieces)

    answers = (spread or here)(pieces, asked)
    measured, kept, sums = _collect(judged.row, pieces, answers, Silent() if progress is None else progress)
    checks = [_checks(*both, accept) for both in zip(tests, looked, sums, strict=True)]
    row = combine(measured) | {"checks": {"stores": checks}}
    rows = {judged.row: without_boxes(row)}
    if out is not None:
        about = {
            "model": model,
            "row": judged.row,
            "weights": judged.identity or None,  # of a bundle, wherever it lies
            "split": split,
            "allow_seen": allow_seen,
            "count_filled": count_filled,
            "average": judged.average,
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
        ds = as_written(open_fields(url, chunks=None))
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


def _pieces(judged: Judged, tests: Sequence[Test], drawn: Drawn | None) -> list[Piece]:
    """The boxes of every store, as many together as a network is given in one go."""
    step = AT_ONCE if judged.row == BUNDLE else 1
    return [
        Piece(
            number=number,
            url=test.url,
            fingerprint=str(test.ds.attrs["fingerprint"]),
            boxes=test.boxes[first : first + step],
            drawn=drawn.box if drawn is not None and drawn.test is test else None,
        )
        for number, test in enumerate(tests)
        for first in range(0, len(test.boxes), step)
    ]


def _collect(
    row: str, pieces: Sequence[Piece], answers: Iterable[tuple[Piece, Answer]], progress: Progress
) -> tuple[list[dict[str, Any]], NDArray[Any] | None, list[plausible.VelocitySums]]:
    """Measures of each box, in their order, the prediction of the one that is drawn, and the sums of each store."""
    found: dict[Piece, list[dict[str, Any]]] = {}
    sums: dict[Piece, plausible.VelocitySums] = {}
    kept, angles = None, []
    progress.start(f"evaluate {row}", sum(len(piece.boxes) for piece in pieces), "boxes")
    for piece, (measured, drawn, sums[piece]) in answers:
        found[piece] = measured
        kept = drawn if drawn is not None else kept
        for one in measured:
            if np.isfinite(one["cos_theta"]):
                angles.append(one["cos_theta"])
            progress.advance(note=f"mean cos θ {np.mean(angles):.2f}" if angles else "")
    progress.done()
    stores = [[sums[piece] for piece in pieces if piece.number == number] for number in range(pieces[-1].number + 1)]
    total = [plausible.VelocitySums.total(parts) for parts in stores]
    return [one for piece in pieces for one in found[piece]], kept, total


def _look(judged: Judged, test: Test, accept: Sequence[str]) -> plausible.Verdict:
    """Whether a store can be right as an input; velocities that are there already had theirs looked at."""
    if not judged.takes:
        return plausible.Verdict(None, {})
    expected = plausible.expected_of(test.ds, judged.takes)
    seen = plausible.look(test.ds, range(test.ds.sizes["box"]), expected, judged.far)
    verdict = plausible.judge_input(test.ds, expected, seen)
    plausible.refuse(verdict.reason, accept)
    return verdict


def _checks(
    test: Test, looked: plausible.Verdict, sums: plausible.VelocitySums, accept: Sequence[str]
) -> dict[str, Any]:
    """Whether the predictions on a store can be right, and what was found of them and of the input."""
    made = plausible.judge_velocity(test.ds, sums)
    plausible.refuse(made.reason, accept)
    return {"url": test.url} | looked.found | made.found | {"implausible": plausible.why_of(looked, made)}


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
    from velfield.analysis import curves, figure_style, figures  # matplotlib: only where something is drawn

    test, box = drawn.test, drawn.box
    shown = {name: analytic.reconstruct(how, test.ds, box) for name, how in compare.items() if name != row}
    if predicted is not None:
        shown[row] = predicted
    true, _ = truth_of(test, box)
    written = []
    drawings = figures.draw(true, shown, float(test.ds.attrs["cellsize"])) | curves.draw(rows)
    for name, figure in drawings.items():
        figure_style.save(figure, storage.join(out, "figures", f"{name}.png"))
        written.append(f"figures/{name}.png")
    return written


def _provenance(test: Test) -> dict[str, Any]:
    attrs, parents = test.ds.attrs, test.ds["parent"].values
    names = sorted(set(parents))
    kept = ("fingerprint", "redshift", "cells", "cellsize", "margin", "rsd", "min_mass", "boxsize")
    return {
        "url": test.url,
        "boxes": list(test.boxes),
        "parents": names,
        "parent_of_box": [names.index(parents[box]) for box in test.boxes],  # in ``parents``
    } | {name: attrs[name] for name in kept}
