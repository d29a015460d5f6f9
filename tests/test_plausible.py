"""What velocities and counts can be: against analytic values, a simulation's halos, and surveys made of them."""

from pathlib import Path

import numpy as np
import pytest
from gaussian import write_fields
from scipy import integrate
from velocity_stores import in_memory, written

from velfield.answers.queries import query_positions
from velfield.catalogues.catalogue import open_catalogue
from velfield.errors import ImplausibleError, VelfieldError
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.plausible import NEVER, TOLERANCE, Tracers, VelocitySums, boost_of, possible, void_probability
from velfield.stores.store import open_fields, open_velocity
from velfield.stores.store_layout import EMPTY, IMPLAUSIBLE
from velfield.theory import plausible
from velfield.verification.verify_boxes import check_predicted

MOCK = Path(__file__).parent / "data" / "mock-outer-rim" / "m000-499.fofproperties"
SIDE = 512.0  # h⁻¹Mpc, of the mock


@pytest.fixture(scope="module")
def halos():
    """Positions of 31,446 halos that fill their periodic cube."""
    return open_catalogue(str(MOCK), kind="halos").tracers().pos


def tracers_of(pos):
    bias = OUTER_RIM.effective_bias(1.2e13, 0.0, weight="number")
    return Tracers(cosmology=OUTER_RIM, redshift=0.0, density=len(pos) / SIDE**3, boost=boost_of(bias))


def blocks_of(pos, blocks=8):
    return np.histogramdd(pos, bins=blocks, range=[(0, SIDE)] * 3)[0]


def uneven(pos):
    scales = tracers_of(pos).scatter(blocks_of(pos), np.full(8, SIDE / 8))
    assert scales
    return max(variance / most for _, variance, most in scales)


@pytest.mark.parametrize("redshift", [0.0, 1.0, 5.0])
def test_velocity_dispersion_is_the_integral_over_all_modes(redshift):
    def power(lnk):
        return float(np.exp(lnk) * OUTER_RIM.linear_power(np.array([np.exp(lnk)]), redshift)[0])

    integral, _ = integrate.quad(power, np.log(1e-5), np.log(1e2), limit=500, epsrel=1e-6)
    expected = OUTER_RIM.aH(redshift) * OUTER_RIM.growth_rate(redshift) * np.sqrt(integral / (6 * np.pi**2))
    assert OUTER_RIM.velocity_dispersion(redshift) == pytest.approx(expected, rel=1e-4)


def test_void_probability_of_known_distributions():
    assert void_probability(3.0, 0.0) == pytest.approx(np.exp(-3))  # Poisson
    assert void_probability(3.0, 1.0) == pytest.approx(1 / 4)  # geometric: P(0) = 1/(1 + N)
    assert void_probability(3.0, 1e-9) == pytest.approx(np.exp(-3))
    draws = np.random.default_rng(1).negative_binomial(1 / 0.5, 1 / (1 + 4.0 * 0.5), size=200_000)  # mean 4, ξ = 0.5
    assert (draws == 0).mean() == pytest.approx(void_probability(4.0, 0.5), rel=0.03)


def test_kaisers_factor():
    assert boost_of(1.5) == pytest.approx(2.25)
    beta = 0.5 / 1.5
    assert boost_of(1.5, 0.5) == pytest.approx(2.25 * (1 + 2 / 3 * beta + beta**2 / 5))


@pytest.mark.parametrize("cells", [16, 32])
def test_halos_of_a_simulation_leave_cubes_empty_as_expected(halos, cells):
    tracers, cellsize = tracers_of(halos), SIDE / cells
    empty = (np.histogramdd(halos, bins=cells, range=[(0, SIDE)] * 3)[0] == 0).mean()
    expected = void_probability(tracers.density * cellsize**3, tracers.variance(cellsize))
    assert 0.4 * expected < empty < 1.6 * expected  # cubes of 32 and 16: 6.0 % and 53 % are empty, 6.5 and 49 expected


def test_the_cube_is_the_smallest_that_is_never_empty(halos):
    tracers = tracers_of(halos)
    reach = tracers.reach(8.0, 20)
    assert reach is not None
    chances = [
        void_probability(tracers.density * side**3, TOLERANCE * tracers.variance(side))
        for side in (8.0 * (2 * reach - 1), 8.0 * (2 * reach + 1))
    ]
    assert chances[1] <= NEVER < chances[0]
    assert tracers.reach(8.0, reach - 1) is None


def test_halos_of_a_simulation_scatter_as_expected(halos):
    tracers = tracers_of(halos)
    for side, variance, most in tracers.scatter(blocks_of(halos), np.full(8, SIDE / 8)):
        expected = tracers.variance(side) + 1 / (tracers.density * side**3)
        assert 0.4 * expected < variance < 2 * expected < most  # 512, 64 and 8 blocks


def test_what_was_drawn_at_random_of_a_complete_catalogue_is_complete(halos):
    rng = np.random.default_rng(2)
    for share in (0.5, 0.2, 0.05):  # few and fewer, as of a higher threshold
        assert uneven(halos[rng.random(len(halos)) < share]) < 0.8


def test_a_dense_region_by_itself_is_complete(halos):
    counts = blocks_of(halos, 4)
    corner = np.array(np.unravel_index(counts.argmax(), counts.shape)) * 128.0
    inside = halos[((halos >= corner) & (halos < corner + 128)).all(axis=1)] - corner
    box = np.histogramdd(inside, bins=8, range=[(0, 128)] * 3)[0]
    assert len(inside) > 1.2 * len(halos) / 64
    for _, variance, most in tracers_of(halos).scatter(box, np.full(8, 16.0)):
        assert variance < most


@pytest.mark.parametrize("kind", ["flux limit", "cone", "half", "corner"])
def test_a_survey_is_not_complete(halos, kind):
    rng = np.random.default_rng(3)
    away = np.linalg.norm(halos - SIDE / 2, axis=1)
    kept = {
        "flux limit": rng.random(len(halos)) < np.exp(-((away / 200) ** 2)),
        "cone": halos[:, 2] > np.linalg.norm(halos[:, :2] - SIDE / 2, axis=1),
        "half": halos[:, 0] < SIDE / 2,
        "corner": ~(halos < 256).all(axis=1),
    }[kind]
    assert uneven(halos[kept]) > 1.5


def test_sums_add_up_and_name_what_cannot_be():
    rng = np.random.default_rng(4)
    velocity = rng.normal(0, 300, (3, 8, 8, 8)).astype("f4")
    known = np.ones((8, 8, 8), dtype=bool)
    known[0] = False
    velocity[:, 0] = np.nan
    sums = VelocitySums.of(velocity, known)
    assert (sums.cells, sums.fast, sums.lost) == (448, 0, 0)
    np.testing.assert_allclose(sums.rms, np.sqrt((velocity[:, 1:].astype(float) ** 2).mean(axis=(1, 2, 3))))
    parts = [VelocitySums.of(velocity[:, i : i + 2], known[i : i + 2]) for i in range(0, 8, 2)]
    whole = VelocitySums.total(parts)
    np.testing.assert_allclose(whole.squares, sums.squares)
    assert VelocitySums.from_dict(whole.to_dict()) == whole
    assert sums.faults(300.0) == []
    assert sums.faults(100.0)[0].startswith("rms of vx, vy, vz=")
    assert sums.faults(100.0)[0].endswith("km/s, at most=250 km/s (2.5 σ_v of linear theory)")
    velocity[:, 2, 0, 0] = (0, 0, 5001)
    velocity[0, 3, 0, 0] = np.inf
    fast, lost = VelocitySums.of(velocity, known).faults(300.0)
    assert fast == "cells beyond 5000 km/s=0.22 %, at most=0.01 %"
    assert lost == "cells without a finite velocity=1, at most=0"
    assert np.argwhere(known & ~possible(velocity)).tolist() == [[2, 0, 0], [3, 0, 0]]


def look(ds, variable="halo_number"):
    expected = plausible.expected_of(ds, [variable])
    return plausible.judge_input(ds, expected, plausible.look(ds, range(ds.sizes["box"]), expected))


def test_a_complete_store_is_taken(tmp_path):
    for boxes, margin in ((2, 0), (1, 2)):
        ds = open_fields(
            write_fields(str(tmp_path / f"{boxes}"), boxes=boxes, cells=24 // boxes, margin=margin), chunks=None
        )
        for variable in ("halo_number", "matter_number"):
            reason, found = look(ds, variable)
            assert reason is None
            assert (found["empty_share"], found["far_share"]) == (0, 0)
            assert found["blocks_variance"] < found["blocks_most"]


@pytest.mark.parametrize("seen", [{}, {"rsd": "center_radial"}, {"periodic": False}])
def test_a_store_with_an_empty_part_is_refused(tmp_path, seen):
    ds = open_fields(write_fields(str(tmp_path / "fields"), boxes=2, cells=16, margin=2), chunks=None).load()
    ds["halo_number"][4:] = 0  # half of the parent
    ds = ds.assign_attrs(seen)
    reason, found = look(ds)
    assert reason is not None
    assert reason.startswith(
        "the halos do not fill the volume as a complete catalogue does: relative variance of counts"
    )
    assert "cells without a tracer in a cube of " in reason
    assert reason.endswith("or write it all the same, flagged, with --accept implausible")
    assert 0.1 < found["empty_share"] <= 0.5
    with pytest.raises(ImplausibleError, match="a survey needs its selection"):
        plausible.refuse(reason, ())
    plausible.refuse(reason, ("implausible",))


def test_each_box_is_looked_at_alone_where_they_do_not_fill_their_parent(tmp_path):
    whole = open_fields(write_fields(str(tmp_path / "fields"), boxes=2, cells=16), chunks=None).load()
    ds = whole.isel(box=[1, 6])
    assert look(ds).reason is None
    ds["halo_number"][0, :8] = 0
    assert "do not fill the volume" in str(look(ds).reason)


def test_cells_far_from_any_tracer_are_found_across_faces(tmp_path):
    ds = open_fields(write_fields(str(tmp_path / "fields"), boxes=2, cells=16), chunks=None).load()
    expected = plausible.expected_of(ds, ["halo_number"])
    assert expected is not None
    assert expected.reach == 2
    number = ds["halo_number"].clip(min=1)
    counts = np.empty((32,) * 3)
    for box, (x, y, z) in enumerate(np.ndindex(2, 2, 2)):
        counts[16 * x : 16 * x + 16, 16 * y : 16 * y + 16, 16 * z : 16 * z + 16] = number[box]
    counts[np.ix_(range(13, 20), range(6), [29, 30, 31, 0, 1, 2])] = 0  # across a face, at an edge, around another
    for box, (x, y, z) in enumerate(np.ndindex(2, 2, 2)):
        number[box] = counts[16 * x : 16 * x + 16, 16 * y : 16 * y + 16, 16 * z : 16 * z + 16]
    ds["halo_number"] = number
    found = [plausible.empty_cells(ds, box, expected) for box in range(8)]
    there = sum(np.roll(counts, tuple(np.array(shift) - 2), (0, 1, 2)) for shift in np.ndindex(5, 5, 5)) == 0
    assert there.sum() == 3 * 2 * 2
    for box, (x, y, z) in enumerate(np.ndindex(2, 2, 2)):
        cut = tuple(slice(16 * p, 16 * p + 16) for p in (x, y, z))
        np.testing.assert_array_equal(found[box], there[cut])


def test_a_single_cell_that_cannot_be_is_flagged(tmp_path):
    ds = open_fields(write_fields(str(tmp_path / "fields"), boxes=2, cells=16), chunks=None).load()
    velocity = ds["velocity"].isel(box=3).values.copy()
    velocity[2, 4, 5, 6] = -5001
    flag, sums = plausible.flags(ds, 3, velocity, None)
    assert np.argwhere(flag).tolist() == [[4, 5, 6]]
    assert flag[4, 5, 6] == IMPLAUSIBLE
    assert (sums.cells, sums.fast, sums.lost) == (4096, 1, 0)


def test_only_implausible_is_accepted():
    plausible.check_accept(("implausible",))
    with pytest.raises(VelfieldError, match="nothing that can be accepted: accept=everything; leave it out, or name"):
        plausible.check_accept(("everything",))


def test_answers_from_flagged_cells_are_not_good(tmp_path):
    def edit(arrays):
        arrays["velocity_flag"][0, 2:4, 2:4, 2:4] = IMPLAUSIBLE
        arrays["velocity_flag"][0, 0] = EMPTY

    url = written(str(tmp_path / "v"), lambda pos: pos, edit=edit)
    ds = open_velocity(url, chunks=None)
    answer = query_positions(ds, np.array([[30.0, 30.0, 30.0], [5.0, 55.0, 55.0], [50.0, 50.0, 50.0]]))
    assert np.isfinite(answer["velocity"]).all()
    assert answer["flag"].tolist() == [128, 8, 0]


def test_verification_knows_the_flags():
    arrays = {"velocity": np.zeros((3, 4, 4, 4), "f4"), "velocity_flag": np.zeros((4, 4, 4), "u1")}
    arrays["velocity"][:, 0, 0, 0] = np.nan
    arrays["velocity"][:, 0, 0, 1] = 40_000
    assert [one.what for one in check_predicted(0, arrays)] == ["values that are not finite", "an absurd velocity"]
    arrays["velocity_flag"][0, 0, :2] = IMPLAUSIBLE | EMPTY
    assert check_predicted(0, arrays) == []
    arrays["velocity_flag"][1, 0, 0] = 16
    assert [one.what for one in check_predicted(0, arrays)] == ["an unknown flag"]


def test_in_memory_stores_can_be_looked_at():
    ds = in_memory(lambda pos: pos)
    assert plausible.expected_of(ds, ["halo_number"]) is None  # nothing is counted there
