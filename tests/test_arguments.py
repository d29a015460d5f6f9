"""What people pass from Python: units are converted, masks are missing values, names count; the rest is refused."""

import warnings

import astropy.cosmology.units as cu
import astropy.units as u
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.cosmology import FlatLambdaCDM, LambdaCDM, Planck18, w0waCDM
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from numpy.testing import assert_allclose, assert_array_equal
from velocity_stores import SIDE, in_memory

import velfield as vf
from velfield.accuracy.measures import metrics
from velfield.arguments import numbers, overdensity, rows
from velfield.client.bodies import cubes_of
from velfield.errors import VelfieldError
from velfield.network.model import Model
from velfield.network.normalisation import Channel, Normalisation
from velfield.network.unet import UNet, UNetConfig
from velfield.painting.paint import paint
from velfield.physics import sky
from velfield.physics.cosmology import OUTER_RIM, Background, Cosmology
from velfield.physics.linear import smooth
from velfield.physics.reconstruction import matter_contrast
from velfield.physics.redshift_space import redshift_space
from velfield.physics.spectra import power
from velfield.physics.wiener import Survey, wiener_velocity

# what is meant here: lengths and masses without h are multiplied by it, which one test of its own looks at
pytestmark = pytest.mark.filterwarnings("ignore:h=.* is applied")

H = OUTER_RIM.h
L = 120.0
POS = np.random.default_rng(1).uniform(20, 100, (30, 3))
OBSERVER = [50.0, 40.0, 70.0]
MPC_H = u.Mpc / cu.littleh


def gaussian_field(shape):
    return np.random.default_rng(0).normal(size=shape)


def linear(pos):
    return np.stack([3 * pos[0], -2 * pos[1], pos[2] - pos[0]])


@pytest.fixture(scope="module")
def ds():
    return in_memory(linear, observer=np.tile(OBSERVER, (8, 1)), rsd="random_radial")


@pytest.fixture(scope="module")
def delta():
    return 0.3 * gaussian_field((16, 16, 16))


def same(found, expected, rows=slice(None)):
    assert_array_equal(found["flag"], 0)
    assert_allclose(found["velocity"], expected["velocity"][rows], rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("default")
def test_h_is_not_applied_without_a_word(ds):
    with pytest.warns(UserWarning, match=r"h=0.71 is applied: positions is in 'kpc', without h, .* 'kpc / littleh'"):
        vf.query_positions(ds, 1e3 * POS * u.kpc)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vf.query_positions(ds, 1e3 * POS * u.kpc / cu.littleh)


def test_lengths_are_converted_with_the_stores_h(ds):
    # 100 Mpc are 71 h⁻¹Mpc in Outer Rim's universe, as in a table whose column is in Mpc
    expected = vf.query_positions(ds, POS)
    for given in (
        POS * MPC_H,
        1e3 * POS * u.kpc / cu.littleh,
        POS / H * u.Mpc,
        1e3 * POS / H * u.kpc,
        POS / H * 3.0856775814913673e22 * u.m,
        [[x * MPC_H for x in row] for row in POS],
        Table(POS, names=list("xyz"), units=[MPC_H] * 3),
        QTable({x: POS[:, i] / H * u.Mpc for i, x in enumerate("xyz")}),
        xr.DataArray(POS / H * 1e3, dims=("points", "axis"), attrs={"units": "kpc"}),
        xr.DataArray(POS * 1e3, dims=("points", "axis"), attrs={"units": "kpc/h"}),
    ):
        same(vf.query_positions(ds, given), expected)
    near = vf.query_positions(ds, POS, space="redshift", max_shift=5 / H * u.Mpc)
    assert_array_equal(near["flag"], vf.query_positions(ds, POS, space="redshift", max_shift=5.0)["flag"])


def test_columns_go_by_their_names_in_any_order(ds):
    expected = vf.query_positions(ds, POS)
    records = np.zeros(len(POS), [("z", "f4"), ("id", "i8"), ("y", "f8"), ("x", "f8")])
    for i, x in enumerate("xyz"):
        records[x] = POS[:, i]
    mapping = {x: POS[:, i] for i, x in enumerate("xyz")}
    labelled = xr.DataArray(POS[:, [2, 0, 1]].T, dims=("axis", "points"), coords={"axis": ["z", "x", "y"]})
    for given in (
        Table(mapping)["z", "x", "y"],
        pd.DataFrame(mapping)[["y", "z", "x"]],
        xr.Dataset({x: ("points", values) for x, values in mapping.items()}),
        mapping,
        labelled,
        xr.DataArray(POS.T, dims=("component", "halo")),
    ):
        same(vf.query_positions(ds, given), expected)
    found = vf.query_positions(ds, records)
    assert_allclose(found["velocity"], expected["velocity"], rtol=1e-5)  # float32
    with pytest.raises(VelfieldError, match="columns are missing: positions has x, y, not z; name them x, y, z"):
        vf.query_positions(ds, {"x": POS[:, 0], "y": POS[:, 1]})
    with pytest.raises(VelfieldError, match="dimensions of other names: positions has a=30, b=3; call that of x, y, z"):
        vf.query_positions(ds, xr.DataArray(POS, dims=("a", "b")))
    with pytest.raises(VelfieldError, match=r"columns of different shapes: positions=\[\(30,\), \(30,\), \(1,\)\]"):
        vf.query_positions(ds, {"x": POS[:, 0], "y": POS[:, 1], "z": 3.0})


def test_a_masked_position_is_missing(ds):
    mask = np.zeros(POS.shape, dtype=bool)
    mask[3] = True
    mask[5, 1] = True
    table = Table({x: MaskedColumn(POS[:, i], mask=mask[:, i]) for i, x in enumerate("xyz")})
    frame = pd.DataFrame({x: pd.array(POS[:, i]) for i, x in enumerate("xyz")})
    frame.loc[3, :] = pd.NA
    frame.loc[5, "y"] = pd.NA
    expected = vf.query_positions(ds, POS)["velocity"]
    objects = POS.astype(object)
    objects[mask] = None
    for given in (np.ma.array(POS, mask=mask), Masked(POS * MPC_H, mask=mask), table, frame, objects.tolist()):
        found = vf.query_positions(ds, given)
        assert_array_equal(np.flatnonzero(found["flag"]), [3, 5])
        assert_array_equal(found["flag"][[3, 5]], 16)
        assert np.isnan(found["velocity"][[3, 5]]).all()
        kept = found["flag"] == 0
        assert_allclose(found["velocity"][kept], expected[kept], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            POS * u.km / u.s,
            r"a unit of the wrong kind: positions is in 'km / s', wanted is a length; give it in",
        ),
        (POS * u.deg, "a unit of the wrong kind: positions is in 'deg'"),
        (POS * u.dimensionless_unscaled, "a unit of the wrong kind: positions is in ''"),
        (POS + 0j, r"not an array of real numbers: positions is complex, shape=\(30, 3\); give real numbers"),
        (POS > 50, "not an array of real numbers: positions is truth values"),
        ([["1", "2", "3"]], "not an array of real numbers: positions is text"),
        ([[1, 2], [3]], "not an array of numbers: positions, because"),
        ([[1 * u.Mpc, 2 * u.s, 3 * u.Mpc]], "quantities that are not of one kind: positions, because"),
        (POS.T, r"positions of the wrong shape: positions=\(3, 30\); give \(N, 3\)"),
        (
            xr.DataArray(POS, dims=("n", "axis"), attrs={"units": "parsecs?"}),
            "not a unit that is understood: positions",
        ),
    ],
)
def test_what_is_no_position_is_said_in_a_line(ds, given, said):
    with pytest.raises(VelfieldError, match=said) as caught:
        vf.query_positions(ds, given)
    assert "\n" not in str(caught.value)


def test_units_of_other_libraries_are_not_dropped(ds):
    class Foreign(np.ndarray):
        units = "kpc_of_another"

    class Unyt(np.ndarray):
        units = "kpc"

        def to_astropy(self):
            return np.asarray(self) * u.kpc

    class Pint(np.ndarray):
        units = object()

    expected = vf.query_positions(ds, POS)
    same(vf.query_positions(ds, (1e3 * POS / H).view(Unyt)), expected)
    with pytest.raises(VelfieldError, match="not a unit that is understood: positions is in 'kpc_of_another'"):
        vf.query_positions(ds, POS.view(Foreign))
    with pytest.raises(VelfieldError, match="a unit of another library: positions is in"):
        vf.query_positions(ds, POS.view(Pint))


def test_a_sky_coordinate_is_the_sky(ds):
    away = np.random.default_rng(3).normal(size=(20, 3))
    distance = np.random.default_rng(4).uniform(5, 25, 20)
    direction = away / np.linalg.norm(away, axis=1)[:, None]
    expected = vf.query_positions(ds, OBSERVER + direction * distance[:, None])
    ra, dec = np.degrees(np.arctan2(direction[:, 1], direction[:, 0])), np.degrees(np.arcsin(direction[:, 2]))
    z = np.interp(distance, OUTER_RIM.comoving_distance(np.linspace(0, 0.05, 2000)), np.linspace(0, 0.05, 2000))
    place = SkyCoord(ra * u.deg, dec * u.deg, distance / H * u.Mpc)
    for found in (
        vf.query_positions(ds, place),
        vf.query_positions(ds, place.galactic, coordinates="sky"),
        vf.query_positions(ds, SkyCoord(ra * u.deg, dec * u.deg, distance * MPC_H)),
        vf.query_positions(ds, SkyCoord(ra * u.deg, dec * u.deg), redshift=z),
        vf.query_positions(ds, SkyCoord(ra * u.deg, dec * u.deg).fk5, redshift=z * cu.redshift),
        vf.query_positions(ds, np.stack([ra, dec, z], 1), coordinates="sky"),
        vf.query_positions(ds, QTable({"ra": np.radians(ra) * u.rad, "dec": dec * u.deg, "z": z}), coordinates="sky"),
        vf.query_positions(
            ds, {"ra": ra * u.deg, "dec": dec * u.deg, "z": 299792.458 * z * u.km / u.s}, coordinates="sky"
        ),
    ):
        assert_array_equal(found["flag"], 0)
        assert_allclose(found["velocity"], expected["velocity"], atol=2e-3)  # of the interpolated redshift, 3e-4 h⁻¹Mpc
    masked = vf.query_positions(ds, SkyCoord(ra * u.deg, dec * u.deg), redshift=np.ma.array(z, mask=z == z[4]))
    assert_array_equal(np.flatnonzero(masked["flag"] == 16), [4])
    with pytest.raises(VelfieldError, match="the SkyCoord has neither a distance nor a redshift; give redshift="):
        vf.query_positions(ds, SkyCoord(ra * u.deg, dec * u.deg))
    with pytest.raises(VelfieldError, match="the SkyCoord has both a distance and a redshift"):
        vf.query_positions(ds, place, redshift=z)
    with pytest.raises(VelfieldError, match=r"not a redshift for each position: redshift=\(2,\), SkyCoord=\(20,\)"):
        vf.query_positions(ds, SkyCoord(ra * u.deg, dec * u.deg), redshift=z[:2])
    with pytest.raises(VelfieldError, match="a redshift beside positions: it is given with a SkyCoord"):
        vf.query_positions(ds, POS, redshift=z)
    with pytest.raises(VelfieldError, match="no sky to look at, it has no observer"):
        vf.query_positions(in_memory(linear), place)


def test_linear_theory_understands_units_names_and_masks(delta):
    expected = vf.linear_velocity(delta, L, redshift=0.5, bias=1.5, smoothing=8.0)
    far = xr.DataArray(delta, dims=("x", "y", "z"), coords={"x": np.arange(16) * 7.5}, attrs={"units": "1"})
    for found in (
        vf.linear_velocity(delta, L * MPC_H, redshift=0.5, bias=1.5, smoothing=8e3 * u.kpc / cu.littleh),
        vf.linear_velocity(delta, [L / H] * 3 * u.Mpc, redshift=0.5 * cu.redshift, bias=1.5, smoothing=8 / H * u.Mpc),
        vf.linear_velocity(100 * delta * u.percent, L, redshift=0.5, bias=np.float32(1.5), smoothing=8.0),
        vf.linear_velocity(far.transpose("z", "y", "x"), L, redshift=0.5, bias=1.5, smoothing=8.0),
        vf.linear_velocity(np.ma.array(delta), L, redshift=0.5, bias=1.5, smoothing=8.0),
        vf.linear_velocity(delta.tolist(), L, redshift=0.5, bias=1.5, smoothing=8.0),
    ):
        assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    # a side of 0.32 Gpc is 320 Mpc, 227.2 h⁻¹Mpc: the velocity goes with the side
    wider = vf.linear_velocity(delta, 0.32 * u.Gpc)
    assert_allclose(wider, vf.linear_velocity(delta, 320.0) * H, rtol=1e-9, atol=1e-9)
    holes = "density contrast with holes: not finite=1 of 4096 cells"
    mask = np.zeros(delta.shape, dtype=bool)
    mask[1, 2, 3] = True
    for given in (np.ma.array(delta, mask=mask), Masked(delta * u.dimensionless_unscaled, mask=mask)):
        with pytest.raises(VelfieldError, match=holes):
            vf.linear_velocity(given, L)
        with pytest.raises(VelfieldError, match=holes):
            matter_contrast(given, L, bias=1.0, growth_rate=0.5)
        with pytest.raises(VelfieldError, match="field with holes"):
            smooth(given, L, 5.0)
    for given, said in (
        (xr.DataArray(delta, dims=("i", "j", "k")), "dimensions of other names: delta has i, j, k; name them x, y, z"),
        (xr.DataArray(delta[None], dims=("box", "x", "y", "z")), "dimensions of other names: delta has box, x, y, z"),
        (
            far[::-1],
            r"cells that are not in even steps: delta, x goes from 112\.5 .*; sort them \(\.sortby",
        ),
        (far.isel(x=[0, 1, 3]), "cells that are not in even steps: delta, x goes from 0 to 22.5 in steps of 7.5 to 15"),
        (delta * u.kpc, "a unit of the wrong kind: delta is in 'kpc', wanted is a number"),
        (delta > 0, "not an array of real numbers: delta is truth values"),
    ):
        with pytest.raises(VelfieldError, match=said):
            vf.linear_velocity(given, L)
    with pytest.raises(VelfieldError, match=r"no such reconstruction: bias=nan"):
        vf.linear_velocity(delta, L, bias=np.ma.masked)
    with pytest.raises(VelfieldError, match=r"not a single number: smoothing has the shape \(2,\); give one"):
        vf.linear_velocity(delta, L, smoothing=[1.0, 2.0])


def test_where_no_h_is_known_a_length_without_it_is_refused(delta):
    expected = smooth(delta, L, 8.0)
    assert_allclose(smooth(delta, L * MPC_H, 8e3 * u.kpc / cu.littleh), expected, rtol=1e-9, atol=1e-12)
    said = r"the Hubble parameter is not known here: boxsize is in 'Mpc'; give it in Mpc / littleh \(astropy"
    with pytest.raises(VelfieldError, match=said):
        smooth(delta, L * u.Mpc, 8.0)
    vector = xr.DataArray(np.stack([delta] * 3), dims=("component", "x", "y", "z"), attrs={"units": "km/s"})
    assert_array_equal(smooth(vector.transpose("z", "component", "y", "x"), L, 8.0)[1], expected)
    cube = xr.DataArray(delta, dims=("x", "y", "z"))
    assert_allclose(power(cube.T, L * MPC_H).power, power(delta, L).power)


@pytest.mark.parametrize("of", [lambda d: 50 * (1 + d), lambda d: 1 + d, lambda d: np.exp(3 * d)])
def test_counts_are_no_density_contrast(delta, of):
    d = delta - delta.min() - 1  # from −1 on
    for given in (of(d), of(d).astype(np.float32)):
        for ask in (
            lambda g: vf.linear_velocity(g, L),
            lambda g: matter_contrast(g, L, bias=1.0, growth_rate=0.5),
            lambda g: wiener_velocity(
                g, Survey(boxsize=L, bias=1.0, density=1e-3), cosmology=OUTER_RIM, redshift=0.0, pad=1
            ),
        ):
            with pytest.raises(VelfieldError, match=r"not a density contrast: delta goes from .*; give value"):
                ask(given)


@pytest.mark.parametrize("mean", [0.02, 0.3, 2.0, 40.0])
def test_numbers_of_tracers_are_refused_however_few(mean):
    counts = np.random.default_rng(5).poisson(mean, (16, 16, 16))
    for given in (counts, counts.astype(float)):
        with pytest.raises(VelfieldError, match=r"not a density contrast: .*, in whole numbers; give value / mean - 1"):
            overdensity(given, "delta")
    contrast = counts / counts.mean() - 1
    assert overdensity(contrast, "delta") is contrast


def test_what_is_a_density_contrast_passes():
    field = gaussian_field((16, 16, 16))
    x, y, z = np.meshgrid(*[np.arange(16.0)] * 3, indexing="ij")
    for given in (
        3 * field,  # linear theory of a Gaussian field, with cells below −1
        field[:4, :4, :4] + 1.5,  # a dense part of a larger volume
        np.exp(-((x - 8) ** 2 + (y - 8) ** 2 + (z - 8) ** 2) / 4),  # an overdensity in nothing
        np.zeros((16, 16, 16)),
        np.zeros((16, 16, 16), dtype=int),
        np.full((16, 16, 16), np.nan),  # its holes are another matter
        np.empty((0, 4, 4)),
    ):
        assert overdensity(given, "delta") is given


def test_a_mask_says_where_the_wiener_filter_looks(delta):
    mask = np.ones(delta.shape, dtype=bool)
    mask[:4] = False
    how = {"cosmology": OUTER_RIM, "redshift": 0.0, "pad": 1}
    survey = {"boxsize": L, "bias": 1.2, "density": 1e-2}
    expected = wiener_velocity(delta, Survey(**survey, mask=mask), **how)
    holed = np.ma.array(np.where(mask, delta, 1e6), mask=~mask)
    found = wiener_velocity(holed, Survey(**survey, mask=mask), **how)
    assert_array_equal(found, expected)
    named = xr.DataArray(mask, dims=("x", "y", "z")).transpose("z", "x", "y")
    density = 1e-2 * H**-3 / (u.Mpc / cu.littleh) ** 3 * H**3
    found = wiener_velocity(delta, Survey(boxsize=L / H * u.Mpc, bias=1.2, density=density, mask=named), **how)
    assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    with pytest.raises(VelfieldError, match="density contrast with holes"):
        wiener_velocity(np.ma.array(delta, mask=~mask), Survey(**survey), **how)
    with pytest.raises(VelfieldError, match="not a mask: mask is float64"):
        wiener_velocity(delta, Survey(**survey, mask=mask.astype(float)), **how)


@pytest.mark.parametrize("redshift", [-1, -1.0, -2.0, np.nan, np.inf, -np.inf])
def test_no_redshift_below_all_of_time(delta, redshift):
    said = r"no such redshift: redshift=.*; give"
    for ask in (
        lambda: vf.linear_velocity(delta, L, redshift=redshift),
        lambda: redshift_space(POS, POS, redshift=redshift, cosmology=OUTER_RIM, observer=OBSERVER),
        lambda: wiener_velocity(
            delta, Survey(boxsize=L, bias=1.0, density=1.0), cosmology=OUTER_RIM, redshift=redshift, pad=1
        ),
        lambda: OUTER_RIM.growth(redshift),
        lambda: OUTER_RIM.growth_rate(redshift),
        lambda: OUTER_RIM.E(redshift),
        lambda: OUTER_RIM.aH(redshift),
        lambda: OUTER_RIM.comoving_distance(redshift),
        lambda: OUTER_RIM.linear_power([0.1], redshift),
        lambda: OUTER_RIM.sigma(8.0, redshift),
        lambda: OUTER_RIM.mass_function(1e13, redshift),
        lambda: OUTER_RIM.halo_bias(1e13, redshift),
        lambda: OUTER_RIM.effective_bias(1e12, redshift, weight="number"),
    ):
        with pytest.raises(VelfieldError, match=said):
            ask()


def test_nor_a_snapshot_of_the_future(delta):
    with pytest.raises(VelfieldError, match=r"no such redshift: redshift=-0.3; give a number from 0 on"):
        vf.linear_velocity(delta, L, redshift=-0.3)
    # rounding of a = 1, as simulations write it
    assert_allclose(vf.linear_velocity(delta, L, redshift=-2e-8), vf.linear_velocity(delta, L), rtol=1e-6, atol=1e-6)
    assert np.isnan(OUTER_RIM.comoving_distance([0.1, np.nan])).tolist() == [False, True]
    with pytest.raises(VelfieldError, match="no such redshift: redshift=-1; give finite numbers above -1"):
        OUTER_RIM.comoving_distance([0.1, -1.0])
    with pytest.raises(VelfieldError, match="a unit of the wrong kind: redshift is in 'Mpc', wanted is a redshift"):
        vf.linear_velocity(delta, L, redshift=1 * u.Mpc)


def test_an_astropy_cosmology_is_taken(delta):
    ours = Cosmology.from_astropy(Planck18)
    assert ours.name == "Planck18"
    assert (ours.h, ours.omega_b, ours.sigma8, ours.n_s) == (0.6766, 0.04897, 0.8102, 0.9665)
    # Om0 leaves out massive neutrinos, 0.06 eV: Planck's Ωm of 0.3111 has them
    assert ours.omega_m == pytest.approx(0.3111, abs=1e-4)
    z = np.array([0.1, 0.5, 1.0])
    assert_allclose(ours.comoving_distance(z), Planck18.comoving_distance(z).value * 0.6766, rtol=2e-4)  # no radiation
    found = vf.linear_velocity(delta, L / 0.6766 * u.Mpc, cosmology=Planck18, redshift=0.5)
    assert_allclose(found, vf.linear_velocity(delta, L, cosmology=ours, redshift=0.5), rtol=1e-9, atol=1e-9)
    moved = redshift_space(POS, POS, redshift=0.5, cosmology=Planck18, observer=OBSERVER)
    assert_array_equal(moved, redshift_space(POS, POS, redshift=0.5, cosmology=ours, observer=OBSERVER))
    seen = sky.positions([10.0], [20.0], [0.05], cosmology=Planck18, observer=OBSERVER)
    assert_array_equal(seen, sky.positions([10.0], [20.0], [0.05], cosmology=ours, observer=OBSERVER))
    how = {"redshift": 0.0, "pad": 1}
    survey = Survey(boxsize=L, bias=1.0, density=1e-2)
    assert_array_equal(
        wiener_velocity(delta, survey, cosmology=Planck18, **how), wiener_velocity(delta, survey, cosmology=ours, **how)
    )


def test_one_without_a_power_spectrum_is_enough_where_none_is_needed(delta):
    bare = FlatLambdaCDM(H0=71, Om0=0.2648)
    expected = vf.linear_velocity(delta, L, redshift=0.5)
    assert_allclose(vf.linear_velocity(delta, L, cosmology=bare, redshift=0.5), expected, rtol=1e-9)
    background = Background(name="mine", omega_m=0.2648, h=0.71)
    assert_array_equal(vf.linear_velocity(delta, L, cosmology=background, redshift=0.5), expected)
    survey = Survey(boxsize=L, bias=1.0, density=1e-2)
    said = "the cosmology does not say all that is needed: name={}, missing=omega_b, sigma8, n_s; give "
    with pytest.raises(VelfieldError, match=said.format("FlatLambdaCDM") + r"Cosmology\.from_astropy\(cosm"):
        wiener_velocity(delta, survey, cosmology=bare, redshift=0.0)
    with pytest.raises(VelfieldError, match=said.format("mine") + "a Cosmology"):
        wiener_velocity(delta, survey, cosmology=background, redshift=0.0)
    whole = Cosmology.from_astropy(bare, name="outer-rim", omega_b=0.0448, sigma8=0.8, n_s=0.963)
    assert whole == OUTER_RIM
    with pytest.raises(VelfieldError, match=r"no such cosmology: omega_m=0, h=0\.7"):
        Background(name="empty", omega_m=0, h=0.7)


@pytest.mark.parametrize(
    ("cosmology", "said"),
    [
        (LambdaCDM(70, 0.3, 0.6), r"not a flat universe with a cosmological constant: cosmology=LambdaCDM, Ok0=0.1"),
        (
            w0waCDM(70, 0.3, 0.7, w0=-0.9, wa=0.1),
            r"not a flat universe .*, w\(0\)=-0.9, w\(z=1\)=-0.85; velfield",
        ),
        ("Planck18", "not a cosmology: cosmology='Planck18'; give a velfield.Cosmology, or one of astropy's"),
        (None, "not a cosmology: cosmology=None"),
    ],
)
def test_another_universe_is_refused(delta, cosmology, said):
    with pytest.raises(VelfieldError, match=said):
        vf.linear_velocity(delta, L, cosmology=cosmology)


def test_a_cosmological_constant_by_another_name_is_one(delta):
    found = vf.linear_velocity(delta, L, cosmology=w0waCDM(71, 0.2648, 0.7352))
    assert_allclose(found, vf.linear_velocity(delta, L), rtol=1e-9, atol=1e-9)


def test_tracers_of_painting_and_redshift_space():
    vel = np.random.default_rng(6).normal(0, 300, POS.shape)
    expected = redshift_space(POS, vel, redshift=0.2, cosmology=OUTER_RIM, observer=OBSERVER)
    table = Table({**{x: POS[:, i] for i, x in enumerate("xyz")}, **{f"v{x}": vel[:, i] for i, x in enumerate("xyz")}})
    for pos, velocity in (
        (POS / H * u.Mpc, 1e3 * vel * u.m / u.s),
        (table, table),
        (xr.DataArray(POS.T, dims=("axis", "n")), xr.DataArray(vel.T, dims=("axis", "n"), attrs={"units": "km/s"})),
    ):
        found = redshift_space(
            pos, velocity, redshift=0.2, cosmology=OUTER_RIM, observer=np.array(OBSERVER) / H * u.Mpc
        )
        assert_allclose(found, expected, rtol=1e-9)
    with pytest.raises(VelfieldError, match="a unit of the wrong kind: vel is in 'Mpc', wanted is a speed; give it"):
        redshift_space(POS, vel * u.Mpc, redshift=0.2, cosmology=OUTER_RIM, observer=OBSERVER)
    window = {"cellsize": 12.0, "start": (0, 0, 0), "shape": (10, 10, 10), "ngrid": 10}
    mass = np.full(len(POS), 2e12)
    ours = paint(POS, vel, mass, **window)
    theirs = paint(POS * MPC_H, vel * u.km / u.s, mass * u.Msun / cu.littleh, **window | {"cellsize": 12 * MPC_H})
    assert_array_equal(theirs.number, ours.number)
    assert_allclose(theirs.mass, ours.mass)
    assert_allclose(theirs.momentum, ours.momentum)
    holed = np.ma.array(POS, mask=np.arange(90).reshape(30, 3) == 7)
    with pytest.raises(VelfieldError, match="positions that are no place on the grid: tracers=1 of 30"):
        paint(holed, **window)


def test_velocities_that_are_measured():
    rng = np.random.default_rng(7)
    true = rng.normal(0, 300, (3, 8, 8, 8))
    predicted = true + rng.normal(0, 50, true.shape)
    expected = metrics(predicted, true, cellsize=5.0)["rms"]["mean"]
    found = metrics(1e3 * predicted * u.m / u.s, true * u.km / u.s, cellsize=5 * MPC_H)
    assert found["rms"]["mean"] == pytest.approx(expected, rel=1e-9)
    mask = np.zeros(true.shape, dtype=bool)
    mask[1, 2, 3, 4] = True
    holed = metrics(np.ma.array(np.where(mask, 1e9, predicted), mask=mask), true, cellsize=5.0)
    assert holed["missing"]["mean"] == 1
    assert holed["rms"]["mean"] == pytest.approx(expected, rel=0.01)  # of 512 cells one is left out
    with pytest.raises(VelfieldError, match="a unit of the wrong kind: predicted is in 'Mpc', wanted is a speed"):
        metrics(predicted * u.Mpc, true)


def test_powers_and_masses_of_a_cosmology():
    k = np.array([0.05, 0.1])
    assert_allclose(OUTER_RIM.linear_power(k * H / u.Mpc, 0.0), OUTER_RIM.linear_power(k, 0.0))
    assert_allclose(OUTER_RIM.sigma(8 / H * u.Mpc, 0.0), OUTER_RIM.sigma(8.0, 0.0))
    assert_allclose(OUTER_RIM.halo_bias(1e13 / H * u.Msun, 0.0), OUTER_RIM.halo_bias(1e13, 0.0))
    assert_allclose(OUTER_RIM.mass_function(1e13 / H * u.Msun, 0.0), OUTER_RIM.mass_function(1e13, 0.0))


def test_a_catalogue_is_opened_with_quantities(tmp_path):
    rng = np.random.default_rng(9)
    table = {x: 100 * rng.random(50) for x in "xyz"} | {f"v{x}": 300 * rng.standard_normal(50) for x in "xyz"}
    pd.DataFrame(table | {"mass": np.full(50, 1e13)}).to_csv(tmp_path / "c.csv", index=False)
    url = str(tmp_path / "c.csv")
    assert vf.open_catalogue(url, 0.5 * cu.redshift, boxsize=0.1 * u.Gpc / cu.littleh).boxsize == pytest.approx(100)
    assert vf.open_catalogue(url, 0.5, boxsize=200 * u.Mpc, h=0.5).boxsize == pytest.approx(100)
    with pytest.raises(VelfieldError, match="the Hubble parameter is not known here: boxsize is in 'Mpc'"):
        vf.open_catalogue(url, 0.5, boxsize=200 * u.Mpc)
    with pytest.raises(VelfieldError, match=r"no such redshift: redshift=-0\.3; give a number from 0 on"):
        vf.open_catalogue(url, -0.3, boxsize=100.0)


def test_a_network_is_given_over_densities():
    inputs = ("mass_overdensity", "number_overdensity")
    channels = tuple(Channel(kind=kind, transform="linear", scale=1.0, mean=0.1, std=0.8) for kind in inputs)
    net = UNet(UNetConfig(in_channels=2, width=4, depth=1, groups=2))
    model = Model(net, Normalisation(channels=channels, sigma_v=300.0), {"trained_on": {}, "context": 0})
    counts = np.random.default_rng(10).poisson(1.0, (1, 2, 8, 8, 8)).astype("f4")
    delta = counts / counts.mean() - 1
    named = xr.DataArray(delta, dims=("box", "channel", "x", "y", "z")).transpose("z", "y", "x", "channel", "box")
    assert_array_equal(model.predict_array(named), model.predict_array(delta))
    with pytest.raises(VelfieldError, match="inputs are not finite: cells=1"):
        model.predict_array(np.ma.array(delta, mask=np.arange(delta.size).reshape(delta.shape) == 7))
    with pytest.raises(VelfieldError, match="not a density contrast: mass_overdensity goes from 0 to"):
        model.predict_array(counts)


def test_cubes_that_are_sent():
    counts = np.random.default_rng(8).poisson(3.0, (4, 4, 4))
    named = xr.DataArray(counts, dims=("x", "y", "z")).transpose("z", "x", "y")
    assert_array_equal(cubes_of({"halo_number": named})["halo_number"], counts)
    mass = cubes_of({"halo_mass": counts * 1e12 * u.Msun / cu.littleh})["halo_mass"]
    assert_allclose(mass, counts * 1e12)
    with pytest.raises(VelfieldError, match="a cube with holes: halo_number, not finite=1 of 64 cells"):
        cubes_of({"halo_number": np.ma.array(counts, mask=np.arange(64).reshape(4, 4, 4) == 3)})
    with pytest.raises(VelfieldError, match="not a density contrast: halo_number_overdensity"):
        cubes_of({"halo_number_overdensity": counts})


def test_arrays_pass_as_they_are():
    for dtype in ("f4", "f8", "i4"):
        given = np.ones((4, 3), dtype=dtype)
        assert numbers(given, "x") is given
        assert rows(given, "x", {"x": "length", "y": "length", "z": "length"}) is given
    assert numbers(3.0, "x") == 3
    assert SIDE == L
