"""Progress: lines where there is no terminal."""

import io
import re

import pytest
from rich.console import Console

from velfield.files.progress import Silent, Terminal, short


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
    monkeypatch.setattr("velfield.files.progress.time.monotonic", lambda: next(clock))
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


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_bar_stays_on_its_line(width):
    progress = Terminal()
    screen = io.StringIO()
    progress.console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    with progress:
        progress.start("paint blocks", 1e9, "particles")
        for done in range(1, 4):
            progress.advance(3e8, f"{done}00/1200 blocks", nbytes=7e9)
            progress.bar.refresh()
    frames = re.split(r"\r|\n|\x1b\[[0-9;?]*[A-Za-z]", screen.getvalue())
    assert max(map(len, frames)) <= width
    last = [frame for frame in frames if frame.startswith("paint blocks")][-1]
    assert "90%" in last
    assert "300/1200 blocks" in last
    assert "MB/s" in last
    assert screen.getvalue().count("\n") <= 2


def test_rates_of_bytes_and_units(capsys):
    with Terminal(every=0.0) as progress:
        progress.start("paint blocks", 2e6, "particles")
        progress.advance(1.5e6, "3/4 blocks", nbytes=36e6)
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"paint blocks: 1.5M/2M particles, [\d.e+]+ MB/s, [\d.]+[kMGT]? particles/s, 0 s left, 3/4 blocks", first
    )
    assert re.fullmatch(r"paint blocks: done in 0.0 s, 3/4 blocks, .* MB/s, .* particles/s", last)


def test_a_total_that_nobody_knows(capsys):
    with pytest.raises(KeyError), Terminal(every=0.0) as progress:  # noqa: PT012
        progress.start("query", float("nan"), "rows")
        progress.advance(1500)
        raise KeyError
    first, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"query: 1500 rows, [\d.]+[kMGT]? rows/s", first)
    assert re.fullmatch(r"query: stopped at 1500 rows in 0.0 s", last)


def test_a_total_that_nobody_knows_is_no_percentage_on_a_terminal():
    screen = io.StringIO()
    with Terminal() as progress:
        progress.console = Console(file=screen, force_terminal=True, width=60, color_system=None)
        progress.start("query", float("nan"), "rows")
        progress.advance(131072)
        progress.bar.refresh()
        assert "131k rows" in screen.getvalue()
        assert "%" not in screen.getvalue()


def test_before_the_first_unit_there_is_no_rate_and_no_time_left(capsys):
    with Terminal(every=0) as progress:
        progress.start("train", 40_000, "steps")
        progress.advance(0)
    assert capsys.readouterr().err.splitlines()[0] == "train: 0/40k steps"


def test_numbers_are_short():
    found = [short(x) for x in (0, 7, 9999, 0.51, 10000, 123456, 999600, 1.073741824e12, 4e15)]
    assert found == ["0", "7", "9999", "0.51", "10k", "123k", "1M", "1.07T", "4e+03T"]


def test_silence():
    quiet = Silent()
    quiet.start("a", 1, "x")
    quiet.advance()
    quiet.done()
