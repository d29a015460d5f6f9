"""What the page shows first, in a headless Chromium: the newest prediction, and how near it is to the truth."""

import re

import chrome
import numpy as np
import pytest
from page_steps import PARENT, READY, choose, put, text
from served import serving
from small_store import arrays_of
from velocity_stores import written

import velfield as vf
from velfield.stores import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), chrome.needed]
MEASURED = "document.getElementById('measures-list').children.length"


def shown(page):
    """The measures beside the field: {name: (value, scatter or None)}."""
    page.until(MEASURED)
    rows = page.run(
        "[...document.querySelectorAll('#measures-list > div')].map((one) => [...one.children].map((c) => c.innerText))"
    )
    found = {}
    for name, said in rows:
        value, _, scatter = said.partition("±")
        found[name] = float(value.split()[0]), float(scatter) if scatter else None
    return found


def begin(page, path="/"):
    page.call("Page.navigate", url="about:blank")
    page.open(path)
    page.until("document.getElementById('store').options.length")


def test_the_prediction_that_is_there_with_r_and_rms(looked, job, browser, fields):
    page = browser
    page.width(1200, 900)
    begin(page)
    page.until(READY)
    assert text(page, "look-title") == "plain on fields.zarr"
    assert page.run("document.getElementById('colour').value") == "speed"
    assert page.run("location.hash") == ""  # the newest again, the next time
    assert page.run("document.getElementById('store').value") == ""  # no store is what is shown
    made = store.open_velocity(looked.results.place(job[0]), chunks=None)["velocity"]
    expected = vf.metrics(made, store.open_fields(fields, chunks=None)["velocity"])
    found = shown(page)
    for name, of in (("r", "r"), ("rms error", "rms")):
        assert found[name] == pytest.approx((expected[of]["mean"], expected[of]["std"]), rel=0.06, abs=1e-4)
        assert found[name][0] == pytest.approx(expected[of]["mean"], rel=0.006, abs=1e-4)  # three digits
    true = np.sqrt((arrays_of(PARENT)["velocity"].astype("f8") ** 2).mean(axis=(1, 2, 3, 4)))
    assert found["rms true"][0] == pytest.approx(true.mean(), rel=0.006)
    assert set(found) == {"r", "rms error", "rms predicted", "rms true", "rms error bar"}
    assert text(page, "measures-about").startswith("All 27 boxes: mean ± scatter. r is the correlation")
    # of a box that is looked at, its own
    choose(page, "box", "14")
    page.until("document.getElementById('measures-about').textContent.startsWith('Box 14 alone')")
    found = shown(page)
    assert found["r"][0] == pytest.approx(expected["r"]["boxes"][14], rel=0.006, abs=1e-4)
    assert found["rms error"] == (pytest.approx(expected["rms"]["boxes"][14], rel=0.006), None)
    # a store is shown when it is chosen: its velocity is no prediction
    put(page, "store", page.run("document.getElementById('store').options[1].value"))
    page.until("document.getElementById('look-title').textContent === 'fields.zarr'")
    page.until(READY)
    page.until(f"{MEASURED} === 1")
    assert shown(page) == {
        "rms velocity": (pytest.approx(true.mean(), rel=0.006), pytest.approx(true.std(ddof=1), rel=0.06))
    }
    assert text(page, "unpredicted").startswith("These are halos of a store, not a prediction.")
    assert "nothing is predicted here" in text(page, "measures-about")
    assert page.wrong == []


@pytest.mark.usefixtures("job")
def test_on_a_phone_the_field_comes_first(browser):
    page = browser
    page.width(500, 900)
    begin(page)
    page.until(READY)
    page.until(MEASURED)
    top, bottom = page.run(
        "(({top, bottom}) => [top, bottom])(document.getElementById('measures-list').getBoundingClientRect())"
    )
    assert 0 < top < bottom < 900  # r and rms are in the first screen
    assert page.run("document.documentElement.scrollWidth") <= 500
    assert not page.run("document.getElementById('request').checkVisibility()")  # it opens from its heading
    page.run("document.querySelector('#predict summary').click()")
    assert page.run("document.getElementById('request').checkVisibility()")


def test_where_no_truth_is_known_no_number_is_made_up(models, cluster, tmp_path):
    written(str(tmp_path / "allowed" / "made"), lambda pos: 200 + 0 * pos, std=30.0)
    allowed = str(tmp_path / "allowed")
    with serving(tmp_path / "a", models[:1], cluster, allow=[allowed]) as service, chrome.browser(service.url) as page:
        page.width(1200, 900)
        begin(page)
        page.until(READY)
        assert text(page, "look-title") == "made"
        assert shown(page) == {"rms predicted": (200.0, 0.0), "rms error bar": (30.0, 0.0)}
        assert "no r and no rms error" in text(page, "measures-about")
        assert re.findall(r"Truth", page.run("document.getElementById('panels').innerText")) == []
        assert page.wrong == []
    with serving(tmp_path / "b", models[:1], cluster) as service, chrome.browser(service.url) as page:
        page.width(1200, 900)
        begin(page)
        page.until("document.getElementById('catalogue-rsd').options.length")
        assert page.run("document.getElementById('field').hidden")
        assert text(page, "empty").strip().startswith("Nothing is predicted here yet. Drop a catalogue of halos")
        assert page.run("document.querySelector('#empty button').checkVisibility()")  # what there is to do
        assert page.run("document.querySelector('input[name=source]:checked').value") == "catalogue"
        assert page.wrong == []
