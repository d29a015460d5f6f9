"""Arrays as a client sends them, in an npz: nothing is unpickled, and nothing unpacked before its stated size is known.

Names, types and shapes come first, and one array at a time.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from velfield.service.problems import Problem

LONGEST_HEADER = 4096  # bytes of an array's head; NumPy's own are some 100
ENTRY = b"PK\x01\x02"  # begins each entry of a zip's directory
MOST_ENTRIES = 64  # the few arrays, and what looks like an entry among their bytes


def arrays(
    file: IO[bytes], names: Sequence[str], check: Callable[[str, tuple[int, ...]], None], instead: str
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays of plain numbers of an npz, one after the other, each with its name.

    Parameters
    ----------
    names : sequence of str
        Those that there may be, each at most once.
    check : callable
        Given a name and the shape that the array's head states, raises a `Problem` where it is not taken; what is
        unpacked then follows from it: at most eight bytes a number.
    instead : str
        What a client should send.
    """
    if _entries(file) > MOST_ENTRIES:
        raise Problem(422, f"an npz of too many arrays: more than {len(names)}", instead)
    try:
        with zipfile.ZipFile(file) as archive:
            yield from _members(archive, names, check, instead)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise Problem(422, "not an npz, or a damaged one", instead) from error


def packed(values: Mapping[str, NDArray[Any]]) -> bytes:
    """An npz of arrays, not compressed: velocities hardly shrink."""
    data = io.BytesIO()
    np.savez(data, **values)  # type: ignore[arg-type]
    return data.getvalue()


def _entries(file: IO[bytes]) -> int:
    """Least number of entries that a zip's directory may have: what begins like one is counted, wherever it is.

    zipfile keeps some kilobytes for each entry of a directory before it tells how many there are.
    """
    count, tail = 0, b""
    file.seek(0)
    while block := file.read(2**20):
        joined = tail + block
        count += joined.count(ENTRY)
        tail = joined[-3:]
    file.seek(0)
    return count


def _members(
    archive: zipfile.ZipFile, wanted: Sequence[str], check: Callable[[str, tuple[int, ...]], None], instead: str
) -> Iterator[tuple[str, NDArray[Any]]]:
    members = archive.infolist()
    names = [member.filename.removesuffix(".npy") for member in members]
    if not names or len(set(names)) < len(names) or not set(names) <= set(wanted):
        shown = ", ".join(name[:40] for name in names[:4])
        raise Problem(422, f"not the arrays that are taken: {shown!a}", f"name them {', '.join(wanted)}, each once")
    for name, member in zip(names, members, strict=True):
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 0x1:
            raise Problem(
                422, f"packed in a way that is not taken: array={name}", "use numpy.savez or savez_compressed"
            )
        with archive.open(member) as stream:
            yield name, _read(name, stream, check, instead)


def _read(name: str, stream: IO[bytes], check: Callable[[str, tuple[int, ...]], None], instead: str) -> NDArray[Any]:
    shape, fortran, dtype = _head(name, stream, instead)
    if dtype.kind not in "fiu" or dtype.hasobject or dtype.itemsize > 8:
        raise Problem(422, f"not plain numbers: array={name}, dtype={str(dtype)[:40]}", "send float32")
    check(name, shape)
    size = math.prod(shape) * dtype.itemsize
    data = stream.read(size)
    if len(data) != size or stream.read(1):
        raise Problem(422, f"not as long as its head says: array={name}, bytes={size}", instead)
    return np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")


def _head(name: str, stream: IO[bytes], instead: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type; the head's length is looked at before it is read."""
    magic = stream.read(8)
    version = tuple(magic[6:8])
    wide = 2 if version == (1, 0) else 4
    stated = stream.read(wide)
    length = int.from_bytes(stated, "little")
    if magic[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0)) or length > LONGEST_HEADER:
        raise Problem(422, f"not an array of NumPy: array={name}, head={length} bytes", instead)
    head = io.BytesIO(stated + stream.read(length))
    read = np.lib.format.read_array_header_1_0 if wide == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(head)
    except Exception as error:  # what a hostile head raises is not for us to list
        raise Problem(422, f"a head that cannot be read: array={name}", instead) from error
    return tuple(int(n) for n in shape), bool(fortran), dtype
