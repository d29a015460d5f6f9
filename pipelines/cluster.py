"""A Dask cluster to run jobs on: found or started, and looked after while it works."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

import dask
from dask.system import CPU_COUNT  # cores that this process may use, not all that there are
from distributed import Client, LocalCluster, WorkerPlugin
from distributed.comm import get_address_host_port

from velfield.errors import ClusterError, VelfieldError
from velfield.pipelines.options import carry_options
from velfield.pipelines.tasks import WAIT

KEPT = 2**27  # bytes free at its end that a worker's heap keeps
LARGEST_KEPT = 2**30  # bytes; only larger arrays are given back to the system as soon as they are freed


class CapThreads(WorkerPlugin):
    """One task, one thread: numba, torch, BLAS and zarr bring pools of their own, which would fight over the cores.

    The scheduler keeps it and gives it to workers that join later, too.
    """

    name = "velfield-cap-threads"

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        """Cap the pools of the worker's process."""
        import numba
        import zarr

        # libraries read these when they are first loaded, and processes that start from here on inherit them
        for pool in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            os.environ.setdefault(f"{pool}_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it
        numba.config.NUMBA_NUM_THREADS = 1  # type: ignore[attr-defined]  # for every thread; set_num_threads would be for the one that calls it
        zarr.config.set({"async.concurrency": 4, "threading.max_workers": 4})
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        keep_memory()


def keep_memory() -> None:
    """Have this process keep some of the memory that it frees, where the C library is glibc.

    Dask has its workers give back every large array at once; then the system clears each page of the next one, which
    on virtual machines costs more than to read, check and paint what goes into it (docs/scaling.md).
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, KEPT)  # M_TRIM_THRESHOLD
        mallopt(-3, LARGEST_KEPT)  # M_MMAP_THRESHOLD


@contextmanager
def connect(
    scheduler: str | None = None,
    workers: int | None = None,
    *,
    threads: int = 1,
    wait: float = WAIT,
    quiet: bool = False,
) -> Iterator[Client]:
    """Connect to a cluster, or start one on this machine for as long as the context lasts.

    Parameters
    ----------
    scheduler : str, optional
        Address of a running scheduler, as ``tcp://host:8786``; by default ``DASK_SCHEDULER_ADDRESS`` if it is set.
    workers : int, optional
        Processes of the local cluster; by default one for each core.
    threads : int
        Threads, each with a task, of a local worker.
    wait : float
        Give up when a cluster has had no worker that works for so long [s].
    quiet : bool
        Do not print the dashboard's address.
    """
    scheduler = scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS")
    cluster = _remote(scheduler) if scheduler else _local(workers or max(1, CPU_COUNT // threads), threads)
    with dask.config.set({"velfield.wait": wait}), _without_dasks_log(), cluster as client:
        client.register_plugin(CapThreads())
        if not quiet:
            _say(client)
        with carry_options(client):
            yield client


@contextmanager
def _remote(scheduler: str) -> Iterator[Client]:
    try:
        get_address_host_port(scheduler)  # refuses what is no address; a client that fails at it prints a traceback
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise VelfieldError(
            f"no Dask scheduler answers: scheduler={scheduler}; start one with dask scheduler, "
            "or leave --scheduler out to use this machine"
        ) from error
    try:
        yield client
    finally:
        with suppress(Exception):  # a scheduler that is gone takes no leave
            client.close(timeout=2)


@contextmanager
def _local(workers: int, threads: int) -> Iterator[Client]:
    settings = {
        "distributed.worker.daemon": True,
        "distributed.scheduler.allowed-failures": 3,
        "distributed.comm.timeouts.connect": "60s",
        # tasks return next to nothing, so there is nothing to spill; a worker that pauses may never go on: end it
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        # after 15 s, as is usual, Dask drops a worker for good that a busy machine is slow to start again
        "distributed.deploy.lost-worker-timeout": "60s",
    }
    with dask.config.set(settings):
        try:
            with _interrupts_for_us_alone(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=r"\s*Port \d+ is already in use")  # taken since we looked
                warnings.filterwarnings("ignore", message="unclosed <socket", category=ResourceWarning)
                local = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=threads,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address=_dashboard_address(),
                    silence_logs=logging.CRITICAL,
                )
                gc.collect()  # where the port was taken, the socket that could not have it is left open
        except (OSError, RuntimeError, TimeoutError) as error:
            cause = error.__cause__ or error
            raise ClusterError(
                f"the local workers do not start: workers={workers}, reason={cause}; "
                "see to that, or use a running cluster with --scheduler"
            ) from error
        # not the default client: what xarray computes meanwhile stays in this process
        with local, Client(local, set_as_default=False) as client:
            yield client


@contextmanager
def _without_dasks_log() -> Iterator[None]:
    """Keep Dask's tracebacks about lost connections off the terminal: we say in one line what matters."""
    ours = ("distributed", "tornado", "asyncio")
    known = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.partition(".")[0] in ours]
    before = {log: log.level for log in known}  # Dask gives each of its own loggers a level
    for log in known:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for log, level in before.items():
            log.setLevel(level)


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


def _say(client: Client) -> None:
    workers = client.nthreads()
    print(  # noqa: T201
        f"Dask dashboard: {client.dashboard_link} ({len(workers)} workers, {sum(workers.values())} threads)",
        file=sys.stderr,
        flush=True,
    )
