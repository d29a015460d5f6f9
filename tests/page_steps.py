"""Steps on the page in a headless Chromium, and the parent that the tests of it look at."""

import numpy as np

from velfield.geometry.boxes import BoxLayout

PARENT = BoxLayout(boxsize=120.0, boxes=3, cells=8)  # of the fixture `fields`
SIDE = PARENT.ngrid
READY = (
    "!document.getElementById('loading').textContent && document.querySelectorAll('#panels canvas').length"
    " && document.querySelector('#panels canvas').plain"
)
SOLID = "!/^$|loading/.test(document.getElementById('solid-about').textContent)"


def side_by_side(values):
    """Boxes (box, …, x, y, z) as one cube, by a loop."""
    n, whole = PARENT.cells, np.empty((*values.shape[1:-3], SIDE, SIDE, SIDE), values.dtype)
    for box, one in enumerate(values):
        x, y, z = (n * place for place in PARENT.index(box))
        whole[..., x : x + n, y : y + n, z : z + n] = one
    return whole


def put(page, name, value):
    page.run(
        f"(() => {{ const one = document.getElementById('{name}'); one.value = '{value}';"
        " one.dispatchEvent(new Event('input')); })()"
    )


def choose(page, name, value):
    put(page, name, value)
    page.until(READY)


def text(page, name):
    return page.run(f"document.getElementById('{name}').textContent")


def arrived(page, folder, ending):
    """The file that a download has left in a folder."""
    for _ in range(300):
        page.run("new Promise((done) => setTimeout(done, 100))")
        if found := [path for path in folder.iterdir() if path.suffix == ending]:
            return found[0]
    raise AssertionError(f"nothing came: {[*folder.iterdir()]}, {page.wrong}")


def tab_to(page, name):
    for _ in range(40):
        page.press("Tab", 9)
        if page.run("document.activeElement.id") == name:
            assert page.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 3
            return
    raise AssertionError(f"Tab does not reach {name}")
