"""Rows of metrics.json as text: a table that fits a terminal, and the sentences that sum it up."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a measure is shown: its label, a scale and decimals, and what is best.

    ``best`` is ``one`` (nearest to ``target``), ``high`` or ``low``; an ``optional`` measure is shown only where a row
    has it.
    """

    name: str
    label: str
    best: str
    scale: float = 1.0
    decimals: int = 2
    target: float = 1.0
    optional: bool = False

    def text(self, row: Mapping[str, Any]) -> str:
        """Mean ± scatter over boxes; the scatter is left out where there is one box."""
        value = row.get(self.name) or {}
        mean, std = value.get("mean"), value.get("std")
        if mean is None:
            return "–"
        shown = f"{mean * self.scale:.{self.decimals}f}"
        return shown if std is None else f"{shown}±{std * self.scale:.{self.decimals}f}"

    def merit(self, row: Mapping[str, Any]) -> float:
        """The higher the better; −inf where the measure is undefined."""
        mean = (row.get(self.name) or {}).get("mean")
        if mean is None:
            return float("-inf")
        return {"one": -abs(mean - self.target), "high": mean, "low": -mean}[self.best]


ENTRIES = (
    Entry(name="slope", label="slope, pred. on true", best="one"),
    Entry(name="slope_inverse", label="slope, true on pred.", best="one"),
    Entry(name="residuals_200", label="< 200 km/s [%]", best="high", scale=100, decimals=1),
    Entry(name="cos_theta", label="cos θ", best="high"),
    Entry(name="coherence", label="coherence Γ", best="one"),
    Entry(name="coherence_median", label="Γ, median", best="one"),
    Entry(name="r", label="r", best="high"),
    Entry(name="rms", label="rms error [km/s]", best="low", decimals=0),
    Entry(name="rms_dense", label="rms, δ > 2 [km/s]", best="low", decimals=0, optional=True),
    Entry(name="cos_theta_centre", label="cos θ, centre", best="high"),
    Entry(name="cos_theta_edge", label="cos θ, edge", best="high"),
    Entry(
        name="coverage_68", label="within 68 % bars [%]", best="one", scale=100, decimals=1, target=0.68, optional=True
    ),
    Entry(
        name="coverage_95", label="within 95 % bars [%]", best="one", scale=100, decimals=1, target=0.95, optional=True
    ),
    Entry(name="chi2", label="χ² of error bars", best="one", optional=True),
)
UNLISTED = {  # measures that no table of an evaluation has, but comparisons and experiments show
    "cos_dense": Entry(name="cos_dense", label="cos θ, δ > 2", best="high"),
    "residuals_100": Entry(name="residuals_100", label="< 100 km/s [%]", best="high", scale=100, decimals=1),
}
HEADLINE = {  # the measures that the paper claims to gain in, and r
    "slope": "slope",
    "residuals_200": "residuals below 200 km/s",
    "cos_theta": "cos θ",
    "r": "r",
}
OPPONENTS = {  # of the network in the headline, as sentences call them
    "linear": "the paper's FFT",
    "linear_padded": "the zero-padded FFT, which is given the dark matter itself in real space",
    "linear_halo_padded": "linear theory that sees the same halos",
    "linear_whole": "linear theory that sees the halos of the whole volume",
}
SURE = 2.0  # standard errors: a smaller difference is none
MINUS = "\u2212"
BY_NAME = {entry.name: entry for entry in ENTRIES}


def entry_of(name: str, best: str = "one") -> Entry:
    """How a measure is shown: that of a part as that of the whole; one of which only ``best`` is known, plainly."""
    whole, _, part = name.rpartition("_")
    if name not in BY_NAME and whole in BY_NAME:
        return replace(BY_NAME[whole], name=name, label=f"{BY_NAME[whole].label}, {part}")
    return BY_NAME.get(name) or UNLISTED.get(name) or Entry(name=name, label=name, best=best)


def entries_of(rows: Rows) -> list[Entry]:
    """The measures that a table of these rows shows."""
    return [
        e
        for e in ENTRIES
        if not e.optional or any((row.get(e.name) or {}).get("mean") is not None for row in rows.values())
    ]


def best(entry: Entry, rows: Rows) -> set[str]:
    """The models whose value, as shown, is the best of several."""
    if len(rows) < 2:
        return set()
    top = max(rows.values(), key=entry.merit)
    if entry.merit(top) == float("-inf"):
        return set()
    shown = entry.text(top).split("±")[0]
    return {name for name, row in rows.items() if entry.text(row).split("±")[0] == shown}


def table(metrics: Rows, width: int | None = 80) -> str:
    """A Markdown table: a line for each measure, a column for each model, mean±scatter over boxes, ``*`` at the best.

    Where it would be wider than ``width`` columns the models are spread over several tables.
    """
    blocks, names = [], list(metrics)
    while names:
        n = len(names)
        while n > 1 and width is not None and _width(metrics, names[:n]) > width:
            n -= 1
        blocks.append(_block(metrics, names[:n]))
        names = names[n:]
    return "\n\n".join(blocks)


def headline(metrics: Rows, model: str = "unet") -> list[str]:
    """What a reader should know first: where the network is ahead of the linear rows, where behind, where level.

    Plain sentences; one that has no row to speak of is left out. Two rows are compared box by box (`difference`), and
    the difference and its standard error stand behind their values; positive is better.
    """
    if model not in metrics:
        return []
    sentences = []
    for other, name in OPPONENTS.items():
        if other not in metrics:
            continue
        ahead, behind, level = _sides(metrics, model, other)
        if other == "linear":
            total = len(HEADLINE)
            count = {0: f"none of the {total}", total: f"all {total}"}.get(len(ahead), f"{len(ahead)} of {total}")
            sentences.append(f"The U-Net beats the paper's FFT on {count} measures.")
        numbers = functools.partial(_numbers, metrics, model, other)
        if ahead:
            sentences.append(f"The U-Net is ahead of {name}: {numbers(ahead)}.")
        if behind:
            sentences.append(f"The U-Net is behind {name}: {numbers(behind)}.")
        if level:
            sentences.append(f"The U-Net is level with {name}: {numbers(level)}.")
    return sentences


def difference(entry: Entry, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[float, float] | None:
    """How much better ``mine`` is than ``theirs``: mean over the same boxes of the differences, and its standard error.

    Differences count towards what is best: for a measure that is best at 1 each row's distance from 1, on the side of
    its mean. Boxes of one universe share its long waves, so the error is rather too small. None where the rows do not
    hold the values of at least two boxes.
    """
    one, other = ((row.get(entry.name) or {}).get("boxes") or [] for row in (mine, theirs))
    if len(one) != len(other):
        return None
    pairs = np.array([(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None], dtype=float)
    if len(pairs) < 2:
        return None
    if entry.best == "one":
        pairs = -(pairs - entry.target) * np.sign(pairs.mean(0) - entry.target)
    elif entry.best == "low":
        pairs = -pairs
    better = pairs[:, 0] - pairs[:, 1]
    return float(better.mean()), float(better.std(ddof=1) / np.sqrt(len(better)))


def _sides(metrics: Rows, model: str, other: str) -> tuple[list[str], list[str], list[str]]:
    """The headline's measures in which ``model`` is better than ``other``, worse, and level.

    Level is what differs by less than `SURE` standard errors, or, where boxes are not known, what looks the same.
    """
    sides: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in HEADLINE:
        entry = BY_NAME[name]
        mine, theirs = (entry.merit(metrics[n]) for n in (model, other))
        found = difference(entry, metrics[model], metrics[other])
        if found is None:
            level, better = _bare(metrics[model], name) == _bare(metrics[other], name) or mine == theirs, mine > theirs
        else:
            level, better = abs(found[0]) <= SURE * found[1], found[0] > 0
        sides[2 if level else int(not better)].append(name)
    return sides


def _numbers(metrics: Rows, first: str, second: str, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        entry = BY_NAME[name]
        text = f"{HEADLINE[name]} {_bare(metrics[first], name)} against {_bare(metrics[second], name)}"
        found = difference(entry, metrics[first], metrics[second])
        if found is not None:
            better, error = (
                f"{found[0] * entry.scale:+.{entry.decimals}f}",
                f"{found[1] * entry.scale:.{entry.decimals}f}",
            )
            text += f" ({better.replace('-', MINUS)} ± {error})"
        parts.append(text)
    return ", ".join(parts)


def _bare(row: Mapping[str, Any], name: str) -> str:
    entry = BY_NAME[name]
    return entry.text(row).split("±")[0] + ("\u00a0%" if entry.scale == 100 else "")


def _cells(metrics: Rows, names: Sequence[str]) -> list[list[str]]:
    lines = [["mean±scatter of boxes", *names]]
    for entry in entries_of(metrics):
        winners = best(entry, metrics)
        lines.append([entry.label, *(entry.text(metrics[n]) + ("*" if n in winners else "") for n in names)])
    return lines


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]


def _width(metrics: Rows, names: Sequence[str]) -> int:
    widths = _widths(_cells(metrics, names))
    return sum(widths) + 3 * len(widths) + 1


def _block(metrics: Rows, names: Sequence[str]) -> str:
    lines = _cells(metrics, names)
    widths = _widths(lines)
    padded = []
    for line in lines:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        padded.append(f"| {' | '.join(cells)} |")
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])
