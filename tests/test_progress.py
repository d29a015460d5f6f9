"""Progress: lines where there is no terminal."""

import io

import pytest
from rich.console import Console

from velfield.progress import Silent, Terminal


def test_lines_carry_count_rate_and_time_left(capsys):
    with Terminal(every=0.0) as progress:
        progress.start("paint", 4, "boxes")
        progress.advance(2, "shard 1")
        progress.done("all well")
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("paint: 2/4 boxes, ")
    assert "boxes/s, " in first
    assert first.endswith("s left, shard 1")
    assert last.startswith("paint: done in ")
    assert last.endswith("all well")


def test_a_stage_that_is_interrupted_says_where(capsys):
    def stopped():
        with Terminal() as progress:
            progress.start("train", 400, "steps")
            progress.advance(7)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "train: stopped at 7 of 400 steps" in capsys.readouterr().err


def test_what_was_done_before_counts_but_not_for_the_rate(capsys, monkeypatch):
    clock = iter([0.0, 4.0, 4.0, 4.0, 4.0])
    monkeypatch.setattr("velfield.progress.time.monotonic", lambda: next(clock))
    with Terminal(every=0.0) as progress:
        progress.start("train", 30, "steps", before=14)
        progress.advance(2)
    assert capsys.readouterr().err.startswith("train: 16/30 steps, 0.5 steps/s, 28 s left\n")


def test_a_new_stage_ends_the_one_before(capsys):
    with Terminal() as progress:
        progress.start("a", 1, "x")
        progress.start("b", 1, "x")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["a", "b"]


@pytest.mark.parametrize("width", [40, 120])
def test_a_bar_on_a_terminal(width, capsys):
    progress = Terminal()
    screen = io.StringIO()
    progress.console = Console(file=screen, force_terminal=True, width=width)
    with progress:
        progress.start("paint", 4, "boxes")
        progress.advance(4, "note")
    assert "paint" in screen.getvalue()
    assert "100%" in screen.getvalue()
    assert "paint: done" in capsys.readouterr().err


def test_silence():
    quiet = Silent()
    quiet.start("a", 1, "x")
    quiet.advance()
    quiet.done()
