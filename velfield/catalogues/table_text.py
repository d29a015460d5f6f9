"""Text tables row by row, every field as it stands: what `velfield.catalogues.table_csv` reads only numbers of."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from velfield.catalogues.table_csv import NAME
from velfield.catalogues.table_format import Column, Facts, reading
from velfield.errors import CatalogueError
from velfield.files import storage

ROWS = 2**17  # rows of a part
PIECE = 2**22  # bytes looked at together, where lines are counted
WHOLE = re.compile(r"\s*[+-]?0*[0-9]{1,19}\s*", re.ASCII)  # of more digits none has 64 bits
KINDS = [np.dtype(np.int64), np.dtype(np.float64), np.dtype(object)]  # of a text table's columns, narrowest first


class CSVRows:
    """A text table: a line of names, fields parted by commas, semicolons or tabs; ``#`` lines before it are kept."""

    format = "CSV"

    def __init__(self, url: str, *, typed: bool) -> None:
        self.url, self.facts = url, Facts()
        self.nrows: int | None = None
        with reading(url, "CSV"), self._lines() as lines:
            self.comments, title = [], next(lines, "")
            while title.startswith("#"):
                self.comments.append(title)
                title = next(lines, "")
        self.delimiter = next((d for d in ("\t", ";", ",") if d in title), ",")
        self.titles = next(csv.reader([title], delimiter=self.delimiter), [])
        units = [NAME.fullmatch(name.strip()) for name in self.titles]
        names = [unit[1] if unit else name.strip() for name, unit in zip(self.titles, units, strict=True)]
        if not names or "" in names or len(set(names)) < len(names):
            raise CatalogueError(
                f"no line of names: file={url}, line={len(self.comments) + 1}, found={title.strip()[:60]!r}; "
                "the first line must name columns"
            )
        self.columns: Mapping[str, Column] = {
            name: Column(dtype=np.dtype(object), unit=unit[2] if unit else "", description="")
            for name, unit in zip(names, units, strict=True)
        }
        if storage.is_local(url):
            self.nrows = self._counted()
        if typed:
            self._settle()

    def _lines(self) -> Any:
        fs, path = storage.filesystem(self.url)
        return io.TextIOWrapper(fs.open(path, "rb"), encoding="utf-8-sig", newline="")

    def _counted(self) -> int | None:
        """Rows: lines that are not empty; None where a field may hold the end of one, or they end as on an old Mac."""
        fs, path = storage.filesystem(self.url)
        lines, last, held = 0, b"\n", b""
        with reading(self.url, "CSV"), fs.open(path, "rb") as file:
            while piece := file.read(PIECE):
                text = (held + piece).replace(b"\r\n", b"\n")
                held = b"\r" if text.endswith(b"\r") else b""
                text = text.removesuffix(held)
                if b'"' in text or b"\r" in text:
                    return None
                ends = np.frombuffer(last + text, np.uint8) == ord("\n")
                lines += int((ends[1:] & ~ends[:-1]).sum())
                last = (last + text)[-1:]
        return None if held else lines + (last != b"\n") - len(self.comments) - 1

    def _settle(self) -> None:
        kinds = dict.fromkeys(self.columns, np.dtype(np.int64))
        for part in self.parts():
            for name, kind in kinds.items():
                kinds[name] = max(kind, part.kind(name), key=KINDS.index)
        self.columns = {
            name: Column(dtype=kinds[name], unit=column.unit, description="") for name, column in self.columns.items()
        }

    def parts(self, rows: int = ROWS) -> Iterator[CSVPart]:
        """The table in parts of at most ``rows`` rows, in order."""
        with reading(self.url, "CSV"), self._lines() as lines:
            for _ in self.comments:
                next(lines)
            reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
            next(reader)
            held: list[list[str]] = []
            for row in reader:
                if not row:  # an empty line
                    continue
                if len(row) != len(self.columns):
                    raise CatalogueError(
                        f"a line with the wrong number of fields: file={self.url}, "
                        f"line={reader.line_num + len(self.comments)}, fields={len(row)}, "
                        f"columns={len(self.columns)}; mend the line"
                    )
                held.append(row)
                if len(held) == rows:
                    yield CSVPart(held, self.columns)
                    held = []
            if held:
                yield CSVPart(held, self.columns)


class CSVPart:
    """Rows of a text table, as texts."""

    def __init__(self, rows: list[list[str]], columns: Mapping[str, Column]) -> None:
        self.raw, self._columns, self._places = rows, columns, list(columns)

    def __len__(self) -> int:
        return len(self.raw)

    def _texts(self, name: str) -> list[str]:
        place = self._places.index(name)
        return [row[place] for row in self.raw]

    def numbers(self, name: str, component: int | None = None) -> NDArray[np.float64]:  # noqa: ARG002 - none has any
        """A column as numbers (N,), NaN where there is none."""
        texts = self._texts(name)
        if "_" not in "".join(texts):
            with contextlib.suppress(ValueError):
                return np.array(list(map(float, texts)), dtype=np.float64)
        return np.array([_number(text) for text in texts], dtype=np.float64)

    def kind(self, name: str) -> np.dtype[Any]:
        """The narrowest of `KINDS` that holds the column; an empty field is a missing number."""
        texts = self._texts(name)
        if all(WHOLE.fullmatch(text) and abs(int(text)) < 2**63 for text in texts):
            return KINDS[0]
        missing = (text.strip().lower() in ("", "nan") for text in texts)
        numbers = np.isnan(self.numbers(name))
        return KINDS[1] if all(not nan or none for nan, none in zip(numbers, missing, strict=True)) else KINDS[2]

    def column(self, name: str) -> NDArray[Any]:
        """A column as values of its type."""
        dtype = self._columns[name].dtype
        if dtype.kind == "f":
            return self.numbers(name)
        return np.array([int(t) for t in self._texts(name)] if dtype.kind == "i" else self._texts(name), dtype=dtype)


def _number(text: str) -> float:
    try:
        return float(text) if "_" not in text else np.nan
    except ValueError:
        return np.nan


def texts_of(values: NDArray[Any]) -> Sequence[str]:
    """Values as texts, the shortest that bring them back."""
    narrow = values.dtype.kind == "f" and values.dtype.itemsize < 8  # whose digits Python's own numbers do not know
    return list(map(str, values if narrow else values.tolist()))
