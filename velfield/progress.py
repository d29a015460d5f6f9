"""Progress of long work: what is done, the rate, the time left. A bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress(Protocol):
    """What long work reports to."""

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Begin a stage of ``total`` units of work, ``before`` of them done earlier; ends the stage before it."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count ``amount`` units as done; ``note`` is shown beside them."""

    def done(self, note: str = "") -> None:
        """End the stage."""


class Silent:
    """Reports to nobody."""

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Ignore the stage."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Ignore the step."""

    def done(self, note: str = "") -> None:
        """Ignore the end."""


class Terminal:
    """Progress on standard error: a bar on a terminal, otherwise a line every ``every`` seconds and one at the end."""

    def __init__(self, every: float = 10.0) -> None:
        self.console = Console(stderr=True)
        self.every = every
        self.bar: RichProgress | None = None
        self.label, self.unit, self.note, self.total, self.count = "", "", "", 0.0, 0.0
        self.began = self.printed = self.before = 0.0

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
        self.label, self.unit, self.note, self.total, self.count = label, unit, "", total, 0.0
        self.count = self.before = before
        self.began = self.printed = time.monotonic()
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}", style="cyan"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}", style="dim"),
            )
            self.bar = RichProgress(*columns, console=self.console, expand=self.console.width < 100)
            self.bar.start()
            self.bar.add_task(label, total=total, completed=int(before), rate="", note="")

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Count ``amount`` units as done; ``note`` is shown beside them."""
        self.count += amount
        self.note = note or self.note
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.count, rate=self._rate(now), note=self.note)
        elif now - self.printed >= self.every:
            self.printed = now
            here = self.count - self.before
            left = (now - self.began) / here * (self.total - self.count) if here else float("nan")
            print(  # noqa: T201
                f"{self.label}: {self.count:g}/{self.total:g} {self.unit}, {self._rate(now)}, {left:.0f} s left"
                + (f", {self.note}" if self.note else ""),
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
        seconds = time.monotonic() - self.began
        state = "done" if finished else f"stopped at {self.count:g} of {self.total:g} {self.unit}"
        print(  # noqa: T201
            f"{self.label}: {state} in {seconds:.1f} s" + (f", {self.note}" if self.note else ""),
            file=sys.stderr,
            flush=True,
        )
        self.label = ""

    def _rate(self, now: float) -> str:
        seconds = now - self.began
        here = self.count - self.before
        return f"{here / seconds:.3g} {self.unit}/s" if seconds > 0 and here else ""
