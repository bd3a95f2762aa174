"""Write the measured parts of pages: each stands between the marks `<!-- PART: ... -->` and `<!-- end of PART -->`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def write(page: str, part: str, text: str) -> None:
    """Replace a part of a page; the path is relative to the root of the repository.

    Raises ValueError for a page that lacks one of the part's marks.
    """
    path = ROOT / page
    head, rest = path.read_text(encoding="utf-8").split(f"<!-- {part}:", 1)
    comment, rest = rest.split("\n", 1)
    _, tail = rest.split(f"<!-- end of {part} -->", 1)
    path.write_text(f"{head}<!-- {part}:{comment}\n{text}\n\n<!-- end of {part} -->{tail}", encoding="utf-8")


def write_row(page: str, part: str, heading: Sequence[str], row: str, order: Sequence[str]) -> None:
    """Put one row into a part of a page that is a table; the rows of other names stay.

    A row begins with its name as a code span. heading: the lines above the rows; order: all names, in their order.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    stands = text.split(f"<!-- {part}:", 1)[1].split(f"<!-- end of {part} -->", 1)[0]
    lines = [line for line in stands.splitlines() if line.startswith("| `")]
    rows = {line.split("`")[1]: line for line in (*lines, row)}
    write(page, part, "\n".join([*heading, *(rows[name] for name in order if name in rows)]))
