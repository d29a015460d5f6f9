"""What a painting or a prediction survives: faults at random points, the same command again, and the bytes compared.

``python tests/benchmarks/failure_matrix.py --times 3 [--verb predict]``; prints a table in Markdown. A fault comes when
a random number of pieces are done: of a painting blocks and shards; of a prediction, by a network with GroupNorm and a
guide of the whole parent, that guide, statistics, rows of tiles and shards. "Finished pieces redone" counts those whose
receipt was there when the run ended and that the second run did not take over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from arbitrary_bundle import bundle

PIECES = {"paint": 8 + 8 + 7, "predict": 1 + 27 + 9 + 7}  # the last are shards of 27 boxes
KINDS = {"paint": ("blocks", "shards"), "predict": ("whole", "norm", "rows", "shards")}
TILES = 3  # of a row
DISK = {"paint": 14_000, "predict": 8_000}  # about what a run takes, its work folder included [KiB]


@dataclass
class Row:
    """What became of one kind of fault."""

    times: int = 0
    survived: int = 0
    statuses: list[int] = field(default_factory=list)
    line: str = ""
    noisy: int = 0
    hung: int = 0
    differing: int = 0
    redone: int = 0
    kept: int = 0


class Matrix:
    """A catalogue, an undisturbed run, and the faults."""

    def __init__(self, folder: Path, seed: int, verb: str) -> None:
        self.folder, self.rng, self.verb = folder, random.Random(seed), verb
        subprocess.run(
            self._velfield("simulate", folder / "sim", "--boxsize", 192, "--particles", 64, "--seed", 7,
                           "--min-halo-mass", 1e12), check=True, capture_output=True,
        )  # fmt: skip
        paint = [
            "--halos", folder / "sim" / "m000-499.fofproperties", "--particles", folder / "sim" / "m000.mpicosmo.499",
            "--boxes", 3, "--cells", 16, "--margin", 2, "--rsd", "random_radial",
            "--assignment", "tsc",
        ]  # fmt: skip
        self.before: list[object] = ["paint"]  # of OUT in the command that is tried
        self.after: list[object] = paint
        if verb == "predict":
            fields = folder / "fields"
            subprocess.run(self._velfield("paint", fields, *paint), check=True, capture_output=True)
            guide = {"name": "linear_whole", "tracers": ["number"], "smoothing": None}
            bundle(str(folder / "model"), str(fields), norm="group", guide=guide)
            self.before = ["predict", folder / "model", fields]
            self.after = ["--tile", 24, "--overlap", 8]
        began = time.monotonic()
        assert self.run(folder / "calm")[0] == 0
        self.seconds = time.monotonic() - began
        self.calm = contents(folder / "calm")

    def start(self, out: Path, *more: object) -> subprocess.Popen:
        command = self._velfield(*self.before, out, *self.after, *(more or ("--workers", 2)))
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def run(self, out: Path) -> tuple[int, str]:
        return self.end(self.start(out))

    def end(self, process: subprocess.Popen) -> tuple[int, str]:
        """Status and messages of a run that must end by itself; status 999 if it does not."""
        try:
            _, err = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return 999, process.communicate()[1]
        return process.returncode, err

    def at_random(self, out: Path, process: subprocess.Popen) -> bool:
        """Wait until a random number of pieces are done; False if the run ended before."""
        pieces = self.rng.randrange(PIECES[self.verb])
        while process.poll() is None:
            if len(self.receipts(out)) >= pieces and list(out.glob(".work/*/job.json")):
                time.sleep(self.rng.uniform(0, 0.2))
                return process.poll() is None
            time.sleep(0.005)
        return False

    def try_once(self, name: str, out: Path, row: Row) -> None:
        process, finish = getattr(self, name)(out)
        status, err = self.end(process)
        row.times += 1
        row.statuses.append(status)
        row.hung += status == 999
        row.noisy += "Traceback" in err
        row.line = next((x for x in err.splitlines() if x.startswith("velfield: ")), row.line)
        finish()
        if status == 0:
            row.survived += 1
        else:
            time.sleep(1)  # workers whose command was killed end by themselves
            there = len(self.receipts(out))
            status, err = self.run(out)
            assert status == 0, err
            said = re.findall(r"^([\w ]+): .*?(\d+) were done before", err, re.MULTILINE)
            before = sum(int(n) // (TILES if stage == "predict tiles" else 1) for stage, n in said)  # a row's tiles
            row.kept += before
            row.redone += there - before
        row.differing += contents(out) != self.calm

    # each starts a run, disturbs it, and says what is to be mended before the next

    def one_worker_killed(self, out: Path):
        process = self.start(out)
        if self.at_random(out, process):
            self.rng.choice(workers_of(process)).kill()
        return process, lambda: None

    def all_workers_killed(self, out: Path):
        process = self.start(out)
        if self.at_random(out, process):
            for worker in workers_of(process):
                worker.kill()
        return process, lambda: None

    def command_killed(self, out: Path):
        return self._signalled(out, signal.SIGKILL)

    def ctrl_c(self, out: Path):
        return self._signalled(out, signal.SIGINT)

    def scheduler_killed(self, out: Path):
        file = out.parent / f"{out.name}.json"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        python = [sys.executable, "-m"]
        scheduler = subprocess.Popen(
            [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
             "--scheduler-file", str(file)], **quiet,
        )  # fmt: skip
        worker = subprocess.Popen(
            [*python, "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "2", "--no-nanny",
             "--no-dashboard", "--local-directory", str(out.parent)], **quiet,
        )  # fmt: skip
        while not file.exists():
            time.sleep(0.05)
        process = self.start(out, "--scheduler", json.loads(file.read_text())["address"])
        self.at_random(out, process)
        scheduler.kill()
        scheduler.wait()

        def finish() -> None:
            worker.kill()
            worker.wait()

        return process, finish

    def full_disk(self, out: Path):
        out.mkdir()
        size = self.rng.randrange(200, DISK[self.verb])
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", out], check=True)
        return self.start(out), lambda: subprocess.run(["mount", "-o", "remount,size=1g", out], check=True)

    def _signalled(self, out: Path, number: int):
        process = self.start(out)
        if self.at_random(out, process):
            # a terminal's Ctrl-C goes to all of a job
            (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
        return process, lambda: None

    def receipts(self, out: Path) -> list[Path]:
        return [path for kind in KINDS[self.verb] for path in out.glob(f".work/*/{kind}/*.json")]

    @staticmethod
    def _velfield(*arguments: object) -> list[str]:
        return [sys.executable, "-m", "velfield", *map(str, arguments)]


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes of a run on this machine."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def contents(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


FAULTS = {
    "one_worker_killed": "SIGKILL to one of two workers",
    "all_workers_killed": "SIGKILL to both workers at once",
    "command_killed": "SIGKILL to the command",
    "ctrl_c": "Ctrl-C",
    "scheduler_killed": "SIGKILL to a remote scheduler",
    "full_disk": "disk full (a tmpfs of random size)",
}


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=FAULTS, nargs="*", default=list(FAULTS))
    parser.add_argument("--verb", choices=PIECES, default="paint")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore Ctrl-C
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        matrix = Matrix(folder, options.seed, options.verb)
        say(f"undisturbed: {matrix.seconds:.0f} s, {PIECES[options.verb]} pieces of work\n")
        say("| injected | times | went on by itself | status else | bytes differ | hung | traceback |"
              " finished pieces kept | redone |\n" + "| --- " * 9 + "|")  # fmt: skip
        lines = {}
        for fault in options.only:
            if fault == "full_disk" and os.geteuid() != 0:
                continue
            row = Row()
            for i in range(options.times):
                out = folder / f"{fault}-{i}"
                try:
                    matrix.try_once(fault, out, row)
                finally:
                    if os.path.ismount(out):
                        subprocess.run(["umount", out], check=True)
            others = sorted({s for s in row.statuses if s})
            say(f"| {FAULTS[fault]} | {row.times} | {row.survived} | {', '.join(map(str, others)) or '–'} |"
                  f" {row.differing} | {row.hung} | {row.noisy} | {row.kept} | {row.redone} |")  # fmt: skip
            lines[fault] = row.line
        for fault, line in lines.items():
            if line:
                say(f"{FAULTS[fault]}: `{line.replace(name, '…')}`")


if __name__ == "__main__":
    main()
