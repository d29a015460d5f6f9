"""What clients upload, streamed to disk and kept while it is used: cubes as field stores of one box, and catalogues."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import IO, Any

from velfield.files import shards, storage
from velfield.service.cubes import Cube, boxed, fingerprint_of, read_npz, spec_of
from velfield.service.limits import Limits
from velfield.service.problems import Problem
from velfield.stores import store

TABLE = ".table"  # ends the name of a catalogue's file
NAME = re.compile(r"upload:([0-9a-f]{32})")


class Uploads:
    """Field stores of one box each, and tables, beneath a folder by the hash of what they were made of."""

    def __init__(self, folder: str, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        os.makedirs(folder, exist_ok=True)
        for name in storage.names(folder):
            if name.startswith(".part-"):  # of a service that was killed
                os.remove(os.path.join(folder, name))

    async def take(
        self, cube: Cube, length: int, pieces: AsyncIterator[bytes], pool: Executor
    ) -> tuple[str, int, bool]:
        """Receive a cube; returns its name, its box's cells along a side, and whether it is new."""
        async with self._received(length, pieces, pool) as (file, digest):
            fingerprint = fingerprint_of(cube, digest)
            run = asyncio.get_running_loop().run_in_executor
            return await run(pool, self._made, cube, file.file, fingerprint)

    async def take_catalogue(self, length: int, pieces: AsyncIterator[bytes], pool: Executor) -> tuple[str, bool]:
        """Receive a catalogue; returns its name and whether it is new."""
        async with self._received(length, pieces, pool) as (file, digest):
            name = digest.hexdigest()[:32]
            place = os.path.join(self.folder, name + TABLE)
            new = not os.path.exists(place)
            if new:
                os.link(file.name, place)
            _use(place)
        return f"upload:{name}", new

    @asynccontextmanager
    async def _received(self, length: int, pieces: AsyncIterator[bytes], pool: Executor) -> AsyncIterator[Any]:
        """A file with what came, which is gone afterwards, and its hash."""
        used = await asyncio.get_running_loop().run_in_executor(pool, self.used)
        if used + length > self.limits.space:
            raise Problem(507, f"no space for uploads: bytes={used}, limit={self.limits.space}", "try again later")
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".part-") as file:
            async for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.flush()
            yield file, digest

    def place(self, name: str) -> str:
        """The field store of a cube, which from now on counts as used; 422 where there is none."""
        found = NAME.fullmatch(name)
        url = os.path.join(self.folder, found[1]) if found else ""
        if not found or not shards.published(url):
            if found and os.path.exists(url + TABLE):
                raise Problem(422, f"a catalogue: input={name}", "say how it is painted (paint)")
            raise Problem(422, "no such upload, or one that has expired", "upload it again with POST /uploads")
        os.utime(url)
        return url

    def catalogue(self, name: str) -> str:
        """The file of a catalogue, which from now on counts as used; 422 where there is none."""
        found = NAME.fullmatch(name)
        url = os.path.join(self.folder, found[1] + TABLE) if found else ""
        if not found or not os.path.exists(url):
            raise Problem(422, "no such catalogue, or one that has expired", "upload it again with POST /catalogues")
        _use(url)
        return url

    def used(self) -> int:
        """Bytes of all uploads."""
        return sum(
            os.path.getsize(os.path.join(root, name))
            for root, _, files in os.walk(self.folder)
            for name in files
            if os.path.exists(os.path.join(root, name))
        )

    def sweep(self, wanted: set[str]) -> None:
        """Remove uploads that nobody has used for long and no job needs."""
        old = time.time() - self.limits.keep
        for name in storage.names(self.folder):
            url, shown = os.path.join(self.folder, name), f"upload:{name.removesuffix(TABLE)}"
            if NAME.fullmatch(shown) and shown not in wanted and _used(url) < old:
                storage.remove(url)

    def _made(self, cube: Cube, file: IO[bytes], fingerprint: str) -> tuple[str, int, bool]:
        name = fingerprint[:32]
        url = os.path.join(self.folder, name)
        arrays: dict[str, Any] = read_npz(file, cube, self.limits.upload_cells)
        side = cube.side(next(iter(arrays.values())).shape[0])
        if shards.published(url):
            os.utime(url)
            return f"upload:{name}", side, False
        store.write_fields(url, spec_of(cube, arrays, fingerprint), boxed(cube, arrays))
        return f"upload:{name}", side, True


def _use(table: str) -> None:
    """Note that a table is used: in its time of access, as half-done work knows it by its time of change."""
    os.utime(table, ns=(time.time_ns(), os.stat(table).st_mtime_ns))


def _used(place: str) -> float:
    """When a table, or the store of a cube, was used last."""
    return os.path.getatime(place) if place.endswith(TABLE) else os.path.getmtime(place)
