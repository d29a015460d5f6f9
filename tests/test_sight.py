"""How stores are seen: in words, and what of them matters to a model."""

import json

import numpy as np
import pytest
from gaussian import write_fields
from small_store import BOXES, arrays_of, spec_of

from velfield.answers.queries import query_positions
from velfield.errors import StoreError, VelfieldError
from velfield.geometry.symmetry import CUBE, keeping_line_of_sight
from velfield.physics.cosmology import OUTER_RIM
from velfield.physics.redshift_space import sightlines
from velfield.physics.wiener import Survey, wiener_velocity
from velfield.stores import sight, store, store_layout
from velfield.stores.sources import differing, symmetries_of_boxes
from velfield.theory import analytic

VIEWS = [  # pattern, what is given, in words, its kind
    ("none", {}, "none", sight.REAL),
    ("plane_parallel", {}, "plane_parallel", "along z"),
    ("plane_parallel", {"line_of_sight": "z"}, "plane_parallel", "along z"),
    ("plane_parallel", {"line_of_sight": "x"}, "plane_parallel along x", "along x"),
    ("center_radial", {}, "center_radial", sight.CENTRES),
    ("random_radial", {}, "random_radial", sight.OBSERVER),
    ("random_radial", {"observer": [1, -2, 1e4]}, "random_radial", sight.OBSERVER),
    ("observed", {"observer": [1, -2, 1e4]}, "observed from an observer", sight.OBSERVER),
    ("observed", {"line_of_sight": "y"}, "observed along y", "along y"),
    ("observed", {}, "observed from an unknown direction", sight.UNKNOWN),
]


def seen_so(pattern, given, boxes=BOXES, seed=1):
    """A store's description, from pattern and what is given."""
    view = sightlines(pattern, boxes, seed=seed, **given)
    about = {"line_of_sight": view.line_of_sight, "observer": view.observer, "given": view.given}
    return spec_of(boxes, rsd=pattern, seed=seed, **about)


def in_memory(pattern, given):
    return store.fields_in_memory(seen_so(pattern, given), arrays_of(BOXES))


@pytest.mark.parametrize(("pattern", "given", "words", "kind"), VIEWS)
def test_a_store_says_how_it_is_seen(pattern, given, words, kind):
    ds = in_memory(pattern, given)
    assert sight.seen(ds) == words
    assert sight.kind(words) == kind
    axis = sight.axis(words)
    assert symmetries_of_boxes(ds, 16) == (CUBE[:16] if axis is None else keeping_line_of_sight(axis))
    if axis is not None:
        with pytest.raises(VelfieldError, match=rf"average=48, rsd={words}; choose 1, 8, 16$"):
            symmetries_of_boxes(ds, 48)


@pytest.mark.parametrize(("pattern", "given", "words", "kind"), VIEWS)
def test_what_is_given_is_read_back(pattern, given, words, kind):  # noqa: ARG001
    totals = {"halos": {"sums": {"number": 9.0, "mass": 1e13}}}
    spec = seen_so(pattern, given)
    attrs = store_layout.field_layout(spec).attrs | {"totals": json.dumps(totals)}
    found = store_layout.spec_of_attributes(attrs, 1)
    for name in ("line_of_sight", "observer"):
        np.testing.assert_array_equal(getattr(found, name), getattr(spec, name))
    assert found.given == spec.given
    expected = {"line_of_sight": "unknown"} if kind == sight.UNKNOWN else given
    assert {name: attrs[name] for name in ("observer", "line_of_sight") if name in attrs} == expected


def test_observed_halos_are_those_that_were_moved():
    """To a model that was trained on moved ones; another axis, or no known direction, is another thing."""

    def same(trained, words):
        return not differing({"rsd": trained}, {"rsd": words})

    assert same("random_radial", "observed from an observer")
    assert same("plane_parallel", "observed along z")
    assert same("plane_parallel along x", "observed along x")
    for trained in ("none", "plane_parallel", "random_radial", "center_radial"):
        assert not same(trained, "observed along y")
        assert not same(trained, "observed from an unknown direction")
        assert same(trained, trained)
    assert not same("center_radial", "observed from an observer")
    assert differing({"rsd": "plane_parallel"}, {"rsd": "observed along x"})["rsd"] == (
        "plane_parallel", "observed along x",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "given", "said"),
    [
        ("", {}, r"it is not said whether halos are in redshift space: rsd=None; give rsd \(--rsd\): none \(positions"),
        (None, {}, "plane_parallel, center_radial or random_radial .*, or observed"),
        ("radial", {}, "unknown redshift-space pattern: rsd='radial'; choose none, .*, observed"),
        ("none", {"observer": [0, 0, 0]}, r"no place for an observer: rsd=none, observer=\[0.0, 0.0, 0.0\]"),
        ("plane_parallel", {"observer": [0, 0, 0]}, "give one with random_radial or observed"),
        ("center_radial", {"observer": [0, 0, 0]}, "no place for an observer: rsd=center_radial"),
        ("random_radial", {"observer": [0, 0, 0], "observer_per_box": True}, "and without --observer-per-box"),
        ("random_radial", {"line_of_sight": "x"}, "no single line of sight: rsd=random_radial, line_of_sight=x; give"),
        ("none", {"line_of_sight": "x"}, "give one with plane_parallel or observed"),
        ("observed", {"line_of_sight": "x", "observer": [0, 0, 0]}, r"two views at once: observer=\[0.*, line_of_s"),
        ("observed", {"line_of_sight": "up"}, "not an axis: line_of_sight='up'; choose x, y, z"),
        ("observed", {"observer": [0, 0]}, r"an observer out of this world: observer=\[0.0, 0.0\]; give x, y and z"),
        ("observed", {"observer": [0, 0, np.nan]}, r"out of this world: observer=\[0.0, 0.0, nan\]"),
        ("observed", {"observer": [0, 0, 1e300]}, r"observer=\[0.0, 0.0, 1e\+300\]; .* at most 1e\+06 away"),
        ("observed", {"observer_per_box": True}, "no other box to draw an observer from: rsd='observed'"),
    ],
)
def test_views_that_make_no_sense(pattern, given, said):
    with pytest.raises(VelfieldError, match=said):
        sightlines(pattern, BOXES, seed=1, **given)


def test_nothing_is_known_along_an_unknown_direction():
    ds = in_memory("observed", {})
    places = [[5.0, 6, 7]]
    assert "v_los" not in query_positions(ds, places)
    with pytest.raises(StoreError, match="no sky to look at, it has no observer: store=None, rsd=observed"):
        query_positions(ds, places, coordinates="sky")
    with pytest.raises(StoreError, match="not seen from one place, it has no observer: store=None, rsd=observed"):
        query_positions(ds, places, space="redshift")
    along = query_positions(in_memory("observed", {"line_of_sight": "y"}), places)
    np.testing.assert_array_equal(along["v_los"], along["velocity"][:, 1])


def test_a_coordinate_that_was_dropped_is_missed():
    ds = in_memory("plane_parallel", {}).drop_vars("line_of_sight")
    with pytest.raises(StoreError, match=r"the store has lost a coordinate: .*rsd=plane_parallel, coordinate=line"):
        sight.seen(ds)


@pytest.mark.parametrize("name", ["linear_whole", "wiener"])
def test_the_mean_of_redshift_space_over_all_directions(tmp_path, name):
    """Halos of an unknown direction have b + f/3 for their bias: 1 + β/3 times what they have in real space."""
    about = {"rsd": "observed", "given": {"line_of_sight": "unknown"}}
    unknown = store.open_fields(write_fields(str(tmp_path / "u"), **about), chunks=None)
    real = store.open_fields(write_fields(str(tmp_path / "r")), chunks=None)
    how, f = analytic.settings(name, unknown), OUTER_RIM.growth_rate(0.0)
    assert (how.rsd, how.bias) == ("observed from an unknown direction", analytic.settings(name, real).bias)
    found = analytic.velocities(how, unknown, [3])
    if name == "linear_whole":
        expected = analytic.velocities(analytic.settings(name, real), real, [3]) / (1 + f / how.bias / 3)
        np.testing.assert_allclose(found, expected, atol=1e-3)  # km/s, float32 of some 500
    else:
        survey = Survey(boxsize=160.0, bias=how.bias + f / 3, density=how.density)
        delta = np.asarray(real.velfield.overdensity("halo_number").isel(box=3))
        np.testing.assert_array_equal(found[0], wiener_velocity(delta, survey, cosmology=OUTER_RIM, redshift=0.0))
