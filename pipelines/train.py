"""The training job: one task on a worker that offers a GPU; how it goes comes back to where the job is.

The worker trains in the task's thread, with as many threads of torch as the worker has. What it says goes to the
scheduler as events, from there to the client, and beside Dask's own measures of the worker onto the dashboard. A task
that nobody wants any more, because of Ctrl-C or because its client is gone, stops after the step in hand and leaves a
checkpoint; so does one whose worker is about to leave, and Dask gives that to another.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from distributed import Client, Reschedule, Status, get_worker

from velfield.files import storage
from velfield.files.progress import Progress, Silent, Stage
from velfield.learning.train import TrainConfig, TrainResult
from velfield.learning.train import train as run
from velfield.pipelines import watch
from velfield.pipelines.stages import stage
from velfield.pipelines.tasks import run_tasks

RESOURCE = "GPU"
TOPIC = "velfield-train"  # of the events
MEASURE = "training"  # the column on the dashboard
EVERY = 0.5  # between two events about progress [s]
STEPS = "train"  # the stage in which `velfield.learning.train` itself asks whether to stop


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training, and the name that its events carry."""

    name: str
    fields: tuple[str, ...]
    out: str
    config: TrainConfig


def train(
    client: Client,
    fields: Sequence[str],
    out: str,
    config: TrainConfig,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> TrainResult:
    """`velfield.learning.train.train` on a worker that offers ``GPU=1``; one at a time for a client.

    Local paths are taken from this process's folder, and must be the worker's, too.
    """
    job = Job(
        name=uuid.uuid4().hex,
        fields=tuple(storage.absolute(url) for url in fields),
        out=storage.absolute(out),
        config=replace(config, guide_cache=config.guide_cache and storage.absolute(config.guide_cache)),
    )
    heard = _Heard(job.name, progress or Silent(), note)
    client.subscribe_topic(TOPIC, heard)
    try:
        [(_, result)] = run_tasks(client, train_here, [job.out], job, name="train", resource=RESOURCE)
    except KeyboardInterrupt as interrupt:
        stopped = heard.wait_for_the_stop(client)
        raise KeyboardInterrupt(stopped) from interrupt
    finally:
        heard.done = True
        if client.status == "running":
            client.unsubscribe_topic(TOPIC)
    return result


class _Heard:
    """Passes on what the worker says; called with each event, in the client's own thread."""

    def __init__(self, name: str, progress: Progress, note: Callable[[str], None] | None) -> None:
        self.name, self.progress, self.note = name, progress, note or (lambda _: None)
        self.worker = ""
        self.stopped: str | None = None
        self.done = False

    def __call__(self, event: tuple[float, Any]) -> None:
        said = event[1]
        if self.done or said["training"] != self.name:
            return
        what, given = said["what"], said["given"]
        if what == "begin":
            again = ", from its last checkpoint, because the one before is gone" if self.worker else ""
            self.worker = given["worker"]
            self.note(f"training on worker={self.worker}{again}")
        elif what == "start":
            self.progress.start(given["label"], given["total"], given["unit"], before=given["before"])
        elif what == "advance":
            self.progress.advance(given["amount"], given["note"], nbytes=given["nbytes"])
        elif what == "done":
            self.progress.done(given["note"])
        elif what == "note":
            self.note(given["text"])
        elif what == "stopped":
            self.stopped = given["text"]

    def wait_for_the_stop(self, client: Client) -> str:
        """Wait until the worker, if one has begun, has left a checkpoint; returns what it says of it."""
        if self.worker and self.stopped is None:
            self.note(f"the worker ends its step and leaves a checkpoint: worker={self.worker}")
        while self.worker and self.stopped is None and client.status == "running":
            time.sleep(0.1)
            with suppress(OSError, TimeoutError):
                if self.worker not in watch.workers_of(client):
                    break
        return self.stopped or ""


def train_here(out: str, job: Job) -> TrainResult:
    """Task: train, and say how it goes."""
    worker: Any = get_worker()
    key = worker.get_current_task()

    def unwanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled" or worker.status not in (Status.running, Status.paused)

    saying = _Saying(worker, job.name, unwanted)
    with _alone(unwanted), saying, _threads(worker.state.nthreads), _may_have_processes(), stage("train"):
        try:
            return run(job.fields, out, job.config, saying, saying.note, stop=unwanted)
        except KeyboardInterrupt as stopped:
            saying.say("stopped", text=str(stopped))
            raise Reschedule from stopped  # counts for nothing where the task is cancelled


class _Saying:
    """A progress that tells the client, and whoever looks at the dashboard."""

    def __init__(self, worker: Any, name: str, unwanted: Callable[[], bool]) -> None:
        self.worker, self.name, self.unwanted = worker, name, unwanted
        self.stage: Stage | None = None
        self._unsaid: dict[str, Any] = {}
        self._said = 0.0

    def __enter__(self) -> _Saying:
        self.say("begin", worker=self.worker.address)
        self.worker.metrics[MEASURE] = self._line
        return self

    def __exit__(self, *_: object) -> None:
        del self.worker.metrics[MEASURE]

    def say(self, what: str, **given: Any) -> None:
        """Send an event."""
        self.worker.log_event(TOPIC, {"training": self.name, "what": what, "given": given})

    def note(self, text: str) -> None:
        """Say what could not be done as asked."""
        self.say("note", text=text)

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Begin a stage."""
        self._stop_if_unwanted()
        self._send()
        self.stage = Stage(label, total, unit, before)
        self.say("start", label=label, total=total, unit=unit, before=before)

    def advance(self, amount: float = 1, note: str = "", *, nbytes: float = 0) -> None:
        """Count what is done, and tell it now and then."""
        if self.stage is None:
            return
        self.stage.advance(amount, note, nbytes)
        unsaid = self._unsaid or {"amount": 0, "note": "", "nbytes": 0}
        self._unsaid = {
            "amount": unsaid["amount"] + amount,
            "note": note or unsaid["note"],
            "nbytes": unsaid["nbytes"] + nbytes,
        }
        if time.monotonic() - self._said >= EVERY:
            self._send()
        if self.stage.label != STEPS:
            self._stop_if_unwanted()

    def done(self, note: str = "") -> None:
        """End the stage."""
        self._send()
        self.stage = None
        self.say("done", note=note)

    def _send(self) -> None:
        if self._unsaid:
            self.say("advance", **self._unsaid)
            self._unsaid, self._said = {}, time.monotonic()

    def _stop_if_unwanted(self) -> None:
        if self.unwanted():
            raise KeyboardInterrupt("stopped before the first step")

    def _line(self, _worker: Any) -> str:
        stage = self.stage
        return stage.line(time.monotonic()) if stage else "…"


_ours = threading.Lock()


@contextmanager
def _alone(unwanted: Callable[[], bool]) -> Iterator[None]:
    """One training at a time in a process: it has torch's random numbers, and the GPU, to itself."""
    while not _ours.acquire(timeout=1):
        if unwanted():
            raise Reschedule
    try:
        yield
    finally:
        _ours.release()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many of torch's threads, in this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _may_have_processes() -> Iterator[None]:
    """Let a worker under Dask's nanny, which is a daemon and as such may not, start the loader's processes.

    These look after their parent themselves and end with it.
    """
    this = multiprocessing.current_process()
    before = this.daemon
    this.daemon = False
    try:
        yield
    finally:
        this.daemon = before
