"""The README's generated parts: each stands between a line that begins with a mark and another mark."""

from __future__ import annotations

from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def write(part: str, text: str) -> None:
    """Replace what stands between the line `<!-- part: ...` and `<!-- end of part -->`."""
    page = README.read_text(encoding="utf-8")
    head, rest = page.split(f"<!-- {part}:", 1)
    comment, rest = rest.split("\n", 1)
    _, tail = rest.split(f"<!-- end of {part} -->", 1)
    README.write_text(f"{head}<!-- {part}:{comment}\n{text}\n\n<!-- end of {part} -->{tail}", encoding="utf-8")
