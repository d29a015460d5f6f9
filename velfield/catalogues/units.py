"""Units as catalogues write them, turned into factors: to h⁻¹Mpc, km/s and h⁻¹M⊙.

Understood are products and quotients of lengths, times, solar masses, numbers and h, as in ``Mpc/h``, ``h^-1 kpc``,
``comoving km/s``, ``1e10 Msun/h``, ``solMass / littleh``. ``h`` is the Hubble parameter, never the hour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from velfield.errors import CatalogueError

KM_PER_MPC = 3.0856775814913673e19  # IAU 2015 resolution B2: the parsec is 648000/π astronomical units
SECONDS_PER_YEAR = 365.25 * 86400.0  # Julian year

# name: its value in Mpc, s, M⊙ or h, and what it is
KNOWN: dict[str, tuple[float, str]] = {
    **{name: (value, "length") for name, value in {"Gpc": 1e3, "Mpc": 1.0, "kpc": 1e-3, "pc": 1e-6}.items()},
    **{name: (value / KM_PER_MPC, "length") for name, value in {"km": 1.0, "m": 1e-3, "cm": 1e-5}.items()},
    **{name: (1.0, "time") for name in ("s", "sec")},
    **{name: (value * SECONDS_PER_YEAR, "time") for name, value in {"yr": 1.0, "Myr": 1e6, "Gyr": 1e9}.items()},
    **{name: (1.0, "mass") for name in ("Msun", "M_sun", "Msol", "M_sol", "Msolar", "solMass", "M⊙", "M_odot")},
    **{name: (1.0, "h") for name in ("h", "littleh", "hubble")},
}
WANTED = {  # powers of length, time, mass and h, and the unit of ours in Mpc, s and M⊙
    "length": ({"length": 1}, -1, 1.0, "Mpc/h"),
    "speed": ({"length": 1, "time": -1}, 0, 1 / KM_PER_MPC, "km/s"),
    "mass": ({"mass": 1}, -1, 1.0, "Msun/h"),
}
SUPERSCRIPTS = str.maketrans("⁻⁺⁰¹²³⁴⁵⁶⁷⁸⁹", "-+0123456789")
PLAIN = SUPERSCRIPTS | str.maketrans({"⊙": "sun", "·": "*", "×": "*", "°": "deg"})
TERM = re.compile(
    r"\s*(?P<op>[*/·×.]?)\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]+(?:_[^\W\d]+)?⊙?))"
    r"\s*(?:(?:\^|\*\*)?\s*[({]?(?P<power>[+-]?\d+)[)}]?)?\s*"
)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit that was understood: its value in Mpc, s and M⊙, powers of these and of h, and the frame if it says so."""

    value: float
    powers: dict[str, int]
    frame: str | None  # comoving, proper


def parse(text: str) -> Unit | None:
    """Read a unit; None where it is not understood."""
    words = text.strip()
    comoving, proper = (
        re.search(pattern, words) for pattern in (r"\bcomoving\b|\bc[Mk]pc", r"\bproper\b|\bphysical\b")
    )
    rest = re.sub(r"\b(comoving|proper|physical|peculiar)\b", " ", words)
    rest = re.sub(r"\bc([Mk]pc)", r"\1", rest).translate(SUPERSCRIPTS).strip()
    while rest.startswith("(") and rest.endswith(")") and rest.count("(") == 1:
        rest = rest[1:-1]
    value, powers, at = 1.0, dict.fromkeys(("length", "time", "mass", "h"), 0), 0
    while at < len(rest):
        term = TERM.match(rest, at)
        if term is None:
            return None
        at = term.end()
        power = int(term["power"] or 1) * (-1 if term["op"] == "/" else 1)
        if term["number"]:
            value *= float(term["number"]) ** power
            continue
        if term["name"] not in KNOWN:
            return None
        size, what = KNOWN[term["name"]]
        value *= size**power
        powers[what] += power
    if not rest or (comoving and proper):
        return None
    return Unit(value=value, powers=powers, frame="comoving" if comoving else "proper" if proper else None)


def plain(text: str) -> str:
    """A unit in ASCII where that says the same: ``h⁻¹M⊙`` is ``h-1Msun``."""
    return text.translate(PLAIN)


def factor(text: str, quantity: str, *, h: float | None, where: str) -> float:
    """By what values in the unit ``text`` are to be multiplied.

    Parameters
    ----------
    text : str
        The unit.
    quantity : {"length", "speed", "mass"}
        What the values are; wanted in h⁻¹Mpc, km/s, h⁻¹M⊙.
    h : float or None
        Hubble parameter of the catalogue, which is needed where a length or mass has no h in its unit.
    where : str
        File and column, for the error.
    """
    powers, h_power, ours, name = WANTED[quantity]
    unit = parse(text)
    expected = {"length": 0, "time": 0, "mass": 0} | powers
    if unit is None or {k: v for k, v in unit.powers.items() if k != "h"} != expected:
        raise CatalogueError(
            f"not a unit of {quantity}: {where}, unit={text!r}; name the unit with the column, as in 'NAME [{name}]'"
        )
    missing = unit.powers["h"] - h_power
    if quantity == "speed" and missing:
        raise CatalogueError(f"a speed with h in its unit: {where}, unit={text!r}; give velocities in km/s")
    if missing and h is None:
        raise CatalogueError(
            f"the Hubble parameter is needed to convert: {where}, unit={text!r}; give h (--h on the command line)"
        )
    return float(unit.value / ours * (h or 1.0) ** missing)
