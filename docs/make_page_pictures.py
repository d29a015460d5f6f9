"""Take the pictures of docs/page.md: ``python docs/make_page_pictures.py FIELDS``, with Chromium on the path.

FIELDS is a field store with particles; the commands that make the one of the pictures are in docs/page.md.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))

import chrome  # noqa: E402
from served import process  # noqa: E402

FIGURES = HERE / "figures"
SOLID = "!/^$|loading/.test(document.getElementById('solid-about').textContent)"
READY = "!document.getElementById('loading').textContent && document.querySelectorAll('#panels canvas').length === 3"
POSITIONS = "120 80.5 33\n301.25 17 210\n162.5 162.5 162.5"
CATALOGUE = "x,y,z,vx,vy,vz,mass\n12.5,140.25,301.0,-210.5,88.25,14.0,2.5e12\n"
DRAWN = "new Promise((done) => setTimeout(done, 1500))"  # a new width is drawn when it is seen


def take(fields: Path) -> None:
    """Predict a store on the page, look at its speeds, ask for positions, drop a catalogue; a picture of each."""
    with (
        tempfile.TemporaryDirectory() as state,
        process(Path(state), "pretrained", "--allow", str(fields), "--workers", "1") as (_, url),
        chrome.browser(url) as page,
    ):
        page.width(1280, 900)
        page.open()
        page.until("document.getElementById('store').value")
        page.run("document.getElementById('submit').click()")
        page.until("document.getElementById('state').textContent === 'done'", 1800)
        page.until(READY)
        page.run("document.querySelector('#panels canvas').focus()")
        page.press("ArrowRight", 39)
        choose(page, "speed")
        page.run("document.activeElement.blur()")
        page.place("#volume")  # it is loaded when it is seen
        page.until(SOLID)
        page.run("scrollTo(0, 0)")
        page.run(DRAWN)
        page.picture(FIGURES / "page-1280.png")
        page.run("document.querySelector('#positions summary').click()")
        page.run(f"document.getElementById('lines').value = {json.dumps(POSITIONS)}")
        page.run("document.getElementById('positions-go').click()")
        page.until("document.getElementById('found').checkVisibility()")
        page.run("document.querySelector('#found-rows button').click()")
        page.run("document.activeElement.blur()")
        page.until(READY)
        page.run(DRAWN)
        page.picture(FIGURES / "page-positions.png", of="#positions")
        page.run("document.querySelector('#positions summary').click()")
        table = Path(state) / "halos.csv"
        table.write_text(CATALOGUE)
        page.drag("#look-title", table)
        page.until("document.getElementById('catalogue-about').textContent.startsWith('halos.csv')")
        page.run("document.getElementById('submit').click()")
        page.until("!document.getElementById('refusal').hidden")
        page.run("document.activeElement.blur()")
        page.picture(FIGURES / "page-catalogue.png", of="#predict")
        page.run("document.querySelector('input[name=source][value=store]').click()")
        choose(page, "vx")
        page.width(390, 1680, phone=True)
        page.run(DRAWN)
        page.run("document.getElementById('look').scrollIntoView()")
        page.picture(FIGURES / "page-390.png", whole=False)
        assert page.wrong == [], page.wrong


def choose(page: chrome.Browser, colour: str) -> None:
    """Choose what is coloured."""
    page.run(
        f"(() => {{ const one = document.getElementById('colour'); one.value = '{colour}';"
        " one.dispatchEvent(new Event('input')); })()"
    )
    page.until(READY)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fields", type=Path, help="a field store with particles")
    store = parser.parse_args().fields
    if not (store / "zarr.json").is_file():
        raise SystemExit(f"no field store here: fields={store}; make one as docs/page.md says")
    if chrome.CHROMIUM is None:
        raise SystemExit("no Chromium on the path: PATH=" + os.environ["PATH"] + "; install it")
    take(store)
