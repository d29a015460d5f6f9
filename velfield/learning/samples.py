"""Which boxes a step sees, in which of their orientations: a pure function of the seed and the step's number."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

AS_IT_IS = -1  # in place of a symmetry's number

Sample = tuple[int, int]  # which of the boxes, which of the symmetries


def step_samples(step: int, *, boxes: int, symmetries: int, batch: int, seed: int) -> list[Sample]:
    """The samples of a step: epochs are shuffled one by one and cut into batches without a seam between them."""
    samples = []
    for place in range(step * batch, (step + 1) * batch):
        epoch, inside = divmod(place, boxes)
        order, turns = _epoch(boxes, symmetries, seed, epoch)
        samples.append((int(order[inside]), int(turns[inside])))
    return samples


@dataclass(frozen=True, kw_only=True)
class StepSamples:
    """The samples of each of ``steps``, made when their turn comes; the rest as in `step_samples`.

    A step's samples may be cut into ``of`` parts, whose lengths differ by one at most; of these ``parts`` come.
    """

    steps: range
    boxes: int
    symmetries: int
    batch: int
    seed: int
    parts: range = range(1)
    of: int = 1

    def __len__(self) -> int:
        return len(self.steps) * len(self.parts)

    def __iter__(self) -> Iterator[list[Sample]]:
        for step in self.steps:
            all_ = step_samples(step, boxes=self.boxes, symmetries=self.symmetries, batch=self.batch, seed=self.seed)
            yield from (all_[part :: self.of] for part in self.parts)


@functools.lru_cache(maxsize=4)
def _epoch(boxes: int, symmetries: int, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(boxes)
    turns = rng.integers(symmetries, size=boxes) if symmetries else np.full(boxes, AS_IT_IS)
    return order, turns
