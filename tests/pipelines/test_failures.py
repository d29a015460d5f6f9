"""Runs that are cut short: one line and a status, nothing torn, nothing done twice, and the same bytes in the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it, and their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

MOCK = Path(__file__).parent.parent / "data" / "mock-outer-rim"
HALOS, PARTICLES = str(MOCK / "m000-499.fofproperties"), str(MOCK / "m000.mpicosmo.499")
SMALL = ["--particles", PARTICLES, "--boxes", "3", "--cells", "8"]
LONG = ["--halos", HALOS, "--particles", PARTICLES, "--boxes", "3", "--cells", "16", "--margin", "2", "--rsd",
        "random_radial", "--assignment", "tsc"]  # fmt: skip


def velfield(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "velfield", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, **options,
    )  # fmt: skip


def ended(process, seconds=120):
    """Status and lines of a process that must end by itself."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"it hangs: {err}")
    return process.returncode, out.splitlines(), err.splitlines()


def said(lines):
    """The one line of ours; and there must be no traceback, nor Dask's log."""
    assert not [line for line in lines if "Traceback" in line or "distributed." in line], "\n".join(lines)
    (line,) = [line for line in lines if line.startswith("velfield: ")]
    return line


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def until(condition, process=None, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to that"
        assert process is None or process.poll() is None, f"it ended before: {process.communicate()}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What undisturbed runs make, by their options."""
    made = {}

    def of(options):
        key = " ".join(options)
        if key not in made:
            out = tmp_path_factory.mktemp("calm") / "f"
            status, _, err = ended(velfield("paint", out, *options, "--workers", 2))
            assert status == 0, err
            made[key] = files(out)
        return made[key]

    return of


class Scheduler:
    """``dask scheduler`` and ``dask worker`` as processes of their own on loopback ports."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"
        self.process = self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                                   "--scheduler-file", self.file)  # fmt: skip
        until(self.file.exists, self.process)
        self.address = json.loads(self.file.read_text())["address"]

    def worker(self, threads=1):
        return self._start("worker", self.address, "--nthreads", threads, "--no-nanny", "--no-dashboard",
                           "--local-directory", self.folder)  # fmt: skip

    def _start(self, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *map(str, arguments[1:])],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def end(self):
        for process in self.processes[::-1]:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    cluster = Scheduler(tmp_path)
    yield cluster
    cluster.end()


@pytest.mark.slow
def test_workers_join_and_leave_while_it_runs(cluster, calm, tmp_path):
    out = tmp_path / "f"
    process = velfield("paint", out, *LONG, "--scheduler", cluster.address, "--report", tmp_path / "r.html")
    first = []
    until(lambda: list(out.glob(".work/*/job.json")), process)  # there is no worker yet, and it waits for one
    first.append(cluster.worker())
    until(lambda: list(out.glob(".work/*/blocks/*.json")), process)
    cluster.worker(threads=2)
    first[0].kill()
    first[0].wait()
    until(lambda: list(out.glob(".work/*/shards/*.json")), process, seconds=120)
    cluster.worker()
    status, _, err = ended(process)
    assert status == 0, err
    assert any(line.startswith("waiting for workers: scheduler=tcp://127.0.0.1:") for line in err)
    assert not any("Traceback" in line for line in err)
    assert files(out) == calm(LONG)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["workers"]["came"] >= 2
    assert report["workers"]["went"] >= 1


@pytest.mark.slow
def test_a_lost_scheduler_ends_the_run(cluster, calm, tmp_path):
    out = tmp_path / "f"
    cluster.worker(threads=2)
    process = velfield("paint", out, *LONG, "--scheduler", cluster.address)
    until(lambda: list(out.glob(".work/*/blocks/*.json")), process)
    cluster.process.kill()
    status, _, err = ended(process, seconds=60)
    assert status == 1
    assert said(err).startswith(f"velfield: the Dask scheduler was lost: scheduler={cluster.address}; start it,")
    status, _, err = ended(velfield("paint", out, *LONG, "--workers", 2))
    assert status == 0, err
    assert "were done before" in "\n".join(err)
    assert files(out) == calm(LONG)


@pytest.mark.slow
def test_no_worker_for_long_ends_the_run(cluster, tmp_path):
    process = velfield("paint", tmp_path / "f", *SMALL, "--scheduler", cluster.address, "--wait", 3)
    status, _, err = ended(process, seconds=60)
    assert status == 1
    assert said(err).startswith(f"velfield: no worker works: scheduler={cluster.address}, there are none, waited=")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["start", "blocks", "shards"])
def test_ctrl_c_at_any_point(calm, tmp_path, stage):
    out = tmp_path / "f"
    process = velfield("paint", out, *LONG, "--workers", 2)
    if stage == "start":
        time.sleep(2.5)
    else:
        until(lambda: list(out.glob(f".work/*/{stage}/*.json")), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of the job
    status, _, err = ended(process, seconds=60)
    assert status == 130
    assert said(err) == "velfield: interrupted; run the same command again to go on"
    assert not list(out.glob(".work/*/run-*.json"))
    assert ended(velfield("paint", out, *LONG, "--workers", 2))[0] == 0
    assert files(out) == calm(LONG)


@pytest.mark.slow
def test_the_same_command_twice_at_once(calm, tmp_path):
    out = tmp_path / "f"
    one = velfield("paint", out, *LONG, "--workers", 1)
    until(lambda: list(out.glob(".work/*/job.json")), one)
    one.send_signal(signal.SIGSTOP)  # so that it is not done before the other has begun
    status, _, err = ended(velfield("paint", out, *LONG, "--workers", 1))
    one.send_signal(signal.SIGCONT)
    assert status == 2
    assert f"another run is making this store: out={out}, host=" in said(err)
    assert f"pid={one.pid}" in said(err)
    assert ended(one)[0] == 0
    assert files(out) == calm(LONG)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system")
@pytest.mark.parametrize("kib", [700, 3500])
def test_a_full_disk(calm, tmp_path, kib):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", disk], check=False)
    if mount.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        status, _, err = ended(velfield("paint", disk / "f", *LONG, "--workers", 2))
        assert status == 1
        line = said(err)
        assert "No space left on device" in line
        assert line.endswith("free some space, then run the same command again to go on")
        assert not list(disk.rglob("*.part*"))
        done = sum(bool(path.read_bytes()) for path in disk.glob("f/.work/*/blocks/*.json"))
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        status, _, err = ended(velfield("paint", disk / "f", *LONG, "--workers", 2))
        assert status == 0, err
        assert kib < 1000 or done  # a small disk may be full before the first block is done
        assert (f" {done} were done before" in "\n".join(err)) == (done > 0)
        assert files(disk / "f") == calm(LONG)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_threads_in_a_worker_and_a_report(calm, tmp_path):
    status, _, err = ended(
        velfield("paint", tmp_path / "f", *SMALL, "--workers", 1, "--threads", 3, "--report", tmp_path / "r.html")
    )
    assert status == 0, err
    assert "(1 workers, 3 threads)" in "\n".join(err)
    assert files(tmp_path / "f") == calm(SMALL)
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["command"], report["finished"], report["error"]) == ("paint", True, None)
    assert report["settings"]["boxes"] == 3
    assert set(report["tasks"]) == {"read-paint", "assemble-write"}
    assert set(report["stages"]) == {"read", "paint", "assemble", "write"}
    assert report["stages"]["read"]["rows"] == 167772
    assert report["stages"]["read"]["bytes"] > 1e6  # compressed
    assert report["rates"]["read_bytes_per_second"] > 0
    assert report["threads"] == 3
    (peak,) = report["worker_peak_memory"].values()
    assert 1e8 < peak < 4e9
    assert report["scheduler"]["peak_memory"] > 1e7
    assert report["scheduler"]["in_the_commands_process"]
    assert report["workers"] == {"worked": 1, "came": 0, "went": 0}
    assert "Dask Performance Report" in (tmp_path / "r.html").read_text()


def test_a_report_has_an_html_name(tmp_path):
    status, _, err = ended(velfield("paint", tmp_path / "f", *SMALL, "--report", tmp_path / "r.txt"))
    assert status == 2
    assert said(err).startswith("velfield: not a name for a report: report=")
