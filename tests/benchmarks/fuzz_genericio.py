"""Damaged GenericIO files by the hundred thousand: read, or refused with our own error; no crash, hang or huge memory.

    python tests/benchmarks/fuzz_genericio.py --mutations 100000 --seed 1

Each case damages one sample (tests/genericio_mutations.py), opens it and reads it in every way. Cases run in processes
of their own, with 256 MiB more address space than they begin with and 20 s for a case. Exit 0 if nothing else than
CatalogueError came out; otherwise the cases are listed, and ``--case N`` runs one of them here.
"""
# ruff: noqa: T201 - a table for people

import argparse
import multiprocessing
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from genericio_mutations import KINDS, exercise, mutate, samples

ROOM = 256 * 2**20  # bytes beyond what a process needs before the first case; the samples have up to 0.45 MB
LIMIT = 20.0  # s a case; most take some milliseconds


def one(originals, seed, case):
    """Run a case: kind of the damage, whether repaired, what came of it, what went wrong (None if nothing)."""
    name, files, kind, repaired = mutate(originals, seed, case)
    try:
        outcome, said = exercise(name, files, np.random.default_rng([seed, case, 1]))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        wrong = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno}, sample {name})"
        return kind, repaired, "another error", wrong
    if "\n" in said or "does not fit in memory" in said:
        return kind, repaired, "another error", f"{said} (sample {name})"
    return kind, repaired, outcome, None


def work(seed, first, stop, step, now, sender):
    """Run every ``step``-th case; ``now`` tells the parent which one, and since when."""
    originals = samples()
    one(originals, seed, first)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts, failures = Counter(), []
    for case in range(first, stop, step):
        now[0], now[1] = case, time.monotonic()
        kind, repaired, outcome, wrong = one(originals, seed, case)
        counts[kind, repaired, outcome] += 1
        if wrong:
            failures.append((case, wrong))
        if case // step % 100 == 0 or case + step >= stop:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            sender.send((counts, failures, grown))
            counts, failures = Counter(), []
    now[0] = stop


class Worker:
    """A process that runs cases, and is replaced where one of them ends it."""

    def __init__(self, seed, first, stop, step):
        self.seed, self.stop, self.step = seed, stop, step
        self.counts, self.failures, self.grown = Counter(), [], 0
        self.start(first)

    def start(self, first):
        """Begin, or go on behind a case that was the end of the process."""
        context = multiprocessing.get_context("spawn")
        self.now = context.Array("d", [first, time.monotonic() + 60])  # importing takes a while
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(self.seed, first, self.stop, self.step, self.now, sender))
        self.process.start()
        sender.close()

    def watch(self):
        """Take what came in; look after the process. Returns whether it still has cases to run."""
        try:
            while self.receiver.poll():
                counts, failures, grown = self.receiver.recv()
                self.counts += counts
                self.failures += failures
                self.grown = max(self.grown, grown)
        except EOFError:
            pass
        case, since = int(self.now[0]), self.now[1]
        if self.process.is_alive() and time.monotonic() - since < LIMIT:
            return True
        if self.process.is_alive():
            self.process.kill()
            self.failures.append((case, f"hangs: longer than {LIMIT:.0f} s"))
        self.process.join()
        if self.process.exitcode == 0 and case >= self.stop:
            return False
        if self.process.exitcode != -9:
            self.failures.append((case, f"crash: exit status {self.process.exitcode}"))
        if case + self.step >= self.stop:
            return False
        self.start(case + self.step)
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    if options.case is not None:
        name, files, kind, repaired = mutate(samples(), options.seed, options.case)
        print(name, kind, "checksums right" if repaired else "checksums broken")
        print(*exercise(name, files, np.random.default_rng([options.seed, options.case, 1])), sep=": ")
        return 0
    begun = time.monotonic()
    workers = [Worker(options.seed, w, options.mutations, options.workers) for w in range(options.workers)]
    running = list(workers)
    while running:
        time.sleep(0.2)
        running = [worker for worker in running if worker.watch()]
        done = sum(worker.counts.total() for worker in workers)
        print(f"\r{done:,} of {options.mutations:,}", end="", file=sys.stderr, flush=True)
    counts = sum((worker.counts for worker in workers), Counter())
    failures = sorted(failure for worker in workers for failure in worker.failures)
    took = time.monotonic() - begun
    print(f"\n{counts.total():,} cases, seed {options.seed}, {took:.0f} s with {options.workers} workers")
    print(f"resident memory grew by at most {max(w.grown for w in workers) / 1024:.0f} MiB a process")
    outcomes = ("read", "refused when opened", "refused when read", "another error")
    print("| damage | checksums | " + " | ".join(outcomes) + " |\n| --- | --- |" + " --- |" * len(outcomes))
    for kind in KINDS:
        for repaired in (False, True):
            row = [counts[kind, repaired, outcome] for outcome in outcomes]
            print(f"| {kind} | {'right' if repaired else 'broken'} | " + " | ".join(f"{n:,}" for n in row) + " |")
    print(f"crashes, hangs and other errors: {len(failures)}")
    for case, wrong in failures[:50]:
        print(f"  case {case}: {wrong}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
