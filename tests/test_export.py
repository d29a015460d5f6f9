"""What is derived of velocities against analytic fields, and cubes read back with plain xarray and astropy."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy import wcs
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from test_queries import GRADIENT, OBSERVER, linear, observed, wave
from velocity_stores import SIDE, centres, in_memory, written

from velfield.answers import derived
from velfield.answers.cells import Cells
from velfield.answers.derived import bulk_flows as flows_of
from velfield.answers.export import bulk_flows, export
from velfield.commands.cli import main
from velfield.errors import StoreError, VelfieldError
from velfield.physics.cosmology import OUTER_RIM
from velfield.theory.whole import layout_of

K = 2 * np.pi / SIDE
H = OUTER_RIM.h


def bulk_flow(cells, centre, radius):
    (flow,) = flows_of(cells, np.array([[*centre, radius]], dtype=float))
    return flow


def gradient(pos):
    """−∇φ of φ = 5000 cos kx + 3000 sin(ky + kz)."""
    along = np.cos(K * (pos[1] + pos[2]))
    return np.stack([5000 * K * np.sin(K * pos[0]), -3000 * K * along, -3000 * K * along])


def potential(pos):
    return 5000 * np.cos(K * pos[0]) + 3000 * np.sin(K * (pos[1] + pos[2]))


def of_boxes(function, ds):
    """A function of the position in the cells of every box (box, …)."""
    return np.stack([function(centres(layout_of(ds), box)) for box in range(ds.sizes["box"])])


def whole_of(ds, function):
    n = layout_of(ds).ngrid
    axes = [(np.arange(n) + 0.5) * SIDE / n] * 3
    return function(np.array(np.meshgrid(*axes, indexing="ij")))


def test_divergence_of_a_linear_field_is_exact_across_boxes():
    cells = Cells(in_memory(linear, boxes=3, cells=4, periodic=False))
    middle = derived.divergence(cells, 13)
    assert_allclose(middle, np.trace(GRADIENT), atol=1e-4)  # float32 of 300 km/s over 20 h⁻¹Mpc
    corner = derived.divergence(cells, 0)
    assert_allclose(corner[1:, 1:, 1:], np.trace(GRADIENT), atol=1e-4)
    assert np.isnan(corner[0]).all()
    assert np.isnan(corner[:, 0]).all()
    assert np.isnan(corner[:, :, 0]).all()


@pytest.mark.parametrize("boxes", [1, 2])
def test_divergence_of_a_periodic_wave(boxes):
    ds = in_memory(gradient, boxes=boxes, cells=24 // boxes)
    cells, h = Cells(ds), SIDE / 24

    # a central difference sees k as sin(kh)/h, along each axis
    def expected(pos):
        along = 6000 * K * np.sin(K * (pos[1] + pos[2]))
        return (5000 * K * np.cos(K * pos[0]) + along) * np.sin(K * h) / h

    found = np.stack([derived.divergence(cells, box) for box in range(boxes**3)])
    assert_allclose(found, of_boxes(expected, ds), atol=1e-3)


@pytest.mark.parametrize("boxes", [1, 3])
def test_the_potential_of_a_gradient(boxes):
    ds = in_memory(lambda pos: gradient(pos) + 40, boxes=boxes, cells=12 // boxes)  # the mean has no part in it
    found = derived.potential(Cells(ds))
    assert_allclose(found, whole_of(ds, potential), atol=0.01)  # float32 of 8000
    curl = in_memory(lambda pos: np.stack([0 * pos[0], 300 * np.sin(K * pos[0]), 0 * pos[0]]))
    assert_allclose(derived.potential(Cells(curl)), 0, atol=1e-2)


def test_speed_and_line_of_sight():
    ds = in_memory(linear, **observed())
    assert_allclose(derived.speed(Cells(ds), 3), np.sqrt((ds.velocity[3].values ** 2).sum(0)), rtol=1e-6)

    def along(pos):
        away = pos - np.reshape(OBSERVER, (3, 1, 1, 1))
        return (linear(pos) * away).sum(0) / np.sqrt((away**2).sum(0))

    found = np.stack([derived.line_of_sight(Cells(ds), box) for box in range(8)])
    assert_allclose(found, of_boxes(along, ds), atol=1e-3)
    plane = in_memory(linear, line_of_sight=np.tile([0.0, 0, 1], (8, 1)), rsd="plane_parallel")
    assert_array_equal(derived.line_of_sight(Cells(plane), 5), plane.velocity[5, 2])
    here = in_memory(linear, observer=np.tile([15.0, 25, 35], (8, 1)), rsd="random_radial")
    assert_array_equal(np.argwhere(np.isnan(derived.line_of_sight(Cells(here), 0))), [[1, 2, 3]])


@pytest.mark.parametrize("boxes", [1, 2, 4])
def test_bulk_flow_against_a_plain_loop(boxes):
    ds = in_memory(wave, boxes=boxes, cells=12 // boxes)
    centre, radius = np.array([10.0, 100.0, 61.0]), 47.0
    pos = whole_of(ds, lambda p: p)
    offset = (pos - centre[:, None, None, None] + SIDE / 2) % SIDE - SIDE / 2
    within = (offset**2).sum(0) <= radius**2
    flow = bulk_flow(Cells(ds), centre, radius)
    assert_allclose(flow.velocity, wave(pos)[:, within].mean(axis=1), atol=1e-3)
    assert (flow.cells, flow.inside) == (within.sum(), 1)


def test_bulk_flow_says_how_much_of_it_is_known():
    ds = in_memory(lambda pos: 0 * pos + np.reshape([10.0, 20, 30], (3, 1, 1, 1)), boxes=2, periodic=False)
    half = bulk_flow(Cells(ds), [0.0, 60, 60], 40.0)
    assert_allclose(half.velocity, [10, 20, 30])
    assert half.inside == pytest.approx(0.5)
    assert bulk_flow(Cells(ds.isel(box=[0])), [0.0, 60, 60], 40.0).inside == pytest.approx(0.125)
    far = bulk_flow(Cells(ds), [400.0, 60, 60], 40.0)
    assert np.isnan(far.velocity).all()
    assert (far.cells, far.inside) == (0, 0)
    small = bulk_flow(Cells(ds), [60.0, 60, 60], 1.0)  # no cell's centre lies in it
    assert np.isnan(small.inside)


def test_bulk_flow_reads_only_the_boxes_that_a_sphere_meets(monkeypatch):
    read, original = [], Cells._read
    monkeypatch.setattr(Cells, "_read", lambda cells, box: read.append(box) or original(cells, box))
    bulk_flow(Cells(in_memory(wave, boxes=3, cells=4)), [20.0, 20, 38], 15.0)
    assert sorted(read) == [0, 1]


def test_many_spheres_are_what_each_is_alone_and_boxes_are_read_once(monkeypatch):
    ds = in_memory(wave, boxes=3, cells=4).isel(box=[*range(1, 20), *range(21, 27)])
    rng = np.random.default_rng(4)
    spheres = np.column_stack([rng.uniform(0, SIDE, (20, 3)), rng.uniform(1, SIDE / 2, 20)])
    alone = [flows_of(Cells(ds), sphere[None])[0] for sphere in spheres]
    read, original = [], Cells._read
    monkeypatch.setattr(Cells, "_read", lambda cells, box: read.append(box) or original(cells, box))
    together = flows_of(Cells(ds, kept_bytes=1), spheres)
    assert sorted(read) == list(range(25))
    for one, other in zip(alone, together, strict=True):
        assert_array_equal(one.velocity, other.velocity)
        assert (one.cells, one.inside) == (other.cells, other.inside)


@pytest.mark.parametrize("boxes", [1, 3])
def test_netcdf_of_the_whole(tmp_path, boxes):
    ds = in_memory(gradient, boxes=boxes, cells=12 // boxes, margin=1, **observed(boxes))
    names = ["velocity", "speed", "divergence", "potential", "v_los"]
    export(ds, str(tmp_path / "a.nc"), quantities=names)
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as made:
        assert list(made.data_vars) == names
        assert made.velocity.dims == ("component", "x", "y", "z")
        assert made.component.values.tolist() == ["x", "y", "z"]
        assert_allclose(made.x, (np.arange(12) + 0.5) * 10 / H)  # megaparsec, without h
        assert_allclose(made.velocity, whole_of(ds, gradient), rtol=1e-6, atol=1e-5)
        assert_allclose(made.potential, whole_of(ds, potential) / H, atol=0.02)
        assert_allclose(made.divergence[:4, :4, :4], derived.divergence(Cells(ds), 0)[:4, :4, :4] * H, rtol=1e-6)
        assert made.velocity.sel(component="y").sel(x=15 / H, y=25 / H, z=35 / H, method="nearest") == pytest.approx(
            gradient(np.array([15.0, 25, 35]))[1], rel=1e-6
        )
        assert (made.velocity.units, made.divergence.units) == ("km/s", "km s-1 megaparsec-1")
        assert (made.x.units, made.potential.units) == ("megaparsec", "km megaparsec s-1")
        assert made.attrs["cellsize"] == f"{10 / H:.15g} megaparsec"
        assert (made.attrs["periodic"], made.attrs["redshift"]) == (1, 0)


def test_netcdf_of_boxes(tmp_path):
    url = written(str(tmp_path / "v.zarr"), linear, std=25.0)
    export(url, str(tmp_path / "b.nc"), quantities=["velocity_std", "velocity"], boxes=[6, 1])
    with xr.open_dataset(tmp_path / "b.nc", engine="h5netcdf") as made:
        assert dict(made.sizes) == {"box": 2, "component": 3, "x": 6, "y": 6, "z": 6, "axis": 3}
        assert made.box.values.tolist() == [6, 1]
        assert_allclose(made.origin, np.array([[60, 60, 0], [0, 0, 60]]) / H)
        assert "origin" in made.coords
        boxes = of_boxes(linear, in_memory(linear))[[6, 1]]
        assert_allclose(made.velocity, boxes, rtol=1e-6, atol=1e-4)
        assert_array_equal(made.velocity_std, np.full_like(boxes, 25))


def test_fits_of_the_whole_and_of_boxes(tmp_path):
    ds = in_memory(wave, boxes=3, cells=4)
    export(ds, str(tmp_path / "a.fits"), quantities=["velocity", "speed"])
    with fits.open(tmp_path / "a.fits") as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "VELOCITY", "SPEED"]
        velocity = hdus["VELOCITY"]
        assert_allclose(velocity.data, whole_of(ds, wave), rtol=1e-6, atol=1e-4)
        assert_allclose(hdus["SPEED"].data, np.sqrt((whole_of(ds, wave) ** 2).sum(0)), rtol=1e-5)
        assert (velocity.header["BUNIT"], velocity.header["LENUNIT"]) == ("km/s", "Mpc / littleh")
        assert hdus[0].header["CELLSIZE"] == 10
        assert hdus[0].header["PERIODIC"] is True
        # the first cell's centre, z first as FITS has it
        assert_allclose(wcs.WCS(hdus["SPEED"].header).pixel_to_world_values(0, 0, 2), [5, 5, 25])
    export(ds, str(tmp_path / "b.fits"), boxes=[26, 5])
    with fits.open(tmp_path / "b.fits") as hdus:
        hdus.verify("exception")
        assert [(hdu.name, hdu.ver) for hdu in hdus[1:]] == [("VELOCITY", 27), ("VELOCITY", 6)]
        assert_allclose(hdus["VELOCITY", 6].data, of_boxes(wave, ds)[5], rtol=1e-6, atol=1e-4)
        assert [hdus["VELOCITY", 6].header[f"CRVAL{i}"] for i in (1, 2, 3)] == [80, 40, 0]


def test_what_is_not_known_is_not_exported(tmp_path):

    def edit(arrays):
        arrays["velocity_flag"][0, 2, 3, 4] = 2

    ds = in_memory(linear, edit=edit)
    export(ds, str(tmp_path / "a.nc"), quantities=["velocity", "speed", "divergence"])
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as made:
        assert_array_equal(np.argwhere(np.isnan(made.velocity[0].values)), [[2, 3, 4]])
        assert np.isnan(made.speed.values).sum() == 1
        assert np.isnan(made.divergence.values).sum() == 7  # it and its neighbours


def test_tables_of_bulk_flows(tmp_path, capsys):
    url = written(str(tmp_path / "v.zarr"), wave, **observed())
    out = str(tmp_path / "flow.csv")
    assert main(["export", url, out, "--sphere", "30", "--sphere", "60,60,60,50"]) == 0
    said = capsys.readouterr().out
    assert "radius 30 h⁻¹Mpc" in said
    assert "100 % of the sphere" in said
    names, *rows = (line.split(",") for line in Path(out).read_text().splitlines())
    assert names == ["x", "y", "z", "radius", "vx", "vy", "vz", "cells", "inside"]
    assert [float(v) for v in rows[0][:4]] == [*OBSERVER, 30]
    flow = bulk_flow(Cells(in_memory(wave)), [60, 60, 60], 50)
    assert_allclose([float(v) for v in rows[1][4:7]], flow.velocity, rtol=1e-12)
    bulk_flows(url, [[60, 60, 60, 50]], str(tmp_path / "flow.fits"))
    with fits.open(tmp_path / "flow.fits") as hdus:
        assert_allclose(hdus[1].data["vx"], flow.velocity[0])
        assert hdus[1].data["cells"] == flow.cells
    assert main(["export", url, str(tmp_path / "small.csv"), "--sphere", "1,1,1,0.1"]) == 0
    assert "radius 0.1 h⁻¹Mpc: no known cell has its centre in it" in capsys.readouterr().out


class _Unasked:
    """Progress of what is refused before it begins."""

    def start(self, *_):
        raise AssertionError


def test_mistakes_are_said_in_a_line(tmp_path, capsys):
    ds, out = in_memory(linear), str(tmp_path / "a.nc")

    def refuse(match, kind=VelfieldError, ds=ds, out=out, **how):
        with pytest.raises(kind, match=match) as error:
            export(ds, out, **how)
        assert "\n" not in str(error.value)

    refuse(r"no such form of a cube: file=a.txt; let its name end with .nc, .nc4, .fits, .fit", out="a.txt")
    refuse("no such quantities: quantities=vorticity; choose some of velocity, velocity_std", quantities=["vorticity"])
    refuse("each once", quantities=["speed", "speed"])
    refuse("no such box: store=None, box=8; the store has boxes 0 to 7", StoreError, boxes=[8])
    refuse("no boxes, or one twice: boxes=1,1; name each once", boxes=[1, 1])
    refuse("a box alone has no potential: boxes=1; leave --box out", boxes=[1], quantities=["potential"])
    partial = ds.isel(box=[1, 2])
    refuse("the boxes do not fill their parent: store=None, boxes=2 of 8; choose boxes", StoreError, ds=partial)
    ends = in_memory(linear, periodic=False)
    refuse("no potential without a whole periodic .*periodic=False", StoreError, ds=ends, quantities=["potential"])
    refuse("the store has no error bars: store=None; predict with", StoreError, quantities=["velocity_std"])
    refuse("no line of sight: store=None, rsd=none; only a store", StoreError, quantities=["v_los"])
    hole = in_memory(linear, edit=lambda arrays: arrays["velocity_flag"].fill(2))
    refuse("cells without a velocity: store=None, box=0; a potential needs all", ds=hole, quantities=["potential"])
    assert not list(tmp_path.iterdir())
    table = str(tmp_path / "a.csv")
    with pytest.raises(VelfieldError, match="a sphere that meets itself: radius=61, boxsize=120; give at most half"):
        bulk_flows(ds, [[1, 1, 1, 61]], table)
    with pytest.raises(VelfieldError, match=r"no such sphere: sphere=30, store=None; give x,y,z,radius, or, where the"):
        bulk_flows(ds, [[30]], table)
    with pytest.raises(VelfieldError, match=r"no such sphere: centre=\[1.0, 1.0, 1.0\], radius=-1.0; give three"):
        bulk_flows(ds, [[1, 1, 1, -1]], table)
    with pytest.raises(VelfieldError, match=r"no such form of a table: file=.*a.nc; let its name end with .csv"):
        bulk_flows(ds, [[1, 1, 1, 30]], out, progress=_Unasked())
    assert main(["export", "v.zarr", out, "--sphere", "1,2,x,4"]) == 2
    assert "not a sphere: sphere=1,2,x,4; write x,y,z,radius, or a radius" in capsys.readouterr().err
    assert main(["export", "v.zarr", out, "--sphere", "1", "--box", "2"]) == 2
    assert "two forms at once: sphere=1, quantity=, box=1; ask for cubes" in capsys.readouterr().err
    export(ds, out)
    refuse("the file is there already: file=.*a.nc; name another", out=out)
    export(ds, out, overwrite=True)


@pytest.mark.parametrize("end", ["nc", "fits"])
def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(tmp_path, little_room, end):
    out = str(tmp_path / f"out.{end}")
    with little_room(30_000), pytest.raises(OSError, match="File too large") as error:
        export(in_memory(wave, cells=12), out)
    assert error.value.filename == out
    assert not list(tmp_path.iterdir())


def test_from_where_it_is_seen_goes_with_it(tmp_path):
    one, line = (
        in_memory(wave, **observed()),
        in_memory(wave, line_of_sight=np.tile([0.0, 0, 1], (8, 1)), rsd="plane_parallel"),
    )
    each = np.random.default_rng(4).uniform(0, SIDE, (8, 3))
    several = in_memory(wave, observer=each, rsd="random_radial")
    for name, ds in {"one": one, "line": line, "several": several}.items():
        export(ds, str(tmp_path / f"{name}.nc"), quantities=["v_los"])
        export(ds, str(tmp_path / f"{name}.fits"), quantities=["v_los"])
        export(ds, str(tmp_path / f"{name}-boxes.nc"), quantities=["v_los"], boxes=[5, 2])
    export(several, str(tmp_path / "boxes.fits"), quantities=["v_los"], boxes=[5, 2])
    attrs = {name: xr.load_dataset(tmp_path / f"{name}.nc").attrs for name in ("one", "line", "several")}
    assert_allclose(attrs["one"]["observer"], np.array(OBSERVER) / H)
    assert attrs["one"]["observer_units"] == "megaparsec"
    assert_array_equal(attrs["line"]["line_of_sight"], [0, 0, 1])
    assert not {"observer", "line_of_sight"} & set(attrs["several"])
    boxes = {name: xr.load_dataset(tmp_path / f"{name}-boxes.nc").coords for name in attrs}
    assert_allclose(boxes["one"]["observer"], np.array([OBSERVER] * 2) / H)
    assert_array_equal(boxes["line"]["line_of_sight"], [[0, 0, 1]] * 2)
    assert_allclose(boxes["several"]["observer"], each[[5, 2]] / H)
    assert boxes["several"]["observer"].units == "megaparsec"
    header = fits.getheader(tmp_path / "one.fits", 1)
    assert [header[f"OBS{x}"] for x in "XYZ"] == OBSERVER
    assert fits.getheader(tmp_path / "line.fits", 1)["LOSZ"] == 1
    assert "OBSX" not in fits.getheader(tmp_path / "several.fits", 1)
    assert fits.getheader(tmp_path / "boxes.fits", ("V_LOS", 6))["OBSY"] == pytest.approx(each[5, 1])
