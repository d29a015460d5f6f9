"""Damaged GenericIO files: read, or refused with our own error. The long run is tests/benchmarks/fuzz_genericio.py."""

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from genericio_mutations import KINDS, exercise, mutate, samples

from velfield.catalogues import genericio

CASES = 300
SEED = 7


@pytest.fixture(scope="module")
def originals():
    return samples()


def run(originals, seed, case):
    name, files, kind, repaired = mutate(originals, seed, case)
    outcome, said = exercise(name, files, np.random.default_rng([seed, case, 1]))
    assert "\n" not in said
    assert "does not fit in memory" not in said, "an absurd count reached an allocation"
    return kind, repaired, outcome


def test_undamaged_samples_are_read(originals):
    for name, files in originals.items():
        assert exercise(name, files, np.random.default_rng(0)) == ("read", ""), name


def test_damage_is_read_or_refused(originals):
    run(originals, SEED, 0)  # compiled and imported, before memory is watched
    tracemalloc.start()
    counts = Counter(run(originals, SEED, case) for case in range(CASES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20  # bytes; the largest sample has 0.45 MB
    assert {kind for kind, _, _ in counts} == set(KINDS)
    outcomes = Counter(outcome for (_, repaired, outcome), n in counts.items() for _ in range(n) if repaired)
    assert min(outcomes[o] for o in ("read", "refused when opened", "refused when read")) > CASES / 30  # all paths


def test_the_same_case_is_the_same_damage(originals):
    assert mutate(originals, 3, 5) == mutate(originals, 3, 5)
    assert mutate(originals, 3, 5)[1] != mutate(originals, 3, 6)[1]


def test_an_error_of_another_kind_is_not_swallowed(originals, monkeypatch):
    def broken(*_, **__):
        raise IndexError("out of range")

    monkeypatch.setattr(genericio.GenericIO, "stored_bytes", broken)
    with pytest.raises(IndexError):
        exercise("one", originals["one"], np.random.default_rng(0))
