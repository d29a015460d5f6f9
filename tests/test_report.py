"""The page: complete, self-contained, escaped."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from gaussian import universe
from matplotlib.figure import Figure

from velfield.accuracy.measures import metrics
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
    assert re.search(r"The U-Net beats the paper's FFT on \d of 4 measures\.", words)  # noise leaves the slope as it is
    assert "The U-Net is behind the zero-padded FFT, which is given the dark matter itself in real space: " in words
    assert words.index("beats") < words.index("One box in slices") < words.index("The numbers")
    for name, row in rows.items():
        assert figure_style.label(name) in words
        assert f"{row['cos_theta']['mean']:.2f}" in words
    assert "seed: 7" in words
    assert "velfield demo here\nvelfield info x" in page.text
    bold = re.findall(r'<tr><td>cos θ</td>.*?<td class="best">([\d.]+)', text)
    assert bold == [f"{rows['linear_padded']['cos_theta']['mean']:.2f}"]


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
