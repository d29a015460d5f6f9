"""The page: plain files of its own, readable colours, and a whole journey in a headless Chromium."""

import json
import re

import chrome
import matplotlib
import matplotlib.image
import numpy as np
import pytest
from page_steps import arrived
from served import ABOUT, cube, serving

from velfield.answers.interpolate import MEANINGS
from velfield.catalogues.meaning import MASSES, POSITIONS, VELOCITIES
from velfield.client.client import Client
from velfield.service.app import PAGE
from velfield.service.paint import Paint

TOKEN = "a-token-of-the-operator"
FILES = sorted(PAGE.iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_the_pages_own(path):
    text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"(https?:)?//[\w-]+\.\w", text)  # no other host
    assert "localStorage" not in text
    assert "innerHTML" not in text  # what the service says is text
    if path.suffix == ".html":
        assert not re.search(r"\s(style|on\w+)=", text)
        assert not re.search(r"<style|<script(?![^>]*src=)", text)


def test_tables_of_colours_are_matplotlibs():
    text = (PAGE / "colour.js").read_text(encoding="utf-8")
    tables = dict(re.findall(r'(\w+): "([0-9a-f]{190,})"', text))
    assert set(tables) == {"viridis", "cividis", "magma", "coolwarm"}
    for name, table in tables.items():
        found = np.frombuffer(bytes.fromhex(table), "u1").reshape(-1, 3)
        expected = matplotlib.colormaps[name](np.linspace(0, 1, len(found)))[:, :3] * 255
        assert np.abs(found - expected).max() <= 0.5 + 1e-9


def test_flags_of_velocities_are_called_what_velfield_calls_them():
    listed = re.search(r"MEANINGS = \{(.*?)\}", (PAGE / "positions.js").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert {int(bit): words for bit, words in re.findall(r'(\d+): "([^"]*)"', listed)} == MEANINGS


def test_columns_of_halos_are_known_by_the_names_that_velfield_knows():
    listed = re.search(r"KNOWN = (\[.*?\n\]);", (PAGE / "files.js").read_text(encoding="utf-8"), re.DOTALL)[1]
    known = json.loads(re.sub(r",\s*\]", "]", listed))
    assert known == [[list(names) for names in kinds] for kinds in (POSITIONS["halos"], VELOCITIES["halos"], MASSES)]


def test_each_redshift_space_is_explained():
    explained = re.findall(r'^  (\w+): \["', (PAGE / "request.js").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(Paint.model_json_schema()["properties"]["rsd"]["enum"]) <= set(explained)


def test_text_stands_out():
    css = (PAGE / "style.css").read_text(encoding="utf-8")
    schemes = re.findall(r":root \{([^}]*)\}", css)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", scheme))
        pairs = [(ink, ground) for ink in ("ink", "soft", "main") for ground in ("card", "ground")]
        for ink, ground in [*pairs, ("main-ink", "main"), ("warn", "warn-ground")]:
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)  # WCAG 2.2, 1.4.3
        for name in ("focus", "main", "soft"):  # of the focus, buttons and fields
            assert min(contrast(colours[name], colours[ground]) for ground in ("card", "ground")) >= 3  # 1.4.11


def contrast(a, b):
    def light(colour):
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted([light(a), light(b)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_can_fail():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#888888") < 2


READY = "!document.getElementById('loading').textContent && document.querySelectorAll('#panels canvas').length"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@chrome.needed
def test_upload_wait_picture_download(models, fields, cluster, tmp_path):
    arrays, given = cube(seed=3, cells=8), tmp_path / "cube.npz"
    np.savez(given, **arrays)
    (tmp_path / "bad.npz").write_text("not a zip")
    (got := tmp_path / "got").mkdir()
    with (
        serving(tmp_path / "state", models[:1], cluster, tokens=[TOKEN], allow=[fields]) as service,
        chrome.browser(service.url) as page,
        Client(service.url, token=TOKEN) as client,
    ):
        page.width(1280, 900)
        page.downloads(got)
        page.open()
        by_token(page)
        by_keyboard_alone(page)
        page.run("document.querySelector('input[value=upload]').click()")
        a_sentence_of_the_service(page, tmp_path / "bad.npz")
        page.file("#file", given)
        for name, value in ABOUT.items():
            page.run(f"document.querySelector('[data-cube={name}]').value = '{value}'")
        page.run("document.getElementById('submit').click()")
        page.until("document.getElementById('state').textContent === 'done'", 900)
        page.until(READY, 60)
        assert page.run("document.getElementById('pace').textContent") == "predict: 1 of 1 boxes"
        expected = client.predict("plain", arrays, **ABOUT)
        the_picture(page, expected["velocity"])
        words_of_a_cell(page, expected)
        downloads(page, got, expected)
        truth_of_a_store(page)
        widths(page)
        assert page.wrong == []


def by_token(page):
    page.until("!document.getElementById('token').hidden")
    assert "no token" in page.run("document.getElementById('error').textContent") or page.run(
        "document.activeElement.id === 'token-value'"
    )
    page.run("document.getElementById('token-value').focus()")
    page.call("Input.insertText", text=TOKEN)
    page.press("Enter", 13, "\r")
    page.until("document.getElementById('store').options.length")
    assert all("401" in one for one in page.wrong)  # the browser logs what it was refused
    assert page.wrong
    page.wrong.clear()
    assert page.run("localStorage.length") == 0
    assert page.run("sessionStorage.length") == 1


def by_keyboard_alone(page):
    """Every control is reached by Tab, in the order of the page, and shows that it has the focus."""
    nameless = "[...document.querySelectorAll('input, select')].filter((one) => one.labels.length !== 1)"
    assert page.run(f"{nameless}.map((one) => one.id)") == []
    page.run("document.activeElement.blur()")
    reached = []
    for _ in range(8):
        page.press("Tab", 9)
        reached.append(page.run("document.activeElement.id || document.activeElement.className"))
        assert page.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 3, reached
    assert {"model", "store", "isolated", "average", "submit"} <= set(reached), reached


def a_sentence_of_the_service(page, bad):
    page.file("#file", bad)
    page.run("document.getElementById('submit').click()")
    page.until("!document.getElementById('refusal').hidden")
    said = page.run("document.getElementById('refusal').textContent")
    assert page.run("document.getElementById('file').getAttribute('aria-invalid')") == "true"  # next to the file
    assert said.startswith("not an npz, or a damaged one; send numpy.savez(file, ")
    assert len(page.wrong) == 1
    assert "422" in page.wrong[0]
    page.wrong.clear()


def choose(page, name, value):
    page.run(
        f"(() => {{ const one = document.getElementById('{name}'); one.value = '{value}';"
        " one.dispatchEvent(new Event('input')); })()"
    )
    page.until(READY)


def the_picture(page, velocity):
    """Each cell of the picture has the colour of its number."""
    choose(page, "arrows", "no")
    choose(page, "colour", "vx")
    choose(page, "index", "2")
    page.until("document.getElementById('where').textContent.startsWith('Slice 3 of 8')")
    left, right, top = (
        int(re.search(rf"\b{name} = (\d+)", (PAGE / "panel.js").read_text())[1]) for name in ("LEFT", "RIGHT", "TOP")
    )
    n = velocity.shape[-1]
    script = f"""(() => {{
        const canvas = document.querySelector('#panels canvas'), context = canvas.getContext('2d');
        const size = canvas.clientWidth - {left + right}, found = [];
        const image = context.getImageData(0, 0, canvas.width, canvas.height).data;
        for (let i = 0; i < {n}; i++) for (let j = 0; j < {n}; j++) {{
            const x = Math.floor({left} + (i + 0.5) * size / {n});
            const y = Math.floor({top} + size - (j + 0.5) * size / {n});
            found.push([...image.slice(4 * (y * canvas.width + x), 4 * (y * canvas.width + x) + 4)]);
        }}
        return found; }})()"""
    found = np.array(page.run(script))[:, :3].reshape(n, n, 3)
    reach = np.percentile(np.sqrt((velocity.astype("f8") ** 2).sum(0)), 99.5)
    place = np.clip(velocity[0, :, :, 2] / reach / 2 + 0.5, 0, 1)
    expected = matplotlib.colormaps["coolwarm"](place)[..., :3] * 255
    assert np.abs(found - expected).max() <= 3  # 33 stops and 256 steps
    assert np.ptp(expected, axis=(0, 1)).max() > 60  # the picture is not one colour


def words_of_a_cell(page, expected):
    page.run("document.querySelector('#panels canvas').focus()")
    page.press("ArrowRight", 39)
    page.press("ArrowRight", 39)
    page.press("ArrowUp", 38)
    told = page.run("document.getElementById('readout').textContent")
    told = [float(v) for v in re.search(r"predicted \(([^)]*)\)", told.replace("−", "-"))[1].split(",")]
    np.testing.assert_allclose(told, expected["velocity"][:, 5, 5, 2], atol=0.51)
    page.press("PageUp", 33)
    page.until("document.getElementById('where').textContent.startsWith('Slice 4 of 8')")
    page.until(READY)


def downloads(page, folder, expected):
    page.run("document.getElementById('take-npz').click()")
    with np.load(arrived(page, folder, ".npz")) as found:
        assert set(found) == {*expected, "velocity_flag"}
        for name, values in expected.items():
            # the same network in another process, with as many threads as it likes
            np.testing.assert_allclose(found[name][0], values, rtol=1e-4, atol=1e-2)
    page.run("document.getElementById('take-png').click()")
    picture = matplotlib.image.imread(arrived(page, folder, ".png"))
    assert picture.shape[0] > 900
    assert picture.std() > 0.05


def truth_of_a_store(page):
    page.run("document.querySelector('input[name=source][value=store]').click()")
    store = page.run("document.getElementById('store').options[1].value")
    choose(page, "store", store)  # it is shown when it is chosen
    page.until("document.getElementById('look-title').textContent === 'fields.zarr'")
    page.until(READY)
    options = page.run("[...document.getElementById('colour').options].map((one) => one.value)")
    assert options[-4:] == ["vx", "vy", "vz", "flag"]
    assert json.loads(page.run("JSON.stringify(document.getElementById('box').max)")) == "26"
    choose(page, "colour", "flag")


def widths(page):
    for width in (360, 1280):
        page.width(width, 800, phone=width < 800)
        page.until(f"document.documentElement.scrollWidth <= {width}", 20)
