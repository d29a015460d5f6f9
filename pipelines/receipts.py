"""What a job has done so far: receipts beneath ``OUT/.work/<fingerprint>/``, each written once its piece is whole.

The fingerprint covers settings, inputs and schema, so a receipt never stands for other work. Nothing is overwritten: a
place that holds another store, or another job's unfinished one, is refused; one that has not written a shard yet gives
way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from velfield.errors import StoreError
from velfield.files import shards, storage
from velfield.pipelines import stages
from velfield.stores import store


@dataclass(frozen=True, kw_only=True)
class Receipts:
    """The receipts of the job with this fingerprint that makes the store at ``out``."""

    out: str
    fingerprint: str

    @property
    def work(self) -> str:
        """Folder of this job's receipts and intermediate files."""
        return storage.join(self.out, store.WORK, self.fingerprint[:16])

    def finished(self) -> bool:
        """Whether this job's store is there, whole. A place that holds anything else is refused."""
        if shards.published(self.out):
            found = str(store.attributes(self.out).get("fingerprint", "none"))
            if found != self.fingerprint:
                raise StoreError(
                    f"another store is here: out={self.out}, its fingerprint={found[:16]}, "
                    f"this job's={self.fingerprint[:16]}; name another place, or remove it"
                )
            self.clear()  # of a run that was stopped between publishing and clearing
            return True
        try:
            begun = storage.names(storage.join(self.out, store.WORK))
        except NotADirectoryError as error:
            raise StoreError(f"a file is in the way: out={self.out}; name another place") from error
        others = [name for name in begun if name != self.fingerprint[:16]]
        if any(storage.names(storage.join(self.out, store.WORK, other, "shards")) for other in others):
            raise StoreError(
                f"an unfinished store with other settings or inputs is here: out={self.out}, "
                f"its fingerprint={others[0]}, this job's={self.fingerprint[:16]}; name another place, or remove it"
            )
        if not begun and storage.names(self.out):
            raise StoreError(f"this place is not empty: out={self.out}; name another place, or remove what is there")
        return False

    def begin(self, summary: Mapping[str, Any]) -> bool:
        """Take the place for this job; False if its store is finished already."""
        if self.finished():
            return False
        self._take_over()
        storage.write_json(storage.join(self.work, "job.json"), dict(summary))
        storage.remove_torn(self.out)  # of writers that were killed: they may fill a disk
        return True

    def _take_over(self) -> None:
        """Remove what a job with other settings has left that never came to write a shard: a first try that failed."""
        others = [n for n in storage.names(storage.join(self.out, store.WORK)) if n != self.fingerprint[:16]]
        if not others:
            return
        for name in storage.names(self.out):
            if storage.exists(storage.join(self.out, name, shards.ROOT)):  # an array of the other layout
                storage.remove(storage.join(self.out, name))
        for other in others:
            storage.remove(storage.join(self.out, store.WORK, other))

    def find(self, *name: str) -> dict[str, Any] | None:
        """The receipt of this name, None if the piece is not done."""
        data = storage.find_bytes(self._url(name))
        return None if data is None else _receipt(data)

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """All receipts of a kind by name: one listing, and none is asked for in vain."""
        folder = storage.join(self.work, kind)
        there = [name for name in storage.names(folder) if name.endswith(".json")]
        found = storage.read_many([storage.join(folder, name) for name in there])
        read = {name.removesuffix(".json"): _receipt(data) for name, data in zip(there, found, strict=True)}
        return {name: receipt for name, receipt in read.items() if receipt is not None}

    def leave(self, receipt: Mapping[str, Any], *name: str) -> dict[str, Any]:
        """Write a receipt: the piece is whole. Where its time went is added; returns what was written."""
        whole = dict(receipt) | {"stages": stages.so_far()}
        storage.write_json(self._url(name), whole)
        return whole

    def clear(self) -> None:
        """Remove receipts and intermediate files, of a job that is finished."""
        storage.remove(storage.join(self.out, store.WORK))

    def _url(self, name: tuple[str, ...]) -> str:
        return storage.join(self.work, *name[:-1], f"{name[-1]}.json")


def bytes_of(receipt: Mapping[str, Any], stage: str) -> float:
    """Bytes that went through a stage of the task that left the receipt."""
    return float(receipt["stages"].get(stage, {}).get("bytes", 0))


def _receipt(data: Any) -> dict[str, Any] | None:
    """What a receipt says; None if it cannot be read, which never counts as done."""
    try:
        return dict(json.loads(data))
    except (TypeError, ValueError):
        return None
