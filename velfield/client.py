"""A client of the service (docs/service.md): cubes predicted at once, jobs, and their results as datasets."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from velfield.errors import VelfieldError

NPZ = "application/x-npz"
OVER = ("done", "failed", "cancelled")
LONGEST_WAIT = 60.0  # between two tries [s]


class ServiceError(VelfieldError):
    """What the service answered where it did not do what it was asked."""

    def __init__(self, message: str, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status


class Client:
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

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """What is served: inputs, cell sizes, what each model was trained on and what it reached."""
        return list(self._json("GET", "/models")["models"])

    def stores(self) -> list[dict[str, Any]]:
        """The field stores that `submit` may name."""
        return list(self._json("GET", "/stores")["stores"])

    def predict(
        self, model: str, arrays: Mapping[str, ArrayLike], *, cellsize: float, redshift: float, min_mass: float,
        rsd: str, **about: Any,
    ) -> dict[str, NDArray[np.float32]]:  # fmt: skip
        """Velocities of one isolated cube, at once.

        Parameters
        ----------
        model : str
            One of `models`.
        arrays : mapping of str to array (x, y, z)
            ``halo_number``, ``halo_mass``, ``matter_number``: counts per cell and h⁻¹M⊙ per cell; those that the model
            needs.
        cellsize : float
            [h⁻¹Mpc]
        redshift : float
            Of the snapshot.
        min_mass : float
            Halos below it [h⁻¹M⊙] were left out; 0 where that is not known.
        rsd : str
            ``none``, ``plane_parallel``, ``center_radial``, ``random_radial``.
        **about
            More of what the service takes, as ``observer=(x, y, z)``, ``mean_halo_number``, ``mass_unit="Msun"``.

        Returns
        -------
        dict
            ``velocity`` and, where the model gives it, ``velocity_std``: (3, x, y, z) [km/s].
        """
        query = _query(cellsize=cellsize, redshift=redshift, min_mass=min_mass, rsd=rsd, **about)
        answer = self._ask(
            "POST", f"/predict/{model}", params=query, content=_npz(arrays), headers={"Content-Type": NPZ}
        )
        with np.load(io.BytesIO(answer.content), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def upload(
        self, arrays: Mapping[str, ArrayLike], *, cellsize: float, redshift: float, min_mass: float, rsd: str,
        **about: Any,
    ) -> str:  # fmt: skip
        """Leave a cube at the service, for `submit`; parameters as of `predict`. Returns its name."""
        query = _query(cellsize=cellsize, redshift=redshift, min_mass=min_mass, rsd=rsd, **about)
        answer = self._ask("POST", "/uploads", params=query, content=_npz(arrays), headers={"Content-Type": NPZ})
        return str(answer.json()["input"])

    def submit(self, model: str, given: str, *, average: int = 1, isolated: bool = False) -> str:
        """Ask for a field store or an upload to be predicted; the same request is the same job. Returns its id.

        ``isolated`` predicts each box by itself, also where they are one whole parent.
        """
        asked = {"model": model, "input": given, "average": average, "isolated": isolated}
        return str(self._json("POST", "/jobs", json=asked)["id"])

    def status(self, job: str) -> dict[str, Any]:
        """How far a job is."""
        return self._json("GET", f"/jobs/{job}")

    def cancel(self, job: str) -> dict[str, Any]:
        """Cancel a job; one that is over is removed with its result."""
        return self._json("DELETE", f"/jobs/{job}")

    def wait(self, job: str, *, timeout: float = math.inf, every: float = 1.0) -> dict[str, Any]:
        """Wait until a job is done; `ServiceError` if it fails, is cancelled, or takes longer than ``timeout`` [s]."""
        end = time.monotonic() + timeout
        while (status := self.status(job))["state"] not in OVER:
            if time.monotonic() > end:
                raise ServiceError(f"the job is not done yet: job={job}, state={status['state']}; wait longer")
            time.sleep(every)
        if status["state"] != "done":
            said = f"{status['error']}; {status['what_to_do']}" if status["error"] else "ask for it again"
            raise ServiceError(f"the job has no result: job={job}, state={status['state']}; {said}")
        return status

    def open(self, job: str) -> xr.Dataset:
        """The velocity store of a job that is done: lazy, its chunks are fetched as they are needed."""
        options = {"headers": self._headers} if self._headers else {}
        return xr.open_zarr(f"{self.url}/jobs/{job}/store", chunks=None, storage_options=options)

    def download(self, job: str, path: str) -> None:
        """The result of a job as one file: ``….nc`` or ``….npz``."""
        kind = Path(path).suffix
        if kind not in (".nc", ".npz"):
            raise VelfieldError(f"not a kind of file that a result has: path={path}; name it ….nc or ….npz")
        Path(path).write_bytes(self._ask("GET", f"/jobs/{job}/result/velocity{kind}").content)

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        return dict(self._ask(method, path, **more).json())

    def _ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask, and ask again while the service is busy."""
        end = time.monotonic() + self.patience
        while True:
            try:
                answer = self._http.request(method, path, **more)
            except httpx.HTTPError as error:
                raise ServiceError(f"the service does not answer: url={self.url}, reason={error}; see to it") from error
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


def _said(answer: httpx.Response) -> str:
    try:
        problem = json.loads(answer.content)
        return f"{problem['error']}; {problem['what_to_do']}"
    except (ValueError, TypeError, KeyError):
        return f"the service refused: status={answer.status_code}; see its log"


def _query(**about: Any) -> dict[str, Any]:
    return {name: value for name, value in about.items() if value is not None}


def _npz(arrays: Mapping[str, ArrayLike]) -> bytes:
    data = io.BytesIO()
    np.savez(data, **{name: np.asarray(values, dtype=np.float32) for name, values in arrays.items()})  # type: ignore[arg-type]
    return data.getvalue()
