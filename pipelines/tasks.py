"""The one loop that runs a job's tasks on a cluster whose workers come, go and die."""

from __future__ import annotations

import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import dask
from distributed import Client, Future, LocalCluster, Status
from distributed.scheduler import KilledWorker

from velfield.errors import ClusterError, VelfieldError
from velfield.pipelines import stages, watch
from velfield.pipelines.failures import GO_ON, environmental, in_one_line, worth_another_try

AHEAD = 4  # tasks a thread has waiting: enough to keep it busy, few enough to keep the scheduler small
LEAST_AHEAD = 32  # so that a cluster that grows with its work sees that there is some
TRIES = 4  # of a piece of work that fails for a reason that may pass
TOGETHER = 0.05  # wait for more results to fetch at once: one by one they cost this process as much as their tasks [s]
PAUSE = 1.0  # before the second try, then twice as long each time [s]
LOOK = 2.0  # between two looks at the workers [s]
WAIT = 600.0  # for a worker that works, before the job is given up [s]


@dataclass
class Piece:
    """One item of the work."""

    item: Any
    number: int
    tries: int = 0
    due: float = 0.0


def run_tasks(
    client: Client,
    task: Callable[..., Any],
    items: Sequence[Any],
    *common: Any,
    name: str,
    resource: str | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Run ``task(item, *common)`` for every item, a few ahead at a time, and yield (item, result) as they finish.

    Results are let go as soon as they are here, so a worker that dies later takes no finished work with it. What fails
    for a reason that may pass is tried again, a few times; any other error is raised here and cancels the rest. How far
    ahead tasks are submitted follows the workers that there are. With ``resource``, only workers that offer it are
    given tasks, and a task takes one of it.
    """
    pieces = deque(Piece(item, number) for number, item in enumerate(items))
    work = _Work(client, task, common, name, pieces, resource)
    try:
        while work.left or work.running:
            yield from work.step()
    except VelfieldError:
        raise
    except Exception as error:
        if client.status != "running":  # whatever it was, the lost scheduler is why
            raise lost(client) from error
        raise
    finally:
        work.stop()


class _Work:
    """The pieces that are left, those that run, and those that ended."""

    def __init__(
        self,
        client: Client,
        task: Callable[..., Any],
        common: tuple[Any, ...],
        name: str,
        left: deque[Piece],
        resource: str | None,
    ) -> None:
        self.client, self.task, self.common, self.name, self.left = client, task, common, name, left
        self.needs = {resource: 1} if resource else None
        self.running: dict[Any, tuple[Future, Piece]] = {}
        self.ended: SimpleQueue[Future] = SimpleQueue()
        self.workers = Workers(client, resource)
        self.record = watch.current()

    def step(self) -> list[tuple[Any, Any]]:
        """Submit what there is room for, and wait a moment for pieces to end: items and results of those that did."""
        self.workers.look()
        for _ in range(min(len(self.left), self.workers.window() - len(self.running))):
            self._submit(self.left.popleft())
        ended = self._ended()
        results = _gathered(self.client, ended)
        return [done for future in ended if (done := self._take(future, results)) is not None]

    def _ended(self) -> list[Future]:
        """The futures that have ended; waits until there is one, and then a little for company."""
        try:
            ended = [self.ended.get(timeout=0.5)]
        except Empty:
            return []
        if len(self.running) > 1:
            time.sleep(TOGETHER)
        with suppress(Empty):
            while True:
                ended.append(self.ended.get_nowait())
        return ended

    def _take(self, future: Future, results: Mapping[Any, Any]) -> tuple[Any, Any] | None:
        """Item and result of a future, None if its piece has to be done again."""
        piece = self.running[future.key][1]
        outcome = results[future.key] if future.key in results else _outcome(future, piece, self.name)
        if outcome is None:  # its worker died before the result was here; Dask runs it again
            future.add_done_callback(self.ended.put)
            return None
        del self.running[future.key]
        future.release()
        if isinstance(outcome, BaseException):
            piece.due = time.monotonic() + PAUSE * 2 ** (piece.tries - 1)
            self.left.append(piece)
            self.record.retried(self.name, outcome)
            return None
        self.workers.progressed()
        result, measured = outcome
        self.record.add(self.name, measured)
        return piece.item, result

    def stop(self) -> None:
        """Cancel what runs."""
        if self.running and self.client.status == "running":
            with suppress(Exception):
                self.client.cancel([future for future, _ in self.running.values()], force=True)

    def _submit(self, piece: Piece) -> None:
        if piece.due > time.monotonic():
            self.left.append(piece)
            return
        piece.tries += 1
        key = f"{self.name}-{uuid.uuid4().hex}"
        future = self.client.submit(
            stages.measured, self.task, piece.item, *self.common, key=key, pure=False, resources=self.needs
        )
        self.running[key] = (future, piece)
        future.add_done_callback(self.ended.put)


def _gathered(client: Client, ended: Sequence[Future]) -> dict[Any, tuple[Any, stages.Measured]]:
    """The results of all that went well, by key, fetched together; none where that does not work at once."""
    finished = [future for future in ended if future.status == "finished"]
    if len(finished) < 2:
        return {}
    try:
        found = client.sync(client._gather, finished, callback_timeout=10)
    except Exception:
        return {}  # `_outcome` looks at each
    return {future.key: result for future, result in zip(finished, found, strict=True)}


def _outcome(future: Future, piece: Piece, name: str) -> tuple[Any, stages.Measured] | Exception | None:
    """The result of a task, the error after which it is tried again, or None if neither is there yet."""
    what = f"{name} {piece.item if isinstance(piece.item, int | str) else piece.number}"
    client = future.client
    if future.cancelled() or client.status != "running":
        raise lost(client)
    try:
        return future.result(timeout=10)
    except VelfieldError:
        raise
    except Exception as error:
        if future.status != "error":
            if client.status != "running":
                raise lost(client) from error
            return None
        if isinstance(error, KilledWorker):
            raise in_one_line(error, what, piece.tries) from error
        if worth_another_try(error) and piece.tries < TRIES:
            return error
        if environmental(error):
            raise in_one_line(error, what, piece.tries) from error
        raise


def lost(client: Client) -> ClusterError:
    """The error that says that the scheduler is gone."""
    return ClusterError(f"the Dask scheduler was lost: scheduler={watch.address(client)}; start it, then {GO_ON}")


class Workers:
    """A look now and then at the workers that there are: how much to submit, and whether anybody works at all."""

    def __init__(self, client: Client, resource: str | None = None) -> None:
        self.client, self.resource = client, resource
        self.wait = float(dask.config.get("velfield.wait", WAIT))
        self.threads = 0
        self.looked = self.said = -1e9
        self.alive = time.monotonic()

    def window(self) -> int:
        """Tasks to have submitted."""
        return max(LEAST_AHEAD, AHEAD * self.threads)

    def progressed(self) -> None:
        """A task is done, so somebody works."""
        self.alive = time.monotonic()

    def look(self) -> None:
        """See who is there; wait with a message while nobody is, and give up after some time."""
        now = time.monotonic()
        if self.client.status != "running":
            raise lost(self.client)
        if now - self.looked < LOOK:
            return
        self.looked = now
        try:
            found = watch.workers_of(self.client)
        except (OSError, TimeoutError) as error:
            if self.client.status != "running" or now - self.alive > self.wait:
                raise lost(self.client) from error
            return
        watch.current().look(self.client, found)
        if isinstance(self.client.cluster, LocalCluster):
            replace_dead(self.client.cluster)
        working = [worker for worker in found.values() if self._may_work(worker)]
        self.threads = sum(worker["nthreads"] for worker in working)
        if self.threads:
            self.alive = now
            self.said = -1e9
            return
        where = f"scheduler={watch.address(self.client)}"
        why, way_out = self._why(found, watch.address(self.client))
        if now - self.alive > self.wait:
            raise ClusterError(
                f"no worker works: {where}, {why}, waited={now - self.alive:.0f} s; {way_out}, then {GO_ON}"
            )
        if now - self.said > 30:
            self.said = now
            print(  # noqa: T201
                f"waiting for workers: {where}, {why}; "
                + (f"{way_out}; " if self.resource else "")
                + f"giving up in {self.wait - (now - self.alive):.0f} s",
                file=sys.stderr,
                flush=True,
            )

    def _may_work(self, worker: Mapping[str, Any]) -> bool:
        """Whether a worker counts. A paused one takes no task, but goes on with one that may need all its memory."""
        if self.resource is not None:
            return bool(worker.get("resources", {}).get(self.resource, 0) >= 1)
        return worker.get("status") != "paused"

    def _why(self, found: Mapping[str, Any], scheduler: str) -> tuple[str, str]:
        """Why nobody works, and what to do."""
        if self.resource is not None:
            none = f"none of its {len(found)} workers offers {self.resource}=1"
            return none, f"start one with dask worker {scheduler} --resources {self.resource}=1 --memory-limit 0"
        if found:
            return f"all {len(found)} workers are paused, their memory is full", "start workers"
        return "there are none", "start workers"


def replace_dead(cluster: LocalCluster) -> None:
    """Start workers in place of those that could not be started again.

    A nanny starts its worker again when that dies, but gives up for good if it dies while it starts.
    """
    dead = [name for name, nanny in cluster.workers.items() if nanny.status in (Status.closed, Status.failed)]
    for name in dead:
        cluster.workers.pop(name, None)
    if len(cluster.workers) < len(cluster.worker_spec):
        cluster.scale(len(cluster.worker_spec))
