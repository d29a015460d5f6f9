"""A client of the service (docs/service.md): cubes predicted at once, jobs, their results as datasets, queries."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from velfield import arguments
from velfield.client.bodies import arrays_of, cubes_of, npz_of, plane_of
from velfield.client.connection import Connection, ServiceError
from velfield.errors import VelfieldError

__all__ = ["NPZ", "Client", "ServiceError"]

NPZ = "application/x-npz"
FORMS = {  # of tables
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".pq": "application/vnd.apache.parquet",
    ".fits": "application/fits",
    ".fit": "application/fits",
}
ARROW = dict.fromkeys((".arrow", ".arrows"), "application/vnd.apache.arrow.stream")
HDF5 = {".hdf5": "application/x-hdf5", ".h5": "application/x-hdf5"}
OVER = ("done", "failed", "cancelled")


class Client(Connection):
    """The service at a URL; parameters as of `velfield.client.connection.Connection`."""

    def models(self) -> list[dict[str, Any]]:
        """What is served: inputs, cell sizes, what each model was trained on and what it reached."""
        return list(self._json("GET", "/models")["models"])

    def model(self, name: str) -> dict[str, Any]:
        """One of them."""
        return self._json("GET", f"/models/{name}")

    def stores(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The stores beneath what the operator allowed: ``fields``, which `submit` may name, ``velocity``, or both."""
        found = list(self._json("GET", "/stores")["stores"])
        return [about for about in found if kind in (None, about["kind"])]

    def health(self) -> dict[str, Any]:
        """That the service is alive, and its version."""
        return self._json("GET", "/health")

    def ready(self) -> dict[str, Any]:
        """Whether it can work (``ready``), and on what that depends; asked once, whatever it answers."""
        return dict(self._once("GET", "/ready").json())

    def metrics(self) -> str:
        """What it tells Prometheus."""
        return self._ask("GET", "/metrics").text

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
            needs. Or instead of one its over-density, value / mean − 1, as ``halo_number_overdensity`` with
            ``mean_halo_number``.
        cellsize : float
            [h⁻¹Mpc]
        redshift : float
            Of the snapshot.
        min_mass : float
            Halos below it [h⁻¹M⊙] were left out; 0 where that is not known.
        rsd : str
            ``none``, ``plane_parallel``, ``center_radial``, ``random_radial``, ``observed``.
        **about
            More of what the service takes, as ``observer=(x, y, z)``, ``line_of_sight="x"``, ``mean_halo_number``,
            ``mass_unit="Msun"``, or ``margin``: cells on each side that are surroundings only and are not answered;
            ``accept="implausible"`` for an answer also where input or velocities cannot be right.

        Returns
        -------
        dict
            ``velocity`` and, where the model gives it, ``velocity_std``: (3, x, y, z) [km/s]; where any cell is
            flagged ``velocity_flag`` (x, y, z), as of a velocity store.
        """
        query = _cube(cellsize=cellsize, redshift=redshift, min_mass=min_mass, rsd=rsd, **about)
        answer = self._ask(
            "POST", f"/predict/{model}", params=query, content=npz_of(cubes_of(arrays)), headers={"Content-Type": NPZ}
        )
        return arrays_of(answer)

    def upload(
        self, arrays: Mapping[str, ArrayLike], *, cellsize: float, redshift: float, min_mass: float, rsd: str,
        **about: Any,
    ) -> str:  # fmt: skip
        """Leave a cube at the service, for `submit`; parameters as of `predict`. Returns its name."""
        query = _cube(cellsize=cellsize, redshift=redshift, min_mass=min_mass, rsd=rsd, **about)
        answer = self._ask(
            "POST", "/uploads", params=query, content=npz_of(cubes_of(arrays)), headers={"Content-Type": NPZ}
        )
        return str(answer.json()["input"])

    def upload_catalogue(self, table: str) -> str:
        """Leave a catalogue of halos (….csv, ….parquet, ….fits, ….hdf5) at the service, for `submit`; its name."""
        form = (FORMS | HDF5).get(Path(table).suffix.lower())
        if form is None:
            raise VelfieldError(f"not a table: table={table}; let its name end with {', '.join(FORMS | HDF5)}")
        body, heads = Path(table).read_bytes(), {"Content-Type": form}
        return str(self._json("POST", "/catalogues", content=body, headers=heads)["input"])

    def submit(
        self, model: str, given: str, *, average: int = 1, isolated: bool = False,
        paint: Mapping[str, Any] | None = None, accept: Sequence[str] = (),
    ) -> str:  # fmt: skip
        """Ask for a field store, a catalogue or an upload to be predicted; the same request is the same job.

        Parameters
        ----------
        model : str
            One of `models`.
        given : str
            URL of a store or a catalogue beneath what the operator allowed, or what `upload` or `upload_catalogue`
            returned.
        average : int
            Orientations whose predictions are averaged.
        isolated : bool
            Predict each box by itself, also where they are one whole parent.
        paint : mapping, optional
            For a catalogue, and only for one: how it is painted, as ``{"min_mass": 1e12, "rsd": "none"}``; the options
            of ``velfield predict`` (docs/service.md). ``rsd`` must be there, the others have defaults.
        accept : sequence of str
            ``("implausible",)``: a result that cannot be right is wanted all the same, flagged in every cell.

        Returns
        -------
        str
            The job's id.
        """
        asked: dict[str, Any] = {"model": model, "input": given, "average": average, "isolated": isolated}
        if paint is not None:
            asked["paint"] = dict(paint)
        if accept:
            asked["accept"] = list(accept)
        return str(self._json("POST", "/jobs", json=asked)["id"])

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs that are kept, the oldest first."""
        return list(self._json("GET", "/jobs")["jobs"])

    def status(self, job: str) -> dict[str, Any]:
        """How far a job is."""
        return self._json("GET", f"/jobs/{job}")

    def cancel(self, job: str) -> dict[str, Any]:
        """Cancel a job that waits or runs; nothing changes of one that is over."""
        return self._json("POST", f"/jobs/{job}/cancel")

    def remove(self, job: str) -> dict[str, Any]:
        """Remove a job that is over, with its result; `ServiceError` of one that is not."""
        return self._json("DELETE", f"/jobs/{job}")

    def wait(self, job: str, *, timeout: float = math.inf, every: float = 1.0) -> dict[str, Any]:
        """Wait until a job is done; `ServiceError` if it fails, is cancelled, or takes longer than ``timeout`` [s].

        A service that does not answer, as while it is restarted, is asked again for as long as ``patience``.
        """
        end = time.monotonic() + timeout
        heard = time.monotonic()
        while True:
            try:
                status = self.status(job)
                heard = time.monotonic()
                if status["state"] in OVER:
                    break
            except ServiceError as error:
                if error.http_status is not None or time.monotonic() - heard > self.patience:
                    raise
                status = {"state": "not known, the service does not answer"}
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

    def query(self, where: str, positions: Any, **question: Any) -> dict[str, NDArray[Any]]:
        """Velocities at positions, as `velfield.query` gives them of a store at hand.

        Parameters
        ----------
        where : str
            A job that is done, or one of `stores` by its id or URL.
        positions : array_like (N, 3), table or SkyCoord
            x, y, z [h⁻¹Mpc], or ra, dec [degrees] and redshift, as `velfield.query` takes them; units of length with
            ``littleh``, as the store's h is not known here, and a SkyCoord with ``redshift``.
        **question
            ``coordinates``, ``space``, ``extrapolate``, ``max_shift`` (`velfield.query_positions`).

        Returns
        -------
        dict
            ``velocity`` (N, 3) [km/s], ``velocity_std`` and ``v_los`` where there are any, ``position`` (N, 3)
            [h⁻¹Mpc], ``flag`` (N,).
        """
        if arguments.is_sky(positions):
            ra, dec, z, _ = arguments.sky(positions, redshift=question.pop("redshift", None))
            if z is None:
                raise VelfieldError("a SkyCoord with distances: the service takes redshifts; give redshift= beside it")
            positions, question["coordinates"] = np.stack([ra, dec, z], axis=1), "sky"
        columns = arguments.SKY if question.get("coordinates") == "sky" else arguments.POSITIONS
        names, given = tuple(columns), arguments.rows(positions, "positions", columns)
        if given.ndim != 2 or given.shape[1] != 3:
            raise VelfieldError(f"positions of the wrong shape: positions={given.shape}; give (N, 3)")
        body = npz_of(dict(zip(names, given.T, strict=True)), np.float64)
        return arrays_of(self._queried(where, body, NPZ, question))

    def query_table(
        self, where: str, table: str, out: str, *, columns: Mapping[str, str] | Sequence[str] = (), **question: Any
    ) -> dict[str, int]:
        """Add velocities to a table of positions, as `velfield.answers.query_table` does with a store at hand.

        Parameters
        ----------
        where : str
            As of `query`.
        table, out : str
            Files, ….csv, ….parquet, ….fits or ….arrow (Arrow's stream), both of one form.
        columns : mapping or sequence of str
            The table's names of x, y, z or ra, dec, z: ``{"x": "X [kpc]"}`` or ``["x=X [kpc]"]``.
        **question
            As of `query`, and ``prefix``, ``extension``.

        Returns
        -------
        dict
            ``rows``, how many are ``good``, and how many have each meaning of flags.
        """
        form, made = ((FORMS | ARROW).get(Path(name).suffix.lower()) for name in (table, out))
        if form is None or form != made:
            raise VelfieldError(
                f"not two tables of one form: table={table}, out={out}; "
                "let both names end with .csv, .parquet, .fits or .arrow"
            )
        pairs = [f"{name}={column}" for name, column in columns.items()] if isinstance(columns, Mapping) else columns
        answer = self._queried(where, Path(table).read_bytes(), form, question | {"column": list(pairs)})
        Path(out).write_bytes(answer.content)
        return dict(json.loads(answer.headers["Velfield-Rows"]))

    def fields(self, where: str) -> dict[str, Any]:
        """What there is to look at in a job that is done, or in a store: variables, boxes, cells."""
        return self._json("GET", f"{self._place(where)}/fields")

    def slice(self, where: str, variable: str, *, box: int | None = 0, axis: str = "z", index: int = 0) -> xr.DataArray:
        """Cells of a box in the plane ``axis = index``, with their centres from the box's corner [h⁻¹Mpc].

        With ``box=None`` of the whole parent (``whole`` of `fields`), in pixels that are means of several cells where
        it is large (docs/page.md).
        """
        asked = _query(variable=variable, box=box, axis=axis, index=index)
        return plane_of(self._ask("GET", f"{self._place(where)}/slice", params=asked))

    def block(self, where: str, variable: str, *, box: int | None = 0, most: int = 32) -> xr.DataArray:
        """A whole box, or with ``box=None`` the parent, in at most ``most`` cells along a side, means of its own."""
        asked = _query(variable=variable, box=box, most=most)
        return plane_of(self._ask("GET", f"{self._place(where)}/block", params=asked))

    def _queried(self, where: str, body: bytes, form: str, question: Mapping[str, Any]) -> httpx.Response:
        return self._ask(
            "POST", f"{self._place(where)}/query", params=_query(**question), content=body,
            headers={"Content-Type": form},
        )  # fmt: skip

    def _place(self, where: str) -> str:
        """The route of a job or a store."""
        for kind, digits in (("jobs", 32), ("stores", 16)):
            if re.fullmatch(f"[0-9a-f]{{{digits}}}", where):
                return f"/{kind}/{where}"
        found = [about["id"] for about in self.stores() if about["url"] == where.rstrip("/")]
        if not found:
            raise VelfieldError(f"no such job or store: where={where}; give a job's id, or one of stores()")
        return f"/stores/{found[0]}"


def _cube(*, cellsize: Any, redshift: Any, min_mass: Any, **about: Any) -> dict[str, Any]:
    return _query(
        cellsize=arguments.number(cellsize, "cellsize", "length"),
        redshift=arguments.redshift_of(redshift),
        min_mass=arguments.number(min_mass, "min_mass", "mass"),
        **about,
    )


def _query(**about: Any) -> dict[str, Any]:
    return {name: value for name, value in about.items() if value is not None}
