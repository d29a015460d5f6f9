"""What is found wrong with a store, a model or a catalogue: one line each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be.

    Parameters
    ----------
    what : str
        The fault, in lower case.
    where : str
        ``name=value`` pairs that locate it.
    found, expected : str
        Values, for a person.
    note : bool
        Something that could not be checked, or is odd and no damage.
    """

    what: str
    where: str
    found: str
    expected: str
    note: bool = False

    def line(self) -> str:
        """``what: where, found=…, expected=…``."""
        return f"{'note: ' if self.note else ''}{self.what}: {self.where}, found={self.found}, expected={self.expected}"

    def plain(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def fault(what: str, where: str, found: str, expected: str) -> Finding:
    """A finding that is damage."""
    return Finding(what=what, where=where, found=found, expected=expected)


def note(what: str, where: str, found: str, expected: str) -> Finding:
    """A finding that is none."""
    return Finding(what=what, where=where, found=found, expected=expected, note=True)
