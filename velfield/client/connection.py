"""How the client asks: again while the service is busy, and with the service's own words where it refuses."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Any, Self

import httpx

from velfield.errors import VelfieldError

LONGEST_WAIT = 60.0  # between two tries [s]


class ServiceError(VelfieldError):
    """What the service answered where it did not do what it was asked."""

    def __init__(self, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status


class Connection:
    """The service at a URL.

    Parameters
    ----------
    url : str
        As ``http://127.0.0.1:8000``.
    token : str, optional
        Where the service asks for one.
    patience : float
        How long a request is tried again while the service says that it is busy [s].
    timeout : float
        Of one request [s].
    """

    def __init__(self, url: str, token: str | None = None, *, patience: float = 300.0, timeout: float = 300.0) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=self.url, headers=self._headers, timeout=timeout, follow_redirects=False,
            verify=self.url.startswith("https"),  # without TLS nobody's certificates need be read
        )  # fmt: skip

    def __repr__(self) -> str:
        token = ", with a token" if self._headers else ""  # which never shows
        return f"<velfield.{type(self).__name__}: {self.url}{token}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        return dict(self._ask(method, path, **more).json())

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask, and ask again while the service is busy."""
        end = time.monotonic() + self.patience
        while True:
            answer = self._once(method, path, **more)
            if answer.status_code not in (429, 503):
                break
            after = answer.headers.get("Retry-After", "1")
            pause = min(float(after) if after.isdigit() else 1.0, LONGEST_WAIT)
            if time.monotonic() + pause > end:
                break
            time.sleep(pause)
        if answer.is_success:
            return answer
        raise ServiceError(_said(answer), answer.status_code)

    def _once(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise ServiceError(f"the service does not answer: url={self.url}, reason={error}; see to it") from error


def _said(answer: httpx.Response) -> str:
    try:
        problem = json.loads(answer.content)
        return f"{problem['error']}; {problem['what_to_do']}"
    except (ValueError, TypeError, KeyError):
        return f"the service refused: status={answer.status_code}; see its log"
