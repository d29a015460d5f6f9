"""The sentences follow the numbers: ahead is said where they say ahead, and behind where they say behind."""

import re

import numpy as np
import pytest

from velfield.accuracy.standing import SAME_HALOS, difference, headline, lost, standings
from velfield.accuracy.tables import ENTRIES

K = [0.05, 0.1, 0.2, 0.4, 0.6]
SCATTER = np.array([-0.1, 0.1, -0.1, 0.1])


def row(shift=0.0, rms=150.0, **curves):
    """Every measure 0.5 and ``shift`` in each of four boxes that scatter by 0.1, an rms error, and curves by scale."""
    boxes = {entry.name: 0.5 + SCATTER + shift for entry in ENTRIES if not entry.optional}
    boxes |= {"rms": rms + 100 * SCATTER}
    values = {n: {"mean": float(v.mean()), "std": float(v.std(ddof=1)), "boxes": v.tolist()} for n, v in boxes.items()}
    return values | {name: {"k": K, "mean": mean, "std": [0.1] * len(K)} for name, mean in curves.items()}


def sides(sentence):
    """``{"ahead": …, "level": …, "behind": …}`` of a sentence, and whom it is against."""
    who, _, rest = sentence.partition(": ")
    return who, dict(re.findall(r"(ahead|level|behind) in (.*?)(?:; |\.$)", rest))


def against(metrics):
    """The sentence about the strongest row."""
    return plain(standings(metrics)[0].sentence())


def plain(sentence):
    """Without the spaces that no line is broken at."""
    return sentence.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("rms", "said"),
    [
        (140.0, "The U-Net errs less than the Wiener filter of the same halos: rms error 140 against 150 km/s, "
         "10.0 ± 0.0 km/s less over 4 boxes."),
        (160.0, "The U-Net errs more than the Wiener filter of the same halos: rms error 160 against 150 km/s, "
         "10.0 ± 0.0 km/s more over 4 boxes."),
        (150.0, "The U-Net errs as much as the Wiener filter of the same halos, within the errors: rms error 150 "
         "against 150 km/s, 0.0 ± 0.0 km/s apart over 4 boxes."),
    ],
)  # fmt: skip
def test_the_first_sentence_goes_either_way(rms, said):
    assert plain(headline({"unet": row(rms=rms), "wiener": row()})) == said


def test_the_first_sentence_is_against_the_best_of_those_that_see_the_same_halos():
    rows = {"linear_padded": row(rms=100.0), "wiener": row(rms=155.0), "linear_halo_padded": row(rms=145.0)}
    first = headline({"unet": row(), **rows})
    assert first.startswith("The U-Net errs more than the best linear method of the same halos, linear theory, zero-")
    swapped = rows | {"wiener": row(rms=144.0)}
    assert "of the same halos, the Wiener filter: rms error 150 against 144" in headline({"unet": row(), **swapped})
    alone = headline({"unet": row(), "linear": row(rms=170.0), "linear_padded": row(rms=160.0)})
    assert alone.startswith("The U-Net errs less than the zero-padded FFT, which is given the dark matter itself")


@pytest.mark.parametrize(("shift", "side", "other"), [(0.02, "ahead", "behind"), (-0.02, "behind", "ahead")])
def test_every_line_of_the_table_is_ahead_or_behind(shift, side, other):
    """Measures of 0.5 and best at 1 or high: all are 0.02 better, or worse, in every box."""
    said = against({"unet": row(shift), "wiener": row()})
    who, found = sides(said)
    assert who == "Against the Wiener filter of the same halos"
    for entry in ENTRIES:
        if not entry.optional and entry.name != "rms":
            assert (entry.words or entry.label) in found[side]
    assert other not in found
    assert found["level"] == "rms error"
    assert ("0.48 against 0.50, \u22120.02 ± 0.00" in said) == (side == "behind")


def test_what_counts_is_the_difference_box_by_box():
    """Both rows scatter by 0.1: an advantage of 0.02 ± 0.007 in r is one, of 0.01 ± 0.006 in cos θ none."""
    mine, theirs = row(), row()
    for name, gain in (("r", [0.01, 0.03, 0.03, 0.01]), ("cos_theta", [0.02, 0.0, 0.02, 0.0])):
        mine[name] = mine[name] | {"boxes": (0.5 + SCATTER + gain).tolist()}
    _, found = sides(against({"unet": mine, "wiener": theirs}))
    assert found["ahead"] == "r"
    assert "cos θ" in found["level"]


@pytest.mark.parametrize("other", [*SAME_HALOS, "linear", "linear_padded"])
def test_small_scales_where_it_is_behind_are_said_of_every_row(other):
    mine = row(r_of_k=[0.9, 0.9, 0.8, 0.5, 0.2], transfer=[1.0, 1.0, 0.9, 0.5, 0.2])
    theirs = row(r_of_k=[0.8, 0.9, 0.8, 0.6, 0.4], transfer=[1.0, 1.0, 0.9, 1.8, 1.2])
    _, found = sides(against({"unet": mine, other: theirs}))
    assert found["behind"].endswith(
        "r(k) at k ≥ 0.40 h Mpc⁻¹ (0.20 against 0.40 at k = 0.60) and "
        "amplitude at k ≥ 0.60 h Mpc⁻¹ (0.20 against 1.20 at k = 0.60)"
    )
    assert "r(k) at k ≤ 0.05 h Mpc⁻¹" in found["ahead"]
    assert "amplitude at k ≥ 0.40 h Mpc⁻¹" not in found["ahead"]  # a half is nearer to 1 than 1.8 at 0.4 alone
    assert "amplitude at k = 0.40 h Mpc⁻¹" in found["ahead"]
    _, turned = sides(against({"unet": theirs, other: mine}))
    assert "r(k) at k ≥ 0.40" in turned["ahead"]
    assert "r(k) at k ≤ 0.05 h Mpc⁻¹ (0.80 against 0.90 at k = 0.05)" in turned["behind"]


def test_vorticity_is_compared_with_rows_and_with_the_truth():
    """None misses all of it, too much is behind none: 170 times the power is wrong by 169."""
    none, some = [1e-5] * 5, [170.4, 0.05, 0.1, 0.3, 0.4]
    rows = {"unet": row(vorticity_ratio=some), "wiener": row(vorticity_ratio=none)}
    _, found = sides(against(rows))
    assert "power of the vorticity at k ≥ 0.10 h Mpc⁻¹" in found["ahead"]
    assert "power of the vorticity at k ≤ 0.05 h Mpc⁻¹ (170 against 0 at k = 0.05)" in found["behind"]
    assert plain(lost(rows)) == "The U-Net against the truth, by scale: vorticity has 0.05 to 170 times the true power."
    turned = {"unet": rows["wiener"], "wiener": rows["unet"]}
    assert "power of the vorticity at k ≥ 0.10 h Mpc⁻¹ (0 against 0.40 at k = 0.60)" in against(turned)
    assert lost(turned).endswith("vorticity has 0 times the true power.")


def test_scales_that_are_lost():
    far = row(r_of_k=[0.9, 0.9, 0.8, 0.45, 0.2], transfer=[1.0, 1.0, 0.9, 0.8, 0.7])
    assert plain(lost({"unet": far})) == (
        "The U-Net against the truth, by scale: r(k) is below 0.5 at k ≥ 0.40 h Mpc⁻¹; "
        "amplitude is below 0.5 of the true one nowhere up to k = 0.60 h Mpc⁻¹."
    )
    assert lost({"unet": row()}) == ""


def test_without_boxes_what_looks_the_same_is_level():
    bare = {name: {"mean": value["mean"], "std": 0.1} for name, value in row().items()}
    better = bare | {"r": {"mean": 0.51, "std": 0.1}, "cos_theta": {"mean": 0.503, "std": 0.1}}
    assert headline({"unet": better, "linear": bare}).endswith("rms error 150 against 150\u00a0km/s.")
    _, found = sides(against({"unet": better, "linear": bare}))
    assert found["ahead"] == "r"
    assert "cos θ" in found["level"]


def test_every_row_has_its_sentence_and_the_strongest_is_first():
    rows = {"unet": row(), "linear": row(rms=120), "wiener": row(rms=160), "linear_halo_padded": row(rms=155)}
    assert [one.other for one in standings(rows)] == ["linear_halo_padded", "wiener", "linear"]
    for one in standings(rows):
        assert "rms error" in " ".join(one.behind if one.other == "linear" else one.ahead)
        assert one.sentence() == f"{one.against}: {'; '.join(one.clauses())}."


def test_nothing_to_compare_is_no_headline():
    for metrics in ({"linear": row()}, {"unet": row()}):
        assert headline(metrics) == ""
        assert standings(metrics) == []


def of_boxes(**values):
    """A row whose measures have these values in each box."""
    return {name: {"mean": np.mean(v), "std": np.std(v, ddof=1), "boxes": list(v)} for name, v in values.items()}


def test_difference_from_one_and_what_cannot_be_compared():
    slope = next(e for e in ENTRIES if e.name == "slope")
    above, below = of_boxes(slope=[1.1, 1.2]), of_boxes(slope=[0.8, 0.7])
    better, error = difference(slope, above, below)  # 0.15 off against 0.25 off
    assert (better, error) == pytest.approx((0.10, 0.0))
    rms = next(e for e in ENTRIES if e.name == "rms")
    assert difference(rms, of_boxes(rms=[150, 160]), of_boxes(rms=[170, 190]))[0] == 25
    assert difference(slope, above, of_boxes(slope=[0.8, 0.7, 0.9])) is None
    assert difference(slope, above, {"slope": {"mean": 0.7, "std": 0.05}}) is None
    one = {"slope": {"mean": 0.8, "std": None, "boxes": [0.8, None]}}
    assert difference(slope, above, one) is None
