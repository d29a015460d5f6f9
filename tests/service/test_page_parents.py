"""The page on a whole parent, in a headless Chromium, by mouse, keyboard and touch; pictures held against numbers."""

import re

import chrome
import matplotlib
import numpy as np
import pytest
from page_steps import PARENT, READY, SIDE, SOLID, arrived, choose, put, side_by_side, tab_to, text
from small_store import arrays_of

from velfield.service.app import PAGE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), chrome.needed]
LEFT, RIGHT, TOP = (
    int(re.search(rf"\b{name} = (\d+)", (PAGE / "panel.js").read_text())[1]) for name in ("LEFT", "RIGHT", "TOP")
)


def colours(page, number, n):
    """The colours of a picture's cells (n, n, 3), 0 to 1, each a little aside of its centre's lines."""
    size = page.run(f"document.querySelectorAll('#panels canvas')[{number}].clientWidth") - LEFT - RIGHT
    image = page.pixels(f"#panels figure:nth-child({number + 1}) canvas")
    at = (np.arange(n) + 0.5) * size / n
    x, y = np.floor(LEFT + at).astype(int), np.floor(TOP + size - at).astype(int)
    return image[y[None, :], x[:, None], :3]


def of_vx(values, reach):
    return matplotlib.colormaps["coolwarm"](np.clip(values / reach / 2 + 0.5, 0, 1))[..., :3]


def point_at(page, i, j, n, number=0):
    """Where cell (i, j) of a picture is in the window."""
    x, y = page.place(f"#panels figure:nth-child({number + 1}) canvas", 0, 0)
    size = page.run(f"document.querySelectorAll('#panels canvas')[{number}].clientWidth") - LEFT - RIGHT
    return x + LEFT + (i + 0.5) * size / n, y + TOP + size - (j + 0.5) * size / n


def told(page, what):
    """Velocities of the pixel that is pointed at."""
    found = re.search(rf"{what} \(([^)]*)\)", text(page, "said").replace("−", "-"))
    return [float(v) for v in found[1].split(",")]


def reach_of(values):
    """Of eight boxes all over the parent; the page takes the larger one of prediction and truth."""
    n, some = PARENT.cells, []
    for box in (0, 4, 7, 11, 15, 19, 22, 26):
        x, y, z = (n * place for place in PARENT.index(box))
        some.append(values[:, x : x + n, y : y + n, z : z + n].reshape(3, -1))
    return np.percentile(np.sqrt((np.concatenate(some, 1).astype("f8") ** 2).sum(0)), 99.5)


def test_all_boxes_side_by_side_and_one_of_them(page, job):
    made, truth = job[1], side_by_side(arrays_of(PARENT)["velocity"])
    choose(page, "arrows", "no")
    choose(page, "colour", "vx")
    choose(page, "axis", "y")
    choose(page, "index", "13")
    assert text(page, "where") == f"Slice 14 of {SIDE}: y = 67.5 h⁻¹Mpc"
    assert text(page, "pixel") == "All 27 boxes side by side. A pixel is a cell of 5 h⁻¹Mpc."
    reach = max(reach_of(made), reach_of(truth))
    apart = (made[0] - truth[0])[:, 13]
    for number, values in enumerate(
        (of_vx(made[0, :, 13], reach), of_vx(truth[0, :, 13], reach), of_vx(apart, reach / 2))
    ):
        found = colours(page, number, SIDE)
        plain = np.ones((SIDE, SIDE), bool)
        plain[[7, 8, 15, 16]] = plain[:, [7, 8, 15, 16]] = False  # lines between boxes
        assert np.abs(found - values)[plain].max() <= 4 / 255, number  # 33 stops and 256 steps
    # a click goes into the box at that place: x, z = 9, 20 is in box (1, 1, 2)
    page.click(*point_at(page, 9, 20, SIDE))
    page.until("document.getElementById('where').textContent.startsWith('Slice 6 of 8: y = 67.5')")
    page.until(READY)
    assert page.run("document.getElementById('box').value") == str((1 * 3 + 1) * 3 + 2)
    assert text(page, "pixel") == "Box 14 of 27. A pixel is a cell of 5 h⁻¹Mpc."
    np.testing.assert_allclose(told(page, "predicted"), made[:, 9, 13, 20], atol=0.51)
    np.testing.assert_allclose(told(page, "truth"), truth[:, 9, 13, 20], atol=0.51)
    assert text(page, "place").startswith("x, y, z = 47.5, 67.5, 102.5 h⁻¹Mpc")
    page.click(*page.place("#out"))
    page.until(f"document.getElementById('where').textContent.startsWith('Slice 14 of {SIDE}')")
    page.until(READY)
    np.testing.assert_allclose(told(page, "predicted"), made[:, 9, 13, 20], atol=0.51)
    choose(page, "box", "25")  # it does not hold that place: no pixel is pointed at
    page.until("document.getElementById('told').hidden")
    assert text(page, "where").startswith("Slice 6 of 8: y = 107.5")


def test_the_slice_in_numbers(page, job):
    made, truth = job[1], side_by_side(arrays_of(PARENT)["velocity"])
    choose(page, "colour", "vz")
    a, b = made[2, :, :, 12].astype("f8"), truth[2, :, :, 12].astype("f8")
    rows = page.run(
        "[...document.querySelectorAll('#sums tr')].map((row) => [...row.children].map((c) => c.textContent))"
    )
    assert [row[0] for row in rows] == ["Prediction [km/s]", "Truth [km/s]", "Prediction − truth [km/s]"]
    for row, values in zip(rows, (a, b, a - b), strict=True):
        expected = [values.min(), values.mean(), values.max(), np.sqrt((values**2).mean())]
        np.testing.assert_allclose([float(x.replace("−", "-")) for x in row[1:]], expected, rtol=0.006, atol=1e-3)
    said = float(text(page, "correlation").rpartition(" ")[2].rstrip(".").replace("−", "-"))
    assert said == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], rel=0.01, abs=1e-4)
    choose(page, "colour", "error")
    rows = page.run(
        "[...document.querySelectorAll('#sums tr')].map((row) => [...row.children].map((c) => c.textContent))"
    )
    apart = np.sqrt(((made - truth)[..., 12].astype("f8") ** 2).mean(0))
    assert rows[1][0] == "Error made [km/s a component]"
    assert float(rows[1][2]) == pytest.approx(apart.mean(), rel=0.006)
    choose(page, "colour", "flag")
    assert page.run("document.querySelector('#sums td').textContent") == "known: 100 %"


def test_pixels_that_stand_for_several_cells_are_said_and_drawn(page):
    """A plane of 600 cells comes in 200 pixels; one of 601 in 201, the last of which reach beyond its side."""
    about = "{ whole: true, joined: true, boxes: 1000, cells: 60, cellsize: 5 }"
    said = page.run(f"import('/place.js').then(({{ Place }}) => new Place({about}, null).words(3))")
    assert said == "All 1000 boxes side by side. A pixel is the mean of 3 × 3 cells, 15 h⁻¹Mpc wide."
    script = """Promise.all([import('/panel.js'), import('/colour.js')]).then(([{ cellAt, draw }, { linear }]) => {
        const canvas = document.createElement('canvas'), n = 3, values = Float32Array.from([0, 0, 0, 0, 0, 0, 1, 1, 1]);
        canvas.width = canvas.height = 500;
        const context = canvas.getContext('2d', { willReadFrequently: true });
        const panel = { values, n, pixel: 2, side: 5, from: [0, 0], boxes: null, dims: ['x', 'y'],
          scale: linear('viridis', 0, 1), label: '', arrows: null };
        draw(context, 400, panel, '#000');
        const at = (x) => [...context.getImageData(x, 100, 1, 1).data.slice(0, 3)];
        const [left, right] = [46 + 344 * 0.78, 46 + 344 * 0.82];
        return [at(left), at(right), ...[left, right, 395].map((x) => cellAt(400, x, 100, panel))];
      })"""
    assert page.run(script) == [[68, 1, 84], [253, 231, 37], [1, 1], [2, 1], None]


def drawn(page):
    """The pixels of the view in three dimensions that are squares of cells: coloured ones, above the bar."""
    image = page.pixels("#volume")[:-60]
    return (image[..., 3] > 0.5) & (np.ptp(image[..., :3], axis=2) > 0.1)


def test_the_view_in_three_dimensions_is_drawn_and_turns(page):
    choose(page, "colour", "speed")
    page.place("#volume")
    page.until(SOLID)
    assert text(page, "solid-about") == "All 27 boxes, 120 h⁻¹Mpc wide; a square is a cell."
    first = drawn(page)
    assert first.sum() > 2000
    page.run("document.getElementById('volume').focus()")
    page.press("ArrowRight", 39)
    assert (drawn(page) != first).sum() > 1000
    page.press("ArrowLeft", 37)
    assert (drawn(page) != first).sum() < 100  # back where it was
    x, y = page.place("#volume")
    page.call("Input.dispatchMouseEvent", type="mousePressed", button="left", clickCount=1, x=x, y=y)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, x=x + 60, y=y + 30)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", button="left", clickCount=1, x=x + 60, y=y + 30)
    turned = drawn(page)
    assert (turned != first).sum() > 1000
    page.press("-", 189, "-")
    assert extent(drawn(page)) < 0.95 * extent(turned)
    put(page, "share", "60")
    assert drawn(page).sum() > first.sum()
    # truth is another picture than the prediction, and what they are apart a third
    seen = [page.pixels("#volume")]
    for name in ("truth", "apart"):
        put(page, "solid", name)
        page.until(SOLID)
        seen.append(page.pixels("#volume"))
    assert all(np.abs(a - b).max() > 0.2 for a, b in ((seen[0], seen[1]), (seen[1], seen[2])))


def extent(shown):
    return np.ptp(np.flatnonzero(shown.any(axis=0)))


def test_fingers_on_a_phone(page, job):
    page.width(390, 844, phone=True)
    choose(page, "colour", "speed")
    at = point_at(page, 5, 9, SIDE)
    page.fingers([at])
    np.testing.assert_allclose(told(page, "predicted"), job[1][:, 5, 9, SIDE // 2], atol=0.51)
    assert page.run("document.getElementById('box').value") == ""  # a tap asks, it does not go in
    box = page.run("(({top, bottom}) => [top, bottom])(document.getElementById('told').getBoundingClientRect())")
    assert 0 < box[0] < box[1] <= 844  # in sight, whichever picture is
    right = at[0] + 6 * page.run("document.querySelector('#panels canvas').clientWidth - 56") / SIDE
    page.fingers([at, ((at[0] + right) / 2, at[1]), (right, at[1])])
    np.testing.assert_allclose(told(page, "predicted"), job[1][:, 11, 9, SIDE // 2], atol=0.51)
    page.fingers([page.place("#into")])
    page.until("document.getElementById('box').value === '13'")
    page.until(READY)
    page.fingers([page.place("#hide")])
    assert page.run("document.getElementById('told').hidden")
    x, y = page.place("#volume")
    page.until(SOLID)
    first, before = drawn(page), page.run("window.scrollY")
    page.fingers([(x - 30, y - 40), (x - 30, y + 40)])  # one that goes down turns it, the page stays
    turned = drawn(page)
    assert (turned != first).sum() > 300
    assert page.run("window.scrollY") == before
    page.fingers([(x - 60, y), (x - 30, y)], [(x + 60, y), (x + 30, y)])
    assert extent(drawn(page)) < 0.8 * extent(turned)
    assert page.run("visualViewport.scale") == 1
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_by_keyboard_alone_from_choosing_to_download(looked, browser, tmp_path):
    page = browser
    page.width(1280, 900)
    page.downloads(tmp_path)
    page.asked.clear()
    page.call("Page.navigate", url="about:blank")
    page.open()
    page.until("document.getElementById('store').options.length")
    page.until(READY)
    tab_to(page, "model")
    tab_to(page, "store")
    if not page.run("document.getElementById('store').value"):  # where a job is shown first, no store is chosen
        page.press("ArrowDown", 40)
    page.until("document.getElementById('look-title').textContent === 'fields.zarr'")
    tab_to(page, "isolated")
    page.press(" ", 32, " ")
    tab_to(page, "submit")
    page.press("Enter", 13, "\r")
    page.until("document.getElementById('state').textContent === 'done'", 600)
    page.until("document.getElementById('look-title').textContent === 'plain on fields.zarr'")
    page.until(READY)
    assert page.run("document.getElementById('colour').value") == "speed"
    tab_to(page, "colour")
    page.press("ArrowUp", 38)
    page.until("document.getElementById('colour').value === 'matter_number_overdensity'")
    tab_to(page, "index")
    page.press("Home", 36)
    page.until("document.getElementById('where').textContent.startsWith('Slice 1 of 24')")
    page.until(READY)
    page.press("Tab", 9)
    assert page.run("document.activeElement.tagName") == "CANVAS"
    page.press("ArrowRight", 39, shift=True)
    page.press("PageUp", 33)
    page.until("document.getElementById('where').textContent.startsWith('Slice 2 of 24')")
    page.until(READY)
    page.press("Enter", 13)
    page.until("document.getElementById('where').textContent.startsWith('Slice 2 of 8')")
    page.until(READY)
    assert page.run("document.activeElement.tagName") == "CANVAS"  # the focus stays in the picture
    page.press("Escape", 27)
    page.until("document.getElementById('where').textContent.startsWith('Slice 2 of 24')")
    tab_to(page, "take-npz")
    page.press("Enter", 13, "\r")
    with np.load(arrived(page, tmp_path, ".npz")) as arrays:
        assert arrays["velocity"].shape == (27, 3, 8, 8, 8)
    # all of this asked nothing of any other host, and one that is asked would be noticed
    assert page.wrong == []
    assert len(page.asked) > 40
    asked = [url.removeprefix("blob:") for url in page.asked if url != "about:blank"]
    assert {"/".join(url.split("/")[:3]) for url in asked} == {looked.url}
    other = "fetch('http://127.0.0.2:8099/').catch(() => 0)"
    page.run(other)
    assert all("Content Security Policy" in one for one in page.wrong)  # the page could not
    page.call("Page.navigate", url="about:blank")
    page.run(other)
    assert "another host: http://127.0.0.2:8099/" in page.wrong
    page.wrong.clear()
