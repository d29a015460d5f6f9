"""Background expansion, linear growth, linear power, and the halo mass function and bias of a flat ΛCDM universe.

Units: k [h Mpc⁻¹], masses [h⁻¹M⊙], lengths [h⁻¹Mpc, comoving], H [km/s per h⁻¹Mpc], so H(z=0) = 100 whatever h is.
Growth is that of matter and a cosmological constant alone (no radiation), normalised to D(z=0) = 1. Linear power
(Eisenstein & Hu 1998 with wiggles), the mass function and the bias come from colossus; its on-disk cache, which
pickles, is switched off.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate

from velfield.arguments import number, numbers, redshifts
from velfield.errors import VelfieldError

LIGHT = 299792.458  # km/s
NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)  # distances to 1e-15, at any redshift
RHO_CRITICAL = 2.77536627e11  # h² M⊙ Mpc⁻³, that is h⁻¹M⊙ per (h⁻¹Mpc)³; 3 (100 km/s/Mpc)² / 8πG
MASS_FUNCTION = "crocce10"  # Crocce et al. 2010, friends-of-friends: n(>3.7e10) = 0.0686, the paper's density
HALO_BIAS = "tinker10"  # Tinker et al. 2010: by number 0.73, by mass 1.51 above 3.7e10, the paper's range
LARGEST_HALO = 10**15.9  # h⁻¹M⊙; above it the integrals gain less than 1e-4
FLAT = 1e-3  # of the critical density: curvature that changes no velocity by more than 0.1 %


class Expansion:
    """Expansion and linear growth of a flat universe of matter and a cosmological constant.

    Redshifts are numbers above −1, or arrays of them; NaN in an array stays NaN.
    """

    omega_m: float
    h: float

    def E(self, redshift: ArrayLike) -> Any:
        """H(z)/H₀."""
        z = redshifts(redshift)
        return np.sqrt(self.omega_m * (1 + z) ** 3 + 1 - self.omega_m)[()]

    def aH(self, redshift: ArrayLike) -> Any:
        """Conformal Hubble rate 100 E(z)/(1+z) [km/s per h⁻¹Mpc]: divides a peculiar velocity into a comoving shift."""
        return 100.0 * self.E(redshift) / (1 + redshifts(redshift))[()]

    def comoving_distance(self, redshift: ArrayLike) -> Any:
        """Comoving distance c ∫₀ᶻ dz'/H(z') [h⁻¹Mpc], in s = (1 + z)^-½, of which the integrand is smooth down to 0."""
        z = redshifts(redshift)
        s = 1 / np.sqrt(1 + z)
        half = z / (1 + z) / (1 + s) / 2  # of 1 − s
        total = sum(
            weight / np.sqrt(self.omega_m + (1 - self.omega_m) * (s + half * (node + 1)) ** 6)
            for node, weight in zip(NODES, WEIGHTS, strict=True)
        )
        return (LIGHT / 100.0 * 2 * half * total)[()]

    def growth(self, redshift: float) -> float:
        """Linear growth D(z), normalised to D(0) = 1 (Heath 1977 integral, exact for ΛCDM)."""
        return _growth_integral(self.omega_m, _scale_factor(redshift)) / _growth_integral(self.omega_m, 1.0)

    def growth_rate(self, redshift: float) -> float:
        """Growth rate f = dlnD/dlna, exact: the derivative of the Heath integral."""
        a = _scale_factor(redshift)
        e2 = self.omega_m / a**3 + 1 - self.omega_m
        dlnh = -1.5 * self.omega_m / a**3 / e2
        return float(dlnh + a / (a * a * e2) ** 1.5 / _growth_integral(self.omega_m, a) * np.sqrt(e2))

    @property
    def mean_matter_density(self) -> float:
        """Mean comoving matter density [h⁻¹M⊙ per (h⁻¹Mpc)³]."""
        return self.omega_m * RHO_CRITICAL


@dataclass(frozen=True, kw_only=True)
class Background(Expansion):
    """A flat ΛCDM universe of which no power spectrum is known: enough for linear theory, redshift space and the sky.

    Parameters
    ----------
    name : str
        What it is called.
    omega_m : float
        Matter density today, in units of the critical density.
    h : float
        H₀ / (100 km/s/Mpc).
    """

    name: str
    omega_m: float
    h: float

    def __post_init__(self) -> None:
        if not (0 < self.omega_m <= 1 and 0 < self.h < np.inf):
            raise VelfieldError(
                f"no such cosmology: omega_m={self.omega_m}, h={self.h}; a flat universe needs 0 < omega_m <= 1 and a "
                "positive h"
            )


@dataclass(frozen=True, kw_only=True)
class Cosmology(Expansion):
    """A flat ΛCDM universe.

    Parameters
    ----------
    name : str
        What stores and tables call it.
    omega_m, omega_b : float
        Matter and baryon density today, in units of the critical density.
    h : float
        H₀ / (100 km/s/Mpc).
    sigma8 : float
        rms of the linear density contrast today in spheres of 8 h⁻¹Mpc.
    n_s : float
        Slope of the primordial spectrum.
    """

    name: str
    omega_m: float
    omega_b: float
    h: float
    sigma8: float
    n_s: float

    def __post_init__(self) -> None:
        if not 0 < self.omega_b < self.omega_m <= 1:
            raise VelfieldError(
                f"matter densities out of order: omega_m={self.omega_m}, omega_b={self.omega_b}; "
                "a flat universe needs 0 < omega_b < omega_m <= 1"
            )
        if not all(0 < value < np.inf for value in (self.h, self.sigma8, self.n_s)):
            raise VelfieldError(
                f"no such cosmology: h={self.h}, sigma8={self.sigma8}, n_s={self.n_s}; give positive numbers"
            )

    def linear_power(self, k: ArrayLike, redshift: float) -> NDArray[np.float64]:
        """Linear matter power P(k) [(h⁻¹Mpc)³] at k [h Mpc⁻¹]; 0 at k = 0."""
        k = numbers(k, "k", "wavenumber", h=self.h).astype(float)
        power = np.zeros_like(k)
        positive = k > 0
        power[positive] = self._colossus().matterPowerSpectrum(k[positive], 0.0) * self.growth(redshift) ** 2
        return power

    def sigma(self, radius: ArrayLike, redshift: float) -> Any:
        """Linear rms density contrast in spheres of ``radius`` [h⁻¹Mpc]."""
        radius = numbers(radius, "radius", "length", h=self.h).astype(float)
        return self._colossus().sigma(radius, 0.0) * self.growth(redshift)

    def velocity_dispersion(self, redshift: float) -> float:
        """Linear rms σ_v of one component of the peculiar velocity [km/s]: σ_v² = (aHf)²/(6π²) ∫P(k) dk."""
        lnk = np.linspace(np.log(1e-5), np.log(1e2), 2000)  # beyond these less than 1e-4 of it
        k = np.exp(lnk)
        integral = float(np.trapezoid(k * self.linear_power(k, redshift), lnk))
        return float(self.aH(redshift)) * self.growth_rate(redshift) * float(np.sqrt(integral / (6 * np.pi**2)))

    def mass_function(self, mass: ArrayLike, redshift: float) -> NDArray[np.float64]:
        """Friends-of-friends halo mass function dn/dlnM [(h⁻¹Mpc)⁻³] (Crocce et al. 2010)."""
        from colossus.lss import mass_function

        self._colossus()
        mass, z = numbers(mass, "mass", "mass", h=self.h).astype(float), float(redshifts(redshift))
        return mass_function.massFunction(mass, z, q_in="M", q_out="dndlnM", mdef="fof", model=MASS_FUNCTION)

    def halo_bias(self, mass: ArrayLike, redshift: float) -> NDArray[np.float64]:
        """Linear halo bias b(M) (Tinker et al. 2010, 200 times the mean density)."""
        from colossus.lss import bias

        self._colossus()
        mass, z = numbers(mass, "mass", "mass", h=self.h).astype(float), float(redshifts(redshift))
        return bias.haloBias(mass, z=z, mdef="200m", model=HALO_BIAS)

    def halo_density(self, min_mass: float, redshift: float) -> float:
        """Number density of halos above ``min_mass`` [h⁻¹M⊙], in (h⁻¹Mpc)⁻³."""
        lnm, n = self._mass_grid(min_mass, redshift)
        return float(np.trapezoid(n, lnm))

    def effective_bias(self, min_mass: float, redshift: float, *, weight: str) -> float:
        """Mean linear bias of all halos above ``min_mass`` [h⁻¹M⊙].

        ``weight="mass"`` is the paper's b_hm (equation 2), for mass-weighted input; ``weight="number"`` is for counts.
        """
        lnm, n = self._mass_grid(min_mass, redshift)
        if weight not in ("mass", "number"):
            raise VelfieldError(f"unknown bias weight: weight={weight!r}; choose mass or number")
        w = n * np.exp(lnm) if weight == "mass" else n
        return float(np.trapezoid(w * self.halo_bias(np.exp(lnm), redshift), lnm) / np.trapezoid(w, lnm))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for attributes and metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Cosmology:
        """Rebuild what `to_dict` wrote."""
        return cls(**values)

    @classmethod
    def of(cls, cosmology: Any) -> Cosmology:
        """A cosmology as it was given, ours or astropy's, of which the power spectrum is wanted, too."""
        if isinstance(cosmology, Background):
            raise VelfieldError(
                f"the cosmology does not say all that is needed: name={cosmology.name}, missing=omega_b, sigma8, n_s; "
                "give a Cosmology"
            )
        return cosmology if isinstance(cosmology, cls) else cls.from_astropy(cosmology)

    @classmethod
    def from_astropy(
        cls,
        cosmology: Any,
        *,
        name: str | None = None,
        omega_b: float | None = None,
        sigma8: float | None = None,
        n_s: float | None = None,
    ) -> Cosmology:
        """The same universe as one of astropy's, as ``Planck18``.

        Parameters
        ----------
        cosmology : astropy.cosmology.FLRW
            Flat, with a cosmological constant. Massive neutrinos count as matter, radiation is left out.
        name : str, optional
            By default its own.
        omega_b, sigma8, n_s : float, optional
            By default what it says, in ``Ob0`` and ``meta``.
        """
        from_meta = {"omega_b": omega_b, "sigma8": sigma8, "n_s": n_s}
        found = _astropy_values(cosmology) | {key: value for key, value in from_meta.items() if value is not None}
        found |= {} if name is None else {"name": name}
        missing = [key for key in from_meta if key not in found]
        if missing:
            raise VelfieldError(
                f"the cosmology does not say all that is needed: name={found['name']}, missing={', '.join(missing)}; "
                f"give Cosmology.from_astropy(cosmology, {', '.join(f'{key}=…' for key in missing)})"
            )
        return cls(**found)

    def _mass_grid(self, min_mass: float, redshift: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        lnm = np.linspace(np.log(number(min_mass, "min_mass", "mass", h=self.h)), np.log(LARGEST_HALO), 1000)
        return lnm, self.mass_function(np.exp(lnm), redshift)

    def _colossus(self) -> Any:
        """Make this the cosmology that colossus's module-wide functions use, and return it."""
        from colossus.cosmology import cosmology

        made = _colossus_cosmology(self)
        cosmology.setCurrent(made)
        return made


def background_of(cosmology: Any) -> Background | Cosmology:
    """A cosmology as it was given, ours or astropy's, of which expansion and growth are wanted."""
    if isinstance(cosmology, Background | Cosmology):
        return cosmology
    found = _astropy_values(cosmology)
    if {"omega_b", "sigma8", "n_s"} <= set(found):
        return Cosmology(**found)
    return Background(name=found["name"], omega_m=found["omega_m"], h=found["h"])


def _astropy_values(cosmology: Any) -> dict[str, Any]:
    """What one of astropy's cosmologies is in our names, as far as it says; one that is not flat ΛCDM is refused."""
    if not all(hasattr(cosmology, name) for name in ("Om0", "Ok0", "Onu0", "has_massive_nu", "h", "w", "meta")):
        raise VelfieldError(
            f"not a cosmology: cosmology={cosmology!r}; give a velfield.Cosmology, or one of astropy's, as Planck18"
        )
    name = str(cosmology.name or type(cosmology).__name__)
    w = [float(cosmology.w(z)) for z in (0.0, 1.0, 10.0)]
    if abs(float(cosmology.Ok0)) > FLAT or max(abs(value + 1) for value in w) > 1e-6:
        raise VelfieldError(
            f"not a flat universe with a cosmological constant: cosmology={name}, Ok0={float(cosmology.Ok0):.4g}, "
            f"w(0)={w[0]:g}, w(z=1)={w[1]:g}; velfield knows no other, give the flat ΛCDM that is nearest"
        )
    neutrinos = float(cosmology.Onu0) if cosmology.has_massive_nu else 0.0
    omega_m = float(cosmology.Om0) + neutrinos
    meta = cosmology.meta or {}
    n_s = next((meta[key] for key in ("n_s", "ns", "n") if meta.get(key) is not None), None)
    known = {"omega_b": cosmology.Ob0 or None, "sigma8": meta.get("sigma8"), "n_s": n_s}
    return {"name": name, "omega_m": omega_m, "h": float(cosmology.h)} | {
        key: float(value) for key, value in known.items() if value is not None
    }


def _scale_factor(redshift: Any) -> float:
    return 1 / (1 + number(redshifts(redshift), "redshift"))


@functools.lru_cache(maxsize=256)
def _growth_integral(omega_m: float, a: float) -> float:
    """D(a) up to a constant: E(a) ∫₀ᵃ da' / (a'E)³."""
    e = np.sqrt(omega_m / a**3 + 1 - omega_m)
    integral, _ = integrate.quad(lambda x: (x / (omega_m + (1 - omega_m) * x**3)) ** 1.5, 0, a, epsabs=0, epsrel=1e-12)
    return float(e * integral)


@functools.lru_cache(maxsize=16)
def _colossus_cosmology(cosmology_: Cosmology) -> Any:
    from colossus.cosmology import cosmology

    return cosmology.Cosmology(
        name=cosmology_.name,
        flat=True,
        H0=100 * cosmology_.h,
        Om0=cosmology_.omega_m,
        Ob0=cosmology_.omega_b,
        sigma8=cosmology_.sigma8,
        ns=cosmology_.n_s,
        relspecies=False,
        persistence="",  # no cache file: colossus pickles it
    )


OUTER_RIM = Cosmology(name="outer-rim", omega_m=0.2648, omega_b=0.0448, h=0.71, sigma8=0.8, n_s=0.963)
"""The Outer Rim simulation's (Heitmann et al. 2019; table 1 of the paper)."""
