"""The storage options of a job, in the processes of its workers: never in a task, a key or a setting."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from distributed import Client, WorkerPlugin

from velfield.files import storage


class StorageOptions(WorkerPlugin):
    """The options of the process that makes it, for every worker that is there or joins later."""

    name = "velfield-storage-options"

    def __init__(self) -> None:
        self._options = storage.options_in_use()
        self._ours = False

    def setup(self, worker: Any) -> None:  # noqa: ARG002
        """Use them in the worker's process, unless it has them already because it is this one."""
        if storage.options_in_use() == self._options:
            return
        self._ours = True
        storage.forget_options()
        for protocol, options in self._options.items():
            storage.use_options(options, protocol)

    def teardown(self, worker: Any) -> None:  # noqa: ARG002
        """Forget them."""
        if self._ours:
            storage.forget_options()


@contextlib.contextmanager
def carry_options(client: Client) -> Iterator[None]:
    """Give this process's options to all workers for as long as the context lasts; nobody else finds them there."""
    client.register_plugin(StorageOptions())
    try:
        yield
    finally:
        with contextlib.suppress(Exception):  # a cluster that is gone has forgotten them
            client.sync(client._unregister_worker_plugin, name=StorageOptions.name, callback_timeout=10)
