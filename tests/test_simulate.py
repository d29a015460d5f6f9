"""The written universe: names, units, ranks, and what happens when it is asked for again."""

import dataclasses
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from velfield.catalogues.catalogue import open_catalogue
from velfield.errors import VelfieldError
from velfield.files.progress import Silent
from velfield.physics.cosmology import OUTER_RIM
from velfield.simulation.gravity import deposit
from velfield.simulation.simulate import PARTICLE_MASS, SimulateConfig, draw, evolve, halos_of, simulate

SIDE = 256.0
CONFIG = SimulateConfig(boxsize=SIDE, particles=64, redshifts=(0.0, 0.212), seed=11, min_halo_mass=3e11, steps=6)
SMALL = SimulateConfig(boxsize=48.0, particles=16, redshifts=(0.0, 0.5), seed=1, min_halo_mass=1e11, steps=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return simulate(str(tmp_path_factory.mktemp("universe")), CONFIG)


@pytest.fixture(scope="module")
def snapshots():
    return list(evolve(CONFIG))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_snapshots_are_outer_rim_steps_with_the_releases_names(written):
    assert [s.step for s in written.snapshots] == [411, 499]
    early, late = written.snapshots
    # a = 1/201 + (200/201)·412/500
    assert early.redshift == pytest.approx(1 / (1 / 201 + 200 / 201 * 412 / 500) - 1, abs=1e-12)
    assert late.redshift == 0
    assert Path(early.halos).name == "m000-411.fofproperties"
    assert Path(early.particles).name == "m000.mpicosmo.411"
    assert Path(late.halos + "#7").exists()
    assert not written.already_there


def test_columns_are_the_releases(written):
    halos = open_catalogue(written.snapshots[1].halos)
    types = {name: column.dtype for name, column in halos.columns.items()}
    lengths = [f"fof_halo_{kind}_{x}" for kind in ("center", "mean") for x in "xyz"]
    assert types == {
        "fof_halo_count": np.int32,
        "fof_halo_tag": np.int64,
        "fof_halo_mass": np.float32,
        **dict.fromkeys(lengths, np.float32),
        **{f"fof_halo_mean_v{x}": np.float32 for x in "xyz"},
        "fof_halo_vel_disp": np.float32,
    }
    particles = open_catalogue(written.snapshots[1].particles)
    assert list(particles.columns) == ["x", "y", "z", "vx", "vy", "vz", "id"]
    assert len(particles) == written.snapshots[1].nparticles == 64**3
    assert len(halos) == written.snapshots[1].nhalos


def test_halos_have_the_density_asked_for(written):
    for s in written.snapshots:
        wanted = OUTER_RIM.halo_density(3e11, s.redshift)
        # 180,000 halos: Poisson 0.2 %, more with their scatter in cells
        assert s.nhalos / SIDE**3 == pytest.approx(wanted, rel=0.01)


def test_count_tag_and_mass_belong_together(written):
    table = open_catalogue(written.snapshots[1].halos).read(["fof_halo_count", "fof_halo_tag", "fof_halo_mass"])
    assert np.array_equal(table["fof_halo_count"], np.floor(table["fof_halo_mass"] / PARTICLE_MASS))
    assert np.array_equal(table["fof_halo_tag"], np.arange(len(table["fof_halo_tag"])))
    assert len(np.unique(table["fof_halo_mass"])) > 0.9 * len(table["fof_halo_mass"])


@pytest.mark.parametrize("kind", ["halos", "particles"])
def test_rows_lie_in_their_rank_and_in_the_volume(written, kind):
    cat = open_catalogue(getattr(written.snapshots[1], kind))
    assert len(cat.blocks) == 8
    for i, block in enumerate(cat.blocks):
        pos = cat.tracers([i], velocities=False).pos
        assert len(pos) > 0
        for axis in range(3):
            assert pos[:, axis].min() >= block.lower[axis]
            assert pos[:, axis].max() < block.upper[axis]


def test_velocities_in_the_file_are_comoving(written, snapshots):
    for s, snapshot in zip(written.snapshots, snapshots, strict=True):
        cat = open_catalogue(s.particles)
        raw = cat.read(["vx", "id"])
        own = snapshot.vel[raw["id"], 0]
        # two roundings of float32
        assert np.allclose(raw["vx"] / (1 + s.redshift), own, rtol=3e-7, atol=0)
        assert np.allclose(cat.tracers().vel[:, 0], own, rtol=3e-7, atol=0)
        assert np.array_equal(cat.tracers().pos, snapshot.pos[raw["id"]])


@pytest.mark.parametrize("which", [0, 1])
def test_velocities_are_those_of_linear_theory_on_large_scales(written, which):
    """v(k) = i aH f δ(k) k/k² with proper velocities in km/s: a wrong factor of a is 21 % at z = 0.212."""
    s, n = written.snapshots[which], 64
    tracers = open_catalogue(s.particles).tracers()
    pos = torch.from_numpy(np.ascontiguousarray(tracers.pos.T))
    delta = np.fft.rfftn(deposit(pos, SIDE, n).numpy())
    waves = 2 * np.pi / SIDE * np.fft.fftfreq(n, 1 / n)
    k = np.stack(np.meshgrid(waves, waves, np.abs(waves[: n // 2 + 1]), indexing="ij"))
    k2 = (k**2).sum(axis=0)
    long = (k2 > 0) & (k2 < 0.1**2)
    rate = OUTER_RIM.aH(s.redshift) * OUTER_RIM.growth_rate(s.redshift)
    cross = own = 0.0
    for axis in range(3):
        weight = torch.from_numpy(np.ascontiguousarray(tracers.vel[:, axis]))
        momentum = np.fft.rfftn(deposit(pos, SIDE, n, weight).numpy())
        theory = 1j * rate * delta[long] * k[axis][long] / k2[long]
        cross += (momentum[long] * theory.conj()).real.sum()
        own += (np.abs(theory) ** 2).sum()
    # momentum is not quite velocity, and velocities lag linear theory by a few per cent at k < 0.1
    assert cross / own == pytest.approx(1, abs=0.06)


def test_halos_of_gives_what_is_written(written, snapshots):
    chunks = list(halos_of(snapshots[1], CONFIG))
    cat = open_catalogue(written.snapshots[1].halos)
    assert len(chunks) == len(cat.blocks)
    for i, chunk in enumerate(chunks):
        there = cat.tracers([i])
        assert np.array_equal(there.pos, chunk.pos)
        assert np.array_equal(there.vel, chunk.vel)
        assert np.array_equal(there.mass, chunk.mass)


def test_drawn_tables_are_what_is_written(written):
    steps = []
    for step, tables in draw(CONFIG, [499, 411]):
        steps.append(step)
        files = next(s for s in written.snapshots if s.step == step)
        for kind, table in tables.items():
            cat, drawn = open_catalogue(getattr(files, kind)), open_catalogue(table)
            assert list(drawn.columns.items()) == list(cat.columns.items())
            assert (drawn.kind, drawn.boxsize, drawn.redshift, len(drawn)) == (kind, SIDE, cat.redshift, len(cat))
            assert drawn.meaning == cat.meaning
            for own, its in zip(drawn.blocks, cat.blocks, strict=True):
                assert dataclasses.replace(own, url=its.url) == its
            for columns in (list(cat.columns), ["fof_halo_mass"] if kind == "halos" else ["vz", "x"]):
                for name, values in cat.read(columns).items():
                    assert np.array_equal(drawn.read(columns)[name], values)
            for one, other in zip(drawn.chunks(3, rows=1000), cat.chunks(3, rows=1000), strict=True):
                assert np.array_equal(one.pos, other.pos)
                assert np.array_equal(one.vel, other.vel)
            one = "fof_halo_mass" if kind == "halos" else "x"
            assert drawn.stored_bytes([one], [0, 3]) == 4 * sum(cat.blocks[b].nrows for b in (0, 3))
    assert steps == [411, 499]


def test_drawn_tables_have_fingerprints_of_their_settings():
    def prints(config, steps=(331, 499)):
        return {(step, kind): t.fingerprint() for step, tables in draw(config, steps) for kind, t in tables.items()}

    one = prints(SMALL)
    assert len(set(one.values())) == 4
    assert prints(SMALL, [499]) == {key: value for key, value in one.items() if key[0] == 499}
    assert not set(one.values()) & set(prints(dataclasses.replace(SMALL, seed=2)).values())


def test_only_the_snapshots_that_are_asked_for_are_drawn_and_none_is_kept():
    progress = Counting()
    assert [step for step, _ in draw(SMALL, [331], progress)] == [331]
    labels = [label for label, _, _ in progress.stages]
    assert labels == ["initial conditions", "gravity to z = 0.5022", "draw halos, z = 0.5022"]
    drawn = draw(SMALL, [331, 499])
    _, tables = next(drawn)
    first = [weakref.ref(table) for table in tables.values()]
    del tables
    assert next(drawn)[0] == 499
    assert [there() for there in first] == [None, None]
    assert list(draw(SMALL, [])) == []


def test_again_it_does_nothing_and_says_so(tmp_path):
    first = simulate(str(tmp_path), SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = simulate(str(tmp_path), SMALL)
    assert again.already_there
    assert again == dataclasses.replace(first, already_there=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_same_seed_same_bytes(tmp_path):
    for name in "ab":
        simulate(str(tmp_path / name), SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_interrupted_it_keeps_the_snapshots_that_are_written(tmp_path):
    class StopAtSecond(Silent):
        def start(self, label, total, _unit):  # noqa: ARG002
            if label == "write halos, z = 0":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(str(tmp_path / "a"), SMALL, StopAtSecond())
    assert not (tmp_path / "a" / "simulation.json").exists()
    with pytest.raises(VelfieldError, match=r"another simulation is there: .*seed=1; ask for these parameters"):
        simulate(str(tmp_path / "a"), dataclasses.replace(SMALL, seed=2))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("m000*331*")}
    assert kept
    assert not simulate(str(tmp_path / "a"), SMALL).already_there
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    simulate(str(tmp_path / "b"), SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_snapshot_whose_catalogue_is_gone_is_written_again(tmp_path):
    class StopAtTheEnd(Silent):
        def done(self, note=""):  # noqa: ARG002
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(str(tmp_path / "a"), SMALL, StopAtTheEnd())
    (tmp_path / "a" / "m000.mpicosmo.331").unlink()
    simulate(str(tmp_path / "a"), SMALL)
    simulate(str(tmp_path / "b"), SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, "seed=1"),
        ({"min_halo_mass": 2e11}, r"min_halo_mass=1e\+11|min_halo_mass=100000000000.0"),
        ({"redshifts": (0.0,)}, r"outer_rim_steps=\[331, 499\]"),
        ({"cosmology": dataclasses.replace(OUTER_RIM, sigma8=0.9)}, "cosmology="),
    ],
)
def test_another_universe_at_the_same_place_is_refused(tmp_path, change, named):
    simulate(str(tmp_path), SMALL)
    with pytest.raises(VelfieldError, match=f"another simulation is there: url=.*({named}).*; ask for these"):
        simulate(str(tmp_path), dataclasses.replace(SMALL, **change))


def test_a_volume_too_small_for_a_halo_is_refused(tmp_path):
    said = r"too small a volume to have a halo: boxsize=0.001, .*redshift=0.5\d*, halos expected=.*; take a larger one"
    with pytest.raises(VelfieldError, match=said):
        simulate(str(tmp_path / "u"), dataclasses.replace(SMALL, boxsize=1e-3))
    assert not (tmp_path / "u").exists()


def test_redshifts_that_mean_the_same_step_are_the_same_universe(tmp_path):
    simulate(str(tmp_path), SMALL)
    assert simulate(str(tmp_path), dataclasses.replace(SMALL, redshifts=(0.5005, 0.0))).already_there


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxsize": -1.0}, r"no such volume: boxsize=-1.0, particles=16; give a positive side"),
        ({"boxsize": 3000.0}, r"particles too far apart: boxsize=3000, particles=16; take at least 300 .*, 10 h⁻¹Mpc"),
        ({"boxsize": float("nan")}, r"no such volume: boxsize=nan"),
        ({"redshifts": (0.0, float("nan"))}, r"snapshots out of reach"),
        ({"halo_scatter": float("inf")}, r"no such halos: .*halo_scatter=inf"),
        ({"particles": 15}, r"no such volume: .*particles=15; .* even number"),
        ({"particles": 1626}, r"too many particles: particles=1626; take at most 1624 along the side"),
        ({"mesh": 8}, r"cannot run: mesh=8, particles=16, .*no coarser than the particles"),
        ({"steps": 0}, r"cannot run: .*steps=0"),
        ({"seed": -1}, r"cannot run: .*seed=-1"),
        ({"redshifts": ()}, r"snapshots out of reach: redshifts=\(\), .*give at least one"),
        ({"redshifts": (30.0,)}, r"snapshots out of reach: redshifts=\(30.0,\), start_redshift=19.0; .*begin above"),
        ({"min_halo_mass": 1e9}, r"no such halos: min_halo_mass=1e\+09, .*from 1e10 to 1e14"),
        ({"halo_scatter": -0.1}, r"no such halos: .*halo_scatter=-0.1"),
        ({"device": "abacus"}, r"no such device here: device=abacus; choose cpu"),
    ],
)
def test_what_cannot_be_simulated_is_refused(change, message):
    with pytest.raises(VelfieldError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(VelfieldError, match=r"no such device here: device=cuda"):
        dataclasses.replace(SMALL, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_writes_the_same_kind_of_universe(tmp_path):
    result = simulate(str(tmp_path), dataclasses.replace(SMALL, device="cuda"))
    wanted = OUTER_RIM.halo_density(1e11, 0.0) * SMALL.boxsize**3
    assert result.snapshots[1].nhalos == pytest.approx(wanted, rel=0.1)  # Poisson 1 %, scatter of few cells


class Counting:
    """Progress that keeps each stage's total and count."""

    def __init__(self):
        self.stages = []

    def start(self, label, total, _unit):
        self.stages.append([label, total, 0])

    def advance(self, amount=1, _note=""):
        self.stages[-1][2] += amount

    def done(self, _note=""):
        pass


def test_every_stage_counts_to_its_total(tmp_path):
    progress = Counting()
    simulate(str(tmp_path / "u"), SMALL, progress)
    labels = [label for label, _, _ in progress.stages]
    assert [label for label in labels if label.startswith("gravity")] == ["gravity to z = 0.5022", "gravity to z = 0"]
    assert all(count == total for _, total, count in progress.stages)
