"""Where a network stands against linear methods, in sentences that its numbers make: ahead, behind, level.

Rows are those of metrics.json. Their measures are compared box by box where they hold the values of each box, their
curves by scale by the means over the boxes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.accuracy.tables import BY_NAME, MINUS, Entry, Rows, entries_of

SAME_HALOS = {  # rows that are given what the network is given, as the first sentence calls them
    "wiener": "the Wiener filter",
    "linear_halo_padded": "linear theory, zero-padded",
    "linear_halo": "linear theory, each box taken as periodic",
}
OPPONENTS = {  # as the other sentences call them
    "wiener": "the Wiener filter of the same halos",
    "linear_halo_padded": "linear theory of the same halos, zero-padded",
    "linear_halo": "linear theory of the same halos, each box taken as periodic",
    "linear": "the paper's FFT, which is given the dark matter itself in real space",
    "linear_padded": "the zero-padded FFT, which is given the dark matter itself in real space",
    "linear_whole": "linear theory of the halos of the whole volume",
}
CURVES = {  # by scale: what is best, and the words of a sentence
    "r_of_k": ("high", "r(k)"),
    "transfer": ("one", "amplitude"),
    "divergence_ratio": ("one", "power of the divergence"),
    "divergence_r": ("high", "correlation of the divergence"),
    "vorticity_ratio": ("one", "power of the vorticity"),
}
SURE = 2.0  # standard errors: a smaller difference is none
TELLING = 0.01  # of curves: a smaller difference is none
LOST = 0.5  # of r(k) and of the amplitude: below it a scale is not reconstructed
K_UNIT = "h\u00a0Mpc⁻¹"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the network is ahead of another row, level with it and behind it.

    Measures of the table and curves by scale, as a sentence lists them, with the numbers where it is behind.
    """

    other: str
    ahead: tuple[str, ...]
    level: tuple[str, ...]
    behind: tuple[str, ...]

    @property
    def against(self) -> str:
        """The words that the sentence begins with."""
        return f"Against {OPPONENTS[self.other]}"

    def clauses(self) -> list[str]:
        """``ahead in …``, ``level in …``, ``behind in …``; one without measures is left out."""
        sides = {"ahead": self.ahead, "level": self.level, "behind": self.behind}
        return [f"{side} in {_listed(parts)}" for side, parts in sides.items() if parts]

    def sentence(self) -> str:
        """All of it."""
        return f"{self.against}: {'; '.join(self.clauses())}."


def headline(metrics: Rows, model: str = "unet") -> str:
    """The network's rms error against the best linear row given the same halos (else the best of all), as a sentence.

    Empty where there is nothing to compare with.
    """
    best = strongest(metrics, model)
    if best is None:
        return ""
    entry, mine, theirs = BY_NAME["rms"], metrics[model], metrics[best]
    name = OPPONENTS[best]
    if len(SAME_HALOS.keys() & metrics.keys()) > 1:
        name = f"the best linear method of the same halos, {SAME_HALOS[best]}"
    side, found = _side(entry, mine, theirs), difference(entry, mine, theirs)
    verb, within, than = {
        "ahead": ("errs less than", "", "less"),
        "level": ("errs as much as", ", within the errors", "apart"),
        "behind": ("errs more than", "", "more"),
    }[side]
    said = f"The U-Net {verb} {name}{within}: rms error {entry.text(mine).split('±')[0]} against {entry.value(theirs)}"
    if found is not None:
        boxes = len(_pairs(entry, mine, theirs))
        said += f", {abs(found[0]):.1f} ± {found[1]:.1f} km/s {than} over {boxes} boxes"
    return f"{said}."


def strongest(metrics: Rows, model: str = "unet") -> str | None:
    """The row of least rms error among those given the same halos, else among all; None where there is no other."""
    others = [name for name in OPPONENTS if name in metrics and name != model]
    if model not in metrics or not others:
        return None
    fair = [name for name in others if name in SAME_HALOS]
    return max(fair or others, key=lambda name: BY_NAME["rms"].merit(metrics[name]))


def standings(metrics: Rows, model: str = "unet") -> list[Standing]:
    """Where the network stands against every other row, the `strongest` first."""
    best = strongest(metrics, model)
    others = [name for name in OPPONENTS if name in metrics] if best else []
    return [_standing(metrics, model, name) for name in sorted(others, key=lambda name: name != best)]


def difference(entry: Entry, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[float, float] | None:
    """How much better ``mine`` is than ``theirs``: mean over the same boxes of the differences, and its standard error.

    Differences count towards what is best: for a measure that is best at 1 each row's distance from 1, on the side of
    its mean. Boxes of one universe share its long waves, so the error is rather too small. None where the rows do not
    hold the values of at least two boxes.
    """
    pairs = _pairs(entry, mine, theirs)
    if len(pairs) < 2:
        return None
    if entry.best == "one":
        pairs = -(pairs - entry.target) * np.sign(pairs.mean(0) - entry.target)
    elif entry.best == "low":
        pairs = -pairs
    better = pairs[:, 0] - pairs[:, 1]
    return float(better.mean()), float(better.std(ddof=1) / np.sqrt(len(better)))


def _pairs(entry: Entry, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> NDArray[np.float64]:
    """The values (box, 2) of the boxes in which both rows have one."""
    one, other = ((row.get(entry.name) or {}).get("boxes") or [] for row in (mine, theirs))
    if len(one) != len(other):
        return np.empty((0, 2))
    both = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return np.array(both, dtype=np.float64).reshape(-1, 2)


def _standing(metrics: Rows, model: str, other: str) -> Standing:
    mine, theirs = metrics[model], metrics[other]
    sides: dict[str, list[str]] = {"ahead": [], "level": [], "behind": []}
    for entry in entries_of({model: mine, other: theirs}):
        if _defined(entry, mine) and _defined(entry, theirs):
            side = _side(entry, mine, theirs)
            words = entry.words or entry.label
            sides[side].append(words + (_numbers(entry, mine, theirs) if side == "behind" else ""))
    for name, (best, words) in CURVES.items():
        if mine.get(name) and theirs.get(name):
            for side, where in _by_scale(mine[name], theirs[name], best).items():
                sides[side].append(f"{words} {where}")
    return Standing(other=other, **{side: tuple(parts) for side, parts in sides.items()})


def _defined(entry: Entry, row: Mapping[str, Any]) -> bool:
    return (row.get(entry.name) or {}).get("mean") is not None


def _side(entry: Entry, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """``ahead``, ``behind`` or ``level``: what differs by less than `SURE` standard errors.

    Where boxes are not known, level is what looks the same.
    """
    found = difference(entry, mine, theirs)
    if found is None:
        better = entry.merit(mine) - entry.merit(theirs)
        level = entry.value(mine) == entry.value(theirs)
    else:
        better, level = found[0], abs(found[0]) <= SURE * found[1]
    return "level" if level or better == 0 else "ahead" if better > 0 else "behind"


def _numbers(entry: Entry, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    values = f"{entry.text(mine).split('±')[0]} against {entry.value(theirs)}"
    found = difference(entry, mine, theirs)
    if found is None:
        return f" ({values})"
    better, error = (value * entry.scale for value in found)
    return f" ({values}, {_signed(better, entry.decimals)} ± {error:.{entry.decimals}f})"


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def _by_scale(mine: Mapping[str, Any], theirs: Mapping[str, Any], best: str) -> dict[str, str]:
    """At which k the first curve is ahead of the second and behind it, with the widest gap where it is behind."""
    k, p, q = (np.array(values, dtype=np.float64) for values in (mine["k"], mine["mean"], theirs["mean"]))
    known = np.isfinite(p) & np.isfinite(q)
    k, p, q = k[known], p[known], q[known]
    better = p - q if best == "high" else np.abs(q - 1) - np.abs(p - 1)
    found = {}
    if (better > TELLING).any():
        found["ahead"] = _scales(k, better > TELLING)
    if (better < -TELLING).any():
        widest = int(np.argmin(better))
        gap = f"{_short(p[widest])} against {_short(q[widest])} at k\u00a0=\u00a0{k[widest]:.2f}"
        found["behind"] = f"{_scales(k, better < -TELLING)} ({gap})"
    return found


def _scales(k: NDArray[np.float64], chosen: NDArray[np.bool_]) -> str:
    """The wavenumbers ``chosen`` of a curve, as ranges."""
    if chosen.all():
        return "at every k"
    parts, first = [], 0
    for value, run in itertools.groupby(chosen):
        last = first + len(list(run)) - 1
        if value:
            low, high = f"{k[first]:.2f}", f"{k[last]:.2f}"
            between = low if first == last else f"{low}–{high}"
            sign, edge = ("≤", high) if first == 0 else ("≥", low) if last == len(k) - 1 else ("=", between)
            parts.append(f"k\u00a0{sign}\u00a0{edge}")
        first = last + 1
    return f"at {_listed(parts)} {K_UNIT}"


def lost(metrics: Rows, model: str = "unet") -> str:
    """On which scales the network does not follow the truth itself, whatever others do; empty where nobody knows."""
    row, said = metrics.get(model, {}), []
    for name, words in (
        ("r_of_k", f"r(k) is below {LOST:g}"),
        ("transfer", f"amplitude is below {LOST:g} of the true one"),
    ):
        if row.get(name):
            k, mean = (np.array(row[name][key], dtype=np.float64) for key in ("k", "mean"))
            k, mean = k[np.isfinite(mean)], mean[np.isfinite(mean)]
            below = mean < LOST
            if mean.size:
                where = _scales(k, below) if below.any() else f"nowhere up to k\u00a0=\u00a0{k[-1]:.2f} {K_UNIT}"
                said.append(f"{words} {where}")
    if row.get("vorticity_ratio"):
        share = np.array(row["vorticity_ratio"]["mean"], dtype=np.float64)
        if np.isfinite(share).any():
            low, high = (_short(edge) for edge in (np.nanmin(share), np.nanmax(share)))
            said.append(f"vorticity has {low if low == high else f'{low} to {high}'} times the true power")
    return f"The U-Net against the truth, by scale: {'; '.join(said)}." if said else ""


def _short(value: float) -> str:
    """Two decimals, below 0.1 and from 10 on two digits; what is below a thousandth is 0."""
    if 0.095 <= abs(value) < 9.95:
        shown = f"{value:.2f}"
    else:
        shown = f"{float(f'{value:.2g}'):g}" if abs(value) >= 1e-3 else "0"
    return shown.replace("-", MINUS)


def _listed(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
