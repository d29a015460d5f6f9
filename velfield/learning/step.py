"""The gradient of one step: its boxes in one part, or in several, one after the other or in several processes.

The loss of a batch is made of sums over its cells (`velfield.learning.loss.loss_sums`). In parts, the sums of all parts
give the loss L(S) and its derivatives ∂L/∂S; each part then adds Σ ∂L/∂S · ∂s/∂θ of its own sums s, which is exactly
the whole batch's gradient. Where L is linear in S the derivatives are known beforehand. Otherwise, as with the dice
loss, parts that are taken one after the other go forward twice, first for their sums alone: 4/3 of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from velfield.learning.batches import Batch
from velfield.learning.loss import LossConfig, counted_cells, is_linear, loss_of
from velfield.learning.ranks import Ranks

Sums = Callable[[Batch], Tensor]  # a part's sums, as `loss_sums` gives them


def gradients(net: nn.Module, parts: Sequence[Batch], sums: Sums, config: LossConfig, ranks: Ranks) -> Tensor:
    """Leave the gradient of the loss of all parts of all processes in the network; return the loss."""
    if len(parts) == 1 and ranks.size == 1:
        loss = loss_of(sums(parts[0]), config)["loss"]
        loss.backward()
        return loss.detach()
    if len(parts) == 1:
        own = sums(parts[0])
        whole = ranks.sum(own.detach().clone())
        (_slopes(whole, config) * own).sum().backward()
    elif is_linear(config):
        slopes = _slopes(ranks.sum(_counts(parts, config)), config)
        whole = ranks.sum(torch.stack([_add(part, sums, slopes) for part in parts]).sum(dim=0))
    else:
        whole = ranks.sum(_beforehand(net, parts, sums))
        slopes = _slopes(whole, config)
        for part in parts:
            _add(part, sums, slopes)
    ranks.sum_gradients(net.parameters())
    ranks.average_buffers(net)
    return loss_of(whole, config)["loss"]


def _slopes(whole: Tensor, config: LossConfig) -> Tensor:
    """∂L/∂S."""
    at = whole.clone().requires_grad_()
    return torch.autograd.grad(loss_of(at, config)["loss"], at)[0]


def _add(part: Batch, sums: Sums, slopes: Tensor) -> Tensor:
    """Add a part's share of the gradient; return its sums."""
    own = sums(part)
    (slopes * own).sum().backward()
    return own.detach()


def _counts(parts: Sequence[Batch], config: LossConfig) -> Tensor:
    """The sums as far as they are known without the network: cells and, where dice goes by them, samples."""
    cells = sum(counted_cells(part.flag, config).sum() for part in parts)
    known = torch.zeros(10 if config.dice_over == "channel" else 6, device=parts[0].flag.device)
    known[0], known[-1] = cells, sum(len(part.flag) for part in parts)
    return known


def _beforehand(net: nn.Module, parts: Sequence[Batch], sums: Sums) -> Tensor:
    """The parts' sums; the network and the random numbers are afterwards as they were before."""
    buffers = [buffer.clone() for buffer in net.buffers()]
    on_gpu = parts[0].inputs.device.type == "cuda"
    with torch.no_grad(), torch.random.fork_rng(devices=[torch.cuda.current_device()] if on_gpu else []):
        whole = torch.stack([sums(part) for part in parts]).sum(dim=0)
    for buffer, before in zip(net.buffers(), buffers, strict=True):
        buffer.copy_(before)
    return whole
