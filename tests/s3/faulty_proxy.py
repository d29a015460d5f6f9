"""An HTTP proxy before an S3 server that counts what passes and, on request, breaks it as networks and servers do.

Loopback only, bounded in requests and connections. Faults are drawn with a seed, a fixed share of the requests they
can befall; one that was hit ``most`` times in a row on one address is let through, so that a patient client gets its
answer.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

XML = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'
STATED = {
    "500": (500, XML.format("InternalError", "We encountered an internal error. Please try again.")),
    "503": (503, XML.format("SlowDown", "Please reduce your request rate.")),
    "denied": (403, XML.format("AccessDenied", "Access Denied")),
    "region": (301, XML.format("PermanentRedirect", "The bucket must be addressed using another endpoint.")),
    "no bucket": (404, XML.format("NoSuchBucket", "The specified bucket does not exist")),
}
OF_GET = {"cut", "truncated", "flipped"}  # faults of a body that the client reads
FAULTS = {*STATED, *OF_GET, "dropped", "lost", "slow"}
MOST_REQUESTS = 200_000
MOST_CONNECTIONS = 256
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What passed: method, path without the query, query, range asked for, body bytes up and down, status, fault."""

    method: str
    path: str
    query: str
    range: str | None
    sent: int
    received: int
    status: int
    fault: str | None


@dataclass(kw_only=True)
class FaultyProxy:
    """Stands at `endpoint` before ``upstream``; use it as a context.

    Parameters
    ----------
    upstream : str
        ``http://host:port`` of the S3 server.
    faults : mapping of str to float
        Share of the requests, by a name of `FAULTS`: ``500``, ``503``, ``denied`` and ``region`` are answered in the
        server's place; ``dropped`` closes the connection; ``lost`` does the work and then closes it; ``slow`` waits
        ``delay`` seconds; ``cut`` closes half-way through the body, ``truncated`` sends half of it as if it were all,
        ``flipped`` changes one bit of an object: a listing carries no checksum, no client could know.
    only : callable, optional
        Whether a (method, path) may be befallen; all by default.
    most : int
        Faults in a row on one method and address.
    """

    upstream: str
    faults: Mapping[str, float] = field(default_factory=dict)
    only: Callable[[str, str], bool] = lambda method, path: True  # noqa: ARG005
    most: int = 4
    delay: float = 0.3
    seed: int = 1
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> FaultyProxy:
        assert set(self.faults) <= FAULTS
        self._rng, self._lock, self._row = random.Random(self.seed), threading.Lock(), Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"proxy": self}))
        self._server.daemon_threads, self._server.block_on_close = True, False
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def received(self) -> int:
        """Bytes of bodies that went to the client."""
        return sum(r.received for r in self.requests)

    @property
    def hits(self) -> Counter[str]:
        return Counter(r.fault for r in self.requests if r.fault)

    def count(self, method: str, part: str = "") -> int:
        """Requests of a method on addresses that contain ``part``."""
        return sum(r.method == method and part in unquote(f"{r.path}?{r.query}") for r in self.requests)

    def clear(self) -> None:
        self.requests.clear()
        self._row.clear()

    def draw(self, method: str, path: str, query: str) -> str | None:
        """The fault of a request, None for most."""
        with self._lock:
            where = f"{method} {path}?{query}"
            if not self.only(method, unquote(path)) or self._row[where] >= self.most:
                self._row[where] = 0
                return None
            drawn = self._rng.random()
            for fault, share in self.faults.items():
                if fault in OF_GET and method != "GET":
                    continue
                if fault == "flipped" and "list-type" in query:
                    continue
                if drawn < share:
                    self._row[where] += 1
                    return fault
                drawn -= share
            self._row[where] = 0
            return None

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)
            assert len(self.requests) <= MOST_REQUESTS

    def flip(self, data: bytes) -> bytes:
        if not data:
            return data
        with self._lock:
            at = self._rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


class Handler(BaseHTTPRequestHandler):
    """A connection's requests; `proxy` is set by `FaultyProxy` in a class of its own."""

    proxy: FaultyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle(self) -> None:
        with self.proxy._slots:
            self._server_side = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
            try:
                super().handle()
            except (ConnectionError, TimeoutError):
                pass
            finally:
                self._server_side.close()

    def handle_expect_100(self) -> bool:
        done = super().handle_expect_100()
        self.wfile.flush()
        return done

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        fault = self.proxy.draw(self.command, path, query)
        self._about = {
            "method": self.command, "path": path, "query": query, "range": self.headers.get("Range"),
            "sent": len(body), "fault": fault,
        }  # fmt: skip
        if fault == "dropped":
            self._note(0, 0)
            self.close_connection = True
            return
        if fault in STATED:
            status, text = STATED[fault]
            self._answer(status, {"Content-Type": "application/xml"}, text.encode())
            return
        if fault == "slow":
            time.sleep(self.proxy.delay)
        status, headers, data = self._forward(body)
        if fault == "lost":
            self._note(status, 0)
            self.close_connection = True
        elif fault == "cut":
            self._answer(status, headers, data[: len(data) // 2], length=len(data))
            self.close_connection = True
        elif fault == "truncated":
            self._answer(status, headers, data[: len(data) // 2])
        else:
            self._answer(status, headers, self.proxy.flip(data) if fault == "flipped" else data)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        for attempt in (0, 1):  # the server may have closed an idle connection
            try:
                server = self._server_side
                server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in headers.items():
                    server.putheader(name, value)
                if body or self.command in ("PUT", "POST"):
                    server.putheader("Content-Length", str(len(body)))
                server.endheaders(body or None)
                found = server.getresponse()
                data = found.read()
                break
            except (http.client.HTTPException, ConnectionError):
                self._server_side.close()
                if attempt:
                    raise
        kept = {name: value for name, value in found.getheaders() if name.lower() not in HOP}
        if self.command == "HEAD" and found.getheader("Content-Length"):
            kept["Content-Length"] = found.getheader("Content-Length")
        return found.status, kept, data

    def _answer(self, status: int, headers: Mapping[str, str], data: bytes, length: int | None = None) -> None:
        if self.command == "HEAD":
            data = b""
        self._note(status, len(data))
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304) and "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _note(self, status: int, received: int) -> None:
        self.proxy.note(Request(**self._about, status=status, received=received))

    def log_message(self, *_: object) -> None:
        pass
