"""What a run did, for ``--report``: Dask's performance report, and beside it a summary in JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from distributed import Client

from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.pipelines import stages
from velfield.version import __version__


class Record:
    """Counts of a run: by name of task its number, seconds, stages and retries; by worker its peak of memory."""

    def __init__(self, *, sampled: bool = False) -> None:
        self.sampled = sampled
        self.tasks: dict[str, dict[str, Any]] = {}
        self.peaks: dict[str, int] = {}
        self.threads = 0
        self.scheduler_memory = self.scheduler_tasks = 0

    def add(self, name: str, measured: stages.Measured) -> None:
        """Count a task that is done."""
        row = self._row(name)
        row["count"] += 1
        row["seconds"] += measured.seconds
        stages.add(row["stages"], measured.stages)
        self._peak(measured.worker, measured.peak_memory)

    def retried(self, name: str, error: BaseException) -> None:
        """Count a task that is tried again."""
        row = self._row(name)
        row["retries"] += 1
        row["errors"][type(error).__name__] = row["errors"].get(type(error).__name__, 0) + 1

    def look(self, client: Client, workers: Mapping[str, Mapping[str, Any]]) -> None:
        """See how large the workers and the scheduler are now."""
        if not self.sampled:
            return
        self.threads = max(self.threads, sum(worker["nthreads"] for worker in workers.values()))
        for worker, known in workers.items():
            self._peak(worker, int(known.get("metrics", {}).get("memory", 0)))
        with suppress(Exception):  # a scheduler may forbid it; then the summary goes without
            memory, tasks = on_scheduler(
                client,
                lambda dask_scheduler: (dask_scheduler.monitor.proc.memory_info().rss, len(dask_scheduler.tasks)),
            )
            self.scheduler_memory = max(self.scheduler_memory, memory)
            self.scheduler_tasks = max(self.scheduler_tasks, tasks)

    def totals(self) -> stages.Sums:
        """The stages' sums over all tasks."""
        sums: stages.Sums = {}
        for row in self.tasks.values():
            stages.add(sums, row["stages"])
        return sums

    def _row(self, name: str) -> dict[str, Any]:
        return self.tasks.setdefault(name, {"count": 0, "seconds": 0.0, "retries": 0, "errors": {}, "stages": {}})

    def _peak(self, worker: str, memory: int) -> None:
        self.peaks[worker] = max(self.peaks.get(worker, 0), memory)


_current: ContextVar[Record | None] = ContextVar("velfield_record", default=None)


def current() -> Record:
    """The record of the run that goes on; one that nobody reads outside `reported`."""
    return _current.get() or Record()


def address(client: Client) -> str:
    """The scheduler's address, also when the connection to it is lost."""
    return str(getattr(client.scheduler, "address", None) or client._start_arg or "unknown")


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """The workers that the scheduler knows now, by address."""
    scheduler: Any = client.scheduler
    return dict(client.sync(scheduler.identity, n_workers=-1, callback_timeout=30)["workers"])


def on_scheduler(client: Client, function: Any) -> Any:
    """Call a function in the scheduler's process, and do not wait for ever."""
    return client.sync(client._run_on_scheduler, function, callback_timeout=10)


def check_name(report: str | None) -> None:
    """Refuse a report's name from which the summary's cannot be made."""
    if report is not None and not report.endswith(".html"):
        raise VelfieldError(f"not a name for a report: report={report}; give a name that ends in .html")


@contextmanager
def reported(client: Client, report: str | None, command: str, settings: Mapping[str, Any]) -> Iterator[Record]:
    """Record what is run inside, and in the end write it to ``report`` and, as JSON, beside it.

    Parameters
    ----------
    report : str, optional
        URL that ends in ``.html``; without it nothing is written.
    command : str
        The verb.
    settings : mapping
        What the user asked for. Passwords and tokens in URLs are left out.
    """
    record = Record(sampled=report is not None)
    token = _current.set(record)
    began, monotonic = time.time(), time.monotonic()
    error: BaseException | None = None
    last_count = 0
    try:
        if report is not None:
            client.get_task_stream(start=0, stop=0)  # from here on the scheduler keeps it
            last_count = on_scheduler(client, lambda dask_scheduler: dask_scheduler.monitor.count)
        yield record
    except BaseException as stopped:
        error = stopped
        raise
    finally:
        _current.reset(token)
        if report is not None:
            about = {
                "command": command,
                "settings": without_secrets(dict(settings)),
                "version": __version__,
                "started": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - monotonic, 3),
                "finished": error is None,
                "error": None if error is None else f"{type(error).__name__}: {error}",
            }
            if error is None:
                _write(client, report, about, record, began, last_count)
            else:
                with suppress(Exception):  # what stopped the run is told, not what became of the report
                    _write(client, report, about, record, began, last_count)


def summary(record: Record, seconds: float) -> dict[str, Any]:
    """What a record says, as the JSON file has it: seconds and bytes, and the rates that follow from them."""
    tasks = {name: row | {"stages": _with_rates(row["stages"])} for name, row in record.tasks.items()}
    totals = record.totals()
    rates = {
        f"{name}_{what}_per_second": values[what] / seconds
        for name, values in totals.items()
        for what in ("bytes", "rows")
        if values[what] and seconds > 0
    }
    return {
        "tasks": tasks,
        "stages": _with_rates(totals),
        "rates": rates,  # over the whole run's seconds; a stage's own are over its seconds in all threads
        "retries": sum(row["retries"] for row in record.tasks.values()),
        "threads": record.threads,
        "worker_peak_memory": dict(sorted(record.peaks.items())),
        "scheduler": {"peak_memory": record.scheduler_memory, "most_tasks": record.scheduler_tasks},
    }


def without_secrets(value: Any) -> Any:
    """Take user names, passwords and tokens out of the URLs in a structure of dicts and lists."""
    if isinstance(value, Mapping):
        hidden = re.compile("secret|token|password|key$", re.IGNORECASE)
        return {name: "***" if hidden.search(str(name)) else without_secrets(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(v) for v in value]
    if isinstance(value, str) and "://" in value:
        return re.sub(r"\?.*", "?***", re.sub(r"://[^/@]*@", "://***@", value))
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _with_rates(sums: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Sums with what is 0 left out, and the rates that follow."""
    rows: dict[str, dict[str, float]] = {}
    for name, values in sums.items():
        rows[name] = {"seconds": values["seconds"]}
        for what in ("bytes", "rows"):
            if values[what]:
                rows[name][what] = values[what]
                rows[name][f"{what}_per_second"] = values[what] / max(values["seconds"], 1e-9)
    return rows


def _write(
    client: Client, report: str, about: Mapping[str, Any], record: Record, began: float, last_count: int
) -> None:
    record.look(client, workers_of(client))
    came_and_went = {
        action: sum(
            event.get("action") == action
            for when, event in client.get_events("all")
            if when >= began and isinstance(event, Mapping)
        )
        for action in ("add-worker", "remove-worker")
    }
    local = client.cluster is not None
    what = summary(record, float(about["seconds"]))
    what["scheduler"] |= {"address": address(client), "in_the_commands_process": local}
    what["workers"] = {
        "worked": len(record.tasks) and len(record.peaks),
        "came": came_and_went["add-worker"],
        "went": came_and_went["remove-worker"],
    }
    storage.write_json(report.removesuffix(".html") + ".json", dict(about) | what)
    scheduler: Any = client.scheduler
    page = client.sync(
        scheduler.performance_report,
        start=began,
        last_count=last_count,
        code=f"velfield {about['command']}",
        mode="inline",  # to be read without a network
        callback_timeout=300,
    )
    storage.write_bytes(report, page.encode())
