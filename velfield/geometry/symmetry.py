"""The 48 symmetries of the cube: permutations and flips of the axes, for scalars and for vectors.

A symmetry acts about the cube's centre: x'ᵢ = sᵢ x_p(i), with sᵢ = −1 where axis i is flipped. A vector's components
turn with it. Arrays may be NumPy's or torch's.

Which symmetries map one sample of a redshift-space field onto another, equally likely one: with a line of sight along
an axis those that keep this axis (its sign does not matter), 16; with an observer in the cube's centre all 48; with an
observer elsewhere only the identity, unless the observer turns too (`apply_point`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from velfield.errors import VelfieldError


@dataclass(frozen=True)
class Symmetry:
    """A symmetry of the cube.

    Attributes
    ----------
    permutation : (int, int, int)
        New axis i is the old axis ``permutation[i]``.
    flips : (bool, bool, bool)
        Whether new axis i runs backwards.
    """

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def __post_init__(self) -> None:
        if sorted(self.permutation) != [0, 1, 2] or len(self.flips) != 3:
            raise VelfieldError(
                f"no symmetry of the cube: permutation={self.permutation}, flips={self.flips}; "
                "give each of the axes 0, 1, 2 once and three flips"
            )


CUBE: tuple[Symmetry, ...] = tuple(
    Symmetry((p[0], p[1], p[2]), (f[0], f[1], f[2]))
    for p in itertools.permutations(range(3))
    for f in itertools.product((False, True), repeat=3)
)
"""All 48, the identity first."""


def compose(after: Symmetry, before: Symmetry) -> Symmetry:
    """The symmetry that does ``before``, then ``after``."""
    i, j, k = after.permutation
    flips = [f != before.flips[p] for f, p in zip(after.flips, after.permutation, strict=True)]
    return Symmetry(
        (before.permutation[i], before.permutation[j], before.permutation[k]), (flips[0], flips[1], flips[2])
    )


def inverse(s: Symmetry) -> Symmetry:
    """The symmetry that undoes ``s``."""
    i, j, k = (s.permutation.index(axis) for axis in range(3))
    return Symmetry((i, j, k), (s.flips[i], s.flips[j], s.flips[k]))


def keeping_line_of_sight(los_axis: int) -> tuple[Symmetry, ...]:
    """The 16 that map an axis (0, 1 or 2) onto itself, whichever its direction: velocities and shifts flip together."""
    if los_axis not in (0, 1, 2):
        raise VelfieldError(f"no such axis: los_axis={los_axis}; choose 0, 1 or 2")
    return tuple(s for s in CUBE if s.permutation[los_axis] == los_axis)


def apply_scalar(array: Any, s: Symmetry) -> Any:
    """Turn a scalar field on the last three axes (…, x, y, z). May return a view."""
    first = array.ndim - 3
    if first < 0:
        raise VelfieldError(f"no cube to turn: shape={tuple(array.shape)}; give axes x, y, z last")
    axes = [*range(first), *(first + p for p in s.permutation)]
    if hasattr(array, "permute"):  # torch, which has no negative strides
        return array.permute(axes).flip([first + i for i in range(3) if s.flips[i]])
    turned = array.transpose(axes)
    return turned[(..., *(slice(None, None, -1) if flip else slice(None) for flip in s.flips))]


def apply_vector(array: Any, s: Symmetry, component_axis: int = -4) -> Any:
    """Turn a vector field on the last three axes, and its components along ``component_axis``; a copy."""
    axis = component_axis % array.ndim if -array.ndim <= component_axis < array.ndim else array.ndim
    if axis >= array.ndim - 3 or array.shape[axis] != 3:
        raise VelfieldError(
            f"no vector field to turn: shape={tuple(array.shape)}, component_axis={component_axis}; "
            "give three components on an axis before x, y, z"
        )
    return _turn_components(apply_scalar(array, s), s, axis)


def apply_channels(array: Any, s: Symmetry, vectors: int) -> Any:
    """Turn channels (…, channel, x, y, z): scalars, and behind them ``vectors`` times the components of a vector."""
    if not vectors:
        return apply_scalar(array, s)
    turned = apply_scalar(array, s)
    turned = turned.contiguous() if hasattr(turned, "permute") else turned.copy()
    first = array.shape[-4] - 3 * vectors
    if first < 0:
        raise VelfieldError(f"fewer channels than vectors have: channels={array.shape[-4]}, vectors={vectors}")
    for at in range(first, array.shape[-4], 3):
        turned[..., at : at + 3, :, :, :] = apply_vector(array[..., at : at + 3, :, :, :], s)
    return turned


def apply_point(points: Any, s: Symmetry) -> Any:
    """Turn points or directions (…, 3) about the cube's centre, from which points are counted; a copy."""
    if points.shape[-1] != 3:
        raise VelfieldError(f"no points to turn: shape={tuple(points.shape)}; give three components on the last axis")
    return _turn_components(points, s, points.ndim - 1)


def _turn_components(array: Any, s: Symmetry, axis: int) -> Any:
    before = (slice(None),) * axis
    turned = array[(*before, list(s.permutation))]  # a list copies: the input stays as it is
    for i in range(3):
        if s.flips[i]:
            turned[(*before, i)] *= -1
    return turned
