"""Painting against a naive loop, analytic weights, its own invariants and another code's TSC."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velfield.errors import VelfieldError
from velfield.painting.clouds import CELLS_PER_AXIS
from velfield.painting.fill import fill_velocity
from velfield.painting.paint import paint

ASSIGNMENTS = tuple(CELLS_PER_AXIS)
NGRID, CELLSIZE = 9, 3.7  # a cell that no binary fraction holds
BOXSIZE = NGRID * CELLSIZE


def tracers(n=400, dtype=np.float64, seed=1):
    rng = np.random.default_rng(seed)
    pos = rng.uniform(0, BOXSIZE, (n, 3)).astype(dtype)
    return pos, rng.normal(0, 300, (n, 3)).astype(np.float32), rng.lognormal(28, 1, n)


def share(x, cell, assignment):
    """The share of a tracer at x [cells] in a cell: the cloud's overlap with it, written as a kernel of distance."""
    d = abs(x - (cell + 0.5))
    if assignment == "ngp":
        return float(math.floor(x) == cell)
    if assignment == "cic":
        return max(0.0, 1 - d)
    return 0.75 - d**2 if d < 0.5 else 0.5 * max(0.0, 1.5 - d) ** 2


def paint_slowly(pos, vel, mass, *, start, shape, ngrid, assignment):
    """Every tracer, every cell of the window, every periodic image within reach."""
    number, heavy, momentum = np.zeros(shape), np.zeros(shape), np.zeros((3, *shape))
    images = range(-3, 4) if ngrid else (0,)
    for p, v, m in zip(pos, vel, mass, strict=True):
        shares = [
            np.array(
                [
                    sum(share(float(p[a]) / CELLSIZE + i * (ngrid or 0), start[a] + c, assignment) for i in images)
                    for c in range(shape[a])
                ]
            )
            for a in range(3)
        ]
        w = shares[0][:, None, None] * shares[1][None, :, None] * shares[2][None, None, :]
        number += w
        heavy += w * m
        momentum += w * v.astype(np.float64)[:, None, None, None]
    return number, heavy, momentum


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize(
    ("start", "shape", "ngrid"),
    [
        ((0, 0, 0), (9, 9, 9), NGRID),
        ((-2, 7, 3), (5, 4, 3), NGRID),
        ((-12, 20, 0), (4, 5, 6), NGRID),
        ((-1, 0, 2), (13, 9, 20), NGRID),  # larger than the parent: cells repeat
        ((-2, 3, 0), (5, 6, 9), None),
        ((0, 0, 0), (2, 1, 3), 2),  # a cloud wider than the parent meets itself
    ],
)
def test_equals_a_naive_loop(assignment, start, shape, ngrid):
    pos, vel, mass = tracers(60)
    if ngrid == 2:
        pos *= 2 / NGRID
    painted = paint(pos, vel, mass, cellsize=CELLSIZE, start=start, shape=shape, ngrid=ngrid, assignment=assignment)
    expected = paint_slowly(pos, vel, mass, start=start, shape=shape, ngrid=ngrid, assignment=assignment)
    for got, want in zip((painted.number, painted.mass, painted.momentum), expected, strict=True):
        assert got.shape == want.shape
        assert got.dtype == np.float64
        if assignment == "ngp":
            np.testing.assert_array_equal(got, want)  # the same sums in the same order
        else:  # a weight is a difference of numbers up to 20 cells: 20 eps, against the field's largest value
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14 * np.abs(want).max())


@pytest.mark.parametrize(
    ("assignment", "weights"),
    # a tracer a quarter of a cell past the lower edge of cell 4: 0.25 below its centre
    [("ngp", {4: 1.0}), ("cic", {3: 0.25, 4: 0.75}), ("tsc", {3: 0.28125, 4: 0.6875, 5: 0.03125})],
)
def test_weights_of_one_tracer(assignment, weights):
    pos = np.array([[4.25, 4.25, 4.25]]) * 2
    number = paint(pos, cellsize=2.0, start=(0, 0, 0), shape=(9, 9, 9), assignment=assignment).number
    expected = np.zeros((9, 9, 9))
    for cell in itertools.product(weights, repeat=3):
        expected[cell] = math.prod(weights[i] for i in cell)
    np.testing.assert_array_equal(number, expected)  # binary fractions: exact


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_a_tracer_in_a_centre_has_a_symmetric_cloud(assignment):
    number = paint(np.full((1, 3), 4.5), cellsize=1.0, start=(0, 0, 0), shape=(9, 9, 9), assignment=assignment).number
    np.testing.assert_array_equal(number, number[::-1, ::-1, ::-1])
    np.testing.assert_array_equal(number, number.transpose(2, 0, 1))
    assert number[4, 4, 4] == {"ngp": 1, "cic": 1, "tsc": 0.75**3}[assignment]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), assignment=st.sampled_from(ASSIGNMENTS), single=st.booleans())
def test_a_periodic_parent_keeps_all_sums(seed, assignment, single):
    pos, vel, mass = tracers(200, np.float32 if single else np.float64, seed)
    painted = paint(
        pos, vel, mass, cellsize=CELLSIZE, start=(0, 0, 0), shape=(NGRID,) * 3, ngrid=NGRID, assignment=assignment
    )
    # float64 sums of 200 tracers in another order: some 200 eps
    assert painted.number.sum() == pytest.approx(200, rel=1e-13)
    assert painted.mass.sum() == pytest.approx(mass.sum(), rel=1e-13)
    scale = np.abs(vel).sum()
    np.testing.assert_allclose(painted.momentum.sum(axis=(1, 2, 3)), vel.sum(0, np.float64), rtol=0, atol=1e-13 * scale)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    assignment=st.sampled_from(ASSIGNMENTS),
    shift=st.tuples(*[st.integers(-20, 20)] * 3),
)
def test_translation_by_whole_cells_rolls_the_field(seed, assignment, shift):
    # a cell of 2 and positions in steps of 2⁻¹⁰: shifted positions are exact, and so must be the fields
    pos = np.random.default_rng(seed).integers(0, 9 * 2048, (50, 3)) / 1024
    where = dict(cellsize=2.0, start=(0, 0, 0), shape=(9, 9, 9), ngrid=9, assignment=assignment)
    still = paint(pos, **where).number
    moved = paint(pos + 2.0 * np.array(shift), **where).number
    np.testing.assert_array_equal(moved, np.roll(still, shift, (0, 1, 2)))


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("ngrid", [NGRID, None])
def test_windows_stitched_are_the_whole_bit_for_bit(assignment, ngrid):
    pos, vel, mass = tracers(3000, np.float32)
    settings_ = dict(cellsize=CELLSIZE, ngrid=ngrid, assignment=assignment)
    whole = paint(pos, vel, mass, start=(0, 0, 0), shape=(NGRID,) * 3, **settings_)
    stitched = np.zeros((5, NGRID, NGRID, NGRID))
    for corner in itertools.product((0, 4), repeat=3):
        shape = tuple(4 if c == 0 else 5 for c in corner)
        part = paint(pos, vel, mass, start=corner, shape=shape, **settings_)
        at = tuple(slice(c, c + n) for c, n in zip(corner, shape, strict=True))
        stitched[(slice(None), *at)] = [part.number, part.mass, *part.momentum]
    np.testing.assert_array_equal(stitched, [whole.number, whole.mass, *whole.momentum])


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_a_margin_is_the_periodic_surroundings(assignment):
    pos, vel, mass = tracers()
    settings_ = dict(cellsize=CELLSIZE, ngrid=NGRID, assignment=assignment)
    whole = paint(pos, vel, mass, start=(0, 0, 0), shape=(NGRID,) * 3, **settings_)
    window = paint(pos, vel, mass, start=(-4, -4, -4), shape=(NGRID + 8,) * 3, **settings_)
    np.testing.assert_array_equal(window.number, np.pad(whole.number, 4, mode="wrap"))
    np.testing.assert_array_equal(window.momentum[1], np.pad(whole.momentum[1], 4, mode="wrap"))


@pytest.mark.parametrize("assignment", ["cic", "tsc"])
def test_a_tracer_outside_the_window_reaches_in(assignment):
    pos = np.array([[3.9, 1.5, 1.5], [-0.1, 1.5, 1.5]])  # just above and just below the window [0, 3) + 1
    reached = paint(pos, cellsize=1.0, start=(0, 0, 0), shape=(3, 3, 3), assignment=assignment).number
    assert reached[0, 1, 1] > 0
    assert (reached[2, 1, 1] > 0) == (assignment == "tsc" and share(3.9, 2, "tsc") > 0)
    # beyond the cloud's reach: nothing
    far = paint(
        pos + np.array([[1.0, 0, 0], [-1.0, 0, 0]]),
        cellsize=1.0,
        start=(0, 0, 0),
        shape=(3, 3, 3),
        assignment=assignment,
    )
    assert far.number.sum() == 0


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("layout", ["fortran", "strided", "reversed"])
def test_memory_order_and_input_are_left_alone(assignment, layout):
    pos, vel, mass = tracers()
    ways = {
        "fortran": np.asfortranarray,
        "strided": lambda a: np.repeat(a, 2, axis=0)[::2],
        "reversed": lambda a: a[::-1].copy()[::-1],
    }
    other = [ways[layout](a) for a in (pos, vel, mass)]
    before = [a.copy() for a in other]
    settings_ = dict(cellsize=CELLSIZE, start=(0, -3, 2), shape=(4, 5, 6), ngrid=NGRID, assignment=assignment)
    straight, twisted = paint(pos, vel, mass, **settings_), paint(*other, **settings_)
    np.testing.assert_array_equal(straight.number, twisted.number)
    np.testing.assert_array_equal(straight.mass, twisted.mass)
    np.testing.assert_array_equal(straight.momentum, twisted.momentum)
    for a, b in zip(other, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_float32_positions_are_their_float64_values(assignment):
    pos, vel, mass = tracers(dtype=np.float32)
    settings_ = dict(cellsize=CELLSIZE, start=(0, 0, 0), shape=(NGRID,) * 3, ngrid=NGRID, assignment=assignment)
    np.testing.assert_array_equal(
        paint(pos, vel, mass, **settings_).momentum, paint(pos.astype(np.float64), vel, mass, **settings_).momentum
    )


def test_each_quantity_is_the_same_alone():
    pos, vel, mass = tracers()
    settings_ = dict(cellsize=CELLSIZE, start=(0, 0, 0), shape=(NGRID,) * 3, ngrid=NGRID, assignment="tsc")
    together = paint(pos, vel, mass, **settings_)
    heavy, moving, bare = paint(pos, mass=mass, **settings_), paint(pos, vel, **settings_), paint(pos, **settings_)
    assert heavy.momentum is None
    assert moving.mass is None
    assert bare.mass is bare.momentum is None
    np.testing.assert_array_equal(heavy.mass, together.mass)
    np.testing.assert_array_equal(moving.momentum, together.momentum)
    np.testing.assert_array_equal(bare.number, together.number)


@pytest.mark.parametrize(("boxsize", "ngrid"), [(450.0, 7), (100.0, 11), (250.0, 15), (33.3, 7), (1200.0, 240)])
def test_boxsize_is_the_position_zero(boxsize, ngrid):
    # 450 / (450 / 7) rounds to just below 7: an unguarded floor would put it into the last cell
    pos = np.array([[boxsize, 0.0, boxsize], [-1e-30, np.nextafter(boxsize, np.inf), 0.0]])
    number = paint(pos, cellsize=boxsize / ngrid, start=(0, 0, 0), shape=(ngrid,) * 3, ngrid=ngrid).number
    assert number[0, 0, 0] == 1
    assert number[ngrid - 1, 0, 0] == 1
    assert number.sum() == 2


def test_without_a_period_boxsize_is_outside():
    number = paint(np.full((1, 3), 9.0), cellsize=1.0, start=(0, 0, 0), shape=(9, 9, 9)).number
    assert number.sum() == 0


def test_far_images_of_a_periodic_parent():
    pos = np.array([[1.5, 2.5, 3.5]])
    far = pos + np.array([9e9, -9e9, 9000.0])
    number = paint(far, cellsize=1.0, start=(0, 0, 0), shape=(9, 9, 9), ngrid=9).number
    assert number[1, 2, 3] == 1


def test_no_tracers_are_no_problem():
    empty = paint(np.empty((0, 3)), np.empty((0, 3)), np.empty(0), cellsize=1.0, start=(0, 0, 0), shape=(2, 2, 2))
    assert empty.number.sum() == empty.mass.sum() == np.abs(empty.momentum).sum() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_positions_that_are_none_are_refused(value, axis):
    pos = np.full((5, 3), 0.5)
    pos[3, axis] = value
    with pytest.raises(VelfieldError, match=r"positions that are no place on the grid: tracers=1 of 5, cellsize=1.0"):
        paint(pos, cellsize=1.0, start=(0, 0, 0), shape=(2, 2, 2), ngrid=2)


def test_mistakes_are_named():
    pos = np.zeros((4, 3))
    window = dict(cellsize=1.0, start=(0, 0, 0), shape=(2, 2, 2))
    with pytest.raises(VelfieldError, match="unknown assignment: assignment='pcs'; choose ngp, cic or tsc"):
        paint(pos, **window, assignment="pcs")
    with pytest.raises(VelfieldError, match=r"tracers' shapes do not fit: pos=\(4, 3\), vel=\(3, 3\), mass=None"):
        paint(pos, np.zeros((3, 3)), **window)
    with pytest.raises(VelfieldError, match=r"tracers' shapes do not fit: pos=\(3, 4\)"):
        paint(pos.T, **window)
    with pytest.raises(VelfieldError, match="positions of the wrong type: dtype=int64; give float32 or float64"):
        paint(pos.astype(np.int64), **window)
    for wrong in ({"cellsize": 0.0}, {"cellsize": np.inf}, {"shape": (2, 0, 2)}, {"ngrid": 0}):
        with pytest.raises(VelfieldError, match=r"no such window: cellsize=.*sizes and counts must be positive"):
            paint(pos, **{**window, **wrong})


@pytest.mark.peers
def test_tsc_agrees_with_abacusutils():
    tsc = pytest.importorskip("abacusnbody.analysis.tsc", reason="the peers extra is not installed")
    pos, _, mass = tracers(20_000, seed=3)
    ours = paint(
        pos, mass=mass, cellsize=CELLSIZE, start=(0, 0, 0), shape=(NGRID,) * 3, ngrid=NGRID, assignment="tsc"
    ).mass
    theirs = np.zeros((NGRID,) * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather have float32
        # its cell i is centred at i cellsize, ours at i + ½
        shifted = np.mod(pos - CELLSIZE / 2, BOXSIZE)
        tsc.tsc_parallel(shifted, theirs, BOXSIZE, weights=mass, nthread=1)
    rms = np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(ours**2))
    assert rms < 1e-12  # both in float64


# Velocities of empty cells


def test_measured_cells_are_divided():
    rng = np.random.default_rng(0)
    number = rng.integers(1, 9, (4, 5, 6)).astype(float)
    true = rng.normal(0, 300, (3, 4, 5, 6))
    velocity, flag = fill_velocity(true * number, number)
    assert velocity.dtype == np.float32
    assert flag.dtype == np.uint8
    assert not flag.any()
    np.testing.assert_allclose(velocity, true, rtol=2e-7)  # float32 rounding


def test_an_empty_cell_takes_the_mean_of_its_26_neighbours():
    rng = np.random.default_rng(0)
    number = np.ones((5, 5, 5))
    momentum = rng.normal(0, 300, (3, 5, 5, 5))
    number[2, 2, 2] = number[0, 0, 0] = 0
    velocity, flag = fill_velocity(momentum, number)
    around = momentum[:, 1:4, 1:4, 1:4].reshape(3, 27)
    np.testing.assert_allclose(velocity[:, 2, 2, 2], np.delete(around, 13, axis=1).mean(1), rtol=1e-6)
    corner = momentum[:, :2, :2, :2].reshape(3, 8)
    np.testing.assert_allclose(velocity[:, 0, 0, 0], corner[:, 1:].mean(1), rtol=1e-6)  # 7: nothing wraps
    assert flag[2, 2, 2] == flag[0, 0, 0] == 1
    assert flag.sum() == 2


def fill_slowly(momentum, number, outside):
    """The same in plain Python, sweep by sweep."""
    known = {c: momentum[(slice(None), *c)] / number[c] for c in np.ndindex(number.shape) if number[c] > 0}
    known = {c: v for c, v in known.items() if not outside[c]}
    left = [c for c in np.ndindex(number.shape) if c not in known and not outside[c]]
    while left:
        new = {}
        for c in left:
            steps = itertools.product((-1, 0, 1), repeat=3)
            near = [known[n] for s in steps if (n := tuple(int(i + j) for i, j in zip(c, s, strict=True))) in known]
            if near:
                new[c] = np.mean(near, axis=0)
        known |= new
        left = [c for c in left if c not in new]
    velocity = np.full(momentum.shape, np.nan)
    for c, v in known.items():
        velocity[(slice(None), *c)] = v
    return velocity


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share_empty=st.floats(0, 0.99))
def test_filling_equals_a_naive_loop_in_any_orientation(seed, share_empty):
    rng = np.random.default_rng(seed)
    number = rng.integers(1, 5, (5, 4, 6)).astype(float)
    number[rng.random(number.shape) < share_empty] = 0
    number[2, 2, 2] = 1
    outside = np.zeros(number.shape, dtype=bool)
    outside[:, :, 5] = True
    momentum = rng.normal(0, 300, (3, 5, 4, 6))
    velocity, flag = fill_velocity(momentum, number, outside)
    np.testing.assert_allclose(velocity, fill_slowly(momentum, number, outside), rtol=1e-6, atol=1e-3)
    np.testing.assert_array_equal(flag, np.where(outside, 2, number == 0))
    # simultaneous sweeps know no direction: the mirrored problem has the mirrored answer, but for float rounding
    mirrored, _ = fill_velocity(momentum[:, ::-1, ::-1], number[::-1, ::-1], outside[::-1, ::-1])
    np.testing.assert_allclose(mirrored[:, ::-1, ::-1], velocity, rtol=1e-5, atol=1e-3)


def test_outside_is_nan_flagged_and_no_source():
    number = np.ones((3, 3, 3))
    number[0] = 0
    outside = np.zeros((3, 3, 3), dtype=bool)
    outside[1, 1, 1] = True
    momentum = np.ones((3, 3, 3, 3))
    momentum[:, 1, 1, 1] = 1e6
    kept = momentum.copy()
    velocity, flag = fill_velocity(momentum, number, outside)
    assert np.isnan(velocity[:, 1, 1, 1]).all()
    assert flag[1, 1, 1] == 2
    assert (flag[0] == 1).all()
    np.testing.assert_array_equal(velocity[:, 0], 1)
    np.testing.assert_array_equal(momentum, kept)


def test_nothing_to_fill_from_is_refused():
    number = np.zeros((3, 3, 3))
    with pytest.raises(VelfieldError, match="no tracer to take a velocity from: empty cells=27 of 27"):
        fill_velocity(np.zeros((3, 3, 3, 3)), number)
    number[0] = 1  # but a wall stands between
    outside = np.zeros((3, 3, 3), dtype=bool)
    outside[1] = True
    with pytest.raises(VelfieldError, match="no tracer to take a velocity from: empty cells=9 of 27"):
        fill_velocity(np.zeros((3, 3, 3, 3)), number, outside)
    with pytest.raises(VelfieldError, match=r"shapes do not fit: momentum=\(3, 3, 3\), number=\(3, 3, 3\)"):
        fill_velocity(number, number)


def test_a_wholly_outside_window_is_all_nan():
    velocity, flag = fill_velocity(np.zeros((3, 2, 2, 2)), np.zeros((2, 2, 2)), np.ones((2, 2, 2), dtype=bool))
    assert np.isnan(velocity).all()
    assert (flag == 2).all()
