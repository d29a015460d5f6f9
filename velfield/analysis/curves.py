"""Figures of what was measured over all boxes: by scale, by place, and whether error bars are true.

``rows`` are those of metrics.json; every figure shows all rows that have its measure, mean and, as a band, the scatter
of a box.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from velfield.analysis.figure_style import LENGTH, STYLE, VELOCITY, colour, label, legend_above, line_of

Rows = Mapping[str, Mapping[str, Any]]
RATIOS = (1e-3, 1e3)  # of power that are shown at most: linear theory has no vorticity but that of rounding
K = "k [$h$ Mpc$^{-1}$]"
PLACES = {  # measure: its axis
    "error_by_density": r"1 + $\delta$ of the cell",
    "error_by_depth": f"distance to the nearest face [{LENGTH}]",
    "error_by_halos": "halos in the cell",
}


def draw(rows: Rows) -> dict[str, Figure]:
    """The figures that the rows have measures for, by the names that their files have."""
    drawn = {}
    for name, (measure, figure) in FIGURES.items():
        having = {row: values for row, values in rows.items() if values.get(measure)}
        if having:
            drawn[name] = figure(having)
    return drawn


def correlation(rows: Rows) -> Figure:
    """Correlation of the velocity by wavenumber."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        ax = figure.subplots()
        _by_k(ax, rows, "r_of_k", "r(k)")
        ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.02)
        legend_above(figure, ax)
    return figure


def transfer(rows: Rows) -> Figure:
    """Amplitude of the predicted velocity over the true one, by wavenumber."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        ax = figure.subplots()
        ax.axhline(1, color="#666666", lw=1, ls=":")
        _by_k(ax, rows, "transfer", r"T(k) = $\sqrt{P_p\,/\,P_t}$")
        ax.set_ylim(bottom=0.0)
        legend_above(figure, ax)
    return figure


def divergence(rows: Rows) -> Figure:
    """Power of divergence and vorticity over the true one, and correlation of the divergence, by wavenumber."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.6, 3.9), layout="constrained")
        ratio, vorticity, r = figure.subplots(1, 3, sharex=True)
        _by_k(ratio, rows, "divergence_ratio", r"$P_p\,/\,P_t$")
        _by_k(vorticity, rows, "vorticity_ratio", r"$P_p\,/\,P_t$")
        _by_k(r, rows, "divergence_r", "r(k)")
        for ax, title in ((ratio, "power of divergence"), (vorticity, "power of vorticity")):
            ax.axhline(1, color="#666666", lw=1, ls=":", zorder=1)
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            ax.set_ylim(np.clip(low, RATIOS[0], 0.5), np.clip(high, 2.0, RATIOS[1]))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
            ax.set_title(title)
        r.set_title("correlation of divergence")
        r.set_ylim(min(0.0, r.get_ylim()[0]), 1.02)
        legend_above(figure, ratio)
    return figure


def error_by(rows: Rows) -> Figure:
    """Rms error of a component and mean cos θ, by density, by distance to the nearest face, and by halo count."""
    shown = {name: axis for name, axis in PLACES.items() if any(row.get(name) for row in rows.values())}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(3.5 * len(shown) + 0.3, 6.0), 5.6), layout="constrained")
        axes = figure.subplots(2, len(shown), sharex="col", sharey="row", squeeze=False)
        for column, (name, axis) in enumerate(shown.items()):
            having = {row: values[name] for row, values in rows.items() if values.get(name)}
            for line, what in enumerate(("rms", "cos_theta")):
                for row, values in having.items():
                    _by_bin(axes[line, column], row, values, what)
            axes[1, column].set_xlabel(axis)
            _name_bins(axes[1, column], name, having)
        axes[0, 0].set(ylabel=f"rms error [{VELOCITY}]", ylim=(0, None))
        axes[1, 0].set_ylabel("cos θ")
        axes[1, 0].set_ylim(min(0.0, axes[1, 0].get_ylim()[0]), 1.02)
        legend_above(figure, axes[0, 0])
    return figure


def calibration(rows: Rows) -> Figure:
    """Share of components within their error bars, against the share that a Gaussian would have there."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 4.9), layout="constrained")
        ax = figure.subplots()
        ax.plot([0, 100], [0, 100], color="#666666", lw=1, ls=":")
        for name, row in rows.items():
            curve = row["calibration"]
            nominal, mean, std = (_floats(curve[key]) * 100 for key in ("nominal", "mean", "std"))
            ax.plot(nominal, mean, marker="o", ms=3.2, **line_of(name), label=label(name))
            _band(ax, nominal, mean, std, name)
        ax.set(xlabel="nominal coverage [%]", ylabel="actual coverage [%]", xlim=(0, 100), ylim=(0, 100))
        ax.set_aspect("equal")
        legend_above(figure, ax)
    return figure


FIGURES: dict[str, tuple[str, Callable[[Rows], Figure]]] = {  # name of the file: the measure that it needs, and it
    "r_of_k": ("r_of_k", correlation),
    "transfer": ("transfer", transfer),
    "divergence": ("divergence_ratio", divergence),
    "error_by": ("error_by_depth", error_by),
    "calibration": ("calibration", calibration),
}


def _by_k(ax: Axes, rows: Rows, measure: str, axis: str) -> None:
    for name, row in rows.items():
        k, mean, std = (_floats(row[measure][key]) for key in ("k", "mean", "std"))
        ax.plot(k, mean, **line_of(name), label=label(name))
        _band(ax, k, mean, std, name)
    ax.set(xscale="log", xlabel=K, ylabel=axis)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


def _by_bin(ax: Axes, name: str, values: Mapping[str, Any], what: str) -> None:
    """One row's means, each in the middle of its bin; all bins are as wide on the axis."""
    mean, std = (_floats(values[what][key]) for key in ("mean", "std"))
    full = np.isfinite(mean)
    x = np.arange(len(mean))[full] + 0.5
    ax.plot(x, mean[full], marker="o", ms=3.2, **line_of(name), label=label(name))
    _band(ax, x, mean[full], std[full], name)


def _name_bins(ax: Axes, name: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Label the bins that hold cells: by their edges, counts by what they count."""
    edges = next(iter(rows.values()))["edges"]
    full = np.any([[bool(n) for n in row["cells"]["mean"]] for row in rows.values()], axis=0)
    first, last = np.flatnonzero(full)[[0, -1]] if full.any() else (0, len(edges) - 2)
    if name == "error_by_halos":
        names = [_counts(low, high) for low, high in itertools.pairwise(edges)]
        ax.set_xticks(np.arange(len(names)) + 0.5, names, fontsize=7.5)
    else:
        ax.set_xticks(np.arange(len(edges)), ["" if edge is None else f"{edge:g}" for edge in edges])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(first, last + 1)


def _counts(low: float, high: float | None) -> str:
    if high is None:
        return f"≥{low:g}"
    return f"{low:g}" if high - low == 1 else f"{low:g}–{high - 1:g}"


def _band(ax: Axes, x: NDArray[np.floating], mean: NDArray[np.float64], std: NDArray[np.float64], name: str) -> None:
    if np.isfinite(std).any():
        ax.fill_between(x, mean - std, mean + std, color=colour(name), alpha=0.16, lw=0)


def _floats(values: Any) -> NDArray[np.float64]:
    return np.array(values, dtype=float)
