"""The page for who sees little, hears it, or wants nothing to move: measured on what a headless Chromium shows."""

import chrome
import pytest
from page_steps import SOLID, choose, put, text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), chrome.needed]

# Of all text that is shown: its contrast with what is behind it, where that is below what WCAG 2.2 (1.4.3) asks for.
FAINT = """(() => {
  const channels = (css) => css.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const parts = [0.2126, 0.7152, 0.0722];
  const light = (rgb) => parts.reduce((sum, part, i) => sum + part * linear(rgb[i] / 255), 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const c = channels(getComputedStyle(one).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    throw new Error('nothing is behind');
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !one.checkVisibility() || one.closest(':disabled')) continue;
    const [a, b] = [light(channels(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), walker.currentNode.textContent.trim()]);
  }
  return found;
})()"""
TARGETS = """[...document.querySelectorAll('button, select, summary, textarea, input')]
  .filter((one) => !['radio', 'checkbox'].includes(one.type) && one.checkVisibility())
  .map((one) => [one.getBoundingClientRect(), one.id || one.textContent])
  .map(([{ width, height }, name]) => [Math.min(width, height), name])"""


def media(page, **features):
    page.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()],
    )


def all_shown(page):
    """All parts of the page that there are, with a pixel that is pointed at."""
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    page.run("document.querySelector('#panels canvas').focus()")
    page.press("ArrowRight", 39)
    page.place("#volume")
    page.until(SOLID)


def asked(page):
    """Velocities at two positions."""
    put(page, "lines", r"1 2 3\n4 5 6")
    page.run("document.getElementById('positions-go').click()")
    page.until("document.getElementById('found').checkVisibility()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out(page, scheme):
    media(page, color_scheme=scheme)
    all_shown(page)
    asked(page)
    page.run("document.querySelector('#found-rows tr').click()")
    for colour in ("speed", "error"):
        choose(page, "colour", colour)
        found = page.run(FAINT)
        assert len(found) > 60
        assert [one for one in found if one[0] < 4.5] == []
    page.run("document.getElementById('place').style.color = '#888'")
    assert any(one[0] < 4.5 for one in page.run(FAINT))  # and what does not would be noticed


def test_pictures_follow_the_scheme_of_colours(page):
    media(page, color_scheme="light")
    light = page.pixels("#panels canvas")
    media(page, color_scheme="dark")
    dark = page.pixels("#panels canvas")
    ink = [image[image[..., 3] == 1][:, :3] for image in (light, dark)]  # axes are drawn in the text's colour
    assert (ink[0].max(axis=1) < 0.2).sum() > 100
    assert (ink[1].min(axis=1) > 0.85).sum() > 100
    media(page, color_scheme="light")


def test_nothing_moves_for_who_wants_that(page):
    moving = """[...document.querySelectorAll('*')].map((one) => getComputedStyle(one))
      .filter((style) => /[1-9]/.test(style.transitionDuration) || style.animationName !== 'none').length"""
    media(page, reduced_motion="no-preference")
    assert page.run(moving) > 0
    media(page, reduced_motion="reduce")
    assert page.run(moving) == 0


def test_controls_have_names_and_can_be_hit(page):
    page.width(390, 844, phone=True)
    all_shown(page)
    asked(page)
    fields = "[...document.querySelectorAll('input, select, textarea')]"
    nameless = f"{fields}.filter((one) => one.labels.length !== 1).map((one) => one.id)"
    assert page.run(nameless) == []
    assert page.run("[...document.querySelectorAll('button')].filter((one) => !one.textContent.trim()).length") == 0
    assert [one for one in page.run(TARGETS) if one[0] < 24] == []  # 2.5.8
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {
        "button",
        "combobox",
        "slider",
        "textbox",
        "spinbutton",
        "radio",
        "checkbox",
        "application",
        "image",
        "table",
        "rowheader",
    }
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert {role for role, _ in named} >= {"button", "combobox", "slider", "application", "table", "rowheader"}
    assert [role for role, name in named if not name] == []


def test_what_pictures_show_is_text_as_well(page, job):
    all_shown(page)
    choose(page, "colour", "vy")
    names = page.run("[...document.querySelectorAll('#panels canvas')].map((one) => one.getAttribute('aria-label'))")
    assert names == [
        f"{title}: velocity along y, Slice 13 of 24: z = 62.5 h⁻¹Mpc"
        for title in ("Prediction", "Truth", "Prediction − truth")
    ]
    assert text(page, "keys").startswith("Point at a pixel for its values, or use the arrow keys")
    rows = page.run("[...document.querySelectorAll('#velocities tr')].map((row) => row.textContent)")
    assert [row.rstrip("−0123456789") for row in rows] == ["predicted", "± error bar", "truth", "apart"]
    assert page.run("document.querySelectorAll('#sums tr').length") == 3
    page.until(SOLID)
    # the tenth of the cells with the highest |v_y|
    least = sorted(abs(job[1][1]).ravel())[-1383]
    said = page.run("document.getElementById('least').textContent")
    assert said == f": from {round(least)} km/s on"
