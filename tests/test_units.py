"""Units as people write them."""

import pytest

from velfield.catalogues.units import factor, parse
from velfield.errors import CatalogueError


@pytest.mark.parametrize(
    ("text", "quantity", "expected"),
    [
        *[(text, "length", 1) for text in ("Mpc/h", "h^-1 Mpc", "h⁻¹Mpc", "h-1 Mpc", "Mpc h-1", "Mpc.h-1", "(Mpc/h)")],
        *[(text, "length", 1) for text in ("comoving Mpc/h", "cMpc/h", "Mpc / littleh", "Mpc h**-1", "Mpc h^{-1}")],
        *[(text, "speed", 1) for text in ("km/s", "km s-1", "km s^-1", "km / s", "comoving km/s", "peculiar km/s")],
        *[(text, "mass", 1) for text in ("Msun/h", "h⁻¹M⊙", "solMass / littleh", "M_sun h**-1", "Msol/h")],
        ("kpc/h", "length", 1e-3),
        ("Gpc/h", "length", 1e3),
        ("Mpc", "length", 0.7),
        ("m/s", "speed", 1e-3),
        ("1e10 Msun/h", "mass", 1e10),
        ("10^10 Msun/h", "mass", 1e10),
        ("10**10 M_sun", "mass", 0.7e10),
        ("kpc/Gyr", "speed", 0.97779222),  # CODATA and the IAU's parsec: 3.0856775814913673e16 km / 3.15576e16 s
    ],
)
def test_factors(text, quantity, expected):
    assert factor(text, quantity, h=0.7, where="") == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("text", ["Mpc/h", "km/s", "Msun/h", "h⁻¹Mpc", "km s-1"])
def test_our_own_units_change_nothing(text):
    quantity = "speed" if "km" in text else "mass" if "sun" in text else "length"
    assert factor(text, quantity, h=None, where="") == 1.0


def test_frames():
    for text, frame in {
        "comoving km/s": "comoving",
        "cMpc/h": "comoving",
        "physical Mpc": "proper",
        "Mpc": None,
    }.items():
        assert parse(text).frame == frame


@pytest.mark.parametrize(
    "text", ["", "None", "furlong", "Mpc//h", "/", "comoving proper Mpc", "Mpc/h)", "keV", "Mpc, km"]
)
def test_not_understood(text):
    assert parse(text) is None
    with pytest.raises(CatalogueError, match="not a unit of length: file=f, column=x, unit="):
        factor(text, "length", h=0.7, where="file=f, column=x")


def test_what_is_not_this_quantity():
    for text, quantity in [("Mpc", "mass"), ("km/s", "length"), ("Mpc^2", "length"), ("Msun", "speed")]:
        with pytest.raises(CatalogueError, match=f"not a unit of {quantity}: "):
            factor(text, quantity, h=0.7, where="f")
    with pytest.raises(CatalogueError, match="a speed with h in its unit: f, unit='km/s/h'; give velocities in km/s"):
        factor("km/s/h", "speed", h=0.7, where="f")
    with pytest.raises(CatalogueError, match="the Hubble parameter is needed to convert: f, unit='Mpc'; give h"):
        factor("Mpc", "length", h=None, where="f")
