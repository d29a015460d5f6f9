"""How near velocities are to the truth: what the service says is what `velfield.metrics` gives of the same stores."""

import httpx
import numpy as np
import pytest
from served import LIMITS, serving
from small_store import arrays_of, spec_of
from velocity_stores import written

import velfield as vf
from velfield.accuracy.measures import agreement, agreement_sums
from velfield.geometry.boxes import BoxLayout
from velfield.service import measured
from velfield.service.slices import Opened, Source
from velfield.stores import store


def asked(service, path):
    answer = httpx.get(f"{service.url}/{path}", timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_of_a_job_they_are_those_of_metrics(looked, job, fields):
    stores = store.open_fields(fields, chunks=None)
    made = store.open_velocity(looked.results.place(job[0]), chunks=None)
    expected = vf.metrics(made["velocity"], stores["velocity"])
    found = asked(looked, f"jobs/{job[0]}/measures")
    assert (found["truth"], found["boxes"], found["measured"]) == (True, 27, 27)
    for name, of in (("r", "r"), ("rms_error", "rms")):
        assert found[name]["mean"] == pytest.approx(expected[of]["mean"], rel=1e-6)
        assert found[name]["std"] == pytest.approx(expected[of]["std"], rel=1e-6)
    for name, values in (
        ("velocity", made["velocity"]),
        ("truth", stores["velocity"]),
        ("error_bar", made["velocity_std"]),
    ):
        each = np.sqrt((values.values.astype("f8") ** 2).mean(axis=(1, 2, 3, 4)))
        assert found[f"rms_{name}"]["mean"] == pytest.approx(each.mean(), rel=1e-6)
    one = asked(looked, f"jobs/{job[0]}/measures?box=14")
    assert (one["boxes"], one["measured"], one["r"]["std"]) == (1, 1, None)
    assert one["r"]["mean"] == pytest.approx(expected["r"]["boxes"][14], rel=1e-6)
    assert one["rms_error"]["mean"] == pytest.approx(expected["rms"]["boxes"][14], rel=1e-6)
    assert httpx.get(f"{looked.url}/jobs/{job[0]}/measures?box=27").status_code == 422


def test_of_a_store_the_truth_is_that_of_the_field_store_it_was_made_of(models, cluster, tmp_path):
    """Found by its fingerprint among the stores that are served, wherever it lies; none without it."""
    root, layout = tmp_path / "allowed", BoxLayout(boxsize=120.0, boxes=2, cells=6)
    made = store.open_velocity(written(str(root / "made"), lambda pos: 100 + pos, std=30.0), chunks=None)
    store.write_fields(str(root / "b"), spec_of(layout, fingerprint="another"), arrays_of(layout))
    with serving(tmp_path / "state", models[:1], cluster, allow=[str(root)]) as service:
        names = {one["url"].rpartition("/")[2]: one for one in asked(service, "stores")["stores"]}
        assert names["made"]["changed"] >= names["b"]["changed"][:10]  # a time
        assert "fingerprint" not in names["made"]
        alone = asked(service, f"stores/{names['made']['id']}/measures")
        assert (alone["truth"], alone["r"], alone["rms_error"], alone["rms_truth"]) == (False, None, None, None)
        each = np.sqrt((made["velocity"].values.astype("f8") ** 2).mean(axis=(1, 2, 3, 4)))
        assert alone["rms_velocity"] == pytest.approx({"mean": each.mean(), "std": each.std(ddof=1)}, rel=1e-6)
        assert alone["rms_error_bar"]["mean"] == pytest.approx(30.0)
        truth = asked(service, f"stores/{names['b']['id']}/measures")
        assert (truth["truth"], truth["r"]) == (False, None)
        assert truth["rms_velocity"]["mean"] > 0
    arrays = arrays_of(layout, seed=1)
    store.write_fields(str(root / "a"), spec_of(layout, fingerprint="f00d"), arrays)
    with serving(tmp_path / "state", models[:1], cluster, allow=[str(root)]) as service:
        (name,) = (one["id"] for one in asked(service, "stores")["stores"] if one["kind"] == "velocity")
        found = asked(service, f"stores/{name}/measures")
        expected = vf.metrics(made["velocity"], arrays["velocity"])
        assert found["r"]["mean"] == pytest.approx(expected["r"]["mean"], abs=1e-9)
        assert found["rms_error"]["mean"] == pytest.approx(expected["rms"]["mean"], rel=1e-6)
        assert "velocity_truth" in asked(service, f"stores/{name}/fields")["variables"]


def test_of_more_boxes_than_may_be_read_some_are_measured(looked, job, monkeypatch):
    made = store.open_velocity(looked.results.place(job[0]), chunks=None)
    monkeypatch.setattr(measured, "UNPACKED_BYTES", 9 * 8**3 * 4 * 3)  # of three boxes
    opened = Opened(Source(fields=looked.allowed.stores()[0]["url"], made=looked.results.place(job[0])))
    found = measured.rows(opened, None)
    assert measured.summary(found)["measured"] == 3
    each = np.sqrt((made["velocity"].values.astype("f8") ** 2).mean(axis=(1, 2, 3, 4)))
    np.testing.assert_allclose(found[:, 0], each[[0, 13, 26]], rtol=1e-6)


def test_parts_add_up_and_what_is_not_known_does_not_count():
    p, t = np.random.default_rng(1).normal(50, 300, (2, 3, 8, 8, 8))
    t[:, 0] = np.nan
    p[1, 3, 3, 3] = np.nan
    parts = agreement_sums(p[:, :5], t[:, :5]) + agreement_sums(p[:, 5:], t[:, 5:])
    expected = vf.metrics(p, t)
    assert agreement(parts)["r"] == pytest.approx(expected["r"]["mean"], abs=1e-12)
    assert agreement(parts)["rms"] == pytest.approx(expected["rms"]["mean"], rel=1e-12)
    nothing = agreement(agreement_sums(p, np.full_like(t, np.nan)))
    assert np.isnan([*nothing.values()]).all()


def test_limits_are_told(looked):
    told = asked(looked, "limits")
    assert told == {name: LIMITS[name] for name in ("upload", "upload_cells", "table", "rows", "grid")}
