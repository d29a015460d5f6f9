"""A time after which a run stops as at Ctrl-C: for callers that have only so many minutes at a time."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import TracebackType

from velfield.errors import VelfieldError


class OutOfTimeError(VelfieldError):
    """The time is up and work is left. Nothing was wrong: run again, it goes on."""

    status = 75  # EX_TEMPFAIL of sysexits.h: try again


class Deadline:
    """Within it the main thread gets SIGINT when the time is up; that ends as an `OutOfTimeError`.

    Parameters
    ----------
    minutes : float or None
        How long; None for as long as it takes.

    Attributes
    ----------
    passed : bool
        Whether the time is up.
    """

    def __init__(self, minutes: float | None) -> None:
        if minutes is not None and not 0 < minutes < math.inf:
            raise VelfieldError(f"no such time: minutes={minutes}; give a finite number above 0")
        self.minutes = minutes
        self.passed = False
        self._timer: threading.Timer | None = None
        self._ends = math.inf

    def __enter__(self) -> Deadline:
        if self.minutes is not None:
            self._ends = time.monotonic() + 60 * self.minutes
            self._timer = threading.Timer(60 * self.minutes, self._ring)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            try:
                self._timer.cancel()
                self._timer.join()
            except KeyboardInterrupt:  # it rang while the work was ending
                kind = kind or KeyboardInterrupt
        if self.passed and kind is not None and issubclass(kind, KeyboardInterrupt):
            raise self.out_of_time() from None

    def left(self) -> float:
        """Seconds that are left."""
        return self._ends - time.monotonic()

    def out_of_time(self) -> OutOfTimeError:
        """What is said when the time is up."""
        return OutOfTimeError(f"out of time: minutes={self.minutes:g}; run the same command again to go on")

    def _ring(self) -> None:
        self.passed = True
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, signal.SIGINT)  # ends a wait of the main thread, too
