"""The HTTP server: uvicorn, with patience for heads and bodies that ends."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from velfield.errors import VelfieldError

LONGEST_HEAD = 2**15  # bytes
HEAD_SECONDS = 10.0  # within which a connection must have sent a request's head
KEEP_ALIVE = 15  # between two requests of a connection [s]
LEAVE = 30  # for requests that go on when the service ends [s]


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose head does not come: uvicorn waits for it for ever."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait on while a head is not whole."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            if self._timer is None:
                self._wait()
        else:
            self._stop()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def server(app: Any, host: str, port: int, connections: int) -> uvicorn.Server:
    """A server of an application; ``run`` serves until it is told to end."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # whoever is in front says what it likes: clients are told apart by their tokens
        server_header=False,
        limit_concurrency=connections,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LEAVE,
    )
    return uvicorn.Server(config)


@contextmanager
def own(folder: str) -> Iterator[None]:
    """Have a state folder for this service alone; the lock goes with the process, however it ends."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        file = open(os.path.join(folder, "lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise VelfieldError(
            f"the state folder cannot be written: state={folder}, reason={error.strerror}; name another with --state"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise VelfieldError(
                f"another service uses this state folder: state={folder}; stop it, or name another with --state"
            ) from error
        yield


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; what is wrong with the address is one line, before anything else is done."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise VelfieldError(
            f"cannot listen here: host={host}, port={port}, reason={error.strerror}; choose another --host or --port"
        ) from error
