"""Training on a worker that offers a GPU: the weights of a training here, whatever happens on the way.

The workers are processes under nannies, as dask worker starts them; the GPU that they offer is a word.
"""

import dataclasses
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dask
import pytest
import safetensors.torch
import torch
from distributed import Client, LocalCluster
from distributed.dashboard.components.scheduler import WorkerTable
from fields_fixture import write_universe

from velfield.commands.cli import main
from velfield.errors import ClusterError, StoreError
from velfield.files import storage
from velfield.learning import checkpoint
from velfield.learning.train import TrainConfig
from velfield.learning.train import train as train_here
from velfield.pipelines import tasks
from velfield.pipelines.cluster import connect
from velfield.pipelines.train import train

pytestmark = pytest.mark.slow  # trainings on a cluster: tests of training and of clusters are quick
STEPS = 240
ASKED = TrainConfig(
    steps=STEPS, width=4, groups=2, depth=1, batch=3, validate_every=100, checkpoint_every=5, device="cpu", dropout=0.2
)


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return write_universe(str(tmp_path_factory.mktemp("fields") / "1"), seed=1, cells=6, margin=1)


@pytest.fixture(scope="module")
def whole(fields, tmp_path_factory):
    """The same training in this process, never interrupted."""
    out = str(tmp_path_factory.mktemp("whole") / "model")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train_here([fields], out, ASKED)
    torch.set_num_threads(before)
    return weights(out)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", resources={"GPU": 1}
    ) as cluster:
        yield cluster


@pytest.fixture
def gpus(cluster):
    """A client of two workers that offer GPU=1, as a command has it."""
    with connect(cluster.scheduler_address, quiet=True) as client:
        while len(client.nthreads()) < 2:  # a test before had one leave
            tasks.replace_dead(cluster)
            time.sleep(0.5)
        yield client


def weights(url):
    return safetensors.torch.load(storage.read_bytes(storage.join(url, "model.safetensors")))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Watch:
    """Keeps what it is told, and calls ``action`` once, as soon as so many steps are done."""

    def __init__(self, steps=STEPS + 1, action=None):
        self.steps, self.action = steps, action
        self.starts, self.label, self.count, self.notes = [], "", 0, []

    def start(self, label, total, unit, *, before=0):
        self.label, self.count = label, before
        self.starts.append((label, total, unit, before))

    def advance(self, amount=1, note="", *, nbytes=0):  # noqa: ARG002
        self.count += amount
        self.notes.append(note)
        if self.label == "train" and self.action is not None and self.count >= self.steps:
            action, self.action = self.action, None
            action()

    def done(self, note=""):
        self.notes.append(note)


def resumed(watch):
    """After how many steps each attempt began."""
    return [before for label, *_, before in watch.starts if label == "train"]


def test_the_weights_are_those_of_a_training_here(gpus, fields, whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    watch, notes = Watch(), []
    # streaming needs processes, which a worker under a nanny may not start without further ado
    config = dataclasses.replace(ASKED, loader="stream", workers=1)
    result = train(gpus, [fields], "model", config, watch, notes.append)
    assert (result.steps, result.already_done) == (STEPS, False)
    assert_same(weights(str(tmp_path / "model")), whole)
    assert result.model == str(tmp_path / "model")
    assert watch.starts[-1] == ("train", STEPS, "steps", 0)
    assert watch.count == STEPS
    assert watch.notes[-1].startswith("mean loss ")
    assert notes == [f"training on worker={notes[0].rpartition('=')[2]}"]
    assert notes[0].rpartition("=")[2] in gpus.nthreads()
    assert train(gpus, [fields], "model", config).already_done


def test_mistakes_are_raised_here(gpus, fields, tmp_path):
    with pytest.raises(StoreError, match="no such file or folder: url="):
        train(gpus, [str(tmp_path / "nothing")], str(tmp_path / "model"), ASKED)
    train(gpus, [fields], str(tmp_path / "model"), dataclasses.replace(ASKED, steps=1))
    with pytest.raises(StoreError, match=r"another training is at this place: .*seed=1 there and 2 asked"):
        train(gpus, [fields], str(tmp_path / "model"), dataclasses.replace(ASKED, steps=1, seed=2))


async def _on_the_loop(action):
    action()


def test_without_a_gpu_it_says_how_to_start_one(client, fields, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "LOOK", 0.1)
    message = (
        r"no worker works: scheduler=(tcp://\S+), none of its 2 workers offers GPU=1, waited=\d+ s; "
        r"start one with dask worker \1 --resources GPU=1 --memory-limit 0, then run the same command again to go on$"
    )
    with dask.config.set({"velfield.wait": 1}), pytest.raises(ClusterError, match=message):
        train(client, [fields], str(tmp_path / "model"), ASKED)
    assert "none of its 2 workers offers GPU=1; start one with dask worker" in capsys.readouterr().err
    assert not storage.exists(str(tmp_path / "model"))


def test_interrupted_it_leaves_a_checkpoint_and_goes_on(gpus, fields, whole, tmp_path):
    out, notes = str(tmp_path / "model"), []
    with pytest.raises(KeyboardInterrupt, match=rf"^stopped after step \d+ of {STEPS}: {out}$") as stopped:
        train(gpus, [fields], out, ASKED, Watch(1, lambda: signal.raise_signal(signal.SIGINT)), notes.append)
    assert notes[-1].startswith("the worker ends its step and leaves a checkpoint: worker=tcp://")
    reached = int(str(stopped.value).split()[3])
    assert not storage.exists(storage.join(out, "metadata.json"))
    watch = Watch()
    train(gpus, [fields], out, ASKED, watch)
    assert resumed(watch) == [reached]
    assert_same(weights(out), whole)


def test_stopped_before_its_turn_nothing_is_waited_for(gpus, fields, tmp_path):
    busy = [gpus.submit(time.sleep, 4, resources={"GPU": 1}, pure=False) for _ in range(2)]
    later = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))
    later.start()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(gpus, [fields], str(tmp_path / "model"), ASKED)
    gpus.gather(busy)
    time.sleep(0.5)  # its turn would be now
    assert not storage.exists(str(tmp_path / "model"))


def test_a_killed_worker_is_replaced(gpus, fields, whole, tmp_path):
    out, notes = str(tmp_path / "model"), []
    pid_of = gpus.run(os.getpid)
    watch = Watch(20, lambda: os.kill(pid_of[notes[0].rpartition("=")[2]], signal.SIGKILL))
    train(gpus, [fields], out, ASKED, watch, notes.append)
    assert_same(weights(out), whole)
    first, second = resumed(watch)
    assert first == 0
    assert second >= 15  # of the last checkpoint: a step is said before its own is written
    assert second % 5 == 0
    assert ", from its last checkpoint, because the one before is gone" in notes[-1]


def test_a_worker_that_leaves_hands_over(gpus, fields, whole, tmp_path):
    out, notes = str(tmp_path / "model"), []
    with ThreadPoolExecutor(1) as pool:
        watch = Watch(1, lambda: pool.submit(gpus.retire_workers, [notes[0].rpartition("=")[2]]))
        train(gpus, [fields], out, ASKED, watch, notes.append)
    assert_same(weights(out), whole)
    first, second = resumed(watch)
    assert (first, second > 0) == (0, True)


def test_seen_on_the_dashboard_and_stopped_when_its_client_is_gone(gpus, cluster, fields, tmp_path):
    out, seen = str(tmp_path / "model"), []

    def look():
        table = WorkerTable(cluster.scheduler)
        table.update()
        lines = table.source.data.get("training", ())  # of the last heartbeat: maybe of a training before
        seen.extend(line for line in lines if line and "/40k steps, " in line and " left" in line)

    config = dataclasses.replace(ASKED, steps=40_000)
    with ThreadPoolExecutor(1) as pool, Client(cluster.scheduler_address, set_as_default=False) as other:
        training = pool.submit(train, other, [fields], out, config)
        while not seen:
            assert not training.done()
            time.sleep(0.2)
            gpus.sync(_on_the_loop, look)
        assert re.match(r"train: \d+/40k steps, \S+ steps/s, \d+ s left, mean loss \d", seen[0])
        assert "train" in cluster.scheduler.task_prefixes
        busy = gpus.run(lambda dask_worker: len(dask_worker.active_threads))
        assert not training.done()  # a worker answers while it trains
        assert sorted(busy.values()) == [0, 1]
        other.close()
        with pytest.raises(ClusterError, match="scheduler was lost"):
            training.result(timeout=60)
    while any(gpus.run(lambda dask_worker: len(dask_worker.active_threads)).values()):
        time.sleep(0.1)
    saved = checkpoint.read(out)
    assert 0 < saved.step < 40_000
    assert len(saved.part("record")["train"]) == saved.step


def test_the_verb(gpus, fields, tmp_path, capfd, monkeypatch):
    out = str(tmp_path / "model")
    asked = ["train", fields, out, "--steps", "2", "--width", "4", "--depth", "1", "--device", "cpu"]
    assert main([*asked, "--scheduler", gpus.scheduler.address]) == 0
    said = capfd.readouterr()
    assert said.out.startswith("trained 2 steps in ")
    assert "note: training on worker=tcp://127.0.0.1:" in said.err
    assert re.search(r"^train: done in \S+ s, mean loss \d", said.err, re.MULTILINE)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", gpus.scheduler.address)
    assert main(asked) == 0
    assert capfd.readouterr().out == f"already trained, nothing done: {out}\n"


def test_the_verb_refuses_what_does_not_go_together(fields, tmp_path, capsys, monkeypatch):
    asked = ["train", fields, str(tmp_path / "model"), "--steps", "2"]
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    assert main([*asked, "--wait", "5"]) == 2
    assert "no cluster is asked for: wait=5.0; add --scheduler, or leave --wait out" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "0")
    assert main([*asked, "--scheduler", "tcp://h:1"]) == 2
    refused = "torchrun and a scheduler are both asked for: rank=0, scheduler=tcp://h:1; start it without torchrun"
    assert refused in capsys.readouterr().err
