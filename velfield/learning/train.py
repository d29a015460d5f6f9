"""Training: field stores in, a model bundle out. By steps, so that the result does not depend on the machine's speed.

The same command at the same place goes on where it was interrupted; on a CPU with the same number of threads it ends
with the same weights, to the last bit, as a training that was not. On a GPU sums run in no fixed order and the last
bits differ. Several processes that torchrun started train together (`velfield.learning.ranks`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from velfield.files.progress import Progress, Silent
from velfield.learning import checkpoint, train_record
from velfield.learning.ranks import Ranks, joined
from velfield.learning.train_config import TrainConfig, TrainResult
from velfield.learning.training import Training
from velfield.network.model import pick_device
from velfield.stores.sources import open_sources

__all__ = ["TrainConfig", "TrainResult", "train"]


def train(
    fields: Sequence[str],
    out: str,
    config: TrainConfig,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
    *,
    remade: bool = False,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train a network on field stores and write a model bundle.

    Parameters
    ----------
    fields : sequence of str
        URLs of field stores, as a rule one for each simulated universe; they must have been painted alike, but for
        redshift and threshold where the network is conditioned.
    out : str
        URL of the bundle. An unfinished training there goes on, a finished one is left as it is; one with other
        settings is refused.
    config : TrainConfig
        What is asked for.
    progress : Progress, optional
        Is told of every step.
    note : callable, optional
        Is told what could not be done as asked.
    remade : bool
        An unfinished training goes on although the stores have other fingerprints than those that it began with: for
        stores of the same seeds and settings that were made again, where rounding may differ in the last bits. Their
        number must be the same.
    stop : callable, optional
        Is asked after every step; where it says True, the training stops as it does at Ctrl-C.
    """
    device = pick_device(config.device)
    with joined(device) as ranks:
        speaks = progress is not None and ranks.first
        told = progress if speaks and progress else Silent()
        return _train(fields, out, config, device, ranks, told, note, remade, stop or _never)


def _never() -> bool:
    return False


def _train(
    fields: Sequence[str],
    out: str,
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks,
    progress: Progress,
    note: Callable[[str], None] | None,
    remade: bool,
    stop: Callable[[], bool],
) -> TrainResult:
    began = time.monotonic()
    sources = open_sources(fields, config.inputs, condition=config.condition)
    settings = config.settings() | {"stores": [source.fingerprint for source in sources]}
    finished = train_record.finished(out, settings)
    ranks.wait()  # all have looked, before one writes
    if finished is not None:
        return finished
    if ranks.first:
        checkpoint.begin(out)
    saved = checkpoint.read(out)
    if saved is not None:
        if remade and len(saved.settings["stores"]) == len(sources):
            settings["stores"] = saved.settings["stores"]
        checkpoint.refuse_other(out, saved.settings, settings)
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        training = Training(sources, config, device, settings, ranks, progress, note, out)
        if saved is not None:
            training.restore(saved)
        training.run(out, progress, began, stop)
        bundle = training.bundle(time.monotonic() - began)
    if ranks.first:
        bundle.save(out)
        checkpoint.remove(out)
    ranks.wait()
    return TrainResult(
        model=out,
        steps=training.steps,
        already_done=False,
        seconds=time.monotonic() - began,
        losses=bundle.metadata["losses"],
    )
