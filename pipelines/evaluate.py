"""The evaluation job: a task predicts and measures a few boxes; figures and averages are made where the job is."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from distributed import Client

from velfield.analysis.evaluate import evaluate as run
from velfield.analysis.judged import Judged, Test, judge
from velfield.analysis.pieces import Answer, Asked, Piece, measure_piece
from velfield.errors import VelfieldError
from velfield.pipelines.stages import stage
from velfield.pipelines.tasks import run_tasks
from velfield.stores.store import open_fields


def evaluate(
    client: Client, model: str, fields: str | Sequence[str], out: str | None = None, **options: Any
) -> dict[str, Any]:
    """`velfield.analysis.evaluate.evaluate` with its boxes on a cluster; the results are the same.

    ``options`` are that function's, ``progress`` and ``note`` among them.
    """

    def spread(pieces: Sequence[Piece], asked: Asked) -> Iterable[tuple[Piece, Answer]]:
        return run_tasks(client, measure, pieces, asked, name="evaluate")

    return run(model, fields, out, spread=spread, **options)


def measure(piece: Piece, asked: Asked) -> Answer:
    """Task: predict and measure the boxes of a piece."""
    with stage("open"):
        test, judged = _opened(piece.url, asked)
        if test.ds.attrs["fingerprint"] != piece.fingerprint or judged.identity != asked.identity:
            changed = f"store={piece.url}" if judged.identity == asked.identity else f"model={asked.model}"
            raise VelfieldError(f"it changed while it was used: {changed}; run the same command again")
    with stage("measure"):
        return measure_piece(piece, asked, judged, test)


@functools.lru_cache(maxsize=4)
def _opened(url: str, asked: Asked) -> tuple[Test, Judged]:
    """A worker opens a store and loads a model once."""
    test = Test(url=url, ds=open_fields(url, chunks=None), boxes=())
    judged = judge(asked.model, [test], asked.tracer, asked.smoothing, asked.average)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return test, judged
