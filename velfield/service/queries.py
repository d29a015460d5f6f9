"""Velocities at the positions of a table, or of arrays, that a client sent, within limits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from velfield.answers.asked import Asked
from velfield.answers.cells import Cells
from velfield.answers.queries import COORDINATES, counted, open_store
from velfield.answers.queries import answer as answered
from velfield.answers.query_table import query_table
from velfield.answers.real_space import MAX_SHIFT
from velfield.catalogues.table_arrow import FEATHER
from velfield.catalogues.table_format import reading
from velfield.catalogues.table_hdf5 import MAGIC
from velfield.catalogues.table_rows import open_rows
from velfield.catalogues.table_text import ROWS
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.files.progress import Silent
from velfield.service import npz
from velfield.service.apart import apart
from velfield.service.limits import Limits, Room
from velfield.service.problems import Problem
from velfield.service.receive import NPZ

# by the type of a body: what its file is called, and its format
FORMS = {
    "text/csv": ("table.csv", "CSV"),
    "application/vnd.apache.parquet": ("table.parquet", "Parquet"),
    "application/vnd.apache.arrow.stream": ("table.arrow", "Arrow"),
    "application/fits": ("table.fits", "FITS"),
    NPZ: ("positions.npz", "npz"),
}
UNOPENED = {MAGIC: "HDF5", FEATHER: "Feather"}  # what an HDF5 file holds may lie in other files of this machine
MEMORY = 2**31  # bytes of a query, boxes that are read included
SECONDS = 120.0  # of a query
PIECE = 2**20  # bytes of an answer at a time
CELLS = 2**20  # fields of a part of a table: some 100 MB as short texts
INSTEAD = "send numpy.savez(file, x=…, y=…, z=…), or ra, dec, z: arrays (N,) of numbers"


class Question(BaseModel):
    """What is asked at the positions: the options of `velfield query`."""

    model_config = ConfigDict(extra="forbid")

    coordinates: Literal["box", "sky"] = Field(
        "box", description="x, y, z in the parent [Mpc/h]; or ra, dec [degrees] and redshift z of the one observer."
    )
    space: Literal["real", "redshift"] = Field(
        "real", description="Where the positions are; from redshift space the real ones are sought."
    )
    extrapolate: bool = Field(False, description="At the edge of the data take the nearest known cell; flagged.")
    max_shift: float = Field(
        MAX_SHIFT, gt=0, le=200, allow_inf_nan=False, description="How far the real position is sought [Mpc/h]."
    )
    column: list[Annotated[str, Field(max_length=200)]] = Field(
        [], max_length=3, description="x=NAME, or x=NAME [unit]: the table's names of x, y, z or ra, dec, z."
    )
    prefix: str = Field("", max_length=40, description="Put before the names of the columns that are added.")
    extension: str | None = Field(None, max_length=80, description="Which table of a FITS file, by name or number.")


class Queries:
    """Queries that are answered: so many at a time, each in a process of its own, their files beneath a folder."""

    def __init__(self, folder: str, limits: Limits) -> None:
        storage.remove(folder)  # what a service that was killed has left
        os.makedirs(folder)
        self.folder, self.limits = folder, limits
        self.room = Room(limits.queries, limits.line)
        self.pool = ThreadPoolExecutor(limits.queries, thread_name_prefix="velfield-query")

    async def answer(
        self, form: str, pieces: AsyncIterator[bytes], question: Question, store: tuple[str, str], run: Any
    ) -> tuple[IO[bytes], dict[str, int]]:
        """The file of an answer, open and nowhere else, and what `answer` returns.

        Parameters
        ----------
        form : str
            Type of the body, one of `FORMS`.
        store : tuple of str
            Where the store is, and what the client calls it.
        run : callable
            Runs a function in a thread of a pool: the loop's ``run_in_executor``.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            table = os.path.join(folder, FORMS[form][0])
            out = os.path.join(folder, f"answer-{FORMS[form][0]}")
            with open(table, "wb") as file:
                async for piece in pieces:
                    file.write(piece)
            counts = await run(self.pool, self._apart, (store, table, out, form), question, folder)
            return open(out, "rb"), counts

    def close(self) -> None:
        """Take no more."""
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _apart(self, of: tuple[Any, ...], question: Question, folder: str) -> Any:
        (store, name), table, out, form = of
        names = {folder + os.sep: "", store: name}
        return apart(
            answer, store, table, out, form, question.model_dump(), self.limits.rows,
            memory=MEMORY, seconds=SECONDS, names=names,
        )  # fmt: skip


def answer(store: str, table: str, out: str, form: str, asked: Mapping[str, Any], most: int) -> dict[str, int]:
    """Answer a file of positions with one of velocities; returns ``rows``, and how many of them have each meaning.

    Parameters
    ----------
    store : str
        URL of a velocity store or field store.
    table, out : str
        Paths of what was sent and of what is made.
    form : str
        Its type, one of `FORMS`.
    asked : mapping
        The fields of a `Question`.
    most : int
        Rows that are answered.
    """
    ds, wanted = open_store(store), FORMS[form][1]
    how = {name: asked[name] for name in ("coordinates", "space", "extrapolate", "max_shift")}
    if form == NPZ:
        for name in ("column", "prefix", "extension"):
            if asked[name]:
                raise Problem(422, f"only of tables: {name}={asked[name]}", "leave it out, arrays have names already")
        return _arrays(ds, table, out, how, most)
    with open(table, "rb") as file:
        head = file.read(16)
    unopened = [name for magic, name in UNOPENED.items() if head.startswith(magic)]
    source = None if unopened else open_rows(table, asked["extension"])
    if source is None or source.format != wanted:
        found = unopened[0] if source is None else source.format
        raise Problem(
            415, f"the body is not what its head says: content-type={form}, format={found}", "send the type that it is"
        )
    told = _AtMost(most)
    try:
        with reading(table, "a table"):  # nor is there an end to what libraries raise as they write columns again
            counts = query_table(
                ds, table, out, **how, columns=asked["column"], prefix=asked["prefix"], extension=asked["extension"],
                progress=told, rows=min(ROWS, max(1, CELLS // len(source.columns))),
            )  # fmt: skip
    except _TooManyRowsError as error:
        raise Problem.of(error, 413) from error
    return {"rows": told.rows, **counts}


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """An answer piece by piece."""
    while block := file.read(PIECE):
        yield block


class _TooManyRowsError(VelfieldError):
    """More rows than are answered."""


class _AtMost(Silent):
    """Refuses a table of too many rows as soon as they are known."""

    def __init__(self, most: int) -> None:
        self.most, self.rows = most, 0

    def start(self, label: str, total: float, unit: str, *, before: float = 0) -> None:  # noqa: ARG002
        """A table that says how many it has."""
        self._check(total)

    def advance(self, amount: float = 1, note: str = "", *, nbytes: float = 0) -> None:  # noqa: ARG002
        """One that does not, or wrongly."""
        self.rows += int(amount)
        self._check(self.rows)

    def _check(self, rows: float) -> None:
        if rows > self.most:  # NaN is not
            raise _TooManyRowsError(f"too many rows: rows={rows:.0f}, limit={self.most}; send them in parts")


def _arrays(ds: Any, table: str, out: str, how: Mapping[str, Any], most: int) -> dict[str, int]:
    """`query_positions` of an npz."""

    def check(name: str, shape: tuple[int, ...]) -> None:
        if len(shape) != 1 or shape[0] < 0:
            raise Problem(422, f"not a list of numbers: array={name}, shape={shape[:8]}", INSTEAD)
        if shape[0] > most:
            raise Problem(413, f"too many rows: rows={shape[0]}, limit={most}", "send them in parts")

    names = COORDINATES[how["coordinates"]]
    with open(table, "rb") as file:
        given = {name: values.astype(np.float64) for name, values in npz.arrays(file, names, check, INSTEAD)}
    lengths = [len(given[name]) if name in given else None for name in names]
    if len(set(lengths)) != 1:
        raise Problem(422, f"arrays of several lengths, or missing: {dict(zip(names, lengths, strict=True))}", INSTEAD)
    positions = np.stack([given[name] for name in names], axis=1)
    cells, parts = Cells(ds), range(0, max(1, len(positions)), ROWS)
    if how["coordinates"] == "box":
        asked = Asked(ds, "arrays=x, y, z", stated=False)
        asked.add(positions)
        asked.check("send them in Mpc/h")
    found = [answered(ds, positions[i : i + ROWS], cells=cells, **how) for i in parts]
    made: dict[str, NDArray[Any]] = {name: np.concatenate([one[name] for one in found]) for name in found[0]}
    storage.write_bytes(out, npz.packed(made))
    return {"rows": len(positions), **counted(made["flag"])}
