"""GroupNorm with the statistics of a whole parent in place of those of the box that is shown.

GroupNorm takes mean and variance of a group of channels over all cells of what it is shown, so what it makes of a cell
depends on where the tile around that cell ends. For a whole parent they are taken once, over tiles of the training's
side spread over it, and held fixed from then on. What a network makes of a cell then depends on the cells within its
reach alone, as BatchNorm's result does once it is trained: y = γ (x − μ) / √(σ² + ε) + β with numbers μ and σ² for each
group. The network that has them is therefore one with BatchNorm.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from velfield.errors import VelfieldError
from velfield.network.unet import UNet


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What GroupNorm layers see, averaged over boxes.

    Parameters
    ----------
    mean, square : ndarray (layer, group)
        Of the values and of their squares, by layer in the network's order.
    """

    mean: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def of(cls, some: list[Statistics]) -> Statistics:
        """The average of several, all of equal weight."""
        return cls(
            mean=np.mean([one.mean for one in some], axis=0), square=np.mean([one.square for one in some], axis=0)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, exactly."""
        return {"mean": self.mean.tolist(), "square": self.square.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Statistics:
        """Rebuild what `to_dict` wrote."""
        return cls(mean=np.asarray(values["mean"]), square=np.asarray(values["square"]))


def layers(net: UNet) -> dict[str, nn.GroupNorm]:
    """The network's GroupNorm layers by name, in its order."""
    return {name: module for name, module in net.named_modules() if isinstance(module, nn.GroupNorm)}


@contextmanager
def observed(net: UNet) -> Iterator[list[Statistics]]:
    """While it lasts, each layer's input is measured; the list then holds the average over all that was shown.

    Of this thread alone: others may predict with the same network meanwhile, or observe it, too.
    """
    found, here = layers(net), threading.get_ident()
    sums = {name: np.zeros((2, layer.num_groups)) for name, layer in found.items()}
    boxes = dict.fromkeys(found, 0)
    made: list[Statistics] = []

    def watch(name: str, layer: nn.GroupNorm) -> Any:
        def before(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            if threading.get_ident() != here:
                return
            x = given[0]
            grouped = x.unflatten(1, (layer.num_groups, -1)).float()
            variance, mean = torch.var_mean(grouped, dim=(2, 3, 4, 5), correction=0)
            mean, variance = mean.double().cpu(), variance.double().cpu()
            sums[name] += np.stack([mean.sum(0), (variance + mean.square()).sum(0)])
            boxes[name] += len(x)

        return layer.register_forward_pre_hook(before)

    hooks = [watch(name, layer) for name, layer in found.items()]
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()
    values = np.stack([sums[name] / boxes[name] for name in found])
    made.append(Statistics(mean=values[:, 0], square=values[:, 1]))


def with_statistics(net: UNet, statistics: Statistics) -> UNet:
    """The network with these statistics held fixed: one of BatchNorm, in evaluation mode."""
    found = layers(net)
    if statistics.mean.shape != (len(found), net.config.groups):
        raise VelfieldError(
            f"the statistics do not fit the network: shape={statistics.mean.shape}, "
            f"layers={len(found)}, groups={net.config.groups}; observe this network"
        )
    state = net.state_dict()
    for (name, layer), mean, square in zip(found.items(), statistics.mean, statistics.square, strict=True):
        each = layer.num_channels // layer.num_groups
        for what, values in (("running_mean", mean), ("running_var", square - mean**2)):
            state[f"{name}.{what}"] = torch.as_tensor(values, dtype=torch.float32).repeat_interleave(each)
        state[f"{name}.num_batches_tracked"] = torch.tensor(0)
    with torch.random.fork_rng(devices=[]):
        made = UNet(replace(net.config, norm="batch"))
    made.load_state_dict(state)
    for name, module in made.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps = found[name].eps
    return made.eval()
