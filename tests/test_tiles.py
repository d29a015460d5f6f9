"""Tiles: they cover the parent, their weights sum to one, cells are pooled alike, pieces are where they should be."""

import numpy as np
import pytest

from velfield.errors import VelfieldError
from velfield.geometry.tiles import Tiling, pieces, spread, tiling

CASES = [
    {"ngrid": 600, "periodic": True, "context": 0, "trained": 60, "multiple": 8, "reach": 51},
    {"ngrid": 600, "periodic": True, "context": 20, "trained": 100, "multiple": 8, "reach": 51},
    {"ngrid": 101, "periodic": True, "context": 2, "trained": 33, "multiple": 8, "reach": 51},
    {"ngrid": 24, "periodic": True, "context": 2, "trained": 64, "multiple": 2, "reach": 9},
    {"ngrid": 180, "periodic": False, "context": 5, "trained": 70, "multiple": 2, "reach": 9, "local": True},
    {"ngrid": 60, "periodic": False, "context": 0, "trained": 60, "multiple": 8, "reach": 51},
    {"ngrid": 101, "periodic": False, "context": 3, "trained": 33, "multiple": 8, "reach": 51, "side": 40},
]


def made(**case):
    return tiling(**({"side": None, "overlap": None, "local": False} | case))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['ngrid']}-{case['periodic']}-{case['context']}")
def test_weights_sum_to_one_and_leave_out_the_context(case):
    tiles = made(**case)
    cells = np.asarray(tiles.starts)[:, None] + np.arange(tiles.side)
    total = np.zeros(tiles.ngrid)
    np.add.at(total, cells % tiles.ngrid, tiles.weights)
    np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)  # rounded to float32
    assert (tiles.weights >= 0).all()
    outside = tiles.weights[:, np.r_[0 : tiles.context, tiles.side - tiles.context : tiles.side]]
    assert not outside.any()
    if not tiles.periodic:
        assert not tiles.weights[(cells < 0) | (cells >= tiles.ngrid)].any()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['ngrid']}-{case['periodic']}-{case['context']}")
@pytest.mark.parametrize("wider", [0, 4, 7])
def test_cells_are_pooled_alike_in_tiles_of_any_side(case, wider):
    tiles = made(**(case | {"side": case["trained"] + wider}))
    low = (-tiles.side % tiles.multiple) // 2  # with which the network pads (velfield.network.unet._pad)
    assert {(start - low) % tiles.multiple for start in tiles.starts} == {tiles.phase}
    assert tiles.phase == made(**case).phase or len(tiles.starts) == 1


def test_an_isolated_box_is_one_tile_the_size_of_the_training():
    tiles = made(ngrid=60, periodic=False, context=5, trained=70, multiple=8, reach=51)
    assert (tiles.starts, tiles.side) == ((-5,), 70)
    np.testing.assert_array_equal(tiles.weights[0], (np.arange(70) >= 5) & (np.arange(70) < 65))
    small = made(ngrid=30, periodic=False, context=5, trained=70, multiple=8, reach=51)
    assert small.side == 40


def test_a_local_network_has_no_weight_on_what_sees_a_tiles_edge():
    tiles = made(ngrid=180, periodic=True, context=0, trained=60, multiple=2, reach=9, local=True)
    assert (tiles.rim, tiles.overlap) == (9, 18)
    blended = made(ngrid=180, periodic=True, context=0, trained=60, multiple=2, reach=9)
    assert blended.rim < 9 < blended.overlap
    jumps = np.abs(np.diff(blended.weights, axis=1)).max()
    assert jumps < 1.6 / (blended.overlap - 2 * blended.rim)  # the steepest that sin² is: π/2 over the blend


@pytest.mark.parametrize(
    ("start", "length", "periodic"), [(-7, 30, True), (20, 9, True), (-7, 60, False), (3, 5, False)]
)
def test_pieces_are_the_cells_of_the_parent(start, length, periodic):
    parent = np.arange(24).reshape(4, 6)
    found = np.full(length, -1)
    for p in pieces(start, length, 6, 24, periodic=periodic):
        found[p.at : p.at + p.end - p.first] = parent[p.box, p.first : p.end]
    cells = np.arange(start, start + length)
    expected = cells % 24 if periodic else np.where((cells >= 0) & (cells < 24), cells, -1)
    np.testing.assert_array_equal(found, expected)


def test_tiles_that_cannot_be_are_refused():
    with pytest.raises(VelfieldError, match=r"tiles do not overlap so: tile=60, overlap=10; .* at least 20 cells"):
        made(ngrid=600, periodic=True, context=10, trained=80, multiple=8, reach=51, side=60, overlap=10)
    with pytest.raises(VelfieldError, match=r"tiles do not overlap so: tile=60, overlap=58; .* at most 52"):
        made(ngrid=600, periodic=True, context=0, trained=60, multiple=8, reach=51, overlap=58)
    with pytest.raises(VelfieldError, match=r"the tile is too narrow: tile=25, context=10; choose one of at least 28"):
        made(ngrid=600, periodic=True, context=10, trained=80, multiple=8, reach=51, side=25)
    with pytest.raises(VelfieldError, match="no such tiles"):
        Tiling(ngrid=0, periodic=True, side=4, context=0, rim=0, overlap=0)


A = (0, 200, 400)


def test_tiles_spread_over_a_parent():
    """Evenly, fewer where they fill it; one that ends is not left by more than the context."""
    assert spread(600, 60, 0, periodic=True) == tuple((i, j, k) for i in A for j in A for k in A)
    assert spread(50, 60, 4, periodic=True) == ((0, 0, 0),)
    assert sorted({i for i, _, _ in spread(100, 60, 0, periodic=False)}) == [0, 40]
    assert sorted({i for i, _, _ in spread(200, 68, 4, periodic=False)}) == [-4, 66, 136]
    assert spread(60, 68, 4, periodic=False) == ((-4, -4, -4),)


def test_tiles_of_a_local_network_are_as_wide_as_memory_allows():
    local = {"ngrid": 600, "periodic": True, "trained": 60, "multiple": 8, "reach": 51, "largest": 125**3}
    tiles = made(context=0, local=True, **local)
    assert (tiles.side, tiles.overlap, tiles.rim) == (120, 40, 13)
    assert made(context=0, **local).side == 60
    assert made(context=0, local=True, **local | {"side": 64}).side == 64
    assert made(context=0, local=True, **local | {"largest": 50**3}).side == 60
    exact = made(context=0, local=True, **local | {"multiple": 4, "reach": 20})
    assert (exact.side, exact.rim, exact.overlap) == (120, 20, 40)
    around = made(context=4, local=True, **local | {"multiple": 4, "reach": 23})
    assert (around.side, around.rim) == (124, 5)
    small = made(context=0, local=True, **local | {"ngrid": 48})
    assert (small.side, small.count) == (72, 1)
