"""How far positions reach, and the unit in which they would fill their parent."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velfield.geometry.extent import Extent

RNG = np.random.default_rng(1)


@given(n=st.integers(0, 1200), seed=st.integers(0, 100), part=st.integers(0, 1200), dtype=st.sampled_from(["f4", "f8"]))
@settings(max_examples=40, deadline=None)
def test_is_that_of_a_plain_minimum_however_it_is_parted(n, seed, part, dtype):
    pos = np.random.default_rng(seed).normal(0, 100, (n, 3)).astype(dtype)
    whole = Extent.of(pos)
    assert Extent.of(pos[:part]) | Extent.of(pos[part:]) == whole
    assert whole.rows == n
    if n:
        assert whole.lower == tuple(pos.min(axis=0).tolist())
        assert whole.upper == tuple(pos.max(axis=0).tolist())
        assert whole.span == pytest.approx(np.ptp(pos.astype("f8"), axis=0).max())
    assert Extent.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def test_what_is_not_finite_is_left_out():
    pos = RNG.uniform(0, 10, (2000, 3))
    expected = Extent.of(pos[2:])
    pos[0, 1], pos[1, 2] = np.nan, np.inf
    assert Extent.of(pos) == expected
    assert Extent.of(pos[:2]) == Extent()
    assert Extent().span == 0
    assert not Extent().in_a_corner(100.0)


@pytest.mark.parametrize(
    ("low", "high", "boxsize", "corner", "unit"),
    [
        (0, 1, 512.0, True, ("units of the box", "512 Mpc/h")),
        (-0.5, 0.5, 32.0, True, ("units of the box", "32 Mpc/h")),
        (0, 3.0, 3000.0, True, ("Gpc/h", "Gpc/h")),
        (0, 0.512, 512.0, True, ("units of the box", "512 Mpc/h")),  # or Gpc/h
        (100, 110, 1000.0, True, None),  # a small region
        (0, 0.01, 1000.0, True, None),
        (0, 512, 512.0, False, None),
        (0, 40, 1000.0, False, None),
        (0, 1, 16.0, False, ("units of the box", "16 Mpc/h")),  # a sixteenth
    ],
)
def test_the_unit_of_positions_in_a_corner(low, high, boxsize, corner, unit):
    found = Extent.of(RNG.uniform(low, high, (500, 3)))
    assert found.in_a_corner(boxsize) == corner
    assert found.unit(boxsize) == unit


def test_few_positions_say_nothing():
    pos = RNG.uniform(0, 1, (10, 3))
    assert Extent.of(pos).in_a_corner(100.0)
    assert not Extent.of(pos[:9]).in_a_corner(100.0)
    slab = RNG.uniform(0, 100, (500, 3)) * [1, 1, 0.01]
    assert not Extent.of(slab).in_a_corner(100.0)
