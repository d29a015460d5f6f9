"""The cut of a parent: every cell in one box, corners and centres in their place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout

layouts = st.builds(
    BoxLayout,
    boxsize=st.floats(1, 3000),
    boxes=st.integers(1, 5),
    cells=st.integers(1, 6),
    margin=st.integers(0, 4),
)


def test_the_papers_layout():
    layout = BoxLayout(boxsize=3000.0, boxes=10, cells=60)
    assert layout.nbox == 1000
    assert layout.ngrid == 600
    assert layout.cellsize == 5
    assert layout.side == 300
    assert layout.shape == (60, 60, 60)
    assert layout.index(123) == (1, 2, 3)
    assert layout.start(123) == (60, 120, 180)
    assert layout.origin(123).tolist() == [300, 600, 900]
    assert layout.centre(123).tolist() == [450, 750, 1050]
    np.testing.assert_array_equal(layout.cell_centres(), 2.5 + 5 * np.arange(60))


def test_a_margin_surrounds_the_core():
    layout = BoxLayout(boxsize=900.0, boxes=3, cells=60, margin=20)
    assert layout.shape == (100, 100, 100)
    assert layout.core == slice(20, 80)
    assert layout.start(0) == (-20, -20, -20)
    assert layout.origin(0).tolist() == [0, 0, 0]  # the corner of the box proper
    centres = layout.cell_centres()
    assert centres[0] == -97.5
    np.testing.assert_array_equal(centres[layout.core], BoxLayout(boxsize=900.0, boxes=3, cells=60).cell_centres())


@given(layouts)
def test_cores_cover_each_cell_once(layout):
    seen = np.zeros((layout.ngrid,) * 3, dtype=int)
    for box in range(layout.nbox):
        at = tuple(slice(s + layout.core.start, s + layout.core.stop) for s in layout.start(box))
        assert seen[at].shape == (layout.cells,) * 3
        seen[at] += 1
    assert (seen == 1).all()


@given(layouts)
def test_starts_origins_and_centres_agree(layout):
    for box in range(layout.nbox):
        i, j, k = layout.index(box)
        assert (i * layout.boxes + j) * layout.boxes + k == box  # z runs fastest
        corner = (np.array(layout.start(box)) + layout.margin) * layout.cellsize
        # float64 of lengths up to 3000
        np.testing.assert_allclose(layout.origin(box), corner, rtol=0, atol=1e-11)
        np.testing.assert_allclose(layout.centre(box) - layout.origin(box), layout.side / 2, rtol=0, atol=1e-11)
        assert (layout.centre(box) < layout.boxsize).all()
    centres = layout.cell_centres()
    assert len(centres) == layout.shape[0]
    np.testing.assert_allclose(centres + centres[::-1], layout.side, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "wrong", [{"boxsize": 0.0}, {"boxsize": -1.0}, {"boxes": 0}, {"cells": 0}, {"margin": -1}], ids=str
)
def test_impossible_layouts_are_named(wrong):
    values = {"boxsize": 100.0, "boxes": 2, "cells": 10, "margin": 0} | wrong
    expected = ", ".join(f"{name}={value}" for name, value in values.items())
    with pytest.raises(VelfieldError, match=f"no such layout: {expected}; sizes and counts must be positive"):
        BoxLayout(**values)
