"""FITS binary tables: rows of fixed length, so that exact ranges of bytes are read. Only the header needs astropy.

Units are the header's TUNITn; REDSHIFT gives the redshift. A row is read whole, whatever columns are wanted.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.blocks import Block, check_names, chosen_blocks
from velfield.catalogues.table_format import BLOCK_ROWS, Column, Facts, TableReader, fetch, reading, row_blocks
from velfield.errors import CatalogueError
from velfield.files import storage

MAGIC = b"SIMPLE  "
BATCH = 2**16  # rows decoded at a time, so that beyond the result only these are held


class FITSTable(TableReader):
    """A binary table extension; see `velfield.catalogues.table_format.Table`."""

    format = "FITS"

    def __init__(self, url: str, size: int, hdu: Any) -> None:
        self.url, self.files, self.sizes = url, (url,), (size,)
        self.header = header = hdu.header
        self._start = int(hdu.fileinfo()["datLoc"])
        nrows = int(header["NAXIS2"])
        self._record = np.dtype(hdu.columns.dtype).newbyteorder(">")
        if self._record.itemsize != header["NAXIS1"] or self._start + nrows * self._record.itemsize > size:
            raise CatalogueError(
                f"file is truncated or inconsistent: file={url}, rows={nrows}, row_bytes={header['NAXIS1']}, "
                f"columns_bytes={self._record.itemsize}, file_bytes={size}; copy the file again"
            )
        self._scales = {c.name: (c.bscale or 1, c.bzero or 0) for c in hdu.columns}
        self.columns: Mapping[str, Column] = {c.name: self._column(c) for c in hdu.columns}
        self.facts = Facts(redshift=float(header["REDSHIFT"]) if "REDSHIFT" in header else None)
        self.blocks = row_blocks(url, nrows, size=BLOCK_ROWS)
        edges = np.concatenate([[0], np.cumsum([block.nrows for block in self.blocks])])
        self._edges = [int(edge) for edge in edges]

    def stored_bytes(self, columns: Sequence[str], blocks: Sequence[int] | None) -> int:
        """Bytes that reading them fetches: whole rows."""
        check_names(self.url, self.columns, columns)
        return self._record.itemsize * sum(b.nrows for b in chosen_blocks(self.url, self.blocks, blocks))

    def _beyond(self, columns: Sequence[str]) -> int:  # noqa: ARG002 - rows are read whole
        return 2 * BATCH * self._record.itemsize

    def _column(self, column: Any) -> Column:
        dtype = self._record[column.name]
        scale = self._scales[column.name]
        number = dtype.base.kind in "fiu" and column.format[-1:] not in ("L", "X") and "P" not in column.format
        base = dtype.base.newbyteorder("=")
        if scale != (1, 0):
            base = _scaled(np.zeros(1, base), scale).dtype
        plain = np.dtype((base, dtype.shape)) if dtype.shape else base
        return Column(dtype=plain if number else np.dtype(object), unit=column.unit or "", description="")

    def _rows(self, columns: Sequence[str], block: Block, start: int, stop: int) -> dict[str, NDArray[Any]]:
        unread = [name for name in columns if self.columns[name].dtype.base.kind not in "fiu"]
        if unread:
            raise CatalogueError(
                f"not a column of numbers: file={self.url}, column={unread[0]}; only numbers can be read, leave it out"
            )
        shapes = {name: self.columns[name].dtype for name in columns}
        out = {name: np.empty((stop - start, *dtype.shape), dtype.base) for name, dtype in shapes.items()}
        first = self._edges[block.index]
        for at in range(start, stop, BATCH):
            upto = min(at + BATCH, stop)
            table = self.records(first + at, first + upto)
            for name in columns:
                out[name][at - start : upto - start] = self.scaled(name, table)
        return out

    def records(self, start: int, stop: int) -> NDArray[Any]:
        """Rows of the table as they are stored, big-endian."""
        width = self._record.itemsize
        data = fetch(self.url, self._start + start * width, self._start + stop * width)
        return np.frombuffer(data, self._record, stop - start)

    def scaled(self, name: str, records: NDArray[Any]) -> NDArray[Any]:
        """The values that a column of `records` stands for."""
        return _scaled(records[name], self._scales[name])


def open_table(url: str, table: str | None = None) -> FITSTable:
    """Open a binary table: the one that there is, or the one of this name or number."""
    from astropy.io import fits

    fs, path = storage.filesystem(url)
    with reading(url, "FITS"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a short file is an error here, and other remarks concern its author
        size = int(fs.size(path))
        with fs.open(path, "rb") as file, fits.open(file, memmap=False, lazy_load_hdus=True) as hdus:
            found = {i: hdu for i, hdu in enumerate(hdus) if isinstance(hdu, fits.BinTableHDU)}
            named = {i: hdu.name or str(i) for i, hdu in found.items()}
            chosen = [i for i in found if table is None or table in (named[i], str(i))]
            if len(chosen) != 1 or isinstance(found[chosen[0]], fits.CompImageHDU):
                raise CatalogueError(
                    f"which table is not clear: file={url}, table={table}, binary tables={', '.join(named.values())}; "
                    "name one (table=, --halo-table, --extension)"
                )
            return FITSTable(url, size, found[chosen[0]])


def _scaled(values: NDArray[Any], scale: tuple[float, float]) -> NDArray[Any]:
    """Stored values times TSCAL plus TZERO; unsigned integers are stored as signed ones with half their range added."""
    if scale == (1, 0):
        return values
    factor, zero = scale
    size = values.dtype.itemsize
    if values.dtype.kind == "i" and factor == 1 and zero == 2 ** (8 * size - 1):
        bits = values.astype(f"=i{size}").view(f"=u{size}")
        return bits ^ bits.dtype.type(2 ** (8 * size - 1))
    return values.astype(np.float64) * factor + zero
