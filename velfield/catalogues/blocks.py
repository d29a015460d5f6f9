"""Which rows and columns of a file are read: blocks by number, rows within a block, columns by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from velfield.errors import CatalogueError


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that lie together: of a simulation, those that one rank wrote.

    Parameters
    ----------
    index : int
        Place among the file's blocks.
    rank : int
        Number of the rank in the whole job.
    nrows : int
        Rows; may be 0.
    lower, upper : tuple of float, or None
        Corners of the rank's volume [h⁻¹Mpc]; None where the file does not tell.
    url : str
        The file that holds the rows.
    """

    index: int
    rank: int
    nrows: int
    lower: tuple[float, float, float] | None
    upper: tuple[float, float, float] | None
    url: str


def chosen_blocks(url: str, blocks: Sequence[Block], chosen: Sequence[int] | None) -> list[Block]:
    """The blocks of these numbers, all by default."""
    if chosen is None:
        return list(blocks)
    wrong = [b for b in chosen if not 0 <= b < len(blocks)]
    if wrong:
        raise CatalogueError(f"no such block: file={url}, block={wrong[0]}; the file has blocks 0 to {len(blocks) - 1}")
    return [blocks[b] for b in chosen]


def row_range(chosen: Sequence[Block], rows: tuple[int, int] | None) -> tuple[int, int] | None:
    """Check a range of rows, which are counted within one block."""
    if rows is None:
        return None
    if len(chosen) != 1:
        raise CatalogueError(f"rows are counted within one block: rows={rows}, blocks={len(chosen)}; give one block")
    start, stop = rows
    if not 0 <= start <= stop <= chosen[0].nrows:
        raise CatalogueError(
            f"no such rows: file={chosen[0].url}, rank={chosen[0].rank}, rows={rows}; "
            f"the block has {chosen[0].nrows} rows"
        )
    return start, stop


def check_names(url: str, columns: Collection[str], names: Sequence[str]) -> None:
    """Refuse names that the file does not have."""
    unknown = [name for name in names if name not in columns]
    if unknown:
        raise CatalogueError(
            f"no such column: file={url}, column={', '.join(unknown)}; the file has {', '.join(columns)}"
        )
