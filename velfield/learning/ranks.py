"""Several processes that train one network: who is who, and the sums they share.

``torchrun --nproc-per-node N -m velfield train …`` starts the processes and tells each its rank by environment
variables; without them there is one process and nothing here does anything. Sums go by NCCL between GPUs and by Gloo
between CPUs. Every process holds the whole network and takes its share of each step's boxes; gradients are added, and
all make the same step. The first process alone writes, validates and shows progress.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from velfield.errors import VelfieldError

PATIENCE = timedelta(hours=2)  # how long the others wait while the first process validates or writes


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where a process stands among those that train together.

    Parameters
    ----------
    rank, size : int
        Its number and how many there are.
    here : int
        How many of them run on this machine.
    """

    rank: int = 0
    size: int = 1
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Add the processes' tensors, in place; returns it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it holds in any process."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(float(flag), device=device)))

    def wait(self) -> None:
        """Go on when all have come so far."""
        if self.size > 1:
            dist.barrier()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the processes' gradients, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = self.sum(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def average_buffers(self, net: nn.Module) -> None:
        """Give all the mean of what a batch normalisation has measured in each."""
        if self.size > 1:
            for buffer in net.buffers():
                if buffer.is_floating_point():
                    self.sum(buffer).div_(self.size)

    def seed_step(self, seed: int, step: int) -> None:
        """Give each process its own random numbers at a step, a function of seed, step and rank alone."""
        if self.size > 1:
            torch.manual_seed((seed * 1_000_003 + step) * 65_537 + self.rank)


def rank_here() -> int:
    """The rank that torchrun gave this process; 0 without it."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started, on their GPUs in turn, until the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise VelfieldError(
                f"more processes than GPUs: process={local}, gpus={torch.cuda.device_count()}; "
                "start at most one a GPU, or train with --device cpu"
            )
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(rank=rank_here(), size=size, here=int(os.environ.get("LOCAL_WORLD_SIZE", size)))
    finally:
        dist.destroy_process_group()
