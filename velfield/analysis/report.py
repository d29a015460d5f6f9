"""One self-contained page that shows what a run reached: no script, no outside resource, for screen, phone, print."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from velfield.accuracy.standing import Standing, headline, lost, standings
from velfield.accuracy.tables import BY_NAME, HEADLINE, best, entries_of
from velfield.analysis import curves
from velfield.analysis import figure_style as drawing
from velfield.errors import VelfieldError
from velfield.files import storage
from velfield.version import __version__

CAPTIONS = {  # in the order of the page
    "slices": (
        "One box in slices",
        "Arrows show the velocity in the slice, colour the velocity out of it. Above through the middle of the box, "
        "below at its face, where a box without surroundings is hardest to reconstruct. Linear (FFT) and linear, "
        "zero-padded, are given the dark matter itself, all others the halos.",
    ),
    "contours": (
        "Predicted against true components",
        "Contours hold 68, 95 and 99.7 % of the cells of one box; the solid line is the least-squares fit, "
        "the dotted one the diagonal.",
    ),
    "contours_centre": (
        "The same, centre of the box",
        "The central 200 h⁻¹Mpc, or two thirds of the side where a box is smaller than 300 h⁻¹Mpc.",
    ),
    "r_of_k": (
        "Correlation with the truth by scale",
        "Mean over boxes; bands are the scatter of a box. Boxes are faded out towards their faces.",
    ),
    "transfer": (
        "Amplitude by scale",
        "Square root of the power of the predicted velocity over that of the true one; below 1 the prediction is too "
        "smooth, as that of least error is where it does not know.",
    ),
    "divergence": (
        "Divergence and vorticity by scale",
        "Power of the predicted field over that of the true one, and correlation of the divergence. Linear theory has "
        "no vorticity.",
    ),
    "error_by": (
        "Where the error is",
        "Rms error of a component and mean cos θ of the cells in a bin: by their density over the parent's mean, by "
        "their distance to the box's nearest face, and by the halos in them. Bands are the scatter of a box.",
    ),
    "calibration": (
        "Whether the error bars are true",
        "Share of components that lie within the error bars, against the share that should; below the dotted line the "
        "bars are too short.",
    ),
    "line": ("Along one row of cells", "v_x through the middle of the box."),
    "distribution": ("Distribution of v_x", "Probability density over all cells of the box."),
    "misalignment": (
        "Size of the error against its angle",
        "θ is the angle between predicted and true velocity; the dotted line is at 200 km/s.",
    ),
}
WIDE = ("slices", "contours", "contours_centre", "divergence", "error_by", "misalignment")
TILES = (("unet", "wiener", "linear_halo_padded", "linear_halo"), ("unet", "linear", "linear_padded", "linear_whole"))

GIVEN = {  # what a row of the table is made from
    **dict.fromkeys(("unet", "wiener", "linear_halo", "linear_halo_padded"), "halos"),
    "linear": "dark matter",
    "linear_padded": "dark matter",
    "linear_whole": "halos, whole volume",
}
SIGNIFICANT = (
    "Ahead or behind is a mean difference over the same boxes of more than two of its standard errors, which stand "
    "behind ± (positive is better for the network); curves are compared by their means. Boxes of one universe share "
    "its long waves, so the errors are rather too small."
)
PAPER = (
    "The network, its loss, the redshift-space patterns, and slope, residuals, cos θ and Γ as measures follow Y. Wang "
    "and X. Yang (2024), Peculiar Velocity Reconstruction From Simulations and Observations Using Deep Learning "
    "Algorithms, arXiv:2406.14101. Not in it are the Wiener filter, linear theory of halos, and measures by scale."
)

STYLE = """
:root{color-scheme:light dark;--bg:#fbfaf7;--ink:#1d1d1f;--soft:#5d6068;--line:#dedbd3;--card:#fff;--mark:#0060a0}
@media(prefers-color-scheme:dark){:root{--bg:#16181c;--ink:#ececee;--soft:#a2a6af;--line:#343841;--card:#1f2228;
--mark:#6cb6ee}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:2rem 1.1rem 3rem}
h1{font-size:clamp(1.3rem,3.4vw,1.85rem);line-height:1.25;margin:.2rem 0 1rem;max-width:40ch;text-wrap:balance}
h2{font-size:1.15rem;margin:2.4rem 0 .7rem}
h3{font-size:1rem;margin:0 0 .3rem}
p{margin:.4rem 0;max-width:72ch}.soft,figcaption,footer{color:var(--soft);font-size:.9rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.4rem,1fr));gap:.8rem;margin:1.4rem 0}
.tile,figure{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem;margin:0}
.tile b{display:block;font-size:1.7rem;line-height:1.2;color:var(--mark);font-variant-numeric:tabular-nums}
.tile span{display:block;font-size:.88rem;color:var(--soft);font-variant-numeric:tabular-nums}
.tile i{font-style:normal;white-space:nowrap}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(27rem,100%),1fr));gap:1rem}
.wide{grid-column:1/-1}
figure img{display:block;width:100%;height:auto;background:#fff;border-radius:6px;margin:.3rem 0 .5rem}
.picture,.scroll{overflow-x:auto}.wide img{max-width:60rem;margin-inline:auto}
.standing{padding:0;list-style:none}.standing li{max-width:80ch;margin:.5rem 0}.hint{display:none}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.93rem}
th,td{padding:.35rem .8rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0;position:sticky;left:0;background:var(--bg)}
thead th{font-weight:600;white-space:normal;vertical-align:bottom}thead span{display:block;font-weight:400}
.best{font-weight:700;color:var(--mark)}.err{color:var(--soft);font-weight:400;font-size:.85em}
.run{width:100%}.run th,.run td{text-align:left;vertical-align:top;white-space:normal;overflow-wrap:anywhere}
.run th{font-weight:500;color:var(--soft);width:11rem;padding-left:0}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem;overflow-x:auto;
font:.84rem/1.5 ui-monospace,Menlo,Consolas,monospace;margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;font-size:.9rem}dt{font-weight:600}dd{margin:0}
@media(max-width:560px){main{padding-top:1.2rem}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}
.run th{width:7.5rem}table{font-size:.82rem}th,td{padding:.3rem .35rem}.hint{display:block}
.wide img:focus{width:60rem;max-width:none}}
@media print{:root{--bg:#fff;--ink:#000;--soft:#444;--line:#bbb;--card:#fff;--mark:#004a80}
main{max-width:none;padding:0}
figure,.tile,tr{break-inside:avoid}h2{break-after:avoid}body{font-size:11pt}}
"""

MEANING = (
    ("slope", "Of the least-squares line through all components: predicted on true, and true on predicted. A "
     "prediction that is the mean of what is possible has a slope below 1 in the first and of 1 in the second."),
    ("< 200 km/s", "Share of components that are less than 200 km/s off."),
    ("cos θ", "Mean cosine of the angle between predicted and true velocity."),
    ("coherence Γ", "Mean of v_p·v_t/|v_t|²; cells of tiny true velocity dominate it, so the median is beside it."),
    ("r, rms", "Correlation of the components, and the rms error of one component."),
    ("coverage, χ²", "Of error bars: share of components within those of 68 and 95 %, and mean of the error squared in "
     "their units, 1 where they are true."),
    ("centre, edge", "The central 200 h⁻¹Mpc of a box and its outer 50 h⁻¹Mpc; 2/3 and 1/6 of the side in boxes under "
     "300 h⁻¹Mpc."),
    (drawing.label("wiener"), "The linear method of least error for what the network is given: the halos' number in "
     "redshift space, each scale weighted by what the noise of few halos and the box's edges leave of it."),
    (drawing.label("linear"), "The paper's FFT: linear theory on the dark matter in real space, one box alone, taken "
     "as periodic."),
    (drawing.label("linear_padded"), "The same with as much empty space around the box as it has itself."),
    (drawing.label("linear_halo_padded"), "Linear theory on what the network is given: the halos' number in redshift "
     "space, smoothed and divided by its bias, with as much empty space around."),
    (drawing.label("linear_whole"), "Linear theory on the halos of the whole periodic volume, not of one box, with "
     "redshift space undone."),
)  # fmt: skip


def write_report(
    out: str,
    *,
    metrics: Mapping[str, Mapping[str, Any]],
    figures: Mapping[str, bytes | Figure],
    run: Mapping[str, Any],
    title: str = "Velocity field, reconstructed",
) -> str:
    """Write the page and return its URL.

    Parameters
    ----------
    out : str
        URL of an ``.html`` file, or of a folder that gets ``report.html``.
    metrics : mapping
        Rows as in metrics.json, in the order of the table's columns; with the values of each box
        (`velfield.analysis.evaluate.read_rows`) the headline compares them box by box. The figures of what was measured
        over all boxes (`velfield.analysis.curves`) are drawn here, with all rows.
    figures : mapping
        PNG bytes or Figures by the names of `CAPTIONS`, as `load_figures` reads them; others are shown last under
        their name.
    run : mapping
        What was run: headings to values, to mappings of values, or to lists of lines (shown as commands).
    title : str
        Shown while there is no comparison to put into a headline, and as the page's title.
    """
    if not metrics:
        raise VelfieldError("nothing to report: metrics={}; give at least one row")
    url = out if out.endswith(".html") else storage.join(out, "report.html")
    pictures = {name: f if isinstance(f, bytes) else drawing.png(f) for name, f in figures.items()}
    pictures |= {name: drawing.png(figure) for name, figure in curves.draw(metrics).items()}
    storage.write_bytes(url, _page(title, metrics, pictures, run).encode())
    return url


def load_figures(url: str) -> dict[str, bytes]:
    """The figures that `evaluate` wrote into the folder ``url``."""
    found = {name: storage.join(url, f"{name}.png") for name in CAPTIONS}
    return {name: storage.read_bytes(path) for name, path in found.items() if storage.exists(path)}


def _page(title: str, metrics: Mapping[str, Any], pictures: Mapping[str, bytes], run: Mapping[str, Any]) -> str:
    order = [*(n for n in CAPTIONS if n in pictures), *(n for n in pictures if n not in CAPTIONS)]
    upper, lower = order[:1], order[1:]
    against = standings(metrics)
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
            f'<p class="soft">velfield {escape(__version__)} · {escape(title)}</p>',
            f"<h1>{escape(headline(metrics) or title)}</h1>",
            _tiles(metrics),
            *_standings("Where the network is ahead, and where behind", against[:1]),
            f"<p>{escape(lost(metrics))}</p>",
            '<p class="soft hint">Tap a wide figure to enlarge it.</p>' if pictures else "",
            f'<div class="figures">{_figures(upper, pictures)}</div>',
            "<h2>The numbers</h2>",
            _table(metrics),
            '<p class="soft">Mean over boxes ± scatter of one box. Bold: the best of a line; for slopes and coherence '
            "that is the one nearest to 1. Below a model's name stands what it is given.</p>",
            *_standings("Against the other rows", against[1:]),
            f'<p class="soft">{SIGNIFICANT}</p>' if against else "",
            "<h2>Figures</h2>" if lower else "",
            f'<div class="figures">{_figures(lower, pictures)}</div>' if lower else "",
            "<h2>What was run</h2>",
            _run(run),
            "<h2>What the words mean</h2>",
            f"<dl>{''.join(f'<dt>{escape(t)}</dt><dd>{escape(d)}</dd>' for t, d in MEANING)}</dl>",
            "<h2>The paper</h2>",
            f"<p>{escape(PAPER)}</p>",
            "</main></body></html>\n",
        ]
    )


def _tiles(metrics: Mapping[str, Any]) -> str:
    """The headline's measures, large for the network, small for rows given the same halos, else for the others."""
    fair, others = ([name for name in names if name in metrics] for names in TILES)
    shown = (fair if len(fair) > 1 else others) or list(metrics)[:1]
    tiles = []
    for name in HEADLINE:
        entry = BY_NAME[name]
        values = [entry.value(metrics[model]) for model in shown]
        rest = "".join(
            f"<span>{escape(drawing.label(model))} <i>{escape(value)}</i></span>"
            for model, value in zip(shown[1:], values[1:], strict=True)
        )
        label = f"{drawing.label(shown[0])}, {entry.words or entry.label}"
        tiles.append(f'<div class="tile"><span>{escape(label)}</span><b>{escape(values[0])}</b>{rest}</div>')
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _standings(heading: str, against: Sequence[Standing]) -> list[str]:
    """A heading, and an item for each row that the network is compared with."""
    items = []
    for one in against:
        clauses = []
        for clause in one.clauses():
            side, rest = clause.split(" ", 1)
            clauses.append(f"<p><b>{side.capitalize()}</b> {escape(rest)}.</p>")
        items.append(f"<li><h3>{escape(one.against)}</h3>{''.join(clauses)}</li>")
    return [f"<h2>{heading}</h2>", f'<ul class="standing">{"".join(items)}</ul>'] if items else []


def _table(metrics: Mapping[str, Any]) -> str:
    head = "".join(
        f'<th>{escape(drawing.label(name))}<span class="err">{GIVEN.get(name, "")}</span></th>' for name in metrics
    )
    lines = []
    for entry in entries_of(metrics):
        winners = best(entry, metrics)
        cells = []
        for name, row in metrics.items():
            value, _, scatter = entry.text(row).partition("±")
            style = ' class="best"' if name in winners else ""
            error = f' <span class="err">± {escape(scatter)}</span>' if scatter else ""
            cells.append(f"<td{style}>{escape(value)}{error}</td>")
        lines.append(f"<tr><td>{escape(entry.label)}</td>{''.join(cells)}</tr>")
    body = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table>{body}</table></div>'


def _figures(names: Sequence[str], pictures: Mapping[str, bytes]) -> str:
    parts = []
    for name in names:
        data = pictures[name]
        heading, caption = CAPTIONS.get(name, (name, ""))
        if not data.startswith(b"\x89PNG"):
            raise VelfieldError(f"not a PNG picture: figure={name}, bytes={len(data)}; give PNG bytes or a Figure")
        width, height = (int.from_bytes(data[i : i + 4]) for i in (16, 20))
        parts.append(
            f"<figure{' class=wide' if name in WIDE else ''}><h3>{escape(heading)}</h3>"
            f'<div class="picture"><img tabindex="0" alt="{escape(heading)}" width="{width}" height="{height}" '
            f'src="data:image/png;base64,{base64.b64encode(data).decode()}"></div>'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
    return "".join(parts)


def _run(run: Mapping[str, Any]) -> str:
    if not run:
        return '<p class="soft">Not recorded.</p>'
    lines = [f"<tr><th>{escape(str(name))}</th><td>{_value(value)}</td></tr>" for name, value in run.items()]
    return f'<div class="scroll"><table class="run"><tbody>{"".join(lines)}</tbody></table></div>'


def _value(value: Any) -> str:
    """A value of ``run`` as HTML: mappings as `name value` lines, lists as commands."""
    if isinstance(value, Mapping):
        return "<br>".join(f"{escape(str(k))}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return f"<pre>{escape(chr(10).join(map(str, value)))}</pre>"
    return _plain(value)


def _plain(value: Any) -> str:
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
