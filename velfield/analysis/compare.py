"""Two evaluations of the same boxes against each other, box by box: scatter that both share drops out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from velfield.accuracy.measures import MEASURES, PARTS
from velfield.accuracy.tables import entry_of
from velfield.analysis.evaluate import RECORD, read_rows
from velfield.errors import StoreError, VelfieldError
from velfield.files import storage

HIGH = (  # other measures: 1
    "residuals_200",
    "residuals_100",
    "residuals_200_magnitude",
    "residuals_200_vector",
    "cos_theta",
    "r",
)
OTHERS = {  # what is best, and beside what: scalars that not every evaluation has
    "rms_dense": ("low", 0.0),
    "cos_dense": ("high", 0.0),
    "coverage_68": ("one", 0.68),
    "coverage_95": ("one", 0.95),
    "chi2": ("one", 1.0),
}
SHOWN_HASH = 12  # hexadecimal digits of a fingerprint, as velfield info shows them
SHOWN = ("slope", "residuals_200", "cos_theta", "coherence_median", "r", "rms", "cos_theta_centre", "cos_theta_edge")


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A measure of A and B on the same boxes.

    Attributes
    ----------
    a, b : float
        Means over the boxes in which both are defined.
    difference : float
        Mean of A − B.
    error_boxes, error_parents : float or None
        Its standard error, from the scatter over boxes, and from that of the means over each parent's boxes; the first
        is too small where boxes of one parent share its long waves. None with fewer than two.
    t_boxes, p_boxes, t_parents, p_parents : float or None
        Of the paired t test that the difference is 0, two-sided; None where there is no error, or it is 0.
    better : float or None
        Share of the boxes in which A is better, of those in which one is: nearer to the target where ``best`` is one.
    p_sign : float or None
        Of the sign test that A and B are better equally often, two-sided.
    boxes, parents : int
        How many were compared.
    best : str
        ``high``, ``low`` or ``one``.
    """

    measure: str
    a: float
    b: float
    difference: float
    error_boxes: float | None
    error_parents: float | None
    t_boxes: float | None
    p_boxes: float | None
    t_parents: float | None
    p_parents: float | None
    better: float | None
    p_sign: float | None
    boxes: int
    parents: int
    best: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations compared: the rows' names, where they lie, and every measure that both have."""

    rows: tuple[str, str]
    urls: tuple[str, str]
    measures: Mapping[str, Paired]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = {"a": {"url": self.urls[0], "row": self.rows[0]}, "b": {"url": self.urls[1], "row": self.rows[1]}}
        return rows | {"measures": {name: asdict(paired) for name, paired in self.measures.items()}}

    def lines(self) -> list[str]:
        """A Markdown table of the measures that a reader looks at first, and what its columns are."""
        listed = [self.measures[name] for name in (*SHOWN, *OTHERS) if name in self.measures]
        cells = [["", "A", "B", "A − B", "± boxes", "± parents", "A better", "p (t)", "p (sign)"]]
        cells += [_cells(paired) for paired in listed]
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        table = [
            "| " + " | ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) + " |"
            for line in cells
        ]
        rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
        some = listed[0]
        return [
            f"A is {self.rows[0]} of {self.urls[0]}, B is {self.rows[1]} of {self.urls[1]}; "
            f"{some.boxes} boxes, {some.parents} {'parent' if some.parents == 1 else 'parents'}.",
            "",
            table[0],
            rule,
            *table[1:],
            "",
            "p (t) is over parents where there are at least two, else over boxes.",
        ]


def compare(a: str, b: str) -> Comparison:
    """Compare two folders that `evaluate` wrote, of the same boxes counted in the same way."""
    rows, records = (
        [read_rows(_seen(url)) for url in (a, b)],
        [storage.read_json(storage.join(u, RECORD)) for u in (a, b)],
    )
    parents = [parents_of(url, record) for url, record in zip((a, b), records, strict=True)]
    asked = [(_boxes(record), record["count_filled"]) for record in records]
    if asked[0] != asked[1]:
        said = ", ".join(f"{name}={_counted(record)}" for name, record in zip("AB", records, strict=True))
        raise VelfieldError(
            f"evaluations of other boxes cannot be compared: {said}; evaluate both on the same stores and split"
        )
    names = [record["row"] for record in records]
    first, second = (found[name] for found, name in zip(rows, names, strict=True))
    return Comparison(rows=(names[0], names[1]), urls=(a, b), measures=pair_rows(first, second, parents[0]))


def pair_rows(
    first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]], parents: Sequence[str]
) -> dict[str, Paired]:
    """Compare two rows, with the values of each box, in every measure that both have; ``parents`` of the boxes."""
    best = _best()
    return {
        name: paired
        for name in best
        if name in first and name in second
        and (paired := pair(name, first[name]["boxes"], second[name]["boxes"], parents, *best[name])) is not None
    }  # fmt: skip


def pair(
    measure: str,
    a: Sequence[float | None],
    b: Sequence[float | None],
    parents: Sequence[str],
    best: str,
    target: float = 1.0,
) -> Paired | None:
    """Compare the values of each box; None where no box has both."""
    both = np.array([x is not None and y is not None for x, y in zip(a, b, strict=True)], dtype=bool)
    if not both.any():
        return None
    one, other = (np.array(values, dtype=float)[both] for values in (a, b))
    of = np.asarray(parents)[both]
    difference = one - other
    means = np.array([difference[of == parent].mean() for parent in sorted(set(of))])
    gain = {"high": difference, "low": -difference}.get(best, abs(other - target) - abs(one - target))
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    over_boxes, over_parents = _t_test(difference), _t_test(means)
    return Paired(
        measure=measure,
        a=float(one.mean()),
        b=float(other.mean()),
        difference=float(difference.mean()),
        error_boxes=over_boxes[0],
        error_parents=over_parents[0],
        t_boxes=over_boxes[1],
        p_boxes=over_boxes[2],
        t_parents=over_parents[1],
        p_parents=over_parents[2],
        better=wins / (wins + losses) if wins + losses else None,
        p_sign=float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else None,
        boxes=int(both.sum()),
        parents=len(means),
        best=best,
    )


def _t_test(values: NDArray[np.float64]) -> tuple[float | None, float | None, float | None]:
    """Standard error of the mean, t, and its two-sided p; None where they are undefined."""
    n = len(values)
    if n < 2:
        return None, None, None
    error = float(values.std(ddof=1) / np.sqrt(n))
    if error == 0:
        return error, None, None
    t = float(values.mean() / error)
    return error, t, float(2 * stats.t.sf(abs(t), n - 1))


def _best() -> dict[str, tuple[str, float]]:
    """What is best of every measure that is compared, and the target of those that have one."""
    plain = {name: ("high" if name in HIGH else "low" if name == "rms" else "one", 1.0) for name in MEASURES}
    return {name + part: how for part in PARTS for name, how in plain.items()} | OTHERS


def _seen(url: str) -> str:
    if not storage.exists(storage.join(url, RECORD)):
        raise StoreError(f"no evaluation here: url={url}; make one with velfield evaluate MODEL FIELDS {url}")
    return url


def _counted(record: Mapping[str, Any]) -> str:
    """What an evaluation is of, in words; stores of one name may still differ, as painted anew."""
    stores = record["fields"]
    names = ", ".join(f"{store['url']} ({store['fingerprint'][:SHOWN_HASH]})" for store in stores)
    number = sum(len(store["boxes"]) for store in stores)
    return f"{number} boxes of {len(stores)} stores, {names}, count_filled={record['count_filled']}"


def _boxes(record: Mapping[str, Any]) -> list[tuple[str, list[int]]]:
    return [(store["fingerprint"], store["boxes"]) for store in record["fields"]]


def parents_of(url: str, record: Mapping[str, Any]) -> list[str]:
    """The parent of each box of an evaluation, by its record."""
    found = []
    for store in record["fields"]:
        names = store["parents"]
        if len(names) > 1 and "parent_of_box" not in store:
            raise StoreError(
                f"the evaluation does not say which box is of which parent: url={url}, parents={len(names)}; "
                "evaluate again"
            )
        found += [names[i] for i in store.get("parent_of_box", [0] * len(store["boxes"]))]
    return found


def _cells(paired: Paired) -> list[str]:
    entry = entry_of(paired.measure, paired.best)
    digits = entry.decimals + 1

    def shown(value: float | None, sign: str = "") -> str:
        return "–" if value is None else f"{value * entry.scale:{sign}.{digits}f}".replace("-", "\u2212")

    p = paired.p_parents if paired.parents > 1 else paired.p_boxes
    return [
        entry.label,
        shown(paired.a),
        shown(paired.b),
        shown(paired.difference, "+"),
        shown(paired.error_boxes),
        shown(paired.error_parents),
        "–" if paired.better is None else f"{100 * paired.better:.0f} %",
        *("–" if p is None else f"{p:.2g}" for p in (p, paired.p_sign)),
    ]
