"""Figures of an experiment: every row's measures, and its errors by distance to the nearest face of the box.

``results`` are those of results.json, ``measured`` each row's measures as metrics.json has them, in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from velfield.accuracy.tables import Entry
from velfield.analysis.figure_style import LENGTH, STYLE, VELOCITY, legend_above

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D1F", "#555555")  # Okabe and Ito's
DASHES: Sequence[Any] = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)), (0, (6, 2)))
ACROSS = 4  # panels in a line


def palette(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each row, the same in all figures of an experiment."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(labels)}


def measures(results: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each measure: mean and scatter of a box for every row, and the paper's value where there is one."""
    entries = [Entry(**entry) for entry in results["measures"]]
    rows = results["rows"]
    labels = [row["label"] for row in rows]
    colours = palette(labels)
    lines = -(-len(entries) // ACROSS)
    across = min(ACROSS, len(entries))
    y = -np.arange(len(rows))
    with matplotlib.rc_context(STYLE):
        size = (2.5 * across + 0.075 * max(map(len, labels)) + 0.3, lines * (0.32 * len(rows) + 1.0) + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(lines, across, sharey=True, squeeze=False)
        for ax in axes.flat[len(entries) :]:
            ax.set_visible(False)
        for ax, entry in zip(axes.flat, entries, strict=False):
            for place, row, values in zip(y, rows, measured, strict=True):
                value = values.get(entry.name) or {}
                if value.get("mean") is not None:
                    scatter = None if value.get("std") is None else value["std"] * entry.scale
                    ax.errorbar(
                        value["mean"] * entry.scale, place, xerr=scatter, color=colours[row["label"]], fmt="o", ms=5
                    )
                if entry.name in row["paper"]:
                    paper = row["paper"][entry.name] * entry.scale
                    ax.plot(paper, place, marker="D", ms=6, mfc="none", mec="#222222", ls="none", label="paper")
            if entry.best == "one":
                ax.axvline(entry.target * entry.scale, color="#666666", lw=1, ls=":")
            ax.set_title(entry.label)
            ax.set_yticks(y, labels)
            ax.set_ylim(y[-1] - 0.6, 0.6)
            ax.grid(axis="y", color="#e4e4e4", lw=0.8)
            ax.set_axisbelow(True)
            ax.tick_params(axis="y", length=0)
            ax.xaxis.set_major_locator(MaxNLocator(4))
        if any(row["paper"] for row in rows):
            with_paper = next(ax for ax in axes.flat if ax.get_legend_handles_labels()[0])
            handle = with_paper.get_legend_handles_labels()[0][0]
            figure.legend([handle], ["the paper's value"], loc="outside lower right")
        figure.text(0.01, 0.01, "bars: scatter of a box", fontsize=9, color="#444444")
    return figure


def depth(results: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> Figure:
    """Rms error of a component and mean cos θ against the distance to the nearest face, every row."""
    labels = [row["label"] for row in results["rows"]]
    colours = palette(labels)
    deepest = 0.5 * results["scale"]["boxsize"] / results["scale"]["boxes"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.2), layout="constrained")
        axes = figure.subplots(1, 2)
        for number, (name, values) in enumerate(zip(labels, measured, strict=True)):
            bins = values["error_by_depth"]
            edges = _floats(bins["edges"])
            full = _floats(bins["cells"]["mean"]) > 0
            style = {"color": colours[name], "ls": DASHES[number % len(DASHES)], "lw": 1.6, "marker": "o", "ms": 3.5}
            for ax, what in zip(axes, ("rms", "cos_theta"), strict=True):
                mean, std = (_floats(bins[what][key])[full] for key in ("mean", "std"))
                ends = np.where(np.isfinite(edges), np.minimum(edges, deepest), deepest)
                x = (0.5 * (ends[1:] + ends[:-1]))[full]
                ax.plot(x, mean, **style, label=name)
                if np.isfinite(std).any():
                    ax.fill_between(x, mean - std, mean + std, color=colours[name], alpha=0.12, lw=0)
        for ax in axes:
            ax.set_xlabel(f"distance to the nearest face [{LENGTH}]")
            ax.set_xlim(left=0)
        axes[0].set(ylabel=f"rms error [{VELOCITY}]", ylim=(0, None))
        axes[1].set_ylabel("cos θ")
        axes[1].set_ylim(min(0.0, axes[1].get_ylim()[0]), 1.02)
        legend_above(figure, axes[0])
    return figure


def _floats(values: Any) -> Any:
    return np.array(values, dtype=float)
