"""Jobs: what was asked, how far it is; each a small JSON file that is written whole, so that a restart loses none.

A job's name is the fingerprint of its model, its input and its settings: the same request is the same job.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from velfield.files import storage
from velfield.service.limits import Limits
from velfield.service.problems import Problem

LOG = logging.getLogger("velfield.service")
ID = re.compile(r"[0-9a-f]{32}")
WAITING, LIVE, OVER = ("queued",), ("queued", "running", "cancelling"), ("done", "failed", "cancelled")
STATES = (*LIVE, *OVER)


@dataclass
class Job:
    """A prediction of a whole store.

    Parameters
    ----------
    id : str
        The first 32 digits of the prediction's fingerprint.
    model, input : str
        As the client named them.
    average : int
        Orientations that are averaged.
    isolated : bool
        Whether each box is predicted by itself, also where the boxes are one whole parent.
    paint : dict, optional
        Of a catalogue of halos: how it is painted.
    accept : list of str
        ``implausible``, where a result that cannot be right is wanted all the same.
    boxes, cells : int
        How many there are, and cells of a box.
    state : str
        One of `STATES`.
    created, changed : float
        When it was asked for, and when its state changed last [s since 1970].
    notes : list of str
        In what the input differs from the model's training.
    error, what_to_do : str, optional
        Of one that failed.
    tries : int
        How often a cluster gave out under it.
    stage, unit : str
        What is being done, and in what it is counted.
    done, total, before, began :
        How many there are of that, how many were done before this run, and since when it goes on.
    """

    id: str
    model: str
    input: str
    average: int
    isolated: bool
    boxes: int
    cells: int
    notes: list[str]
    paint: dict[str, Any] | None = None
    accept: list[str] = field(default_factory=list)
    state: str = "queued"
    created: float = field(default_factory=time.time)
    changed: float = field(default_factory=time.time)
    error: str | None = None
    what_to_do: str | None = None
    tries: int = 0
    stage: str = ""
    unit: str = ""
    done: int = 0
    total: int = 0
    before: int = 0
    began: float | None = None

    def rate(self) -> float | None:
        """Units a second of the stage that goes on; None before the first."""
        if self.state != "running" or self.began is None or self.done <= self.before:
            return None
        return (self.done - self.before) / max(time.time() - self.began, 1e-9)


class Jobs:
    """All jobs, in memory and beneath a folder; safe to be used by several threads."""

    def __init__(self, folder: str, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self._jobs: dict[str, Job] = {}
        self._change = threading.Condition(threading.RLock())
        self._closed = False
        for name in storage.names(folder):
            if name.endswith(".json") and (job := self._read(name)) is not None:
                self._jobs[job.id] = job
                if job.state == "running":  # when the service was stopped
                    job.state = "queued"
                    self._write(job)

    def submit(self, job: Job) -> tuple[Job, bool]:
        """Take a job, unless the same is there; returns the one that is there and whether it has to run (again)."""
        with self._change:
            found = self._jobs.get(job.id)
            if found is not None and found.state not in ("failed", "cancelled"):
                return found, False
            waiting = sum(one.state in WAITING for one in self._jobs.values())
            if waiting >= self.limits.queue:
                raise Problem(429, f"the queue is full: jobs={waiting}", "try again in 60 s", {"Retry-After": "60"})
            self._jobs[job.id] = job
            self._write(job)
            self._change.notify_all()
            return job, True

    def get(self, name: str) -> Job:
        """The job of this name; 404 where there is none."""
        with self._change:
            if name not in self._jobs:
                raise Problem(404, "no such job, or one that has expired", "see GET /jobs, or ask for it again")
            return self._jobs[name]

    def all(self) -> list[Job]:
        """All, the oldest first."""
        with self._change:
            return sorted(self._jobs.values(), key=lambda job: job.created)

    def counts(self) -> dict[str, int]:
        """How many there are in each state."""
        states = [job.state for job in self.all()]
        return {state: states.count(state) for state in STATES}

    def next(self) -> Job | None:
        """Wait for a job that is queued, and mark it as running; None when the service ends."""
        with self._change:
            while not self._closed:
                queued = [job for job in self.all() if job.state in (*WAITING, "cancelling")]
                if queued:
                    if queued[0].state in WAITING:
                        self.move(queued[0], "running")
                    return queued[0]
                self._change.wait()
        return None

    def move(self, job: Job, state: str, **changes: Any) -> None:
        """Change a job's state and whatever goes with it."""
        with self._change:
            job.state, job.changed = state, time.time()
            for name, value in changes.items():
                setattr(job, name, value)
            self._write(job)
            self._change.notify_all()

    def cancel(self, name: str) -> Job:
        """Cancel a job that waits or runs."""
        with self._change:
            job = self.get(name)
            if job.state == "queued":
                self.move(job, "cancelled")
            elif job.state == "running":
                self.move(job, "cancelling")
            return job

    def over(self, name: str) -> Job:
        """The job of this name, which must be over; 404 and 409 otherwise."""
        job = self.get(name)
        if job.state not in OVER:
            to_do = "wait until it is cancelled" if job.state == "cancelling" else f"POST /jobs/{name}/cancel first"
            raise Problem(409, f"the job is not over: state={job.state}", to_do)
        return job

    def forget(self, name: str) -> Job:
        """Take a job that is over off the list."""
        with self._change:
            job = self.over(name)
            storage.remove(self._file(name))
            del self._jobs[name]
            return job

    def expired(self) -> list[str]:
        """Names of jobs that have been over for so long that nobody keeps them."""
        old = time.time() - self.limits.keep
        return [job.id for job in self.all() if job.state in OVER and job.changed < old]

    def inputs(self) -> set[str]:
        """What the jobs that are not over need."""
        return {job.input for job in self.all() if job.state in LIVE}

    def owns(self, name: str) -> bool:
        """Whether there is a job of this name that has, or may come to have, a result."""
        with self._change:
            return name in self._jobs and self._jobs[name].state != "cancelled"

    def close(self) -> None:
        """End `next`; what runs stays marked as running, for the next start."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def _file(self, name: str) -> str:
        return storage.join(self.folder, f"{name}.json")

    def _write(self, job: Job) -> None:
        storage.write_json(self._file(job.id), dataclasses.asdict(job))

    def _read(self, name: str) -> Job | None:
        """A job's file; one that cannot be read is reported and left."""
        try:
            job = Job(**storage.read_json(storage.join(self.folder, name)))
            if not ID.fullmatch(job.id) or job.state not in STATES or name != f"{job.id}.json":
                raise ValueError(f"id={job.id}, state={job.state}")
        except (TypeError, ValueError, OSError) as error:
            LOG.warning("a job's file cannot be read: file=%s, reason=%s", name, error)
            return None
        return job
