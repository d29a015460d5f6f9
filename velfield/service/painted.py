"""A catalogue of halos as a job: painted, then predicted, as `velfield predict` does with one.

What a client sent is opened, and read once from end to end, by a process of its own (`velfield.service.apart`) before
any worker is given it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from distributed import Client

from velfield.files import storage
from velfield.files.progress import Progress
from velfield.pipelines import predict
from velfield.pipelines.paint_job import ROWS, reads
from velfield.pipelines.paint_plan import check_fits, plan_of
from velfield.pipelines.predict_catalogue import Facts, FromCatalogue, from_catalogue
from velfield.service.apart import apart
from velfield.service.paint import FORMATS, Paint, check_sent
from velfield.service.problems import Problem
from velfield.service.results import FIELDS

MEMORY = 2**31  # bytes of a process that opens or reads a catalogue
OPENING, READING = 120.0, 1800.0  # how long that may take [s]
SAME = 1e-6  # of cell sizes, which are quotients


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job with a catalogue, ready to run.

    Parameters
    ----------
    of : FromCatalogue
        The painting and the prediction.
    asked_for : str
        Hash of all that fixes the result.
    notes : list of str
        What is to be said of the catalogue, and in what its fields will differ from the model's training.
    sent : bool
        Whether a client sent the catalogue.
    """

    of: FromCatalogue
    asked_for: str
    notes: list[str]
    sent: bool

    def at(self, out: str) -> Work:
        """The same, its result at another place."""
        paint = replace(self.of.paint, out=out + FIELDS)
        return replace(self, of=replace(self.of, out=out, paint=paint))

    def run(self, client: Client, told: Progress, change: Callable[[predict.Job], predict.Job]) -> None:
        """Paint and predict, or go on with it; ``change`` is what the service makes of the prediction's job."""
        if self.of.finished():
            return
        if self.sent and not storage.exists(self.of.paint.out):
            halos = self.of.paint.catalogues["halos"]
            told.start("read the catalogue", len(halos), "halos")

            def check() -> None:
                told.advance(0)  # raises where the job is not to go on

            wanted = reads(halos, self.of.paint.scene)
            apart(read_through, halos, wanted, memory=MEMORY, seconds=READING, names={}, check=check)
        check_fits(plan_of(self.of.paint), client)
        with self.of.clearing():
            predict.predict(client, change(self.of.painted(client, told)), told)


def settled(
    model: str,
    facts: Facts,
    url: str,
    out: str,
    paint: Paint,
    options: Mapping[str, Any],
    *,
    grid: int,
    sent: bool,
    names: Mapping[str, str],
) -> Work:
    """Open a catalogue, apart, and settle how it is painted and predicted; nothing but its head is read.

    Refuses what is known to fail before anything is painted: a parent that is too large, cells of another size, an
    input or a context that the painted fields will not have.

    Parameters
    ----------
    model, facts, url, out
        As in `velfield.pipelines.predict_catalogue.from_catalogue`.
    options : mapping
        Of the prediction.
    grid : int
        Cells along the side of a parent that is painted, at most.
    sent : bool
        Whether a client sent the file, rather than naming one of the operator's.
    names : mapping
        What the client calls places on this machine.
    """
    arguments = (model, facts, url, out, paint.model_dump(), dict(options), grid, sent)
    work: Work = apart(_settled, *arguments, memory=MEMORY, seconds=OPENING, names=names)
    return work


def read_through(halos: Any, wanted: Mapping[str, bool]) -> int:
    """Read all that painting will read of a catalogue, each row checked; returns the rows."""
    return sum(len(part.pos) for block in halos.blocks for part in halos.chunks(block.index, rows=ROWS, **wanted))


def _settled(
    model: str,
    facts: Facts,
    url: str,
    out: str,
    paint: Mapping[str, Any],
    options: Mapping[str, Any],
    grid: int,
    sent: bool,
) -> Work:
    if sent:
        check_sent(url)
    asked = Paint.model_validate(paint)
    of = from_catalogue(
        model,
        url,
        out,
        boxes=asked.boxes,
        cells=asked.cells,
        paint=asked.keywords(),
        options=options,
        facts=facts,
    )
    form, boxes = of.paint.catalogues["halos"].format, of.paint.scene.boxes
    if sent and form not in FORMATS:
        raise Problem(422, f"not a form that is sent: format={form}", f"send {', '.join(FORMATS)}")
    if boxes.ngrid > grid:
        raise Problem(
            413,
            f"a parent of too many cells: cells={boxes.ngrid} a side, limit={grid}",
            "ask for fewer, or paint it yourself",
        )
    if facts.cellsize is not None and abs(boxes.cellsize / facts.cellsize - 1) > SAME:
        raise Problem(
            422,
            f"cells of another size: cellsize={boxes.cellsize:g}, the model's={facts.cellsize:g}",
            "choose boxes and cells that give the model's, or leave both out",
        )
    expected, _ = of.expected()
    return Work(of=of, asked_for=of.asked_for, notes=[*of.paint.notes, *expected.differences], sent=sent)
