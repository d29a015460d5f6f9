"""Who may ask: tokens, and on loopback without one only programs of this machine that mean this service."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from velfield.errors import VelfieldError
from velfield.service.limits import Rate
from velfield.service.problems import Problem

OPEN = frozenset({"/", "/health", "/ready", "/openapi.json"})  # without a token
SHORTEST = 16  # characters of a token
FREE = ("/result/", "/store/")  # reading a result is not counted: a Zarr store takes a request a chunk
SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
}


def tokens_of(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The tokens: VELFIELD_TOKEN, separated by commas, and the lines of the file that VELFIELD_TOKEN_FILE names."""
    found = environment.get("VELFIELD_TOKEN", "").split(",")
    if file := environment.get("VELFIELD_TOKEN_FILE"):
        try:
            found += Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VelfieldError(
                f"the file of tokens cannot be read: VELFIELD_TOKEN_FILE={file}, reason={error}; see to it"
            ) from error
    tokens = tuple(token.strip() for token in found if token.strip())
    for token in tokens:
        if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
            raise VelfieldError(
                f"not a token: characters={len(token)}; give at least {SHORTEST} of ASCII without spaces, as "
                "python -c 'import secrets; print(secrets.token_urlsafe())' makes them"
            )
    return tokens


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, which nobody else reaches."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, tokens: Iterable[str]) -> None:
    """Refuse to listen to others without a token."""
    if not tuple(tokens) and not is_loopback(host):
        raise VelfieldError(
            f"without a token the service listens on loopback only: host={host}; set VELFIELD_TOKEN, or leave it out"
        )


class Guard:
    """ASGI middleware: what every request has to pass before anything of it is read.

    Without tokens the service is on loopback, where a web page in a browser of this machine could reach it: then
    ``Host`` must name loopback (a rebound DNS name does not) and an ``Origin`` must be the service's own.
    """

    def __init__(self, app: ASGIApp, *, tokens: Iterable[str], rate: int, free: Iterable[str] = ()) -> None:
        self.app = app
        self.digests = tuple(hashlib.sha256(token.encode()).digest() for token in tokens)
        self.rate = Rate(rate)
        self.free = OPEN | set(free)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except Problem as problem:
            await problem.response()(scope, receive, secured)
        else:
            await self.app(scope, receive, secured)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if not self.digests:
            self._check_local(headers)
        if path in self.free:
            return
        address = scope["client"][0] if scope["client"] else "unknown"
        client, known = address, True
        if self.digests:
            digest = hashlib.sha256(_bearer(headers).encode()).digest()
            equal = [hmac.compare_digest(digest, other) for other in self.digests]  # all of them, always
            known = any(equal)
            client = digest.hex() if known else f"unknown at {address}"
        if not (known and path.startswith("/jobs/") and any(part in path for part in FREE)):
            wait = self.rate.take(client)
            if wait:
                seconds = str(math.ceil(wait))
                raise Problem(
                    429, "too many requests of one client", f"try again in {seconds} s", {"Retry-After": seconds}
                )
        if not known:
            raise Problem(
                401,
                "no token, or one that is not known",
                "send the header Authorization: Bearer TOKEN with a token from the service's operator",
                {"WWW-Authenticate": "Bearer"},
            )

    @staticmethod
    def _check_local(headers: Headers) -> None:
        host = headers.get("host", "")
        if not is_loopback(_name(host)):
            raise Problem(
                421,
                "this service answers to the names of its own machine only",
                "ask for localhost or 127.0.0.1, or have its operator set a token",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            raise Problem(
                403, "a page of another site may not use this service", "use a program, or the service's own page"
            )


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _name(host: str) -> str:
    """``Host`` without its port."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0]
