"""A prediction averaged over orientations of its box: turned, predicted, turned back.

A network that learnt from turned boxes is nearly, not quite, equivariant; over a group of orientations its average is
exactly so. In each cell the squared error of a mean is the mean squared error less the scatter about the mean, whatever
the errors have in common (Krogh & Vedelsby 1995, NIPS 7, 231); error bars are combined accordingly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from velfield.geometry.symmetry import CUBE, Symmetry, apply_channels, apply_vector, inverse

LEAST_VARIANCE = 0.1  # of an average, in units of the mean variance: keeps it positive where the scatter is large


def over_orientations(
    predict: Callable[[Tensor], tuple[Tensor, Tensor | None]],
    x: Tensor,
    symmetries: Sequence[Symmetry],
    *,
    vectors: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Velocity (box, 3, x, y, z) and error bar, averaged over orientations of the inputs (box, channel, x, y, z).

    ``predict`` gives both for inputs in one orientation, the error bar None where there is none. The last channels are
    the components of so many ``vectors``, and turn with them.
    """
    if len(symmetries) == 1 and symmetries[0] == CUBE[0]:
        return predict(x)
    mean, square, variance = (torch.zeros((), device=x.device) for _ in range(3))
    bars = None
    for s in symmetries:
        v, bars = predict(torch.as_tensor(apply_channels(x, s, vectors)))
        v = apply_vector(v, inverse(s))
        mean = mean + v / len(symmetries)
        square = square + v.square() / len(symmetries)
        if bars is not None:
            variance = variance + apply_vector(bars, inverse(s)).square() / len(symmetries)  # flips change a sign only
    if bars is None:
        return mean, None
    scatter = square - mean.square()
    return mean, torch.maximum(variance - scatter, LEAST_VARIANCE * variance).sqrt()
