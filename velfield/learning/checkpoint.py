"""The state of a training between two steps, in one file, written whole (safetensors, no pickle); stopping there.

Tensors are named ``model/<name>``, ``average/<name>`` (where weights are averaged), ``optimizer/<parameter>/<name>``,
``rng/<device>`` and ``record/<name>``; step and settings are JSON in the file's header. What a checkpoint restores is
the same to the last bit, so that on a CPU a training that was interrupted ends with the weights of one that was not.
"""

from __future__ import annotations

import json
import signal
import threading
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from velfield.errors import StoreError
from velfield.files import storage
from velfield.stores.sources import differing
from velfield.version import __version__

FOLDER, FILE, BEGUN = ".checkpoint", "state.safetensors", "begun.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds.

    Parameters
    ----------
    step : int
        Steps done.
    settings : dict
        What fixes the result; a training goes on only under the same.
    tensors : dict
        By name, as the module says.
    """

    step: int
    settings: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under ``prefix/``, by the rest of their names."""
        return {n.removeprefix(f"{prefix}/"): t for n, t in self.tensors.items() if n.startswith(f"{prefix}/")}


def begin(out: str) -> None:
    """Take the place ``out``, so that one that cannot be written shows before the work."""
    storage.write_json(storage.join(out, FOLDER, BEGUN), {"velfield_version": __version__})


def write(
    out: str,
    *,
    step: int,
    settings: dict[str, Any],
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    record: dict[str, Tensor],
    average: nn.Module | None = None,
) -> None:
    """Write the state after ``step`` steps beneath ``out``; a reader never sees a part of it."""
    tensors = {f"model/{name}": t for name, t in net.state_dict().items()}
    if average is not None:
        tensors |= {f"average/{name}": t for name, t in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{number}/{name}": t for name, t in state.items()}
    tensors["rng/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    tensors |= {f"record/{name}": t for name, t in record.items()}
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header = {"step": str(step), "settings": json.dumps(settings)}
    storage.write_bytes(_url(out), safetensors.torch.save(plain, header))


def read(out: str) -> Checkpoint | None:
    """The checkpoint beneath ``out``, if there is one."""
    if not storage.exists(_url(out)):
        return None
    data = storage.read_bytes(_url(out))
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")  # of the JSON header that follows, by the format
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        return Checkpoint(step=int(header["step"]), settings=json.loads(header["settings"]), tensors=tensors)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise StoreError(
            f"the checkpoint cannot be read: file={_url(out)}, because={error}; remove it to begin again"
        ) from error


def restore(
    checkpoint: Checkpoint, net: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None
) -> None:
    """Put network, its average, optimiser and random numbers into the state of the checkpoint."""
    net.load_state_dict(checkpoint.part("model"))
    if average is not None:
        average.load_state_dict(checkpoint.part("average"))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in checkpoint.part("optimizer").items():
        number, name = key.split("/")
        like = parameters[int(number)]
        # in the parameter's own memory layout: the same order of operations, so the same bits
        kept = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        state.setdefault(int(number), {})[name] = kept
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    random = checkpoint.part("rng")
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])


def remove(out: str) -> None:
    """Remove the checkpoint beneath ``out``: the training is finished."""
    storage.remove(storage.join(out, FOLDER))


def _url(out: str) -> str:
    return storage.join(out, FOLDER, FILE)


class StopAsked:
    """Within it Ctrl-C and SIGTERM only set `asked`, so that no step is cut in two; a second Ctrl-C acts at once.

    Attributes
    ----------
    asked : bool
        Whether one of them came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopAsked:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def refuse_other(out: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse to go on with, or to take for finished, what was begun with other settings; name each that differs."""
    there, asked = _flat(found), _flat(wanted)
    other = differing(asked, there) | {n: (None, v) for n, v in there.items() if n not in asked}
    if other:
        values = ", ".join(f"{name}={theirs} there and {ours} asked" for name, (ours, theirs) in sorted(other.items()))
        raise StoreError(
            f"another training is at this place: out={out}, {values}; "
            "give the same settings to go on, or choose another place"
        )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= {f"{name}.{n}": v for n, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat
