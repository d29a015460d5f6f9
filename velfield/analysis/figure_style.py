"""What all figures share: names, colours and dashes of the models, fonts, a legend, and how they become files.

The same name looks the same in every figure. Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from velfield.files import storage

LABELS = {
    "true": "truth",
    "unet": "U-Net",
    "linear": "linear (FFT)",
    "linear_padded": "linear, zero-padded",
    "linear_halo": "linear, halos",
    "linear_halo_padded": "linear, halos, zero-padded",
    "wiener": "Wiener filter",
    "linear_whole": "linear, whole volume",
}
COLOURS = {
    "true": "#222222",
    "unet": "#0072B2",
    "linear": "#D55E00",
    "linear_padded": "#E69F00",
    "linear_halo": "#CC79A7",
    "linear_halo_padded": "#56B4E9",
    "wiener": "#009E73",
    "linear_whole": "#8C6D1F",
}
DASHES = {
    "unet": "-",
    "linear": "--",
    "linear_padded": "-.",
    "linear_halo": (0, (4, 1, 1, 1, 1, 1)),
    "linear_halo_padded": (0, (3, 1)),
    "wiener": ":",
    "linear_whole": (0, (6, 2)),
}
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.dpi": 110,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.08,
    "mathtext.default": "regular",
}
VELOCITY = "km s$^{-1}$"
LENGTH = "$h^{-1}$Mpc"
LETTERS = 11  # of a legend that an inch holds


def label(name: str) -> str:
    """What figures and tables call a model."""
    return LABELS.get(name, name)


def colour(name: str) -> str:
    """The model's colour, the same in every figure."""
    return COLOURS.get(name, "#777777")


def save(figure: Figure, url: str, dpi: int = 110) -> str:
    """Write the figure as PNG, whole or not at all, and return its URL."""
    storage.write_bytes(url, png(figure, dpi))
    return url


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file's bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, facecolor="white")
    return file.getvalue()


def line_of(name: str) -> dict[str, Any]:
    """Colour, width and dashes of a model's line, the same in every figure."""
    if name == "true":
        return {"color": colour(name), "lw": 2.4, "alpha": 0.85}
    return {"color": colour(name), "lw": 1.6, "ls": DASHES.get(name, "--")}


def legend_above(figure: Figure, ax: Axes) -> None:
    """One legend of the figure, above it, with what ``ax`` shows, in as many lines as its width asks for."""
    handles, labels = ax.get_legend_handles_labels()
    letters = sum(len(name) + 6 for name in labels)  # a handle and the space around it take some six
    lines = -(-letters // int(LETTERS * figure.get_figwidth()))
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // lines), handlelength=2.6)
