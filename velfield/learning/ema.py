"""The exponential average of a network's weights over the steps of its training: a smoother network at no cost.

At the t-th step the decay is min(decay, t/(9 + t)), so that the first weights, which know nothing, are soon forgotten.
Running means and variances of a batch normalisation are averaged as the weights are; counters are copied.
"""

from __future__ import annotations

import copy

import torch

from velfield.network.unet import UNet

WARM = 9  # at the t-th step at most t/(9 + t) of the average is kept


class Average:
    """A network whose weights are the average of another's.

    Parameters
    ----------
    net : UNet
        Whose weights are averaged.
    decay : float
        What is kept of the average at each step, from 0 up to, not including, 1.
    """

    def __init__(self, net: UNet, decay: float) -> None:
        self.decay = decay
        self.net: UNet = copy.deepcopy(net).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, net: UNet, step: int) -> None:
        """Take in the weights after step number ``step``, counted from 1."""
        decay = min(self.decay, step / (WARM + step))
        for mean, now in zip(self.net.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)
