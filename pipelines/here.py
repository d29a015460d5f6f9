"""A job's tasks in threads of this process, for work on what is in its memory: `run_tasks` without a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from velfield.errors import VelfieldError
from velfield.pipelines import stages, watch
from velfield.pipelines.failures import environmental, in_one_line, worth_another_try
from velfield.pipelines.tasks import PAUSE, TRIES


@dataclass(frozen=True)
class Threads:
    """So many threads of this process, each with a task."""

    number: int

    def run_tasks(
        self, task: Callable[..., Any], items: Sequence[Any], *common: Any, name: str
    ) -> Iterator[tuple[Any, Any]]:
        """Run ``task(item, *common)`` for every item and yield (item, result) as they finish.

        What fails for a reason that may pass is tried again, a few times; any other error is raised here, once the
        tasks that run have ended, and none is begun any more. So it is at Ctrl-C.
        """
        record = watch.current()
        with ThreadPoolExecutor(self.number, thread_name_prefix=name) as pool:
            running = {
                pool.submit(_tried, task, item, common, (name, number), record): item
                for number, item in enumerate(items)
            }
            try:
                for future in as_completed(running):
                    result, measured = future.result()
                    record.add(name, measured)
                    yield running[future], result
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # the context waits for those that run


def _tried(
    task: Callable[..., Any], item: Any, common: tuple[Any, ...], which: tuple[str, int], record: watch.Record
) -> tuple[Any, stages.Measured]:
    tries = 0
    while True:
        tries += 1
        try:
            return stages.measured(task, item, *common)
        except VelfieldError:
            raise
        except Exception as error:
            if not worth_another_try(error) or tries == TRIES:
                if environmental(error):
                    raise in_one_line(error, "{} {}".format(*which), tries) from error
                raise
            record.retried(which[0], error)
        time.sleep(PAUSE * 2 ** (tries - 1))
