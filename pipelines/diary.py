"""What was run, how long it took and on what machine: kept beside the work, over all runs that it takes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from velfield.files import storage

CPU_NAMES = Path("/proc/cpuinfo")  # Linux


@dataclass(kw_only=True)
class Diary:
    """Commands in order, and the seconds of each stage, over all runs that it took.

    Parameters
    ----------
    url : str
        The file in which ``settings`` and ``seconds`` are kept.
    settings : dict
        What the seconds belong to.
    seconds : dict
        Of each stage so far.
    commands : list of str
        As typed; not kept in the file.
    """

    url: str
    settings: dict[str, Any]
    seconds: dict[str, float]
    commands: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; interrupted, its seconds count all the same."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
            self.keep()

    def keep(self) -> None:
        """Write what is known so far."""
        storage.write_json(self.url, {"settings": self.settings, "seconds": self.seconds})


def machine() -> str:
    """The machine in words: its GPU where torch sees one, its processor, and the threads that torch uses."""
    import torch

    threads = torch.get_num_threads()
    words = f"{_processor()}, {threads} {'thread' if threads == 1 else 'threads'}"
    return f"{torch.cuda.get_device_name()}; {words}" if torch.cuda.is_available() else words


def _processor() -> str:
    lines = CPU_NAMES.read_text(errors="replace").splitlines() if CPU_NAMES.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine() or f"{os.cpu_count()} cores"
