"""One run at a time makes a store: whoever runs leaves its name beside the receipts, and finds out whether another has.

Any store that fsspec knows will do; there need be no locks. A run writes its own lease first, then looks for others,
so of two that start together at least one sees the other; who sees another that lives takes its own away, waits for a
random moment, and after a few tries refuses. A lease is rewritten while its run lives and removed at its end. One of a
run that was killed does not count: on this machine the process is looked up, of another machine the lease must stop
changing, which asks nothing of the two clocks.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from velfield.errors import StoreError
from velfield.files import storage
from velfield.pipelines.receipts import Receipts
from velfield.stores import store

REFRESH = 15.0  # between two signs of life [s]
STALE = 60.0  # a lease of another machine that has not changed for so long is of a run that is dead [s]
TRIES = 4  # for two that started together
PREFIX = "run-"


class Lease:
    """The lease that this run holds; `check` before anything that another run must not meet."""

    def __init__(self, url: str, content: dict[str, Any]) -> None:
        self.url, self.content = url, content
        self.taken = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="velfield-lease", daemon=True)
        storage.write_json(url, content)

    def start(self) -> None:
        """Go on refreshing."""
        self._thread.start()

    def check(self) -> None:
        """See that no other run took this one for dead, as it may after this machine slept."""
        if self.taken or not storage.exists(self.url):
            raise StoreError(
                f"another run has taken over: lease={self.url}, this machine may have slept; "
                "wait for that run, or run the same command again to go on"
            )

    def end(self) -> None:
        """Stop refreshing and take the lease away."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):  # a full or absent disk: the process is gone soon, which says the same
            storage.remove(self.url)
            if storage.is_local(self.url):  # object stores have no folders
                _, path = storage.filesystem(self.url)
                os.rmdir(os.path.dirname(path))  # fails, as it should, where there is anything
                os.rmdir(os.path.dirname(os.path.dirname(path)))

    def _refresh(self) -> None:
        while not self._over.wait(REFRESH):
            try:
                if not storage.exists(self.url):
                    self.taken = True
                    return
                storage.write_json(self.url, self.content | {"refreshed": _now()})
            except Exception:
                continue  # storage that fails now may answer again before anybody takes us for dead


@contextmanager
def hold(receipts: Receipts) -> Iterator[Lease | None]:
    """Hold the place of a job for as long as the context lasts; None if the store is finished already.

    Refuses where another run lives, and where another store or another job's unfinished one is.
    """
    lease = _take(receipts)
    if lease is None:
        yield None
        return
    lease.start()
    try:
        yield lease
    finally:
        lease.end()


def _take(receipts: Receipts) -> Lease | None:
    living: dict[str, dict[str, Any]] = {}
    for tried in range(TRIES):
        if tried:
            time.sleep(random.uniform(0.2, 1.0) * tried)
        if receipts.finished():
            return None
        name = f"{PREFIX}{uuid.uuid4().hex}.json"
        try:
            lease = Lease(storage.join(receipts.work, name), _content())
        except FileNotFoundError:  # another run has just taken the empty folder away
            continue
        try:
            others = _others(receipts, lease.url)
            if not others:
                return lease
        except BaseException:
            lease.end()
            raise
        lease.end()
        before = living
        living = {url: found for url, found in others.items() if _lives(url, found)}
        if set(living) & set(before):
            break  # seen twice: not one that starts, as this one does, but one that runs
        if not living:
            for url in others:  # of runs that were killed
                storage.remove(url)
    raise _refusal(receipts, living)


def _refusal(receipts: Receipts, living: dict[str, dict[str, Any]]) -> StoreError:
    if not living:  # its folder was not there each time after it was made
        return StoreError(f"no folder can be made here: out={receipts.out}; name another place")
    found = next(iter(living.values()))
    return StoreError(
        f"another run is making this store: out={receipts.out}, host={found.get('host')}, pid={found.get('pid')}, "
        f"since={found.get('started')}; wait for it, or stop it and run the same command again"
    )


def _others(receipts: Receipts, own: str) -> dict[str, dict[str, Any]]:
    """Leases of other runs on this output, whatever their settings."""
    found: dict[str, dict[str, Any]] = {}
    begun = storage.join(receipts.out, store.WORK)
    for fingerprint in storage.names(begun):
        for name in storage.names(storage.join(begun, fingerprint)):
            url = storage.join(begun, fingerprint, name)
            if name.startswith(PREFIX) and name.endswith(".json") and url != own:
                with suppress(FileNotFoundError, ValueError):  # it went away meanwhile
                    found[url] = dict(storage.read_json(url))
    return found


def _lives(url: str, content: dict[str, Any]) -> bool:
    """Whether the run behind a lease is alive."""
    if content.get("machine") == _machine():
        try:
            return bool(psutil.Process(content["pid"]).create_time() == content["born"])
        except psutil.Error:
            return False
    until = time.monotonic() + STALE
    while time.monotonic() < until:
        time.sleep(min(1.0, STALE / 20))
        try:
            now = dict(storage.read_json(url))
        except FileNotFoundError:
            return False
        if now != content:
            return True
    return False


def _content() -> dict[str, Any]:
    now = _now()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "born": psutil.Process().create_time(),
        "started": now,
        "refreshed": now,
    }


def _machine() -> str:
    """What tells whether a process number means the same process here: the running kernel and its process table."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # only Linux says so much
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
