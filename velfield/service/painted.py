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
from velfield.pipelines.paint_job import ROWS
from velfield.pipelines.paint_plan import check_fits, plan_of
from velfield.pipelines.predict_catalogue import Facts, FromCatalogue, from_catalogue
from velfield.service.apart import apart
from velfield.service.paint import FORMATS, Paint, check_sent
from velfield.service.problems import Problem
from velfield.service.results import FIELDS

MEMORY = 2**31  # bytes of a process that opens or reads a catalogue
OPENING, READING = 120.0, 1800.0  # how long that may take [s]


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job with a catalogue, ready to run.

    Parameters
    ----------
    of : FromCatalogue
        The painting and the prediction.
    asked_for : str
        Hash of all that fixes the result.
    sent : bool
        Whether a client sent the catalogue.
    """

    of: FromCatalogue
    asked_for: str
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
            apart(read_through, halos, memory=MEMORY, seconds=READING, names={})
        check_fits(plan_of(self.of.paint), client)
        predict.predict(client, change(self.of.painted(client, told)), told)
        self.of.clear()


def settled(
    model: str,
    facts: Facts,
    url: str,
    out: str,
    paint: Paint,
    options: Mapping[str, Any],
    *,
    sent: bool,
    names: Mapping[str, str],
) -> Work:
    """Open a catalogue, apart, and settle how it is painted and predicted; nothing but its head is read.

    Parameters
    ----------
    model, facts, url, out
        As in `velfield.pipelines.predict_catalogue.from_catalogue`.
    options : mapping
        Of the prediction.
    sent : bool
        Whether a client sent the file, rather than naming one of the operator's.
    names : mapping
        What the client calls places on this machine.
    """
    arguments = (model, facts, url, out, paint.model_dump(), dict(options), sent)
    of, asked_for = apart(_settled, *arguments, memory=MEMORY, seconds=OPENING, names=names)
    return Work(of=of, asked_for=asked_for, sent=sent)


def read_through(halos: Any) -> int:
    """Read all that painting will read of a catalogue, each row checked; returns the rows."""
    return sum(len(part.pos) for block in halos.blocks for part in halos.chunks(block.index, rows=ROWS))


def _settled(
    model: str, facts: Facts, url: str, out: str, paint: Mapping[str, Any], options: Mapping[str, Any], sent: bool
) -> tuple[FromCatalogue, str]:
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
    form = of.paint.catalogues["halos"].format
    if sent and form not in FORMATS:
        raise Problem(422, f"not a form that is sent: format={form}", f"send {', '.join(FORMATS)}")
    return of, of.asked_for
