"""The paper's figures 4 to 9, of one box: arrays in, a matplotlib Figure out.

Velocities are cores (3, x, y, z) [km/s]. ``fields`` maps a model's name to its prediction, in the order to be shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from velfield.accuracy import measures
from velfield.analysis.figure_style import LENGTH, STYLE, VELOCITY, colour, label, legend_above, line_of

COMPONENTS = ("x", "y", "z")
LEVELS = (0.997, 0.954, 0.683)  # shares of the cells that a contour holds, outermost first


def slices(true: NDArray[Any], fields: Mapping[str, NDArray[Any]], cellsize: float) -> Figure:
    """Figure 4: a slice through the centre and one at the edge; arrows in the slice, colour for the velocity out of it.

    The upper row is the plane z nearest the box's middle, the lower row the plane of the first cells, at its face.
    """
    shown = {"true": true, **fields}
    planes = {"centre": true.shape[3] // 2, "edge": 0}
    limit = float(np.nanpercentile(np.abs(true), 99))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.1 * len(shown) + 1.2, 6.4), layout="constrained")
        axes = figure.subplots(2, len(shown), sharex=True, sharey=True, squeeze=False)
        for row, (place, k) in enumerate(planes.items()):
            for column, (name, v) in enumerate(shown.items()):
                ax = axes[row, column]
                image, arrows = _slice(ax, v[..., k], cellsize, limit)
                if row == 0:
                    ax.set_title(label(name))
                else:
                    ax.set_xlabel(f"x [{LENGTH}]")
            axes[row, 0].set_ylabel(f"{place}, z = {(k + 0.5) * cellsize:.4g} {LENGTH}\ny [{LENGTH}]")
        known = float(f"{0.7 * limit:.0e}")
        axes[0, -1].quiverkey(
            arrows, 0.955, 0.93, known, f"{known:g} {VELOCITY}", labelpos="N", labelsep=0.06, coordinates="figure"
        )
        bar = figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02, aspect=28, extend="both")
        bar.set_label(f"$v_z$, out of the page [{VELOCITY}]")
        bar.outline.set_visible(False)
    return figure


def _slice(ax: Axes, v: NDArray[Any], cellsize: float, limit: float) -> tuple[Any, Any]:
    """Draw one plane (3, x, y): v_z in colour, (v_x, v_y) as arrows, averaged over a few cells each."""
    extent = (0, v.shape[1] * cellsize, 0, v.shape[2] * cellsize)
    image = ax.imshow(
        v[2].T, origin="lower", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    step = max(1, round(v.shape[1] / 16))
    n, m = (s // step for s in v.shape[1:])
    coarse = v[:2, : n * step, : m * step].reshape(2, n, step, m, step).mean(axis=(2, 4))
    x, y = ((np.arange(s) + 0.5) * step * cellsize for s in (n, m))
    arrows = ax.quiver(
        x,
        y,
        coarse[0].T,
        coarse[1].T,
        scale=limit / (1.9 * step * cellsize),  # the colour scale's end is 1.9 steps long
        scale_units="xy",
        angles="xy",
        width=0.006,
        headwidth=3.5,
        headlength=4,
        headaxislength=3.5,
        minlength=0.5,
        color="#1a1a1a",
    )
    ax.set_aspect("equal")
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image, arrows


def contours(
    true: NDArray[Any] | Mapping[str, NDArray[Any]],
    fields: Mapping[str, NDArray[Any]],
    cellsize: float,
    part: str = "",
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Figure 5, and with ``part="centre"`` figure 9: predicted against true components, 68, 95 and 99.7 % of the cells.

    Each panel has the fitted line, its slope, and the diagonal. ``true`` may be another for each field, by its name, as
    ``colours`` are; without them they are the models' own.
    """
    truths = true if isinstance(true, Mapping) else dict.fromkeys(fields, true)
    where = _part((*truths.values(), *fields.values()), cellsize, part)
    limit = 1.1 * max(float(np.nanpercentile(np.abs(v[:, where]), 99.9)) for v in (*truths.values(), *fields.values()))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 3.0 * len(fields) + 0.5), layout="constrained")
        axes = figure.subplots(len(fields), 3, sharex=True, sharey=True, squeeze=False)
        for row, (name, v) in enumerate(fields.items()):
            for i, component in enumerate(COMPONENTS):
                ax = axes[row, i]
                _component(ax, truths[name][i][where], v[i][where], limit, (colours or {}).get(name, colour(name)))
                ax.set_aspect("equal")
                ax.locator_params(nbins=5)
                if row == 0:
                    ax.set_title(f"$v_{component}$" + (f", {part}" if part else ""))
                if row == len(fields) - 1:
                    ax.set_xlabel(f"true [{VELOCITY}]")
            axes[row, 0].set_ylabel(f"{label(name)}\npredicted [{VELOCITY}]")
    return figure


def _component(ax: Axes, t: NDArray[Any], p: NDArray[Any], limit: float, colour_: str) -> None:
    """One panel: predicted against true values of one component."""
    edges = np.linspace(-limit, limit, 61)
    count, _, _ = np.histogram2d(t, p, bins=(edges, edges))
    _filled(ax, edges, edges, ndimage.gaussian_filter(count, 1.0), colour_)
    slope, intercept = np.polyfit(t, p, 1)
    ends = np.array([-limit, limit])
    ax.plot(ends, ends, color="#666666", lw=1, ls=":")
    ax.plot(ends, intercept + slope * ends, color="#111111", lw=1.4)
    r = np.corrcoef(t, p)[0, 1]
    ax.text(0.04, 0.96, f"slope {slope:.2f}\nr {r:.2f}", transform=ax.transAxes, va="top")
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit))


def line(true: NDArray[Any], fields: Mapping[str, NDArray[Any]], cellsize: float) -> Figure:
    """Figure 6: v_x along the row of cells through the middle of the box."""
    j, k = true.shape[2] // 2, true.shape[3] // 2
    x = (np.arange(true.shape[1]) + 0.5) * cellsize
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.6), layout="constrained")
        ax = figure.subplots()
        ax.axhline(0, color="#bbbbbb", lw=0.8)
        for name, v in {"true": true, **fields}.items():
            ax.plot(x, v[0, :, j, k], **line_of(name), label=label(name))
        ax.set(xlabel=f"x [{LENGTH}]", ylabel=f"$v_x$ [{VELOCITY}]", xlim=(0, true.shape[1] * cellsize))
        ax.set_title(f"$v_x$ at y = {(j + 0.5) * cellsize:g}, z = {(k + 0.5) * cellsize:g} {LENGTH}", loc="left")
        legend_above(figure, ax)
    return figure


def distribution(true: NDArray[Any], fields: Mapping[str, NDArray[Any]]) -> Figure:
    """Figure 7: probability density of v_x."""
    shown = {"true": true, **fields}
    limit = max(float(np.nanpercentile(np.abs(v[0]), 99.95)) for v in shown.values())
    edges = np.linspace(-limit, limit, 61)
    middle = 0.5 * (edges[1:] + edges[:-1])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        ax = figure.subplots()
        for name, v in shown.items():
            values = v[0][np.isfinite(v[0])]
            density, _ = np.histogram(values, bins=edges)
            density = density / (values.size * (edges[1] - edges[0]))
            ax.plot(middle, np.where(density > 0, density, np.nan), **line_of(name), label=label(name))
        ax.set(yscale="log", xlabel=f"$v_x$ [{VELOCITY}]", ylabel="probability density [(km s$^{-1}$)$^{-1}$]")
        ax.set_xlim(-limit, limit)
        legend_above(figure, ax)
    return figure


def misalignment(true: NDArray[Any], fields: Mapping[str, NDArray[Any]]) -> Figure:
    """Figure 8: size of the error |v_p − v_t| against its angle, as 68, 95 and 99.7 % contours."""
    errors = {name: np.sqrt(((v - true) ** 2).sum(0)) for name, v in fields.items()}
    limit = max(float(np.nanpercentile(e, 99.9)) for e in errors.values())
    across, up = np.linspace(-1, 1, 41), np.linspace(0, limit, 41)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(fields) + 0.8, 3.7), layout="constrained")
        axes = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
        for ax, (name, v) in zip(axes, fields.items(), strict=True):
            size = np.sqrt((v**2).sum(0) * (true**2).sum(0))
            good = np.isfinite(size) & (size > 0)
            cos = (v * true).sum(0)[good] / size[good]
            count, _, _ = np.histogram2d(cos, errors[name][good], bins=(across, up))
            _filled(ax, across, up, ndimage.gaussian_filter(count, 1.0, mode="nearest"), colour(name))
            ax.axhline(measures.RESIDUAL, color="#666666", lw=1, ls=":")
            ax.set_title(label(name))
            ax.set(xlabel="cos θ", xlim=(-1, 1), ylim=(0, limit), xticks=(-1, -0.5, 0, 0.5, 1))
        axes[0].set_ylabel(f"|$v_p - v_t$| [{VELOCITY}]")
    return figure


def draw(true: NDArray[Any], fields: Mapping[str, NDArray[Any]], cellsize: float) -> dict[str, Figure]:
    """All figures of one box, by the names that their files have."""
    return {
        "slices": slices(true, fields, cellsize),
        "contours": contours(true, fields, cellsize),
        "line": line(true, fields, cellsize),
        "distribution": distribution(true, fields),
        "misalignment": misalignment(true, fields),
        "contours_centre": contours(true, fields, cellsize, part="centre"),
    }


def _filled(ax: Axes, x: NDArray[Any], y: NDArray[Any], density: NDArray[Any], colour_: str) -> None:
    """Filled contours that hold `LEVELS` of the density's sum; ``x`` and ``y`` are the edges of its bins."""
    ordered = np.sort(density.ravel())[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    levels = [float(ordered[min(int(np.searchsorted(held, share)), ordered.size - 1)]) for share in LEVELS]
    if not all(a < b for a, b in itertools.pairwise(levels)):  # nearly all in one bin
        levels = sorted(set(levels)) or [0.0]
    x, y = (np.r_[e[0], 0.5 * (e[1:] + e[:-1]), e[-1]] for e in (x, y))
    density = np.pad(density, 1, mode="edge")  # up to the outer edges, not to the middles of the outer bins
    shades = LinearSegmentedColormap.from_list("one hue", ["#ffffff", colour_])
    top = float(density.max()) * 1.001
    colours = [shades(s) for s in np.linspace(0.22, 0.8, len(levels))]
    ax.contourf(x, y, density.T, levels=[*levels, max(top, levels[-1] * 1.001)], colors=colours)
    ax.contour(x, y, density.T, levels=levels, colors=[colour_], linewidths=0.9)


def _part(shown: Iterable[NDArray[Any]], cellsize: float, part: str) -> NDArray[np.bool_]:
    known = np.all([np.isfinite(v).all(axis=0) for v in shown], axis=0)
    centre, edge = measures.regions(known.shape, cellsize)
    return known & {"": np.ones_like(known), "centre": centre, "edge": edge}[part]
