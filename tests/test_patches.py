"""Patches: blocks painted apart and put together equal the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velfield.errors import VelfieldError
from velfield.geometry.boxes import BoxLayout
from velfield.painting import patches, scatter
from velfield.painting.paint import paint, split_sums
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.redshift_space import redshift_space, sightlines

BOXES = BoxLayout(boxsize=60.0, boxes=3, cells=4)


def scene_of(boxes=BOXES, rsd="none", periodic=True, assignment="ngp", per_box=False):
    return patches.Scene(
        boxes=boxes,
        cosmology=OUTER_RIM,
        redshift=0.212,
        periodic=periodic,
        sightlines=sightlines(rsd, boxes, seed=3, observer_per_box=per_box),
        assignment=assignment,
        max_shift=20.0,
    )


def tracers(n=500, seed=0, side=60.0):
    rng = np.random.default_rng(seed)
    pos = rng.uniform(0, side, (n, 3)).astype("f4")
    return pos, rng.normal(0, 300, (n, 3)).astype("f4"), rng.uniform(1, 5, n).astype("f4")


def patches_of(scene, pos, vel, mass, *, shifted, momentum, ranges=1):
    """Patches of one block, added in ranges of rows."""
    painter = patches.BlockPainter(scene, shifted=shifted, mass=mass is not None, momentum=momentum)
    for rows in np.array_split(np.arange(len(pos)), ranges):
        painter.add(pos[rows], None if vel is None else vel[rows], None if mass is None else mass[rows])
    return painter.take()


def put_together(found, shape, *, mass, momentum):
    """Add patches, in the order given, into a window of ``shape`` cells, as a shard task does."""
    sums = np.zeros((int(np.prod(shape)), 1 + mass + 3 * momentum))
    for patch in found:
        sums[patch.cells] += patch.sums
    return split_sums(sums.reshape(*shape, -1), mass=mass, momentum=momentum)


def whole(scene, pieces, *, shifted, momentum, ranges=1):
    """Every box's window, from blocks painted apart."""
    found = {}
    for pos, vel, mass in pieces:
        made = patches_of(scene, pos, vel, mass, shifted=shifted, momentum=momentum, ranges=ranges)
        for box, patch in made.items():
            found.setdefault(box, []).append(patch)
    return [
        put_together(found.get(box, []), scene.boxes.shape, mass=True, momentum=momentum)
        for box in range(scene.boxes.nbox)
    ]


def split(arrays, pieces):
    return list(zip(*(np.array_split(a, pieces) for a in arrays), strict=True))


@pytest.mark.parametrize("assignment", ["ngp", "cic", "tsc"])
@pytest.mark.parametrize("margin", [0, 1, 7])
@pytest.mark.parametrize("periodic", [True, False])
def test_boxes_are_windows_of_one_grid(assignment, margin, periodic):
    boxes = BoxLayout(boxsize=60.0, boxes=3, cells=4, margin=margin)
    scene = scene_of(boxes, periodic=periodic, assignment=assignment)
    pos, vel, mass = tracers()
    made = whole(scene, split((pos, vel, mass), 4), shifted=False, momentum=True)
    n = boxes.ngrid
    grid = paint(pos, vel, mass, cellsize=5.0, start=(0, 0, 0), shape=(n, n, n), ngrid=n if periodic else None,
                 assignment=assignment)  # fmt: skip
    for box, window in enumerate(made):
        index = [np.arange(s, s + boxes.shape[0]) for s in boxes.start(box)]
        inside = ~patches.outside_parent(boxes, box)
        expected = grid.number[np.ix_(*(i % n for i in index))]
        if periodic:
            np.testing.assert_allclose(window.number, expected, rtol=0, atol=1e-12)  # sums of some 10 float64 weights
        else:
            np.testing.assert_allclose(window.number[inside], expected[inside], rtol=0, atol=1e-12)
        expected = grid.momentum[np.ix_(range(3), *(i % n for i in index))]
        where = inside | periodic
        np.testing.assert_allclose(window.momentum[:, where], expected[:, where], rtol=0, atol=1e-8)


@pytest.mark.parametrize("rsd", ["plane_parallel", "random_radial"])
def test_a_shared_sightline_shifts_once_in_the_parent(rsd):
    scene = scene_of(rsd=rsd)
    pos, vel, mass = tracers()
    made = whole(scene, split((pos, vel, mass), 3), shifted=True, momentum=False)
    sight = scene.sightlines
    los = None if sight.line_of_sight is None else sight.line_of_sight[0]
    observer = None if sight.observer is None else sight.observer[0]
    seen = redshift_space(pos, vel, redshift=0.212, cosmology=OUTER_RIM, line_of_sight=los, observer=observer)
    cell = np.floor(seen / 5.0).astype(int) % 12
    number = np.zeros((12, 12, 12))
    np.add.at(number, tuple(cell.T), 1)
    for box, window in enumerate(made):
        i, j, k = BOXES.start(box)
        np.testing.assert_array_equal(window.number, number[i : i + 4, j : j + 4, k : k + 4])
    assert sum(w.number.sum() for w in made) == len(pos)


@pytest.mark.parametrize(("rsd", "per_box"), [("center_radial", False), ("random_radial", True)])
def test_each_box_has_its_own_observer(rsd, per_box):
    scene = scene_of(rsd=rsd, per_box=per_box)
    pos, vel, mass = tracers()
    made = whole(scene, split((pos, vel, mass), 3), shifted=True, momentum=False)
    for box, window in enumerate(made):
        expected = np.zeros((4, 4, 4))
        observer = scene.sightlines.observer[box]
        for p, v in zip(pos.astype(float), vel.astype(float), strict=True):  # naive: one halo at a time
            if rsd == "center_radial":
                p = p + 60.0 * np.round((observer - p) / 60.0)
            away = p - observer
            s = p + away * (v @ away) / (away @ away) / OUTER_RIM.aH(0.212)
            cell = np.floor(s / 5.0).astype(int) % 12 - BOXES.start(box)
            if ((cell >= 0) & (cell < 4)).all():
                expected[tuple(cell)] += 1
        np.testing.assert_array_equal(window.number, expected)


@given(st.integers(1, 9), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_block_order_alone_decides_the_bits(pieces, seed):
    pos, vel, mass = tracers(200, seed)
    scene = scene_of(assignment="tsc")
    blocks = split((pos, vel, mass), pieces)
    a = whole(scene, blocks, shifted=False, momentum=True)
    b = whole(scene, blocks, shifted=False, momentum=True)
    assert all((x.number == y.number).all() and (x.momentum == y.momentum).all() for x, y in zip(a, b, strict=True))
    np.testing.assert_allclose(sum(w.number.sum() for w in a), 200, rtol=1e-12)  # TSC weights add up to 1


def test_positions_at_the_edges_belong_to_one_box():
    edge = np.array([[60.0, 0, 0], [20.0, 20.0, 20.0], [np.nextafter(20, 0), 40, 59.999996]], dtype="f8")
    made = whole(scene_of(), [(edge, edge * 0, np.ones(3))], shifted=False, momentum=True)
    counts = [w.number.sum() for w in made]
    assert sum(counts) == 3
    assert counts[0] == 1  # the position at boxsize is 0
    assert counts[13] == 1


def test_core_sums_leave_the_margin_out():
    boxes = BoxLayout(boxsize=60.0, boxes=3, cells=4, margin=2)
    scene = scene_of(boxes, assignment="cic")
    pos, vel, mass = tracers()
    made = patches_of(scene, pos, vel, mass, shifted=False, momentum=True)
    sums = [patches.core_sums(boxes, patch, mass=True, momentum=True) for patch in made.values()]
    np.testing.assert_allclose(sum(s["number"] for s in sums), 500, rtol=1e-12)
    np.testing.assert_allclose(sum(s["mass"] for s in sums), mass.sum(dtype="f8"), rtol=1e-12)
    momentum = np.sum([s["momentum"] for s in sums], axis=0)
    np.testing.assert_allclose(momentum, vel.sum(0, dtype="f8"), rtol=0, atol=1e-6)  # of terms of 300


def test_pack_and_unpack(tmp_path):
    pos, vel, mass = tracers()
    made = patches_of(scene_of(), pos, vel, mass, shifted=False, momentum=True)
    np.savez(tmp_path / "p.npz", **patches.pack(made))
    with np.load(tmp_path / "p.npz") as file:
        back = patches.unpack(file)
    assert back.keys() == made.keys()
    for box, patch in made.items():
        np.testing.assert_array_equal(back[box].cells, patch.cells)
        np.testing.assert_array_equal(back[box].sums, patch.sums)


def test_patches_hold_the_cells_that_are_filled_and_no_others():
    pos = np.array([[7.0, 12.0, 18.0], [12.0, 12.0, 18.0]])
    ((box, patch),) = patches_of(scene_of(), pos, None, np.ones(2), shifted=False, momentum=False).items()
    assert box == 0
    np.testing.assert_array_equal(patch.cells, [(1 * 4 + 2) * 4 + 3, (2 * 4 + 2) * 4 + 3])
    np.testing.assert_array_equal(patch.sums, [[1, 1], [1, 1]])


def test_redshift_space_needs_velocities():
    pos, _, mass = tracers()
    with pytest.raises(VelfieldError, match="redshift space needs velocities: vel=None"):
        patches_of(scene_of(rsd="plane_parallel"), pos, None, mass, shifted=True, momentum=False)


def test_nothing_from_nothing():
    empty = np.empty((0, 3))
    assert patches_of(scene_of(), empty, empty, None, shifted=False, momentum=True) == {}


WAYS = {"canvas": {}, "sorted": {"SPARSE": 0}, "small canvases": {"CANVAS_BYTES": 8 * 5 * 18**3}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("margin", [0, 2, 7])
@pytest.mark.parametrize("assignment", ["ngp", "cic", "tsc"])
def test_all_ways_to_paint_a_block_agree(monkeypatch, way, periodic, margin, assignment):
    boxes = BoxLayout(boxsize=60.0, boxes=3, cells=4, margin=margin)
    scene = scene_of(boxes, rsd="random_radial", periodic=periodic, assignment=assignment)
    pos, vel, mass = tracers(300)
    pos = np.concatenate([pos[:200] * 0.3, pos[200:]])  # a block and its strays
    naive = whole(scene, [(pos, vel, mass)], shifted=True, momentum=True)
    for name, value in WAYS[way].items():
        monkeypatch.setattr(patches, name, value)
    made = whole(scene, [(pos, vel, mass)], shifted=True, momentum=True, ranges=7)
    for box, (a, b) in enumerate(zip(made, naive, strict=True)):
        inside = ~patches.outside_parent(boxes, box) | periodic
        for name in ("number", "mass"):  # sums of some 300 float64 terms of order 1
            np.testing.assert_allclose(getattr(a, name)[inside], getattr(b, name)[inside], rtol=1e-13, atol=1e-12)
        np.testing.assert_allclose(a.momentum[:, inside], b.momentum[:, inside], rtol=1e-13, atol=1e-9)


def test_ranges_of_rows_leave_the_bits_alone_on_a_canvas():
    pos, vel, mass = tracers()
    one = whole(scene_of(assignment="cic"), [(pos, vel, mass)], shifted=False, momentum=True)
    many = whole(scene_of(assignment="cic"), [(pos, vel, mass)], shifted=False, momentum=True, ranges=11)
    assert all((a.momentum == b.momentum).all() for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("rsd", ["plane_parallel", "center_radial"])
def test_halos_that_are_carried_too_far_are_counted(rsd):
    scene = scene_of(rsd=rsd)
    pos, vel, mass = tracers(50)
    vel[[3, 7]] = [0, 0, 40_000]  # 440 h⁻¹Mpc
    painter = patches.BlockPainter(scene, shifted=True, mass=True, momentum=False)
    painter.add(pos, vel, mass)
    assert painter.too_far == 2 if rsd == "plane_parallel" else painter.too_far >= 2
    assert painter.furthest > 200


def test_positions_that_are_no_place_are_refused():
    pos, vel, _ = tracers(5)
    pos[2, 1] = np.nan
    with pytest.raises(VelfieldError, match="positions that are no place on the grid: tracers=1 of 5"):
        patches_of(scene_of(), pos, vel, None, shifted=False, momentum=True)


def test_arrays_of_other_shapes_are_refused_before_loops_trust_them():
    flat, pos = np.zeros((5, 2)), np.zeros((5, 3))
    for ask in (
        lambda: scatter.shifts(pos, pos[:4], 1.0),
        lambda: scatter.faster(flat, 1.0),
        lambda: scatter.near(flat, [0.0, 0, 0], 1.0, 0.0),
        lambda: scatter.own_boxes(flat, BOXES, True),
    ):
        with pytest.raises(VelfieldError, match=r"tracers' shapes do not fit: pos=.*; give \(N, 3\), \(N, 3\) and"):
            ask()
    sums, cells = np.zeros((8, 2)), np.array([1, 7])
    for wrong in (np.ones((1, 2)), np.ones((2, 1)), np.ones((2, 3))):
        with pytest.raises(
            VelfieldError, match=r"a patch that does not fit its box: cells=0 to 7 of 8, sums=\(., .\) for"
        ):
            scatter.add_patch(sums, scatter.Patch(cells=cells, sums=wrong))
    for beyond in (8, -1):
        with pytest.raises(
            VelfieldError, match=r"a patch that does not fit its box: .* of 8, sums=\(2, 2\) for \(2, 2\)"
        ):
            scatter.add_patch(sums, scatter.Patch(cells=np.array([1, beyond]), sums=np.ones((2, 2))))
    assert not sums.any()
