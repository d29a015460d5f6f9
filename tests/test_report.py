"""The page: complete, self-contained, escaped."""

import base64
import re
from html.parser import HTMLParser

import chrome
import numpy as np
import pytest
from gaussian import universe
from matplotlib.figure import Figure

from velfield.accuracy.measures import metrics
from velfield.accuracy.standing import lost, standings
from velfield.analysis import figure_style
from velfield.analysis.report import CAPTIONS, load_figures, write_report
from velfield.errors import VelfieldError


@pytest.fixture(scope="module")
def rows():
    true = universe(12, 10.0, seed=3)[1]
    rng = np.random.default_rng(4)
    noise = {"linear": 120, "linear_padded": 40, "unet": 60}
    return {
        name: metrics(
            np.stack([true + rng.normal(0, level, true.shape) for _ in range(2)]), np.stack([true] * 2), cellsize=10.0
        )
        for name, level in noise.items()
    }


@pytest.fixture(scope="module")
def picture():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    return figure


class Page(HTMLParser):
    """Tags, attributes and text of a page; an unclosed or crossed element is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(tmp_path, **given):
    url = write_report(str(tmp_path), **given)
    assert url == f"{tmp_path}/report.html"
    text = (tmp_path / "report.html").read_text()
    return text, Page(text)


def test_every_row_and_the_comparison_first(tmp_path, rows, picture):
    run = {"Universe": {"seed": 7, "particles": "192³"}, "Commands": ["velfield demo here", "velfield info x"]}
    text, page = page_of(tmp_path, metrics=rows, figures={"slices": picture}, run=run)
    words = re.sub(r"\s+", " ", page.text)
    for one in standings(rows):
        for clause in one.clauses():
            assert re.sub(r"\s+", " ", clause.capitalize()[:6] + clause[6:]) in words[words.index(one.against) :]
    assert re.sub(r"\s+", " ", lost(rows)) in words
    assert re.search(r"<h1>The U-Net errs more than the zero-padded FFT, which is given the dark matter itself", text)
    assert words.index("errs more than") < words.index("Behind in") < words.index("One box in slices")
    assert words.index("One box in slices") < words.index("The numbers")
    assert "Y. Wang and X. Yang (2024), Peculiar Velocity Reconstruction From Simulations" in words
    assert "arXiv:2406.14101" in words
    for name, row in rows.items():
        assert figure_style.label(name) in words
        assert f"{row['cos_theta']['mean']:.2f}" in words
    assert "seed: 7" in words
    assert "velfield demo here\nvelfield info x" in page.text
    bold = re.findall(r'<tr><td>cos θ</td>.*?<td class="best">([\d.]+)', text)
    assert bold == [f"{rows['linear_padded']['cos_theta']['mean']:.2f}"]


def test_the_page_says_what_turned_numbers_say(tmp_path, rows):
    """The two rows exchanged: what was behind is ahead."""
    swapped = rows | {"unet": rows["linear_padded"], "linear_padded": rows["unet"]}
    for given, verb, side in ((rows, "errs more than", "behind"), (swapped, "errs less than", "ahead")):
        _, page = page_of(tmp_path, metrics=given, figures={}, run={})
        assert f"The U-Net {verb} the zero-padded FFT" in page.text
        (clause,) = (clause for clause in standings(given)[0].clauses() if "rms error" in clause)
        assert clause.startswith(f"{side} in ")
        assert clause.split(" in ", 1)[1] in page.text


def test_rows_stand_beside_each_other_with_what_they_are_given(tmp_path, rows):
    made = {"unet": rows["unet"], "wiener": rows["linear_padded"], "linear": rows["linear"]}
    text, _ = page_of(tmp_path, metrics=made, figures={}, run={})
    heads = re.findall(r'<th>([^<]*)<span class="err">([^<]*)</span></th>', text)
    assert heads == [("U-Net", "halos"), ("Wiener filter", "halos"), ("linear (FFT)", "dark matter")]
    assert re.search(r"<tr><td>cos θ</td><td>[^/]*</span></td><td class=\"best\">", text)


@chrome.needed
@pytest.mark.parametrize("width", [320, 500, 1200])
def test_the_page_fits_its_window(tmp_path, rows, picture, width):
    made = {**rows, "wiener": rows["linear"], "linear_halo_padded": rows["linear"]}
    run = {"Commands": ["velfield paint " + 60 * "fields-3.zarr "], "Seed": {"a": "0123456789abcdef" * 12}}
    page_of(tmp_path, metrics=made, figures={"slices": picture, "line": picture}, run=run)
    with chrome.browser(f"file://{tmp_path}") as tab:
        tab.width(width, 900, phone=width < 600)
        tab.open("/report.html")
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert tab.run("[...document.images].every(i => i.getBoundingClientRect().right <= innerWidth)")
        wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        assert tab.run(f"{wide}.every(e => e.closest('.scroll'))")  # only tables, which scroll by themselves
        if width == 320:
            assert tab.run(f"{wide}.length") > 0
        assert tab.wrong == []


def test_pictures_are_inside_and_nothing_is_outside(tmp_path, rows, picture):
    text, page = page_of(tmp_path, metrics=rows, figures={"slices": picture, "mine": figure_style.png(picture)}, run={})
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 6  # slices, four of all boxes, and the one of another name, last
    for attrs in images:
        data = base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert data.startswith(b"\x89PNG")
        assert attrs["alt"]
        assert int(attrs["width"]) > int(attrs["height"]) > 0
    assert images[-1]["alt"] == "mine"
    assert not re.search(r"https?://|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]+", "", text))
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") or name == "href" for _, attrs in page.tags for name in attrs)
    assert "prefers-color-scheme:dark" in text
    assert "@media print" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width,initial-scale=1"}) in page.tags


def test_everything_is_escaped(tmp_path, rows, picture):
    evil = '<script>alert("1")</script>&'
    text, page = page_of(
        tmp_path,
        metrics={evil: rows["unet"]},
        figures={evil: picture},
        run={evil: evil, "b": {evil: evil}, "c": [evil]},
        title=evil,
    )
    assert "<script" not in text
    assert page.text.count(evil) >= 8  # title twice, tiles, table, caption, run


def test_figures_are_read_from_the_evaluation(tmp_path, rows, picture):
    for name in ("slices", "line"):
        figure_style.save(picture, str(tmp_path / "figures" / f"{name}.png"))
    found = load_figures(str(tmp_path / "figures"))
    assert list(found) == ["slices", "line"]
    url = write_report(str(tmp_path / "page.html"), metrics=rows, figures=found, run={})
    assert url.endswith("page.html")
    text = (tmp_path / "page.html").read_text()
    for name in found:
        assert CAPTIONS[name][0] in text


def test_without_a_network_the_title_stands_above(tmp_path, rows):
    _, page = page_of(tmp_path, metrics={"linear": rows["linear"]}, figures={}, run={}, title="Linear theory alone")
    assert "Linear theory alone" in page.text
    assert "beats" not in page.text
    assert "Not recorded." in page.text


def test_what_cannot_be_shown_is_refused(tmp_path, rows):
    with pytest.raises(VelfieldError, match=r"nothing to report: metrics=\{\}; give at least one row"):
        write_report(str(tmp_path), metrics={}, figures={}, run={})
    with pytest.raises(VelfieldError, match="not a PNG picture: figure=slices, bytes=5; give PNG bytes or a Figure"):
        write_report(str(tmp_path), metrics=rows, figures={"slices": b"hello"}, run={})
    assert not (tmp_path / "report.html").exists()


def test_figures_of_several_panels_have_the_whole_width(tmp_path, rows, picture):
    text, _ = page_of(tmp_path, metrics=rows, figures={"misalignment": picture, "line": picture}, run={})
    headings = re.findall(r"<figure( class=wide)?><h3>([^<]*)", text)
    wide = {heading for mark, heading in headings if mark}
    assert CAPTIONS["misalignment"][0] in wide
    assert CAPTIONS["line"][0] not in wide
