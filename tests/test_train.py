import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from bundle_files import weights
from fields_fixture import write_universe

from velfield.errors import StoreError, VelfieldError
from velfield.files import storage
from velfield.learning.batches import Batches
from velfield.learning.loss import LossConfig
from velfield.learning.train import TrainConfig, train
from velfield.network.model import load_model
from velfield.stores.store import open_fields

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = TrainConfig(steps=6, width=4, groups=2, depth=1, batch=3, validate_every=3, checkpoint_every=2, device="cpu")


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    root = tmp_path_factory.mktemp("fields")
    return [write_universe(str(root / f"{seed}"), seed=seed, cells=6, margin=1) for seed in (1, 2)]


def config(**changes: Any) -> TrainConfig:
    return dataclasses.replace(TINY, **changes)


def assert_same_weights(one: str, other: str) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Watch:
    """A progress that calls ``action`` when the given number of training steps is done, and keeps the notes."""

    def __init__(self, steps: int, action: Callable[[], None]) -> None:
        self.left, self.action, self.training, self.notes = steps, action, False, []

    def start(self, label: str, total: float, _unit: str, *, before: float = 0) -> None:
        self.training = label == "train"
        if self.training:
            self.counted = (before, total)

    def advance(self, _amount: float = 1, note: str = "") -> None:
        if self.training:
            self.notes.append(note)
            self.left -= 1
            if self.left == 0:
                self.action()

    def done(self, note: str = "") -> None:
        self.notes.append(note)


def stop_at(steps: int, number: signal.Signals = signal.SIGINT) -> Watch:
    """Ctrl-C after some steps."""
    return Watch(steps, lambda: signal.raise_signal(number))


@pytest.fixture(scope="module")
def whole(fields, tmp_path_factory):
    """A training that was never interrupted, with dropout, so that random numbers count."""
    out = str(tmp_path_factory.mktemp("whole") / "model")
    return train(fields, out, config(dropout=0.2))


@pytest.mark.parametrize(("number", "steps"), [(signal.SIGINT, 1), (signal.SIGTERM, 3), (signal.SIGINT, 5)])
def test_interrupted_and_resumed_ends_with_the_same_bits(fields, whole, tmp_path, number, steps):
    out = str(tmp_path / "model")
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {steps} of 6"):
        train(fields, out, config(dropout=0.2), stop_at(steps, number))
    assert signal.getsignal(number) is before
    assert not storage.exists(storage.join(out, "metadata.json"))
    resumed = train(fields, out, config(dropout=0.2))
    assert resumed.steps == 6
    assert not resumed.already_done
    assert_same_weights(whole.model, out)
    assert resumed.losses == whole.losses
    assert load_model(out, device="cpu").metadata["metrics"] == load_model(whole.model).metadata["metrics"]
    assert not storage.exists(storage.join(out, ".checkpoint"))


def test_goes_on_with_stores_that_were_made_again_only_if_told(fields, whole, tmp_path):
    out = str(tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        train(fields, out, config(dropout=0.2), stop_at(3))
    again = [
        write_universe(str(tmp_path / f"{seed}"), seed=seed, cells=6, margin=1, fingerprint=f"another-{seed}")
        for seed in (1, 2)
    ]
    with pytest.raises(StoreError, match=r"stores=\['store-1', 'store-2'\] there and \['another-1', 'another-2'\]"):
        train(again, out, config(dropout=0.2))
    with pytest.raises(StoreError, match="another training is at this place"):
        train(again[:1], out, config(dropout=0.2), remade=True)
    with pytest.raises(StoreError, match=r"dropout=0\.2 there and 0\.1 asked"):
        train(again, out, config(dropout=0.1), remade=True)
    train(again, out, config(dropout=0.2), remade=True)
    assert_same_weights(whole.model, out)


def test_a_process_that_dies_goes_on_from_its_last_checkpoint(fields, whole, tmp_path):
    def die() -> None:
        raise MemoryError

    out = str(tmp_path / "model")
    with pytest.raises(MemoryError):
        train(
            fields, out, config(dropout=0.2), Watch(6, die)
        )  # checkpoints after steps 2 and 4; steps 5 and 6 are lost
    train(fields, out, config(dropout=0.2))
    assert_same_weights(whole.model, out)


def test_stopped_after_the_last_step_only_the_bundle_is_left(fields, whole, tmp_path, monkeypatch):
    out = str(tmp_path / "model")

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("velfield.network.model.Model.save", full)
        with pytest.raises(OSError, match="disk full"):
            train(fields, out, config(dropout=0.2))
    resumed = train(fields, out, config(dropout=0.2))
    assert_same_weights(whole.model, out)
    assert resumed.losses == whole.losses
    assert (
        load_model(out).metadata["metrics"]["validation"] == load_model(whole.model).metadata["metrics"]["validation"]
    )


def test_streaming_ends_with_the_same_bits(fields, whole, tmp_path):
    out = str(tmp_path / "model")
    train(fields, out, config(dropout=0.2, loader="stream", workers=1))
    assert_same_weights(whole.model, out)


def test_finished_is_not_done_again(fields, whole):
    stamp = load_model(whole.model).metadata
    again = train(fields, whole.model, config(dropout=0.2, workers=5, loader="stream"))  # how it runs may differ
    assert again.already_done
    assert again.steps == 6
    assert again.losses == whole.losses
    assert load_model(whole.model).metadata == stamp


def test_other_settings_at_the_same_place_are_refused(fields, whole, tmp_path):
    with pytest.raises(StoreError) as error:
        train(fields, whole.model, config(learning_rate=1e-3, loss=LossConfig(alpha=2)))
    message = str(error.value)
    assert message.startswith("another training is at this place: out=")
    assert "dropout=0.2 there and 0.0 asked" in message
    assert "learning_rate=0.004 there and 0.001 asked" in message
    assert "loss.alpha=1.0 there and 2 asked" in message
    assert "seed" not in message
    with pytest.raises(StoreError, match=r"stores=\['store-1', 'store-2'\] there and \['store-1'\] asked"):
        train(fields[:1], whole.model, config(dropout=0.2))
    out = str(tmp_path / "model")  # an unfinished one is refused as well
    with pytest.raises(KeyboardInterrupt):
        train(fields, out, config(), stop_at(1))
    with pytest.raises(StoreError, match="seed=1 there and 2 asked"):
        train(fields, out, config(seed=2))


def test_seeds_differ(fields, whole, tmp_path):
    out = str(tmp_path / "model")
    train(fields, out, config(dropout=0.2, seed=2))
    assert not torch.equal(weights(out)["out.weight"], weights(whole.model)["out.weight"])


def test_the_callers_random_numbers_are_left_alone(fields, tmp_path):
    torch.manual_seed(9)
    expected = torch.rand(2)
    torch.manual_seed(9)
    train(fields, str(tmp_path / "model"), config(steps=1))
    assert torch.equal(torch.rand(2), expected)


def test_learns_a_linear_universe(tmp_path):
    # linear theory in a box without its surroundings: far better than no velocity at all, on a universe never seen
    train_on = [write_universe(str(tmp_path / f"{s}"), seed=s, cells=12) for s in (1, 2)]
    unseen = open_fields(write_universe(str(tmp_path / "3"), seed=3, cells=12))
    chosen = TrainConfig(steps=80, width=8, depth=2, inputs=("number_overdensity",), device="cpu", loader="resident")
    result = train(train_on, str(tmp_path / "model"), chosen)
    losses = [loss for _, loss in result.losses["train"]]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])
    assert result.losses["validation"][-1][0] == 80
    predicted = load_model(result.model, device="cpu").predict(unseen).velocity.values
    true = unseen.velocity.values
    assert ((predicted - true) ** 2).mean() < 0.5 * (true**2).mean()  # the zero predictor has 1; 0.41 to 0.46
    assert np.corrcoef(predicted.ravel(), true.ravel())[0, 1] > 0.7  # measured 0.80; a random field has 0 ± 0.01
    # the direction of each component is right: not one fitted at the cost of another
    for axis in range(3):
        assert np.corrcoef(predicted[:, axis].ravel(), true[:, axis].ravel())[0, 1] > 0.6


def test_bundle_says_where_it_comes_from(whole):
    model = load_model(whole.model, device="cpu")
    meta = model.metadata
    assert meta["parents"] == ["universe-1", "universe-2"]
    assert [s["fingerprint"] for s in meta["training"]["stores"]] == ["store-1", "store-2"]
    assert meta["training"]["boxes"] == 12
    assert meta["training"]["validation_boxes"] == 4
    assert meta["training"]["threads"] == 1
    assert meta["training"]["precision"] == "float32"
    assert meta["trained_on"]["cellsize"] == 10
    assert meta["trained_on"]["margin"] == 1
    assert set(meta["metrics"]["validation"]) == {"loss", "mse", "dice", "weighted", "slope", "r"}
    assert [step for step, _ in meta["losses"]["validation"]] == [3, 6]
    assert len(meta["losses"]["train"]) == 6


def test_validation_measures_against_numpy(fields, whole):
    model = load_model(whole.model, device="cpu")
    predicted, true = [], []
    for url in fields:
        ds = open_fields(url)
        ds = ds.isel(box=np.flatnonzero(ds.split.values == "validation"))
        predicted.append(model.predict(ds).velocity.values)
        true.append(ds.velfield.core(ds.velocity).values)
    p, t = np.concatenate(predicted).ravel(), np.concatenate(true).ravel()
    reached = model.metadata["metrics"]["validation"]
    assert reached["slope"] == pytest.approx(np.polyfit(t, p, 1)[0], rel=1e-4)  # float32 network in other batches
    assert reached["r"] == pytest.approx(np.corrcoef(t, p)[0, 1], rel=1e-4)
    assert reached["mse"] == pytest.approx(((p - t) ** 2).mean() / model.normalisation.sigma_v**2, rel=2e-4)


def test_epochs_count_passes(fields, tmp_path):
    result = train(fields, str(tmp_path / "model"), config(steps=None, epochs=2, batch=5))
    assert result.steps == 5  # 2 · 12 boxes in batches of 5, rounded up


def test_learning_rate_rises_then_falls():
    chosen = config(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [chosen.learning_rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(max(rates), rel=1e-2)
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0, abs=1e-3)
    flat = config(steps=100, learning_rate=1.0, warmup=0.1, schedule="constant")
    assert {flat.learning_rate_at(step, 100) for step in range(10, 100)} == {1.0}


def test_divergence_is_one_line(fields, tmp_path, monkeypatch):
    def broken(self: Batches) -> Any:
        for number, batch in enumerate(original(self)):
            yield batch._replace(velocity=batch.velocity * (math.inf if number == 2 else 1))

    original = Batches.__iter__
    monkeypatch.setattr(Batches, "__iter__", broken)
    with pytest.raises(VelfieldError, match=r"training diverged: step=3, loss=\S+, gradient=nan.*lower learning rate"):
        train(fields, str(tmp_path / "model"), config())


def test_progress_shows_losses(fields, tmp_path, monkeypatch):
    monkeypatch.setattr("velfield.learning.training.RECENT", 3)
    progress = Watch(100, int)
    losses = [loss for _, loss in train(fields, str(tmp_path / "model"), config(), progress).losses["train"]]
    for step, note in enumerate(progress.notes[-1 - len(losses) : -1], 1):  # the last steps' mean, not the last step's
        assert note.split(", ")[0] == f"mean loss {np.mean(losses[max(step - 3, 0) : step]):.4f}"
    *steps, end = progress.notes[-7:]
    assert end == steps[-1]
    assert "validation " not in steps[0]
    assert "validation " in steps[-1]


def test_without_validation_boxes(tmp_path):
    url = write_universe(str(tmp_path / "a"), seed=1, cells=6, validation=0)
    result = train([url], str(tmp_path / "model"), config())
    assert result.losses["validation"] == []
    assert load_model(result.model, device="cpu").metadata["metrics"] == {"validation": {}}
    assert "No validation boxes" in storage.read_bytes(storage.join(result.model, "README.md")).decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "batch"},
        {"conv_add": False},
        {"padding": "replicate", "upsample": "trilinear"},
        {"augment": False, "schedule": "constant", "transform": "log"},
        {"inputs": ("mass_density",), "loss": LossConfig(mse=0, dice=1, weighted=1, alpha=-1, dice_over="sample")},
        {"precision": "bfloat16"},
    ],
)
def test_every_option_changes_the_result(fields, tmp_path, changes):
    plain, changed = str(tmp_path / "plain"), str(tmp_path / "changed")
    train(fields, plain, config(steps=2))
    train(fields, changed, config(steps=2, **changes))
    a, b = weights(plain), weights(changed)
    assert a.keys() != b.keys() or any(a[n].shape != b[n].shape or not torch.equal(a[n], b[n]) for n in a)
    model = load_model(changed, device="cpu")
    assert np.isfinite(model.predict(open_fields(fields[0])).velocity.values).all()


@pytest.mark.parametrize("count_filled", [True, False])
def test_cells_outside_the_parent_never_count(tmp_path, count_filled):
    def outside(values: np.ndarray) -> None:
        values[..., :2] = np.nan if values.dtype.kind == "f" else 2

    edits = {"velocity": outside, "velocity_flag": outside}
    url = write_universe(str(tmp_path / "a"), seed=1, cells=6, edits=edits, periodic=False)
    result = train([url], str(tmp_path / "model"), config(loss=LossConfig(count_filled=count_filled)))
    assert all(math.isfinite(loss) for _, loss in result.losses["train"] + result.losses["validation"])


def test_works_on_a_remote_file_system(fields):
    out = "memory://models/one"
    with pytest.raises(KeyboardInterrupt):
        train(fields, out, config(), stop_at(2))
    assert storage.exists("memory://models/one/.checkpoint/state.safetensors")
    train(fields, out, config())
    assert load_model(out).parents == ("universe-1", "universe-2")
    assert not storage.exists("memory://models/one/.checkpoint")


def test_only_an_empty_place_is_taken_and_before_the_work(fields, tmp_path, monkeypatch):
    storage.write_json(str(tmp_path / "evaluation" / "metrics.json"), {})
    with pytest.raises(StoreError, match=r"this place is not empty: out=.*evaluation; choose another"):
        train(fields, str(tmp_path / "evaluation"), TINY)
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StoreError, match="this place is not empty"):
        train(fields, str(tmp_path / "file"), TINY)
    monkeypatch.setattr("velfield.learning.train.Training", lambda *_: pytest.fail("worked"))
    monkeypatch.setattr(storage, "write_bytes", lambda *_: (_ for _ in ()).throw(PermissionError()))
    with pytest.raises(PermissionError):
        train(fields, str(tmp_path / "out"), TINY)


def test_refuses_places_and_stores(fields, tmp_path):
    with pytest.raises(StoreError, match="a store is at the model's place: out="):
        train(fields[1:], fields[0], TINY)
    url = write_universe(str(tmp_path / "v"), seed=1, cells=4, validation=8)
    with pytest.raises(StoreError, match="no training box in the stores: stores=1, validation=8"):
        train([url], str(tmp_path / "m"), TINY)
    broken = str(tmp_path / "broken")
    storage.write_bytes(storage.join(broken, ".checkpoint", "state.safetensors"), b"\x08\0\0\0\0\0\0\0not json")
    with pytest.raises(StoreError, match=r"the checkpoint cannot be read: file=.*remove it to begin again"):
        train(fields, broken, TINY)


def test_batch_normalisation_of_one_value_is_refused(fields, tmp_path):
    """Boxes of 6 cells with a margin of 1 are 8³, pooled three times 1³."""
    wrong = config(norm="batch", batch=1, depth=3)
    with pytest.raises(VelfieldError, match=r"one value cannot be normalised: norm=batch, batch=1, depth=3, cells=8 "):
        train(fields, str(tmp_path / "m"), wrong)
    train(fields, str(tmp_path / "m"), dataclasses.replace(wrong, batch=2, steps=1))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"steps": None}, "how long to train: steps=None, epochs=None; give one of the two"),
        ({"epochs": 3}, "how long to train: steps=6, epochs=3"),
        ({"steps": 0}, "not positive: steps=0"),
        ({"batch": 0}, "not positive: batch=0"),
        ({"learning_rate": 0.0}, "not positive: learning_rate=0.0"),
        ({"learning_rate": math.nan}, "not positive: learning_rate=nan"),
        ({"clip": math.inf}, "not positive: clip=inf; give a finite number above 0"),
        ({"weight_decay": math.nan}, "out of range: workers=2, weight_decay=nan"),
        ({"seed": -1}, "no such seed: seed=-1"),
        ({"warmup": 2.0}, "out of range: workers=2, weight_decay=0.0001, warmup=2.0"),
        ({"schedule": "step"}, "unknown schedule: schedule='step'; choose cosine, constant"),
        ({"precision": "float16"}, "unknown precision: precision='float16'"),
        ({"loader": "ram"}, "unknown loader: loader='ram'"),
        ({"transform": "sqrt"}, "unknown transform: transform='sqrt'"),
        ({"norm": "layer"}, "unknown norm of the U-Net"),
    ],
)
def test_refuses_settings(wrong, text):
    with pytest.raises(VelfieldError) as error:
        config(**wrong)
    assert text in str(error.value)


def test_settings_survive_json():
    settings = config(loss=LossConfig(alpha=2)).settings()
    assert json.loads(json.dumps(settings)) == settings
    assert "device" not in settings
    assert settings["loss"]["alpha"] == 2


def test_error_bars_leave_the_velocities_as_they_are(fields, whole, tmp_path):
    out = str(tmp_path / "model")
    train(fields, out, config(dropout=0.2, std=True))
    with_bars, without = weights(out), weights(whole.model)
    assert {name for name in with_bars if name not in without} == {
        f"spread.{name}" for name in ("0.weight", "0.bias", "1.weight", "2.weight", "2.bias")
    }
    for name, tensor in without.items():
        assert torch.equal(with_bars[name], tensor), name
    shared = str(tmp_path / "shared")
    train(fields, shared, config(dropout=0.2, std=True, std_share=1.0))
    assert not torch.equal(weights(shared)["out.weight"], without["out.weight"])


def test_error_bars_are_calibrated_on_the_validation_boxes(fields, tmp_path):
    result = train(fields, str(tmp_path / "model"), config(steps=30, std=True, batch=4))
    model = load_model(result.model, device="cpu")
    calibration = model.metadata["calibration"]
    assert calibration["residuals"] == 4 * 3 * 6**3
    over, under = calibration["coverage_68"] - 0.68, calibration["coverage_95"] - 0.95
    assert abs(over) == pytest.approx(abs(under), abs=1e-3)  # steps of one of 2592 values
    assert abs(over) <= max(abs(calibration["before_68"] - 0.68), abs(calibration["before_95"] - 0.95)) + 1e-3
    sizes, bars = [], []
    for url in fields:
        ds = open_fields(url)
        ds = ds.isel(box=np.flatnonzero(ds.split.values == "validation"))
        predicted = model.predict(ds)
        sizes.append(np.abs(predicted.velocity - ds.velfield.core(ds.velocity)).values)
        bars.append(predicted.velocity_std.values)
    ratio = np.concatenate(sizes) / np.concatenate(bars)
    assert (ratio < 0.994458).mean() == pytest.approx(calibration["coverage_68"], abs=2e-3)
    assert "nll" in model.metadata["metrics"]["validation"]
    assert "95 % intervals" in storage.read_bytes(storage.join(result.model, "README.md")).decode()


def test_without_validation_boxes_error_bars_are_not_calibrated(tmp_path):
    url = write_universe(str(tmp_path / "a"), seed=1, cells=6, validation=0)
    result = train([url], str(tmp_path / "model"), config(std=True))
    model = load_model(result.model, device="cpu")
    assert model.calibration.coverage_68 is None
    assert (model.predict(open_fields(url)).velocity_std.values > 0).all()
    assert "were not calibrated" in storage.read_bytes(storage.join(result.model, "README.md")).decode()


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_averaged_weights_go_on_with_the_same_bits(fields, tmp_path, norm):
    asked = config(ema=0.9, norm=norm, std=True)
    one, other, plain = (str(tmp_path / name) for name in ("one", "other", "plain"))
    train(fields, one, asked)
    with pytest.raises(KeyboardInterrupt):
        train(fields, other, asked, stop_at(3))
    train(fields, other, asked)
    assert_same_weights(one, other)
    train(fields, plain, config(norm=norm, std=True))
    assert not torch.equal(weights(one)["out.weight"], weights(plain)["out.weight"])
    assert load_model(one).metadata["training"]["weights"] == "exponential average over the steps"
    assert load_model(plain).metadata["training"]["weights"] == "of the last step"


@pytest.mark.parametrize(
    "loss",
    [LossConfig(), LossConfig(dice=0), *(LossConfig(dice_over=over) for over in ("sample", "channel"))],
    ids=["batch", "none", "sample", "channel"],
)
def test_a_step_in_parts_is_the_same_step(fields, tmp_path, loss):
    whole_, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    asked = config(steps=3, loss=loss, std=True, batch=5, schedule="constant")
    one = train(fields, whole_, asked)
    other = train(fields, parts, dataclasses.replace(asked, accumulate=3))  # parts of 2, 2 and 1 boxes
    # float32 sums in another order, 1e-6, which Adam's first steps scale up where a gradient is nearly zero
    np.testing.assert_allclose(one.losses["train"], other.losses["train"], rtol=1e-4)
    a, b = weights(whole_), weights(parts)
    difference = torch.cat([(a[name] - b[name]).flatten() for name in a]).abs()
    assert difference.quantile(0.99) < 1e-4  # a step changes a weight by the rate, 4e-3
    assert load_model(parts).metadata["training"]["settings"]["accumulate"] == 3


def test_parts_with_dropout_are_resumed_to_the_same_bits(fields, tmp_path):
    asked = config(accumulate=2, dropout=0.2, norm="batch")
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    train(fields, one, asked)
    with pytest.raises(KeyboardInterrupt):
        train(fields, other, asked, stop_at(3))
    train(fields, other, asked)
    assert_same_weights(one, other)


def test_what_came_later_is_not_among_the_settings_unless_it_is_used():
    assert not {"std", "std_share", "ema", "accumulate", "compile"} & config(compile=True).settings().keys()
    assert config(std=True, ema=0.5, accumulate=2).settings().items() >= {"std": True, "ema": 0.5}.items()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"ema": 1.0}, "out of range: ema=1.0"),
        ({"std_share": 0.5}, "std=False, std_share=0.5"),
        ({"std": True, "std_share": -1.0}, "std_share=-1.0"),
        ({"accumulate": 0}, "not positive: accumulate=0"),
        ({"accumulate": 4}, "more parts than boxes: accumulate=4, batch=3"),
    ],
)
def test_refuses_new_settings(wrong, text):
    with pytest.raises(VelfieldError, match=text):
        config(**wrong)


def test_a_network_that_cannot_be_compiled_trains_as_it_is(fields, whole, tmp_path, monkeypatch):
    def broken(_net: Any) -> Any:
        def run(*_: Any) -> Any:
            raise RuntimeError("no compiler here\nat all")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    notes: list[str] = []
    out = str(tmp_path / "model")
    train(fields, out, config(dropout=0.2, compile=True), note=notes.append)
    assert notes == ["the network is not compiled: because=no compiler here; it trains as it is, only slower"]
    assert_same_weights(whole.model, out)


@pytest.mark.slow
def test_a_compiled_network_has_the_same_names(fields, tmp_path, monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compiled(net, backend="eager"))  # inductor takes a minute
    notes: list[str] = []
    out = str(tmp_path / "model")
    train(fields, out, config(compile=True, steps=2), note=notes.append)
    assert not notes
    assert "out.weight" in weights(out)


TOGETHER = """
import signal
import sys
import torch
from velfield.files.progress import Silent
from velfield.learning.train import TrainConfig, train

out, dropout, stop_at, *fields = sys.argv[1:]
torch.set_num_threads(1)


class Stop(Silent):
    steps = 0

    def advance(self, amount=1, note="", *, nbytes=0):
        if note.startswith("mean loss"):
            self.steps += 1
            if self.steps == int(stop_at):
                signal.raise_signal(signal.SIGTERM)


asked = dict(steps=4, width=4, groups=2, depth=1, batch=5, device="cpu", std=True, ema=0.5, loader="resident")
try:
    train(fields, out, TrainConfig(dropout=float(dropout), **asked), Stop())
except KeyboardInterrupt as stopped:
    print(stopped)
"""


@pytest.fixture
def run_together(fields, tmp_path):
    """Train in some processes at a place; returns what they print. Only the first is sent a signal, if any is."""
    script = str(tmp_path / "train.py")
    storage.write_bytes(script, TOGETHER.encode())

    def run(processes: int, out: str, dropout: float = 0.0, stop: int = 0) -> str:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", f"{processes}"]
        command = [sys.executable, *(launcher if processes > 1 else []), script, out, str(dropout), str(stop), *fields]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_two_processes_train_as_one(run_together, tmp_path):
    one, two = (str(tmp_path / name) for name in ("one", "two"))
    run_together(1, one)
    run_together(2, two)
    a, b = weights(one), weights(two)
    difference = torch.cat([(a[name] - b[name]).flatten() for name in a]).abs()
    assert difference.quantile(0.99) < 1e-4  # float32 sums in another order; a step changes a weight by up to 4e-3
    first, second = load_model(one).metadata, load_model(two).metadata
    assert (first["training"]["processes"], second["training"]["processes"]) == (1, 2)
    np.testing.assert_allclose(first["losses"]["train"], second["losses"]["train"], rtol=1e-4)
    np.testing.assert_allclose(first["losses"]["validation"], second["losses"]["validation"], rtol=1e-4)
    assert not storage.exists(storage.join(two, ".checkpoint"))


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_and_go_on(run_together, tmp_path):
    whole_, torn = (str(tmp_path / name) for name in ("whole", "torn"))
    run_together(2, whole_, dropout=0.2)
    said = run_together(2, torn, dropout=0.2, stop=2)
    assert said.count("stopped after step 2 of 4") == 2
    assert not storage.exists(storage.join(torn, "metadata.json"))
    run_together(2, torn, dropout=0.2)
    assert_same_weights(whole_, torn)
