"""The one thread that runs jobs, on Dask: `velfield.pipelines.predict`, told where to read and where to write."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from distributed import Client, Future

from velfield.errors import ClusterError, VelfieldError
from velfield.pipelines import predict
from velfield.pipelines.predict_catalogue import facts_of_bundle
from velfield.service.allowed import Allowed
from velfield.service.jobs import Job, Jobs
from velfield.service.metrics import Metrics
from velfield.service.models import Models
from velfield.service.paint import Paint
from velfield.service.painted import Work, settled
from velfield.service.problems import Problem, hidden, of_a_bug
from velfield.service.results import Results
from velfield.service.uploads import Uploads

LOG = logging.getLogger("velfield.service")
TRIES = 5  # of a job under which clusters give out
PREDICTING = ("predict", "blend tiles")  # stages whose boxes are predicted ones
PAUSE = 2.0  # before the second, then twice as long each time [s]


class StoppedError(VelfieldError):
    """The job was cancelled, or the service ends: what it has done stays, for the next start."""

    status = 1


class Runner:
    """Runs queued jobs one after the other; each uses all workers."""

    def __init__(
        self,
        *,
        jobs: Jobs,
        models: Models,
        allowed: Allowed,
        uploads: Uploads,
        results: Results,
        metrics: Metrics,
        connect: Callable[[], AbstractContextManager[Client]],
    ) -> None:
        self.jobs, self.models, self.allowed, self.uploads, self.results = jobs, models, allowed, uploads, results
        self.metrics, self._connect = metrics, connect
        self._cluster = ExitStack()
        self._client: Client | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="velfield-runner", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def alive(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End; a job that runs goes on after the next start."""
        self._ending.set()
        self.jobs.close()
        self.interrupt()
        self._thread.join(timeout=60)

    def asked(self, model: str, given: str, average: int, isolated: bool, paint: Paint | None) -> Job:
        """The job that a request stands for; refuses an input that does not fit the model. Reads metadata alone."""
        if paint is not None:
            work = self._work(model, given, average, isolated, paint)
            boxes = work.of.paint.scene.boxes
            return Job(
                id=work.asked_for[:32],
                model=model,
                input=given,
                average=average,
                isolated=isolated,
                boxes=boxes.nbox,
                cells=boxes.cells,
                notes=work.notes,
                paint=paint.model_dump(),
            )
        prepared = self._prepared(model, given, average, isolated)
        layout = prepared.layout
        return Job(
            id=prepared.fingerprint[:32],
            model=model,
            input=given,
            average=average,
            isolated=isolated,
            boxes=layout.nbox,
            cells=layout.variables["velocity"].shape[-1],
            notes=list(prepared.differences),
        )

    def interrupt(self) -> None:
        """Take the tasks of the job that runs off the cluster, so that its thread looks up."""
        client = self._client
        if client is not None and client.status == "running":
            try:
                client.cancel([Future(key, client) for key in list(client.futures)], force=True)
            except Exception as error:  # the cluster is gone, which stops the job as well
                LOG.info("tasks were not cancelled: %s", error)

    def _prepared(self, model: str, given: str, average: int, isolated: bool) -> predict.Job:
        served = self.models.get(model)
        uploaded = given.startswith("upload:")
        fields = self.uploads.place(given) if uploaded else self.allowed.resolve(given)
        try:
            prepared = predict.prepare(served.url, fields, "unnamed", average=average, isolated=isolated or uploaded)
        except VelfieldError as error:
            raise Problem.of(error, names={fields: given, served.url: model}) from error
        return dataclasses.replace(
            self._named(prepared, model, given), out=self.results.place(prepared.fingerprint[:32])
        )

    def _named(self, prepared: predict.Job, model: str, given: str) -> predict.Job:
        """A prediction whose store names nothing of this machine to who reads it."""
        about = json.loads(prepared.layout.attrs["model"])
        if about["weights"] != self.models.get(model).weights:
            raise Problem(503, f"the model was replaced: model={model}", "ask the operator to restart the service")
        told = {"model": json.dumps(about | {"url": model}), "input": given}
        layout = dataclasses.replace(prepared.layout, attrs=dict(prepared.layout.attrs) | told)
        return dataclasses.replace(prepared, layout=layout)

    def _work(self, model: str, given: str, average: int, isolated: bool, paint: Paint) -> Work:
        """A catalogue's painting and prediction; refuses one that does not fit the model."""
        served, sent = self.models.get(model), given.startswith("upload:")
        url = self.uploads.catalogue(given) if sent else self.allowed.resolve(given)
        options = {"average": average, "isolated": isolated}
        names = {url: given, served.url: model, self.results.folder: "results"}
        facts, grid = facts_of_bundle(served.model.metadata, served.model.context), self.jobs.limits.grid
        out = self.results.place("new")
        work = settled(served.url, facts, url, out, paint, options, grid=grid, sent=sent, names=names)
        return work.at(self.results.place(work.asked_for[:32]))

    def _run(self) -> None:
        while (job := self.jobs.next()) is not None:
            try:
                self._one(job)
            except Exception as error:  # the thread must outlive whatever a job does
                problem = of_a_bug(error)
                self.jobs.move(job, "failed", error=problem.error, what_to_do=problem.what_to_do)
        self._cluster.close()

    def _one(self, job: Job) -> None:
        if job.state == "cancelling":  # when the service was stopped
            self._cancelled(job)
            return
        try:
            told = _Told(self, job)
            if job.paint is None:
                prepared = self._prepared(job.model, job.input, job.average, job.isolated)
                self._check_same(job, prepared.fingerprint)
                prepared = dataclasses.replace(prepared, accept=tuple(job.accept))
                predict.predict(self._connected(), prepared, told)
            else:
                paint = Paint.model_validate(job.paint)
                work = self._work(job.model, job.input, job.average, job.isolated, paint)
                self._check_same(job, work.asked_for)
                work.run(self._connected(), told, lambda prepared: self._noted(job, prepared))
        except (VelfieldError, Problem) as error:
            self._stopped(job, error)
        else:
            notes = [*job.notes, *predict.remarks(self.results.place(job.id))]
            self.jobs.move(job, "done", done=job.total, error=None, what_to_do=None, notes=notes)
            LOG.info("job %s is done: %s boxes", job.id, job.boxes)

    def _check_same(self, job: Job, fingerprint: str) -> None:
        if fingerprint[:32] != job.id:
            raise Problem(409, f"input or model changed since: input={job.input}", "ask for it again")

    def _noted(self, job: Job, prepared: predict.Job) -> predict.Job:
        """A prediction of what was painted; the job says in what that differs from the training."""
        notes = [*job.notes, *(note for note in prepared.differences if note not in job.notes)]
        self.jobs.move(job, job.state, notes=notes)
        return dataclasses.replace(self._named(prepared, job.model, job.input), accept=tuple(job.accept))

    def _stopped(self, job: Job, error: VelfieldError | Problem) -> None:
        if self._ending.is_set():
            return  # it stays marked as running
        if job.state == "cancelling":
            self._cancelled(job)
        elif isinstance(error, ClusterError) and job.tries < TRIES:
            LOG.warning("job %s is tried again: %s", job.id, error)
            self._leave()
            self._ending.wait(PAUSE * 2**job.tries)
            if job.state == "cancelling":
                self._cancelled(job)
            elif not self._ending.is_set():
                self.jobs.move(job, "queued", tries=job.tries + 1)
        else:
            problem = error if isinstance(error, Problem) else Problem.of(error)
            names = {self.results.place(job.id): job.id, self.results.folder: "results", self.uploads.folder: "uploads"}
            said = hidden(problem.error, names), hidden(problem.what_to_do, names)
            self.jobs.move(job, "failed", error=said[0], what_to_do=said[1])
            LOG.warning("job %s failed: %s", job.id, error)

    def _cancelled(self, job: Job) -> None:
        self.results.remove(job.id)
        self.jobs.move(job, "cancelled")

    def _connected(self) -> Client:
        """The cluster; one that was lost is found or started anew."""
        if self._client is None or self._client.status != "running":
            self._leave()
            try:
                self._client = self._cluster.enter_context(self._connect())
            except VelfieldError as error:
                raise ClusterError(str(error)) from error
        return self._client

    def _leave(self) -> None:
        self._client = None
        try:
            self._cluster.close()
        except Exception as error:  # it is gone already
            LOG.info("a cluster took no leave: %s", error)

    def check(self, job: Job) -> None:
        """Raise in the runner's thread when the job is not to go on."""
        if self._ending.is_set() or job.state == "cancelling":
            raise StoppedError("the job is not to go on: asked by a client or the end of the service; ask for it again")


class _Told:
    """Progress of a job, into its record."""

    def __init__(self, runner: Runner, job: Job) -> None:
        self.runner, self.job = runner, job

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:
        """Begin a stage."""
        self.runner.check(self.job)
        self.job.stage, self.job.unit, self.job.total = label, unit, int(total)
        self.job.before = self.job.done = int(before)
        self.job.began = time.time()

    def advance(self, amount: float = 1, note: str = "", *, nbytes: float = 0) -> None:  # noqa: ARG002
        """Count what is done."""
        self.job.done += int(amount)
        if self.job.unit == "boxes" and self.job.stage in PREDICTING:
            self.runner.metrics.cells.labels(self.job.model).inc(amount * self.job.cells**3)
        self.runner.check(self.job)

    def done(self, note: str = "") -> None:
        """End."""


def reachable(scheduler: str | None) -> bool:
    """Whether something listens where a scheduler should; a local cluster is started when it is needed."""
    if scheduler is None:
        return True
    host, _, port = scheduler.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False
