"""Damage for GenericIO files, drawn by a seed: in headers and blocks, checksums left broken or made right again."""

import struct
from pathlib import Path

import fsspec
import numpy as np

from velfield.catalogues import genericio
from velfield.catalogues.catalogue import open_catalogue
from velfield.catalogues.genericio_layout import BYTE_ORDERS, CRC_BYTES, crc64
from velfield.errors import CatalogueError

SAMPLES = Path(__file__).parent / "data" / "genericio"
ROOT = "/fuzz"
KINDS = ("bits of the header", "a field of the header", "bits of a block", "cut", "zeros", "moved", "longer")
ABSURD = [0, 1, 2, 3, 7, 8, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


WEIGHTS = (0.2, 0.3, 0.2, 0.05, 0.1, 0.1, 0.05)
REPAIRED = 0.7  # share of the cases in which the damage gets past the checksums


def samples():
    """Bytes of the files of each sample, by suffix: small ones in every layout, and those of the reference writer."""
    from test_genericio import craft, raw

    columns = [(c.encode(), 3, 4, 4) for c in ("x", "y", "z", "vx", "vy", "vz")] + [(b"p", 3, 12, 4), (b"n", 0, 2, 2)]

    def table(rows):
        rng = np.random.default_rng(rows)
        values = {c: (9 * rng.random(rows)).astype("f4") for c in ("x", "y", "z", "vx", "vy", "vz")}
        return values | {"p": rng.random((rows, 3), dtype="f4"), "n": np.sort(rng.integers(0, 9, rows).astype("u2"))}

    def small(rows, **options):
        order = options.get("order", "<")
        return {"": craft([raw(table(n), order) for n in rows], columns, scale=9.0, **options)}  # which they fill

    found = {
        "one": small([30]),
        "four": small([5, 0, 9, 7], dims=(2, 2, 1)),
        "big-endian": small([5, 9], dims=(1, 1, 2), order=">"),
        "old": small([5, 9], dims=(1, 1, 2), ranksize=40, globalsize=152),
        "octree": small([20], globalsize=184),
        "packed": small([90, 0, 60], dims=(1, 3, 1), filters=b"BLOSC"),
        "packed big-endian": small([90, 60], dims=(1, 1, 2), filters=b"BLOSC", order=">"),
        "zlib": small([300], filters=b"BLOSC", codec="zlib"),
    }
    fs = fsspec.filesystem("memory")
    for compress in (False, True):
        url = f"memory:/{ROOT}/made"
        files = genericio.write(
            url, [table(n) for n in (5, 80, 0, 9)], dims=(2, 2, 1), boxsize=9.0, partitions=2, compress=compress
        )
        found[f"partitioned {compress}"] = {file[len(url) :]: fs.cat_file(file) for file in files}
    for path in sorted(SAMPLES.glob("*.gio")):
        files = sorted(SAMPLES.glob(f"{path.name}*"))
        found[path.name] = {p.name[len(path.name) :]: p.read_bytes() for p in files}
    return found


def mutate(originals, seed, case):
    """The files of one damaged sample, and (kind of the damage, whether checksums were made right)."""
    rng = np.random.default_rng([seed, case])
    weights = np.array([1.0 if name.endswith(".gio") else 12.0 for name in originals])  # small ones are quicker
    name = str(rng.choice(list(originals), p=weights / weights.sum()))
    files = dict(originals[name])
    suffix = list(files)[int(rng.integers(len(files)))]
    data = bytearray(files[suffix])
    order = BYTE_ORDERS[bytes(data[:8])]
    header = struct.unpack_from(order + "Q", data, 8)[0]
    kind, repaired = str(rng.choice(KINDS, p=WEIGHTS)), bool(rng.random() < REPAIRED)
    for _ in range(int(rng.choice([1, 1, 1, 2, 5]))):
        _damage(data, kind, rng, order, min(header, max(len(data) - CRC_BYTES, 16)))
    if repaired:
        _repair(data, order, header)
    files[suffix] = bytes(data)
    return name, files, kind, repaired


def _damage(data, kind, rng, order, header):
    """Change the bytes of one file in place."""
    size = len(data)
    at = int(rng.integers(8, max(size - 8, 9)))
    if kind == "bits of the header":
        data[int(rng.integers(8, header))] ^= 1 << int(rng.integers(8))
    elif kind == "a field of the header":
        # the first fields decide most; all tables are multiples of 8 bytes
        last = min(header - 8, 168) if rng.integers(2) else header - 8
        place = 8 * int(rng.integers(1, max(last // 8, 2)))
        old = struct.unpack_from(order + "Q", data, place)[0]
        near = [old + 1, old - 1, old * 2, old // 2, size, size - 8, header, old ^ 2**32, 2**64 - old]
        choices = ABSURD + near
        struct.pack_into(order + "Q", data, place, choices[int(rng.integers(len(choices)))] % 2**64)
    elif kind == "bits of a block":
        if size > header + 16:
            data[int(rng.integers(header + 8, size))] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[max(at, 16) :]
    elif kind == "zeros":
        n = int(rng.integers(1, 200))
        data[at : at + n] = bytes(len(data[at : at + n]))
    elif kind == "moved":
        n, to = int(rng.integers(1, 200)), int(rng.integers(8, max(size - 8, 9)))
        piece = data[at : at + n]
        data[to : to + len(piece)] = piece
    else:
        data += rng.bytes(int(rng.integers(1, 500)))


def _repair(data, order, header):
    """Make the checksums of the header and of all blocks right, as far as they can be found."""
    stated = struct.unpack_from(order + "Q", data, 8)[0] if len(data) >= 16 else 0
    for length in {header, stated}:
        if 16 <= length <= len(data) - CRC_BYTES:
            _seal(data, 0, length)
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"{ROOT}/probe", bytes(data))
    try:
        found = genericio.open(f"memory:/{ROOT}/probe").headers[0]
    except Exception:
        return
    for start, size in zip(found.starts.ravel().tolist(), found.sizes.ravel().tolist(), strict=True):
        if start >= header + CRC_BYTES:
            _seal(data, start, size)


def _seal(data, start, size):
    trailer = struct.pack("<Q", crc64(bytes(data[start : start + size])) ^ (2**64 - 1))
    data[start + size : start + size + CRC_BYTES] = trailer


def exercise(name, files, rng):
    """All that is done with a file: what came of it; any error but CatalogueError goes through."""
    fs = fsspec.filesystem("memory")
    for suffix, data in files.items():
        fs.pipe_file(f"{ROOT}/{name}{suffix}", data)
    url = f"memory:/{ROOT}/{name}"
    try:
        gio = genericio.open(url)
    except CatalogueError as error:
        return "refused when opened", str(error)
    read = 0
    said = ""
    block = int(rng.integers(len(gio.blocks))) if gio.blocks else None
    rows = (0, gio.blocks[block].nrows // 2) if block is not None else None
    for attempt in (
        lambda: gio.read(),
        lambda: gio.read(check=False),
        lambda: gio.read(blocks=[block], rows=rows, check=False) if rows else None,
        gio.stored_bytes,
        gio.fingerprint,
        lambda: open_catalogue(url, 0.0).tracers(),
    ):
        try:
            attempt()
            read += 1
        except CatalogueError as error:
            said = str(error)
    return ("read" if read == 6 else "refused when read"), said
