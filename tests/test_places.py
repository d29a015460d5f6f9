"""Errors by place: the right cells in the right bins."""

import json

import numpy as np
import pytest

from velfield.accuracy.measures import metrics
from velfield.accuracy.places import DENSITY, DEPTH, HALOS, Tracers, by_place, depth

N, CELL = 8, 10.0
RNG = np.random.default_rng(2)
TRUE = RNG.normal(0, 300, (3, N, N, N))
ALL = np.ones((N, N, N), dtype=bool)


def test_depth_is_the_distance_to_the_nearest_face():
    found = depth((4, 6, 8), 5.0)
    assert found[0, 3, 4] == 2.5
    assert found[1, 2, 3] == found[2, 2, 4] == 7.5
    assert found.max() == 7.5  # the shortest axis bounds it
    np.testing.assert_array_equal(found, found[::-1, ::-1, ::-1])


def test_an_error_in_one_shell_is_in_its_bin_alone():
    predicted = TRUE + 100 * (depth((N, N, N), CELL) == 15.0)
    found = by_place(predicted, TRUE, ALL, CELL, Tracers())
    bins = found["error_by_depth"]
    assert set(found) == {"error_by_depth"}
    rms = dict(zip(DEPTH[:-1], bins.values["rms"], strict=True))
    assert rms[10] == pytest.approx(100)
    assert rms[5] == rms[20] == rms[30] == 0
    assert np.isnan(rms[0])
    assert np.isnan(rms[50])
    assert bins.values["cells"].tolist()[:5] == [0, 8**3 - 6**3, 6**3 - 4**3, 4**3 - 2**3, 2**3]


def test_bins_of_density_and_halos_against_a_loop():
    density, halos = RNG.gamma(1.0, 1.5, ALL.shape), RNG.poisson(3, ALL.shape)
    usable = RNG.random(ALL.shape) < 0.9
    predicted = TRUE + RNG.normal(0, 90, TRUE.shape)
    found = by_place(predicted, TRUE, usable, None, Tracers(density=density, halos=halos))
    for name, values, edges in (("density", density, DENSITY), ("halos", halos, HALOS)):
        bins = found[f"error_by_{name}"].values
        for i in range(len(edges) - 1):
            where = usable & (values >= edges[i]) & (values < edges[i + 1])
            assert bins["cells"][i] == where.sum()
            if where.any():
                p, t = predicted[:, where], TRUE[:, where]
                cos = (p * t).sum(0) / np.linalg.norm(p, axis=0) / np.linalg.norm(t, axis=0)
                assert bins["cos_theta"][i] == pytest.approx(cos.mean())
                assert bins["rms"][i] == pytest.approx(np.sqrt(((p - t) ** 2).mean()))


def test_dense_cells_are_those_above_two():
    density = np.full(ALL.shape, 3.0)  # δ = 2 is not above it
    density[:2] = 3.001
    predicted = np.where(density > 3, TRUE + 50, -TRUE)
    found = by_place(predicted, TRUE, ALL, None, Tracers(density=density))
    assert found["rms_dense"] == pytest.approx(50)
    assert found["cells_dense"] == 2 * N * N
    assert found["cos_dense"] > 0.8
    nowhere = by_place(predicted, TRUE, ALL, None, Tracers(density=0 * density))
    assert np.isnan(nowhere["rms_dense"])
    assert nowhere["cells_dense"] == 0


def test_rows_have_no_nan_and_average_the_boxes_that_have_a_bin():
    density = np.stack([np.full(ALL.shape, 0.5), np.where(np.arange(N)[:, None, None] < 2, 5.0, 0.5) * ALL])
    true = np.stack([TRUE, TRUE])
    row = metrics(true + np.array([10, 30])[:, None, None, None, None], true, cellsize=CELL, density=density)
    json.dumps(row, allow_nan=False)
    bins = row["error_by_density"]
    assert bins["edges"][-1] is None
    rms = dict(zip(bins["edges"], bins["rms"]["mean"], strict=False))
    assert rms[0.3] == pytest.approx(20)
    assert rms[3] == pytest.approx(30)  # of one box
    assert rms[1] is None
    assert row["rms_dense"]["boxes"] == [None, pytest.approx(30)]
