import collections
import pickle

import numpy as np
import pytest
import torch
from fields_fixture import write_universe

from velfield.errors import StoreError, VelfieldError
from velfield.files.progress import Silent
from velfield.geometry import symmetry
from velfield.learning import batches
from velfield.learning.batches import Batches, Boxes
from velfield.learning.samples import AS_IT_IS, StepSamples, step_samples
from velfield.network.normalisation import measure
from velfield.stores.sources import boxes_of, open_sources
from velfield.stores.store import open_fields

KINDS = ("mass_overdensity", "number_density")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    root = tmp_path_factory.mktemp("fields")
    return [write_universe(str(root / f"{seed}"), seed=seed, cells=6, margin=1) for seed in (1, 2)]


@pytest.fixture(scope="module")
def data(urls):
    sources = open_sources(urls, KINDS)
    which = boxes_of(sources, "train")
    raw = Boxes(sources, KINDS, which)
    normalisation = measure((raw.raw(n) for n in range(len(raw))), KINDS, "log")
    return Boxes(sources, KINDS, which, symmetry.CUBE, normalisation)


def steps(data: Boxes, last: int, first: int = 0) -> StepSamples:
    return StepSamples(steps=range(first, last), boxes=len(data), symmetries=48, batch=5, seed=3)


def test_raw_boxes_are_what_xarray_reads(urls, data):
    for number in (0, 5, 7):
        store, box = data.which[number]
        ds = open_fields(urls[store]).isel(box=box)
        raw = data.raw(number)
        expected = np.stack([ds.velfield.input(kind).values for kind in KINDS])
        np.testing.assert_allclose(raw.inputs, expected, rtol=1e-6)  # one float32 rounding in another place
        np.testing.assert_array_equal(raw.velocity, ds.velfield.core(ds.velocity).values)
        np.testing.assert_array_equal(raw.flag, ds.velfield.core(ds.velocity_flag).values)
        assert raw.inputs.shape == (2, 8, 8, 8)
        assert raw.velocity.shape == (3, 6, 6, 6)


def test_velocity_is_in_units_of_its_rms(data):
    velocity = torch.stack([data.read(n)[1] for n in range(len(data))])
    assert velocity.square().mean().sqrt().item() == pytest.approx(1, rel=1e-5)


def test_a_turned_box_is_turned_in_all_its_fields(data):
    box = data.read(2)
    turn = 29
    inputs, velocity, flag, told = data.turned(box, turn)
    assert told.shape == (0,)
    s = symmetry.CUBE[turn]
    np.testing.assert_array_equal(inputs, symmetry.apply_scalar(box[0].numpy(), s))
    np.testing.assert_array_equal(velocity, symmetry.apply_vector(box[1].numpy(), s))
    np.testing.assert_array_equal(flag, symmetry.apply_scalar(box[2].numpy(), s))
    assert not torch.equal(inputs, box[0])
    for same, before in zip(data.turned(box, 0), box, strict=True):  # symmetry 0 is the identity
        assert torch.equal(same, before)


def test_each_epoch_sees_each_box_once():
    seen = [step_samples(step, boxes=12, symmetries=48, batch=5, seed=0) for step in range(12)]
    flat = [box for samples in seen for box, _ in samples]
    assert len(flat) == 60
    for epoch in range(5):
        assert sorted(flat[12 * epoch : 12 * epoch + 12]) == list(range(12))
    assert flat[:12] != flat[12:24]


def test_samples_depend_on_seed_and_step_alone():
    kwargs = {"boxes": 12, "symmetries": 48, "batch": 4}
    forwards = [step_samples(s, seed=1, **kwargs) for s in range(9)]
    backwards = [step_samples(s, seed=1, **kwargs) for s in reversed(range(9))]
    assert forwards == backwards[::-1]
    assert forwards != [step_samples(s, seed=2, **kwargs) for s in range(9)]
    assert list(StepSamples(steps=range(3, 9), seed=1, **kwargs)) == forwards[3:]


def test_all_orientations_are_drawn():
    turns = collections.Counter(
        turn for step in range(300) for _, turn in step_samples(step, boxes=10, symmetries=48, batch=8, seed=0)
    )
    assert set(turns) == set(range(48))
    assert max(turns.values()) < 2 * 2400 / 48  # 50 expected each, Poisson scatter 7: twice that is 7 deviations
    plain = step_samples(0, boxes=10, symmetries=0, batch=8, seed=0)
    assert {turn for _, turn in plain} == {AS_IT_IS}


def test_resident_and_stream_give_the_same_bits(data):
    # two forkserver workers really read the store; a wrong start method or an unpicklable loader fails here
    wanted = steps(data, 6)
    resident = Batches(data, wanted, device=CPU, resident=True, workers=0)
    resident.load(Silent(), "read")
    kept = list(resident)
    assert len(kept) == 6
    for workers in (0, 2):
        streamed = list(Batches(data, wanted, device=CPU, resident=False, workers=workers))
        assert len(streamed) == len(kept)
        for a, b in zip(streamed, kept, strict=True):
            for x, y in zip(a, b, strict=True):
                assert x.dtype == y.dtype
                assert torch.equal(x, y)


def test_workers_are_started_by_forkserver(data):
    loader = Batches(data, steps(data, 2), device=CPU, resident=False, workers=1)._loader
    assert loader.multiprocessing_context.get_start_method() == "forkserver"
    assert loader.num_workers == 1


def test_loading_leaves_the_global_random_numbers(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(Batches(data, steps(data, 2), device=CPU, resident=False, workers=0))
    assert torch.equal(torch.rand(3), expected)


def test_open_arrays_do_not_travel(data):
    data.raw(0)
    assert data._arrays
    assert pickle.loads(pickle.dumps(data))._arrays == {}


def test_size_is_counted(data):
    assert data.nbytes == sum(t.numel() * t.element_size() for n in range(len(data)) for t in data.read(n))


def test_auto_keeps_what_fits_in_half_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(batches, "free_memory", lambda _: 1000)
    assert batches.fits_in_memory(500, CPU)
    assert not batches.fits_in_memory(501, CPU)


def test_free_memory_is_that_of_the_machine():
    assert 2**20 < batches.free_memory(CPU) < 2**50


@pytest.mark.parametrize("variable", ["halo_mass", "velocity", "velocity_flag"])
def test_a_lost_box_is_refused(tmp_path, variable):
    def lose(values: np.ndarray) -> None:
        values[3] = np.nan if values.dtype.kind == "f" else 255  # what Zarr gives for a chunk that is not there

    url = write_universe(str(tmp_path / "a"), seed=1, cells=4, edits={variable: lose})
    sources = open_sources([url], KINDS)
    data = Boxes(sources, KINDS, boxes_of(sources, "train"))
    data.raw(2)
    with pytest.raises(StoreError, match=r"a box of the store has lost its data: store=.*, box=3; .*velfield verify"):
        data.raw(3)


def test_cells_outside_the_parent_are_read_with_their_flag(tmp_path):
    def outside(values: np.ndarray) -> None:
        values[0, ..., :2] = np.nan if values.dtype.kind == "f" else 2

    url = write_universe(str(tmp_path / "a"), seed=1, cells=4, edits={"velocity": outside, "velocity_flag": outside})
    sources = open_sources([url], KINDS)
    raw = Boxes(sources, KINDS, [(0, 0)]).raw(0)
    assert np.isnan(raw.velocity[..., :2]).all()
    assert (raw.flag[..., :2] == 2).all()


def test_refuses(data):
    with pytest.raises(VelfieldError, match="boxes without a normalisation"):
        Boxes(data.sources, KINDS, data.which).read(0)
    with pytest.raises(VelfieldError, match="resident boxes were not read yet"):
        next(iter(Batches(data, steps(data, 1), device=CPU, resident=True, workers=0)))
