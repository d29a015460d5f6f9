"""Work on a file that a client sent, in a process of its own that has so much memory and time and no more.

The libraries that read tables believe what a file says of itself: a few bytes may stand for as many rows as there is
memory, or end the process. Here that is the end of that one process, and an answer to that one client.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

from velfield.errors import VelfieldError
from velfield.service.problems import Problem

# a server that has the libraries and no threads, from which processes are forked in some 40 ms
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("velfield.service.painted", "velfield.service.queries", "velfield.network.model"),
        *("zarr", "pyarrow.parquet", "astropy.io.fits"),
    ]
)
EVERY = 0.1  # how often it is asked whether to go on [s]
LESS = "send less at a time, or use velfield on a machine of your own"


def begin() -> None:
    """Start the server, which takes some seconds to load its libraries; whoever asks before waits for it."""
    forkserver.ensure_running()


def apart(
    function: Callable[..., Any],
    *arguments: Any,
    memory: int,
    seconds: float,
    names: Mapping[str, str],
    check: Callable[[], None] = lambda: None,
) -> Any:
    """What a function returns, called in a process of its own.

    Parameters
    ----------
    function : callable
        Of a module; it, its arguments and what it returns are pickled, all of them ours.
    memory : int
        Bytes that the process may have beyond those it begins with, and of any file that it writes. Held by Linux.
    seconds : float
        That it may take.
    names : mapping
        What clients call places on this machine, for errors.
    check : callable
        Called in this process every `EVERY` seconds; what it raises ends the other one and is raised.

    Raises
    ------
    Problem
        The function's own; an error of ours; or too much memory or time, or a process that ended: 413 and 422.
    """
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_work, args=(theirs, memory, dict(names), function, arguments), daemon=True)
    with ours:
        process.start()
        theirs.close()
        try:
            end = time.monotonic() + seconds
            while not ours.poll(max(0.0, min(EVERY, end - time.monotonic()))):
                if time.monotonic() >= end:
                    raise Problem(413, f"it takes too long: seconds={seconds:g}", LESS)
                check()
            kind, said = ours.recv()
        except EOFError as error:
            process.join()
            raise Problem(
                422, f"what was sent ended the process that read it: exit={process.exitcode}", "send another file"
            ) from error
        finally:
            process.kill()
            process.join()
            process.close()
    if kind == "bug":
        raise RuntimeError(said)
    if kind == "problem":
        raise Problem(*said)
    return said


def _work(
    connection: Connection,
    memory: int,
    names: Mapping[str, str],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    """The process: run, and say what came of it."""
    said: tuple[str, Any]
    if arrow := sys.modules.get("pyarrow"):  # its own pool reserves memory in far larger pieces than it uses
        arrow.set_memory_pool(arrow.system_memory_pool())
    _limit(memory)
    warnings.simplefilter("ignore")  # what libraries remark on a client's file is nothing for the service's log
    try:
        said = "done", function(*arguments)
    except (Problem, VelfieldError) as error:
        problem = error if isinstance(error, Problem) else Problem.of(error, names=names)
        said = "problem", (problem.status, problem.error, problem.what_to_do)
    except MemoryError:
        said = "problem", (413, f"it takes more memory than it may: bytes={memory}", LESS)
    except Exception:
        said = "bug", traceback.format_exc()
    with connection:
        connection.send(said)


def _limit(memory: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            found = re.search(r"VmData:\s+(\d+) kB", status.read())
    except OSError:  # not Linux
        return
    if found:
        most = int(found[1]) * 1024 + memory
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
