"""Results of jobs: the velocity store as it lies, file by file, and small ones as one file."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from typing import Literal

from velfield.files import shards, storage
from velfield.service.jobs import ID, Job, Jobs
from velfield.service.npz import packed
from velfield.service.problems import Problem
from velfield.stores import store

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")  # of a Zarr store: nothing hidden
LARGEST = 2**28  # bytes of a file made of a store; a larger one is read from the store itself
FILES = "files"  # beside the results
FIELDS = ".fields"  # of a catalogue, painted beside its result until that is there


class Results:
    """Velocity stores beneath a folder, by the names of their jobs."""

    def __init__(self, folder: str, jobs: Jobs) -> None:
        self.folder, self.jobs = folder, jobs
        self._lock = threading.Lock()
        os.makedirs(os.path.join(folder, FILES), exist_ok=True)

    def place(self, name: str) -> str:
        """Where the store of a job is, or will be."""
        return os.path.join(self.folder, name)

    def finished(self, name: str) -> Job:
        """The job, if its result is there; 404 and 409 otherwise."""
        job = self.jobs.get(name)
        if job.state != "done" or not shards.published(self.place(name)):
            raise Problem(409, f"the job has no result: state={job.state}", "wait until its state is done")
        return job

    def object(self, name: str, key: str) -> str:
        """A file of the store by its key; 404 where there is none."""
        self.finished(name)
        path = os.path.join(self.place(name), *key.split("/"))
        real = os.path.realpath(self.place(name)) + os.sep
        if not KEY.fullmatch(key) or not os.path.realpath(path).startswith(real) or not os.path.isfile(path):
            raise Problem(404, "no such object in the store", "open the store with xarray.open_zarr")
        return path

    def file(self, name: str, kind: Literal["npz", "nc"]) -> str:
        """The whole result as one file, made when it is first asked for."""
        job = self.finished(name)
        made = os.path.join(self.folder, FILES, f"{name}.{kind}")
        with self._lock:
            if os.path.exists(made):
                return made
            ds = store.open_velocity(self.place(name), chunks=None)
            if ds.nbytes > LARGEST:
                raise Problem(
                    413,
                    f"too large for one file: bytes={ds.nbytes}, limit={LARGEST}",
                    f"open /jobs/{job.id}/store with xarray.open_zarr",
                )
            with tempfile.TemporaryDirectory(dir=os.path.join(self.folder, FILES)) as room:
                part = os.path.join(room, "part")
                if kind == "npz":
                    storage.write_bytes(part, packed({str(n): v.values for n, v in ds.data_vars.items()}))
                else:
                    ds.velfield.cf().to_netcdf(part, engine="scipy")
                os.replace(part, made)
        return made

    def remove(self, name: str) -> None:
        """Remove all that is left of a job."""
        storage.remove(self.place(name))
        storage.remove(self.place(name) + FIELDS)
        for kind in ("npz", "nc"):
            storage.remove(os.path.join(self.folder, FILES, f"{name}.{kind}"))

    def sweep(self) -> None:
        """Remove what no job owns: a task that outlives its cancelled job may write after the place was cleared."""
        for name in storage.names(self.folder):
            if ID.fullmatch(name.removesuffix(FIELDS)) and not self.jobs.owns(name.removesuffix(FIELDS)):
                storage.remove(self.place(name))
