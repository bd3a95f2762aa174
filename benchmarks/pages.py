"""Write the measured parts of pages: each stands between the marks `<!-- PART: ... -->` and `<!-- end of PART -->`."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]


def read(page: str, part: str) -> str:
    """Return a part of a page, as it stands between its marks."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.split(f"<!-- {part}:", 1)[1].split("\n", 1)[1].split(f"<!-- end of {part} -->", 1)[0].strip()


def write(page: str, part: str, text: str) -> None:
    """Replace a part of a page; the path is relative to the root of the repository.

    Raises ValueError for a page that lacks one of the part's marks.
    """
    path = ROOT / page
    head, rest = path.read_text(encoding="utf-8").split(f"<!-- {part}:", 1)
    comment, rest = rest.split("\n", 1)
    _, tail = rest.split(f"<!-- end of {part} -->", 1)
    path.write_text(f"{head}<!-- {part}:{comment}\n{text}\n\n<!-- end of {part} -->{tail}", encoding="utf-8")
