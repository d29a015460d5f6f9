"""Velocities at positions on the page, in a headless Chromium: numbers and files are those of velfield itself."""

import re
from pathlib import Path

import chrome
import numpy as np
import pytest
from page_steps import PARENT, READY, arrived, choose, put, tab_to, text
from served import serving
from test_queries import linear
from test_query_table import fits_table, parquet_table, text_table
from velocity_stores import written

import velfield as vf
from velfield.answers.interpolate import MEANINGS
from velfield.answers.query_table import query_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), chrome.needed]
ANSWERED = "document.getElementById('positions-stop').hidden"
IN_THE_PARENT = [[12.5, 22.5, 101.0], [60.0, 61.5, 62.25], [-3.0, 400.0, 5.0], [119.0, 1.0, 64.0]]
ON_THE_SKY = [[10.0, 20.0, 0.01], [200.0, -10.0, 0.004], [60.0, 95.0, 0.01], [60.0, 30.0, 0.3]]


@pytest.fixture
def form(page):
    """The page at a job, with the form open."""
    assert page.run("!document.getElementById('positions-form').checkVisibility()")  # in nobody's way
    page.run("document.querySelector('#positions summary').click()")
    return page


def ask(page):
    page.run("document.getElementById('positions-go').click()")
    page.until(ANSWERED)


def answers(page):
    cells = "[...row.children].map((one) => one.textContent)"
    return page.run(f"[...document.querySelectorAll('#found-rows tr')].map((row) => {cells})")


def numbers_of(row):
    """A row of the answer: velocity, error bar, along the line of sight; NaN where there is none."""
    *along, los, _ = row[1:]
    pairs = [one.replace("−", "-").replace("–", "nan").partition("±") for one in [*along, los]]
    values = [float(value) for value, *_ in pairs]
    return values[:3], [float(std or "nan") for _, _, std in pairs[:3]], values[3]


def told(page, what):
    found = re.search(rf"{what} \(([^)]*)\)", text(page, "said").replace("−", "-"))
    return [float(v) for v in found[1].split(",")]


@pytest.mark.parametrize(
    ("coordinates", "space", "given"),
    [("box", "real", IN_THE_PARENT), ("box", "redshift", IN_THE_PARENT), ("sky", "real", ON_THE_SKY)],
)
def test_positions_that_are_typed(form, looked, job, coordinates, space, given):
    put(form, "coordinates", coordinates)
    put(form, "space", space)
    lines = [" ".join(map(str, row)) if i % 2 else ", ".join(map(str, row)) for i, row in enumerate(given)]
    put(form, "lines", r"\n".join(["# of a survey", "a b c", *lines, ""]))
    ask(form)
    found = vf.query(looked.results.place(job[0]), given, coordinates=coordinates, space=space)
    rows = answers(form)
    assert len(rows) == len(given)
    for row, v, std, los, flag in zip(
        rows, found["velocity"], found["velocity_std"], found["v_los"], found["flag"], strict=True
    ):
        shown = numbers_of(row)
        np.testing.assert_allclose(shown[0], v, atol=0.51)  # km/s are shown in whole numbers
        np.testing.assert_allclose(shown[1], std, atol=0.51)
        np.testing.assert_allclose(shown[2], los, atol=0.51)
        assert row[-1] == (", ".join(words for bit, words in MEANINGS.items() if flag & bit) or "good")
    assert text(form, "positions-state").startswith(f"4 rows. Good: {(found['flag'] == 0).sum()}")
    # the first that lies in the parent is shown in the pictures: of the whole parent, then of the box that holds it
    inside = np.isfinite(found["position"]).all(axis=1) & (found["flag"] & 1 == 0)
    assert form.run("document.querySelectorAll('#found-rows button').length") == inside.sum()
    i, j, k = np.floor(found["position"][inside][0] % PARENT.boxsize / PARENT.cellsize).astype(int)
    for box in ("", "5"):
        if box:
            choose(form, "box", box)
        form.run("document.querySelector('#found-rows button').click()")
        form.until(f"document.getElementById('where').textContent.includes(' z = {(k + 0.5) * PARENT.cellsize} ')")
        form.until(READY)
        assert text(form, "place").startswith(
            "x, y, z = " + ", ".join(f"{(at + 0.5) * PARENT.cellsize:g}" for at in (i, j, k))
        )
        np.testing.assert_allclose(told(form, "predicted"), job[1][:, i, j, k], atol=0.51)
    n = PARENT.cells
    assert form.run("document.getElementById('box').value") == str((i // n * 3 + j // n) * 3 + k // n)
    box = form.run(
        "(({top, bottom}) => [top, bottom])(document.querySelector('#panels figure').getBoundingClientRect())"
    )
    assert 0 <= box[0] < box[1] <= 900  # in sight
    form.run("document.getElementById('to-rows').click()")
    assert form.run("document.activeElement.closest('tr').rowIndex") == 1 + np.flatnonzero(inside)[0]
    assert form.run("document.activeElement.closest('tr').getAttribute('aria-current')") == "true"


@pytest.mark.parametrize("ending", ["csv", "parquet", "fits"])
def test_a_table_comes_back_as_velfield_query_writes_it(form, looked, job, tmp_path, ending):
    table = {"csv": text_table, "parquet": parquet_table, "fits": fits_table}[ending](tmp_path)
    (got := tmp_path / "got").mkdir()
    form.downloads(got)
    form.run("document.querySelector('input[value=table]').click()")
    form.file("#table-file", Path(table))
    assert form.run("document.getElementById('extension').checkVisibility()") == (ending == "fits")
    form.run("(([x, y]) => { x.value = 'y'; y.value = ' x '; })(document.querySelectorAll('[data-column]'))")
    put(form, "prefix", "new_")
    form.run("document.getElementById('extrapolate').click()")
    ask(form)
    how = {"columns": {"x": "y", "y": "x"}, "prefix": "new_", "extrapolate": True}
    counts = query_table(looked.results.place(job[0]), table, str(tmp_path / f"out.{ending}"), **how)
    came = arrived(form, got, f".{ending}")
    assert came.name == f"{Path(table).stem}-velocities.{ending}"
    assert came.read_bytes() == (tmp_path / f"out.{ending}").read_bytes()
    others = "".join(f", {words}: {counts[words]}" for words in MEANINGS.values() if counts[words])
    assert text(form, "positions-state") == f"4 rows. Good: {counts['good']}{others}. Saved as {came.name}."


def test_what_is_wrong_is_said_beside_the_form(form, tmp_path):
    def said(page):
        assert not page.run("document.getElementById('positions-error').hidden")
        assert page.run("document.getElementById('error').hidden")  # not far away
        return text(page, "positions-error")

    for lines, answer in [
        ("", "no position is there; write x, y, z: three numbers on each line"),
        ("1 2 3\\n\\n4 5", "not a position: line=3, text=4 5; write x, y, z: three numbers on each line"),
        ("1 2 3\\nx y z", "not a position: line=2, text=x y z; write x, y, z"),
        ("1 2 3\\n" * 201, "more positions than are shown here: positions=201, limit=200; send them as a table"),
    ]:
        put(form, "lines", lines)
        ask(form)
        assert said(form).startswith(answer)
    form.run("document.querySelector('input[value=table]').click()")
    assert form.run("document.getElementById('positions-error').hidden")
    ask(form)
    assert said(form) == "no file is chosen; choose a table of positions"
    form.file("#table-file", tmp_path / "none.txt")
    (tmp_path / "none.txt").write_text("")
    ask(form)
    assert said(form).startswith("not a table that is taken: file=none.txt; choose CSV")
    assert form.wrong == []  # none of this was asked of the service
    names = ["<img src=x onerror=alert(1)>", "b", "c"]  # a name of a column is text, whatever it is
    (tmp_path / "named.csv").write_text(",".join(names) + "\n1,2,3\n")
    form.file("#table-file", tmp_path / "named.csv")
    ask(form)
    assert said(form).startswith(
        f"no such column: file=table.csv, column=x, wanted for=x; the table has {', '.join(names)}; "
    )
    assert form.run("document.querySelectorAll('#positions img').length") == 0
    assert len(form.wrong) == 1
    assert "422" in form.wrong.pop()  # the browser logs what it was refused


def test_one_that_takes_long_is_told_and_can_be_stopped(form, tmp_path):
    form.downloads(tmp_path)
    (tmp_path / "long.csv").write_text("x,y,z\n" + "10.5,20.25,30.125\n" * 100_000)
    form.run("document.querySelector('input[value=table]').click()")
    form.file("#table-file", tmp_path / "long.csv")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1}
    form.call("Network.emulateNetworkConditions", **slow, uploadThroughput=100_000)
    form.run("document.getElementById('positions-go').click()")
    form.until("/^0\\.[1-9] of 1\\.8 MB$/.test(document.getElementById('positions-pace').textContent)")
    assert text(form, "positions-state") == "sending…"
    assert form.run("document.getElementById('positions-progress').checkVisibility()")
    assert 0 < form.run("document.getElementById('positions-progress').value") < 1.8e6
    assert form.run("document.getElementById('positions-go').disabled")
    form.run("document.getElementById('positions-stop').click()")
    form.until(ANSWERED)
    form.call("Network.emulateNetworkConditions", **slow, uploadThroughput=-1)
    assert text(form, "positions-state") == ""
    assert form.run("document.getElementById('positions-error').hidden")
    assert not form.run("document.getElementById('positions-go').disabled")
    assert [path.name for path in tmp_path.iterdir()] == ["long.csv"]


def test_by_keyboard_and_on_a_phone(form, looked, job):
    form.width(390, 844, phone=True)
    form.run("document.querySelector('#positions summary').focus()")
    for name in ("coordinates", "space"):
        tab_to(form, name)
    tab_to(form, "lines")
    form.call("Input.insertText", text="61 62 63\n1 2 3")
    tab_to(form, "positions-go")
    form.press("Enter", 13, "\r")
    form.until("document.querySelectorAll('#found-rows button').length === 2")
    form.until(ANSWERED)
    assert form.run("document.documentElement.scrollWidth") <= 390
    assert form.run(
        "document.querySelector('#found .aside').scrollWidth <= document.querySelector('#found .aside').clientWidth"
    )
    found = vf.query(looked.results.place(job[0]), [[61.0, 62.0, 63.0]])
    np.testing.assert_allclose(numbers_of(answers(form)[0])[0], found["velocity"][0], atol=0.51)
    for _ in range(3):
        form.press("Tab", 9)
    assert form.run("document.activeElement.textContent") == "1, 2, 3"
    form.press("Enter", 13, "\r")
    form.until("document.getElementById('where').textContent.startsWith('Slice 1 of')")
    form.until(READY)
    assert text(form, "place").startswith("x, y, z = 2.5, 2.5, 2.5 h⁻¹Mpc")
    box = form.run("(({top, bottom}) => [top, bottom])(document.getElementById('told').getBoundingClientRect())")
    assert 0 < box[0] < box[1] <= 844  # values are in sight
    form.fingers([form.place("#to-rows")])
    assert form.run("document.activeElement.textContent") == "1, 2, 3"
    # tables in the tree that screen readers hear, though rows are laid out in two lines
    tree = form.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert roles.count("rowheader") >= 2


def test_a_store_of_velocities_that_nobody_observes(models, cluster, tmp_path):
    url = written(str(tmp_path / "v.zarr"), linear, periodic=False)
    with serving(tmp_path / "state", models[:1], cluster, allow=[url]) as service, chrome.browser(service.url) as page:
        page.width(1280, 900)
        page.open()
        page.until("document.getElementById('store').value")
        assert page.run("document.getElementById('store').selectedOptions[0].text") == "v.zarr (velocities)"
        page.run("document.getElementById('submit').click()")  # it is to be looked at
        page.until("!document.getElementById('refusal').hidden")
        assert text(page, "refusal").startswith("no store of halos is chosen; ")
        choose(page, "store", page.run("document.getElementById('store').value"))
        shared = page.run("location.hash")
        page.call("Page.navigate", url="about:blank")
        page.open(f"/{shared}")  # the address names it
        page.until(READY)
        assert text(page, "look-title") == "v.zarr"
        page.run("document.querySelector('#positions summary').click()")
        assert page.run("['sky', 'redshift'].every((value) => document.querySelector(`[value=${value}]`).disabled)")
        put(page, "lines", r"(20, 30, 40)\n-5 1 1")
        ask(page)
        rows = answers(page)
        np.testing.assert_allclose(
            [float(v.replace("−", "-")) for v in rows[0][1:4]], linear(np.array([20.0, 30, 40])), atol=0.51
        )
        assert [rows[0][-1], *rows[1]] == ["good", "−5, 1, 1", "–", "–", "–", "outside the data"]
        assert page.wrong == []
