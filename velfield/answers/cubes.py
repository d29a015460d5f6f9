"""Cubes written box by box as NetCDF or FITS: of the whole parent as one grid, or of some of its boxes.

NetCDF has the store's dimensions, coordinates and attributes, in units that UDUNITS knows: megaparsec, without h
(`velfield.stores.cf`). FITS has h⁻¹Mpc, in units that astropy knows. In FITS each quantity (of each box) is an image, x
the slowest of its axes, so that `astropy.io.fits` gives the array (component, x, y, z) that the store has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from velfield.files.hdf5_file import HDF5File
from velfield.geometry.boxes import BoxLayout
from velfield.stores import cf
from velfield.stores.store_layout import COORDINATES, LENGTH, TRUTHS

BLOCK = 2880  # bytes of a FITS file's blocks
PIECE = 2**24  # bytes of zeros written at a time
WORDS = {  # of the store's attributes, in FITS
    "redshift": ("REDSHIFT", "of the snapshot"),
    "boxsize": ("BOXSIZE", "side of the parent [Mpc/h]"),
    "cellsize": ("CELLSIZE", "side of a cell [Mpc/h]"),
    "periodic": ("PERIODIC", "whether the parent repeats"),
    "rsd": ("RSD", "redshift-space pattern of the input"),
    "velfield_version": ("VELFIELD", "version that wrote the store"),
}

SEEN = {  # from where, or along what, a store is seen: unit, what it is, and its words in FITS but for X, Y, Z
    "observer": (LENGTH, "the observer's place in the parent", "OBS"),
    "line_of_sight": ("1", "direction away from the observer", "LOS"),
}


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is written: the whole parent where ``boxes`` is None, else these boxes (number: place along x, y, z)."""

    layout: BoxLayout
    boxes: Mapping[int, tuple[int, int, int]] | None
    attrs: Mapping[str, Any]
    seen: tuple[str, Mapping[int | None, tuple[float, float, float]]] | None = None
    """``observer`` [h⁻¹Mpc] or ``line_of_sight``: of each box by its number, of the whole by None where it has one."""

    def corner(self, place: Sequence[int]) -> tuple[slice, slice, slice]:
        """Where a box lies on the parent's grid."""
        x, y, z = (slice(i * self.layout.cells, (i + 1) * self.layout.cells) for i in place)
        return x, y, z


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a cube holds: its name, unit, what it is, and whether it has three components."""

    name: str
    units: str
    long_name: str
    vector: bool


class Cubes(Protocol):
    """Cubes that are being written."""

    def put(self, name: str, box: int, place: tuple[int, int, int], values: NDArray[Any]) -> None:
        """Write a quantity of one box."""


@contextmanager
def netcdf(path: str, frame: Frame, quantities: Sequence[Quantity]) -> Iterator[Cubes]:
    """NetCDF 4 at a local path, a chunk for each box."""
    import h5netcdf
    import h5py

    layout, h = frame.layout, float(json.loads(frame.attrs["cosmology"])["h"])
    length, per_h = cf.unit_and_factor(LENGTH, h)
    with HDF5File(path) as written, h5netcdf.File(written, "w") as file:
        n = layout.cells if frame.boxes is not None else layout.ngrid
        own = ("box",) if frame.boxes is not None else ()
        sizes = {"box": len(frame.boxes)} if frame.boxes is not None else {}
        file.dimensions = sizes | {"component": 3, "x": n, "y": n, "z": n} | ({"axis": 3} if own else {})
        text = h5py.string_dtype()
        for name in ("component", *(["axis"] if own else [])):
            made = file.create_variable(name, (name,), dtype=text, data=np.array(["x", "y", "z"], dtype=object))
            made.attrs.update(COORDINATES[name])
        of = "from the box's corner" if own else "in the parent"
        for x in "xyz":
            made = file.create_variable(x, (x,), dtype="f8", data=(np.arange(n) + 0.5) * layout.cellsize * per_h)
            made.attrs.update({"units": length, "long_name": f"{x} of the cell centre {of}"})
        seen = frame.seen and (*frame.seen, *cf.unit_and_factor(SEEN[frame.seen[0]][0], h))
        if frame.boxes is not None:
            made = file.create_variable("box", ("box",), dtype="i8", data=np.array(list(frame.boxes)))
            made.attrs["long_name"] = "number of the box in the store"
            corners = np.array(list(frame.boxes.values())) * layout.side
            origin = file.create_variable("origin", ("box", "axis"), dtype="f8", data=corners * per_h)
            origin.attrs.update({"units": length, "long_name": "the box's corner"})
            if seen:
                name, places, unit, factor = seen
                data = np.array([places[b] for b in frame.boxes]) * factor
                made = file.create_variable(name, ("box", "axis"), "f8", data=data)
                made.attrs.update({"units": unit, "long_name": SEEN[name][1]})
            # they have an axis that no quantity has: CF does not let these name them
            file.attrs["coordinates"] = " ".join(["origin", *(frame.seen or ())[:1]])
        elif seen and None in seen[1]:
            name, places, unit, factor = seen
            file.attrs[name] = np.array(places[None]) * factor
            file.attrs[f"{name}_units"] = unit
        factors = {}
        for quantity in quantities:
            first = ("component",) if quantity.vector else ()
            made = file.create_variable(
                quantity.name,
                (*own, *first, "x", "y", "z"),
                dtype="f4",
                chunks=(*[1 for _ in own], *[3 for _ in first], *(layout.cells,) * 3),
                fillvalue=np.float32(np.nan),
            )
            unit, factors[quantity.name] = cf.unit_and_factor(quantity.units, h)
            made.attrs.update({"units": unit, "long_name": quantity.long_name})
        file.attrs.update(cf.attributes(frame.attrs, what="velocities exported by velfield"))
        yield _NetCDF(file, frame, written, factors)


class _NetCDF:
    def __init__(self, file: Any, frame: Frame, written: HDF5File, factors: Mapping[str, float]) -> None:
        self._file, self._frame, self._written, self._factors = file, frame, written, factors
        self._row = {box: i for i, box in enumerate(frame.boxes or ())}

    def put(self, name: str, box: int, place: tuple[int, int, int], values: NDArray[Any]) -> None:
        """Write a quantity of one box."""
        whole = self._frame.boxes is None
        where = (*[slice(None)] * (values.ndim - 3), *self._frame.corner(place)) if whole else self._row[box]
        try:
            self._file[name][where] = values * np.float32(self._factors[name])
        finally:
            self._written.check()


@contextmanager
def fits(path: str, frame: Frame, quantities: Sequence[Quantity]) -> Iterator[Cubes]:
    """FITS at a local path: an image for each quantity, or for each quantity of each box."""
    layout = frame.layout
    n = layout.ngrid if frame.boxes is None else layout.cells
    images: dict[tuple[str, int | None], tuple[int, tuple[int, ...]]] = {}
    with open(path, "wb") as file:
        file.write(_primary(frame))
        for quantity in quantities:
            shape = (*((3,) if quantity.vector else ()), n, n, n)
            for box, place in [(None, (0, 0, 0))] if frame.boxes is None else [*frame.boxes.items()]:
                file.write(_image(quantity, frame, shape, box, place))
                images[quantity.name, box] = file.tell(), shape
                size = 4 * int(np.prod(shape))
                _reserve(file, size + -size % BLOCK)
    yield _FITS(path, frame, images)


def _reserve(file: BinaryIO, size: int) -> None:
    """Append zeros that have their place on the disk: a mapped file that finds it full ends the process."""
    at = file.tell()
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), at, size)
    else:
        for start in range(0, size, PIECE):
            file.write(bytes(min(PIECE, size - start)))
    file.seek(at + size)


class _FITS:
    def __init__(
        self, path: str, frame: Frame, images: Mapping[tuple[str, int | None], tuple[int, tuple[int, ...]]]
    ) -> None:
        self._path, self._frame, self._images = path, frame, images

    def put(self, name: str, box: int, place: tuple[int, int, int], values: NDArray[Any]) -> None:
        """Write a quantity of one box."""
        whole = self._frame.boxes is None
        offset, shape = self._images[name, None if whole else box]
        image = np.memmap(self._path, dtype=">f4", mode="r+", offset=offset, shape=shape)
        image[(..., *(self._frame.corner(place) if whole else ()))] = values
        image.flush()


def _primary(frame: Frame) -> bytes:
    from astropy.io import fits

    header = fits.PrimaryHDU().header
    for name, (word, comment) in WORDS.items():
        if name in frame.attrs:
            value = frame.attrs[name]
            header[word] = (bool(value) if name in TRUTHS else value, comment)
    cosmology = json.loads(frame.attrs["cosmology"])
    for name, word in {"omega_m": "OMEGA_M", "omega_b": "OMEGA_B", "h": "HUBBLE", "sigma8": "SIGMA8"}.items():
        header[word] = cosmology[name]
    return bytes(header.tostring().encode("ascii"))


def _image(
    quantity: Quantity, frame: Frame, shape: tuple[int, ...], box: int | None, place: tuple[int, int, int]
) -> bytes:
    """Header of an image; FITS counts axes from the fastest: z, y, x, component."""
    from astropy.io import fits

    layout = frame.layout
    header = fits.Header()
    for word, value, comment in (
        ("XTENSION", "IMAGE", "image extension"),
        ("BITPIX", -32, "float32"),
        ("NAXIS", len(shape), "number of axes"),
        *((f"NAXIS{i}", size, "") for i, size in enumerate(reversed(shape), 1)),
        ("PCOUNT", 0, ""),
        ("GCOUNT", 1, ""),
        ("EXTNAME", quantity.name.upper(), quantity.long_name),
        ("BUNIT", quantity.units, ""),
        ("WCSNAME", "PARENT", "place in the parent, comoving"),
        ("LENUNIT", LENGTH, "of CRVALi and CDELTi; h is the Hubble parameter"),
    ):
        header[word] = (value, comment)
    if box is not None:
        header["EXTVER"] = (box + 1, "number of the box, from 1")
        header["BOX"] = (box, "number of the box in the store")
    for i, (name, corner) in enumerate(zip("zyx", reversed(place), strict=True), 1):
        header[f"CTYPE{i}"] = (name.upper(), "")
        header[f"CRPIX{i}"] = (0.5, "the box's face")
        header[f"CRVAL{i}"] = (float(corner * layout.side), "[Mpc/h]")
        header[f"CDELT{i}"] = (layout.cellsize, "[Mpc/h]")
    if frame.seen and box in frame.seen[1]:
        unit, what, word = SEEN[frame.seen[0]]
        for x, value in zip("XYZ", frame.seen[1][box], strict=True):
            header[f"{word}{x}"] = (value, f"[{'Mpc/h' if unit == LENGTH else unit}] {what}")
    if len(shape) > 3:
        header["CTYPE4"] = ("COMPONENT", "x, y, z")
        header["CRPIX4"], header["CRVAL4"], header["CDELT4"] = 1.0, 0.0, 1.0
    return bytes(header.tostring().encode("ascii"))
