"""Progress of long work: what is done, the rate, the time left. A bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

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
        """Begin a stage of ``total`` units of work, ``before`` of them done earlier; ends the stage before it."""

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


class Terminal:
    """Progress on standard error: a bar on a terminal, otherwise a line every ``every`` seconds and one at the end."""

    def __init__(self, every: float = 10.0) -> None:
        self.console = Console(stderr=True)
        self.every = every
        self.bar: RichProgress | None = None
        self.label, self.unit, self.note = "", "", ""
        self.total = self.count = self.before = self.nbytes = 0.0
        self.began = self.printed = 0.0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.label:
            self._close(finished=kind is None)

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Begin a stage of ``total`` units of work, ``before`` of them done earlier; ends the stage before it."""
        if self.label:
            self.done()
        self.label, self.unit, self.note = label, unit, ""
        self.total, self.count, self.before, self.nbytes = total, before, before, 0.0
        self.began = self.printed = time.monotonic()
        if self.console.is_terminal:
            wide = self.console.width >= NARROW
            columns = (
                TextColumn("{task.description}"),
                *((BarColumn(bar_width=16),) if wide else ()),
                TextColumn("{task.percentage:>3.0f}%", style="magenta"),
                TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
                # a narrow terminal cuts these, the last one first
                TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
                TextColumn(
                    "{task.fields[rate]}", style="cyan", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
                ),
            )
            self.bar = RichProgress(*columns, console=self.console, expand=self.console.width < 120)
            self.bar.start()
            self.bar.add_task(label, total=total, completed=int(before), rate="", note="")

    def advance(self, amount: float = 1, note: str = "", *, nbytes: float = 0) -> None:
        """Count ``amount`` units, and bytes that were read or written for them, as done; ``note`` is shown beside."""
        self.count += amount
        self.nbytes += nbytes
        self.note = note or self.note
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.count, rate=self._rate(now), note=self.note)
        elif now - self.printed >= self.every:
            self.printed = now
            here = self.count - self.before
            left = (now - self.began) / here * (self.total - self.count) if here else float("nan")
            print(  # noqa: T201
                f"{self.label}: {short(self.count)}/{short(self.total)} {self.unit}, {self._rate(now)}, "
                f"{left:.0f} s left" + (f", {self.note}" if self.note else ""),
                file=sys.stderr,
                flush=True,
            )

    def done(self, note: str = "") -> None:
        """End the stage and leave one line that says how long it took."""
        self.note = note or self.note
        self._close(finished=True)

    def _close(self, *, finished: bool) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        now = time.monotonic()
        state = "done" if finished else f"stopped at {short(self.count)} of {short(self.total)} {self.unit}"
        parts = [f"{self.label}: {state} in {now - self.began:.1f} s", self.note]
        if self.nbytes:
            parts.append(self._rate(now))
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)  # noqa: T201
        self.label = ""

    def _rate(self, now: float) -> str:
        seconds = now - self.began
        here = self.count - self.before
        if seconds <= 0 or not here:
            return ""
        rate = f"{short(here / seconds)} {self.unit}/s"
        return f"{self.nbytes / seconds / 1e6:.3g} MB/s, {rate}" if self.nbytes else rate


def short(number: float) -> str:
    """A number in few characters: as it is below 10,000 if it is whole, else three digits and k, M, G or T."""
    if number < 1e4 and number == int(number):
        return f"{number:.0f}"
    for unit in ("", "k", "M", "G"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"
