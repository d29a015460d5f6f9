"""A local file for the HDF5 library to write into.

HDF5 does not survive a write that fails: what it could not write it tries again as the file is closed, and again as
the process ends, where it crashes. So it is never told: the first failure is kept, and raised by `HDF5File.check`.
"""

from __future__ import annotations

from typing import Any


class HDF5File:
    """A new file at a local path, as h5py takes it in place of a name.

    An interrupt that comes while the library writes is kept in the same way.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - `close` closes it
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raise what has kept an earlier write from being done."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        """Write all of it, or keep what has prevented it."""
        view = memoryview(data)
        try:
            done = 0
            while self._failure is None and done < len(view):
                done += self._file.write(view[done:])
        except BaseException as error:
            self._failure = error
        return len(view)

    def truncate(self, size: int) -> None:
        """Give the file its size."""
        try:
            if self._failure is None:
                self._file.truncate(size)
        except OSError as error:
            self._failure = error

    def read(self, size: int = -1) -> bytes:
        """Bytes from where it stands."""
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from where it stands."""
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place where it stands."""
        return self._file.tell()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file, after the library has closed its own, and `check`."""
        self._file.close()
        self.check()

    def __enter__(self) -> HDF5File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
