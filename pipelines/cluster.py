"""A Dask cluster to run jobs on, and the one loop that runs them."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
from dask.system import CPU_COUNT  # cores that this process may use, not all that there are
from distributed import Client, LocalCluster, WorkerPlugin, as_completed

from velfield.errors import VelfieldError
from velfield.pipelines.options import carry_options

AHEAD = 4  # tasks a thread has waiting: enough to keep it busy, few enough to keep the scheduler small


class CapThreads(WorkerPlugin):
    """One task, one thread: numba, torch and zarr bring pools of their own, which would fight over the cores."""

    name = "velfield-cap-threads"

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        """Cap the pools of the worker's process."""
        import numba
        import zarr

        numba.set_num_threads(1)
        zarr.config.set({"async.concurrency": 4, "threading.max_workers": 4})
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when a task first imports it


@contextmanager
def connect(scheduler: str | None = None, workers: int | None = None, *, quiet: bool = False) -> Iterator[Client]:
    """Connect to a cluster, or start one on this machine for as long as the context lasts.

    Parameters
    ----------
    scheduler : str, optional
        Address of a running scheduler, as ``tcp://host:8786``; by default ``DASK_SCHEDULER_ADDRESS`` if it is set.
    workers : int, optional
        Processes of the local cluster; by default one for each core.
    quiet : bool
        Do not print the dashboard's address.
    """
    scheduler = scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if scheduler:
        try:
            client = Client(scheduler, timeout="10s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise VelfieldError(
                f"no Dask scheduler answers: scheduler={scheduler}; start one with dask scheduler, "
                "or leave --scheduler out to use this machine"
            ) from error
        with client:
            client.register_plugin(CapThreads())
            _say(client, quiet)
            with carry_options(client):
                yield client
        return
    settings = {
        "distributed.worker.daemon": True,
        "distributed.scheduler.allowed-failures": 3,
        "distributed.comm.timeouts.connect": "60s",
    }
    with dask.config.set(settings), _interrupts_for_us_alone():
        local = LocalCluster(
            n_workers=workers or CPU_COUNT,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=_dashboard_address(),
            silence_logs=logging.CRITICAL,
        )
    with local, Client(local, set_as_default=False) as client:  # what xarray computes meanwhile stays in this process
        client.register_plugin(CapThreads())
        _say(client, quiet)
        with carry_options(client):
            yield client


def run_tasks(
    client: Client, task: Callable[..., Any], items: Sequence[Any], *common: Any, name: str
) -> Iterator[tuple[Any, Any]]:
    """Run ``task(item, *common)`` for every item, a few ahead at a time, and yield (item, result) as they finish.

    Results are let go as soon as they are here, so a worker that dies later takes no finished work with it. The first
    error of a task is raised here and cancels the rest.
    """
    threads = sum(client.nthreads().values()) or 1
    waiting = iter(items)
    running: dict[Any, Any] = {}
    done = as_completed(loop=client.loop)

    def submit_next() -> None:
        for item in waiting:
            future = client.submit(task, item, *common, key=f"{name}-{uuid.uuid4().hex}")
            running[future.key] = item
            done.add(future)
            return

    for _ in range(AHEAD * threads):
        submit_next()
    try:
        for future in done:
            result = future.result()
            item = running.pop(future.key)
            future.release()
            submit_next()
            yield item, result
    finally:
        if running:
            client.cancel(list(done.futures), force=True)


@contextmanager
def _interrupts_for_us_alone() -> Iterator[None]:
    """Have processes that start inside never see Ctrl-C, which a terminal sends to all of a job at once.

    They inherit the blocked signal, also those that the cluster's threads start later. One that comes meanwhile is
    delivered to this process at the end.
    """
    resource_tracker.ensure_running()  # now: when the first process starts it, it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _dashboard_address() -> str:
    """Dask's usual port if it is free, else any: asking Dask for a taken port prints a warning."""
    import socket

    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 8787))
        except OSError:
            return "127.0.0.1:0"
    return "127.0.0.1:8787"


def _say(client: Client, quiet: bool) -> None:
    if not quiet:
        workers = client.nthreads()
        print(  # noqa: T201
            f"Dask dashboard: {client.dashboard_link} ({len(workers)} workers, {sum(workers.values())} threads)",
            file=sys.stderr,
            flush=True,
        )
