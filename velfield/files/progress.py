"""Progress of long work: what is done, the rate, the time left. A bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Column


class Progress(Protocol):
    """What long work reports to."""

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Begin a stage of ``total`` units of work, ``before`` of them done earlier; ends the stage before it.

        A ``total`` of NaN is one that nobody knows.
        """

    def advance(self, amount: float = 1, note: str = "", *, nbytes: float = 0) -> None:
        """Count ``amount`` units, and bytes that were read or written for them, as done; ``note`` is shown beside."""

    def done(self, note: str = "") -> None:
        """End the stage."""


class Silent:
    """Reports to nobody."""

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Ignore the stage."""

    def advance(self, amount: float = 1, note: str = "", *, nbytes: float = 0) -> None:
        """Ignore the step."""

    def done(self, note: str = "") -> None:
        """Ignore the end."""


NARROW = 100  # columns of a terminal below which the bar gives way to the numbers


class Stage:
    """How far a stage is, and the line that says it; parameters as of `Progress.start`."""

    def __init__(self, label: str, total: float, unit: str, before: float = 0) -> None:
        self.label, self.total, self.unit, self.before = label, total, unit, before
        self.count, self.nbytes, self.note = before, 0.0, ""
        self.began = time.monotonic()

    def share(self) -> str:
        """How much of it is done: in per cent, or as a count where nobody knows the total."""
        if math.isnan(self.total):
            return f"{short(self.count)} {self.unit}"
        return f"{100 * self.count / self.total if self.total else 100:3.0f}%"

    def advance(self, amount: float, note: str, nbytes: float) -> None:
        """Count what is done; a note stays until there is another."""
        self.count += amount
        self.nbytes += nbytes
        self.note = note or self.note

    def rate(self, now: float) -> str:
        """Units, and bytes if there are any, a second; nothing before the first unit."""
        seconds = now - self.began
        here = self.count - self.before
        if seconds <= 0 or not here:
            return ""
        rate = f"{short(here / seconds)} {self.unit}/s"
        return f"{self.nbytes / seconds / 1e6:.3g} MB/s, {rate}" if self.nbytes else rate

    def line(self, now: float) -> str:
        """Count, rate, time left and note."""
        here = self.count - self.before
        known = not math.isnan(self.total)
        line = f"{self.label}: {short(self.count)}{f'/{short(self.total)}' if known else ''} {self.unit}"
        if here:
            line += f", {self.rate(now)}"
        if here and known:
            line += f", {(now - self.began) / here * (self.total - self.count):.0f} s left"
        return line + (f", {self.note}" if self.note else "")


class Terminal:
    """Progress on standard error: a bar on a terminal, otherwise a line every ``every`` seconds and one at the end."""

    def __init__(self, every: float = 10.0) -> None:
        self.console = Console(stderr=True)
        self.every = every
        self.bar: RichProgress | None = None
        self.stage: Stage | None = None
        self.printed = 0.0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(finished=kind is None)

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Begin a stage of ``total`` units of work, ``before`` of them done earlier; ends the stage before it.

        A stage that has not come to its total is said to have stopped there.
        """
        self._close(finished=self.stage is None or self.stage.count >= self.stage.total)
        self.stage = Stage(label, total, unit, before)
        self.printed = self.stage.began
        if self.console.is_terminal:
            wide = self.console.width >= NARROW
            columns = (
                TextColumn("{task.description}"),
                *((BarColumn(bar_width=16),) if wide else ()),
                TextColumn("{task.fields[share]}", style="magenta", table_column=Column(no_wrap=True)),
                TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
                # a narrow terminal cuts these, the last one first
                TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
                TextColumn(
                    "{task.fields[rate]}", style="cyan", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
                ),
            )
            self.bar = RichProgress(*columns, console=self.console, expand=self.console.width < 120)
            self.bar.start()
            self.bar.add_task(
                label,
                total=None if math.isnan(total) else total,
                completed=int(before),
                share=self.stage.share(),
                rate="",
                note="",
            )

    def advance(self, amount: float = 1, note: str = "", *, nbytes: float = 0) -> None:
        """Count ``amount`` units, and bytes that were read or written for them, as done; ``note`` is shown beside."""
        if (stage := self.stage) is None:
            return
        stage.advance(amount, note, nbytes)
        now = time.monotonic()
        if self.bar is not None:
            share, rate = stage.share(), stage.rate(now)
            self.bar.update(self.bar.task_ids[0], completed=stage.count, share=share, rate=rate, note=stage.note)
        elif now - self.printed >= self.every:
            self.printed = now
            print(stage.line(now), file=sys.stderr, flush=True)  # noqa: T201

    def done(self, note: str = "") -> None:
        """End the stage and leave one line that says how long it took."""
        self._close(finished=True, note=note)

    def _close(self, *, finished: bool, note: str = "") -> None:
        stage, self.stage = self.stage, None
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if stage is None:
            return
        now = time.monotonic()
        of = "" if math.isnan(stage.total) else f" of {short(stage.total)}"
        state = "done" if finished else f"stopped at {short(stage.count)}{of} {stage.unit}"
        parts = [f"{stage.label}: {state} in {now - stage.began:.1f} s", note or stage.note]
        if stage.nbytes:
            parts.append(stage.rate(now))
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)  # noqa: T201


def short(number: float) -> str:
    """A number in few characters: as it is below 10,000 if it is whole, else three digits and k, M, G or T."""
    if number < 1e4 and number == int(number):
        return f"{number:.0f}"
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"
