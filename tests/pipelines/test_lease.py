"""Two runs on one output: one goes on, the other says who is there; what a killed run leaves does not count."""

import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from velfield.errors import StoreError
from velfield.files import storage
from velfield.pipelines import lease
from velfield.pipelines.receipts import Receipts


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lease, "REFRESH", 0.1)
    monkeypatch.setattr(lease, "STALE", 1.0)


@pytest.fixture(params=["disk", "memory"])
def receipts(request, tmp_path):
    out = str(tmp_path / "out") if request.param == "disk" else f"memory://{tmp_path.name}/out"
    return Receipts(out=out, fingerprint="ab" * 32)


def leases(receipts):
    return [name for name in storage.names(receipts.work) if name.startswith("run-")]


def left_by(receipts, **changes):
    """Leave a lease as a run that was killed would."""
    content = lease._content() | changes
    storage.write_json(storage.join(receipts.work, "run-0123.json"), content)
    return content


def test_a_lease_lasts_as_long_as_the_run_and_is_refreshed(receipts):
    with lease.hold(receipts) as held:
        (name,) = leases(receipts)
        first = storage.read_json(storage.join(receipts.work, name))
        assert (first["pid"], first["host"]) == (os.getpid(), lease.socket.gethostname())
        time.sleep(0.4)
        held.check()
        now = storage.read_json(storage.join(receipts.work, name))
        assert now["refreshed"] > first["refreshed"]
        assert now["started"] == first["started"]
    assert storage.names(receipts.out) == []


def test_the_second_run_says_who_is_there(receipts):
    message = rf"^another run is making this store: out=.*/out, host=.*, pid={os.getpid()}, since=20.*; wait for it, or"
    with lease.hold(receipts):
        with pytest.raises(StoreError, match=message), lease.hold(receipts):
            pass
        assert len(leases(receipts)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a place where no folder can be made, even by root")
def test_a_place_where_no_folder_can_be_made_is_no_other_run(monkeypatch):
    monkeypatch.setattr(lease.time, "sleep", lambda _: None)
    nowhere = Receipts(out="/proc/velfield", fingerprint="ab" * 32)
    with pytest.raises(StoreError, match="no folder can be made here: out=/proc/velfield; name another place"):
        lease._take(nowhere)


def test_a_killed_run_of_this_machine_does_not_count(receipts):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        born = psutil.Process(process.pid).create_time()
    left_by(receipts, pid=process.pid, born=born)
    with lease.hold(receipts):
        assert len(leases(receipts)) == 1
    left_by(receipts, born=1.0)  # the number is another process's by now
    with lease.hold(receipts):
        assert len(leases(receipts)) == 1


def test_another_machine_lives_while_its_lease_changes(receipts):
    content = left_by(receipts, machine="elsewhere", host="elsewhere", pid=7)
    over = threading.Event()

    def refresh():
        n = 0
        while not over.wait(0.1):
            n += 1
            storage.write_json(storage.join(receipts.work, "run-0123.json"), content | {"refreshed": n})

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        with pytest.raises(StoreError, match=r"host=elsewhere, pid=7"), lease.hold(receipts):
            pass
    finally:
        over.set()
        thread.join()
    began = time.monotonic()
    with lease.hold(receipts):  # nobody refreshes it any more
        assert time.monotonic() - began >= lease.STALE
        assert len(leases(receipts)) == 1


def test_of_many_that_start_together_one_runs_at_a_time(receipts):
    inside, most, outcomes, start = [], [], [], threading.Barrier(6)

    def run(i):
        start.wait()
        try:
            with lease.hold(receipts):
                inside.append(i)
                most.append(len(inside))
                time.sleep(0.3)
                inside.remove(i)
            outcomes.append("ran")
        except StoreError:
            outcomes.append("refused")

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most, default=1) == 1
    assert len(outcomes) == 6


def test_a_run_that_was_taken_for_dead_stops(receipts):
    with lease.hold(receipts) as held:
        storage.remove(held.url)
        with pytest.raises(StoreError, match="another run has taken over"):
            held.check()
        time.sleep(0.3)
        assert leases(receipts) == []  # it does not come back


def test_half_a_receipt_is_none(receipts):
    storage.write_bytes(storage.join(receipts.work, "blocks", "halos-000001.json"), b'{"read": 1')
    receipts.leave({"read": 2}, "blocks", "halos-000002")
    assert receipts.find("blocks", "halos-000001") is None
    assert receipts.find("blocks", "halos-000003") is None
    assert receipts.all("blocks") == {"halos-000002": {"read": 2, "stages": {}}}
    assert receipts.all("shards") == {}
