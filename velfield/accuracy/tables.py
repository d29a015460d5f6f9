"""Rows of metrics.json as text: how each measure is shown, and a table that fits a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a measure is shown: its label, its words and unit in a sentence, a scale and decimals, and what is best.

    ``best`` is ``one`` (nearest to ``target``), ``high`` or ``low``; an ``optional`` measure is shown only where a row
    has it.
    """

    name: str
    label: str
    best: str
    words: str = ""  # the label, where there are none
    unit: str = ""
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

    def value(self, row: Mapping[str, Any]) -> str:
        """Mean with its unit, for a sentence."""
        return self.text(row).split("±")[0] + self.unit

    def merit(self, row: Mapping[str, Any]) -> float:
        """The higher the better; −inf where the measure is undefined."""
        mean = (row.get(self.name) or {}).get("mean")
        if mean is None:
            return float("-inf")
        return {"one": -abs(mean - self.target), "high": mean, "low": -mean}[self.best]


ENTRIES = (
    Entry(name="slope", label="slope, pred. on true", words="slope", best="one"),
    Entry(name="slope_inverse", label="slope, true on pred.", words="slope of true on predicted", best="one"),
    Entry(
        name="residuals_200",
        label="< 200 km/s [%]",
        words="residuals below 200 km/s",
        unit="\u00a0%",
        best="high",
        scale=100,
        decimals=1,
    ),
    Entry(name="cos_theta", label="cos θ", best="high"),
    Entry(name="coherence", label="coherence Γ", best="one"),
    Entry(name="coherence_median", label="Γ, median", words="median Γ", best="one"),
    Entry(name="r", label="r", best="high"),
    Entry(name="rms", label="rms error [km/s]", words="rms error", unit="\u00a0km/s", best="low", decimals=0),
    Entry(
        name="rms_dense",
        label="rms, δ > 2 [km/s]",
        words="rms error where δ > 2",
        unit="\u00a0km/s",
        best="low",
        decimals=0,
        optional=True,
    ),
    Entry(name="cos_theta_centre", label="cos θ, centre", words="cos θ at the centre", best="high"),
    Entry(name="cos_theta_edge", label="cos θ, edge", words="cos θ at the edge", best="high"),
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
HEADLINE = ("slope", "residuals_200", "cos_theta", "r", "rms")  # those that the paper claims to gain in, r and error
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
