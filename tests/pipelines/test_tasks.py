"""The loop that runs tasks: what is tried again, what is not, and what it says when machines give out."""

import errno
import os
import signal

import pytest
from distributed import get_worker

from velfield.errors import ClusterError, VelfieldError
from velfield.pipelines import tasks, watch
from velfield.pipelines.failures import environmental, in_one_line, worth_another_try
from velfield.pipelines.stages import stage
from velfield.pipelines.tasks import Workers, run_tasks


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(tasks, "PAUSE", 0.01)


def fails_until(item, folder, last, error):
    """Fail for an item until it was tried ``last`` times."""
    seen = folder / f"{item}-{os.urandom(4).hex()}"
    seen.touch()
    if len(list(folder.glob(f"{item}-*"))) < last:
        raise error
    return item * 10


def test_every_item_once_with_its_result(client):
    assert sorted(run_tasks(client, abs, range(-100, 0), name="abs")) == [(i, -i) for i in range(-100, 0)]


def test_what_may_pass_is_tried_again(client, tmp_path):
    with watch.reported(client, None, "test", {}) as record:
        found = list(run_tasks(client, fails_until, [1, 2], tmp_path, 3, ConnectionResetError("cut"), name="x"))
    assert sorted(found) == [(1, 10), (2, 20)]
    assert record.tasks["x"]["retries"] == 4
    assert record.tasks["x"]["errors"] == {"ConnectionResetError": 4}


def test_it_is_not_tried_for_ever(client, tmp_path):
    with pytest.raises(ClusterError, match=r"^cut: x 1, tried=4; run the same command again to go on$"):
        list(run_tasks(client, fails_until, [1], tmp_path, 9, ConnectionResetError("cut"), name="x"))
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("error", [VelfieldError("wrong: a=1; do b"), ZeroDivisionError("ours")])
def test_mistakes_and_our_own_errors_are_not_tried_again(client, tmp_path, error):
    with pytest.raises(type(error), match=str(error)):
        list(run_tasks(client, fails_until, [1], tmp_path, 2, error, name="x"))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_said_at_once(client, tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device", "/out/c/1")
    message = "^No space left on device: x 1, file=/out/c/1, error=OSError; free some space, then run the same command"
    with pytest.raises(ClusterError, match=message):
        list(run_tasks(client, fails_until, [1], tmp_path, 2, full, name="x"))
    assert len(list(tmp_path.iterdir())) == 1


def deadly(item, folder):
    """Kill the worker that runs it, once an item."""
    if item % 10 == 0:
        try:
            (folder / str(item)).touch(exist_ok=False)
        except FileExistsError:
            return item
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_work_goes_on_when_workers_are_killed(client, tmp_path):
    assert sorted(found for found, _ in run_tasks(client, deadly, range(21), tmp_path, name="x")) == list(range(21))
    assert len(list(tmp_path.iterdir())) == 3


def always_deadly(item):  # noqa: ARG001
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_piece_that_kills_every_worker_ends_the_run(client):
    message = r"^workers keep dying at one piece of work: x 5, tried=4, last worker=tcp://.*fewer --workers or larger"
    with pytest.raises(ClusterError, match=message):
        list(run_tasks(client, always_deadly, [5], name="x"))


def test_which_errors_may_pass():
    class ClientError(Exception):
        pass

    ClientError.__module__ = "botocore.exceptions"
    passing = [
        ConnectionResetError(),
        TimeoutError(),
        OSError(errno.EIO, "x"),
        MemoryError(),
        ClientError(),
        EOFError(),
    ]
    lasting = [OSError(errno.ENOSPC, "x"), PermissionError(errno.EACCES, "x"), FileNotFoundError(errno.ENOENT, "x")]
    assert all(worth_another_try(error) for error in passing)
    assert not any(worth_another_try(error) for error in lasting)
    assert all(environmental(error) for error in passing + lasting)
    assert not any(environmental(error) for error in (ValueError(), VelfieldError(), KeyError()))
    assert "take fewer --workers" in str(in_one_line(MemoryError(), "x 1", 4))
    assert "\n" not in str(in_one_line(OSError("a\nb"), "x 1", 4))


def staged(item):  # noqa: ARG001
    with stage("read", rows=5) as read:
        read.nbytes += 100
        with stage("inner"):
            pass
    return get_worker().address


def test_stages_are_counted(client):
    with watch.reported(client, None, "test", {}) as record:
        workers = {worker for _, worker in run_tasks(client, staged, range(20), name="x")}
    row = record.tasks["x"]
    assert (row["count"], row["retries"]) == (20, 0)
    assert row["stages"]["read"]["bytes"] == 2000
    assert row["stages"]["read"]["rows"] == 100
    assert 0 <= row["stages"]["inner"]["seconds"] < row["stages"]["read"]["seconds"] + 1 < row["seconds"] + 2
    assert set(record.peaks) == workers
    assert all(50e6 < peak < 5e9 for peak in record.peaks.values())


class Cluster:
    """A client whose cluster is as it says, and whose clock is the test's."""

    status, cluster = "running", None

    def __init__(self, workers):
        self.workers, self.scheduler = workers, self
        self.address = "tcp://h:1"

    identity = None

    def sync(self, *_, **__):
        return {"workers": self.workers}


def test_how_far_ahead_follows_the_workers(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now[0])
    cluster = Cluster({})
    workers = Workers(cluster)
    workers.look()
    assert workers.window() == tasks.LEAST_AHEAD  # so that an adaptive cluster has a reason to start some
    assert "waiting for workers: scheduler=tcp://h:1, there are none; giving up in 600 s" in capsys.readouterr().err
    now[0] = 500.0
    cluster.workers = {str(i): {"nthreads": 4, "status": "running"} for i in range(20)}
    workers.look()
    assert workers.window() == tasks.AHEAD * 80
    now[0] = 1000.0
    for worker in cluster.workers.values():
        worker["status"] = "paused"
    workers.look()
    assert "all 20 workers are paused" in capsys.readouterr().err
    now[0] = 1101.0
    with pytest.raises(ClusterError, match=r"no worker works: .*all 20 workers are paused.*waited=601 s; start"):
        workers.look()
    cluster.status = "connecting"
    with pytest.raises(ClusterError, match=r"the Dask scheduler was lost: scheduler=tcp://h:1; start it, then"):
        workers.look()


def test_settings_are_reported_without_secrets():
    given = {
        "halos": "s3://me:pass@host/x",
        "deep": [{"aws_secret_access_key": "k", "url": "https://h/x?sig=1"}],
        "boxes": 2,
        "token": "t",
    }
    assert watch.without_secrets(given) == {
        "halos": "s3://***@host/x",
        "deep": [{"aws_secret_access_key": "***", "url": "https://h/x?***"}],
        "boxes": 2,
        "token": "***",
    }
