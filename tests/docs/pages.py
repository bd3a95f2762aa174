"""Read what pages show: fenced blocks with their language and line, and commands in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Pages that show how things are used now. The log and the changelog keep what was true on their dates.
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "log.md"))
#: All pages of people's prose, for links.
LINKED = (*PAGES, "docs/log.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
#: Stands directly above a snippet that is not run: `<!-- not run: needs a hub model -->`.
NOT_RUN = "<!-- not run: "

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line of the page before it and that line's number."""

    language: str
    text: str
    above: str
    line: int


def read(page: str) -> str:
    """Return the text of a page, given by its path from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    """Return the fenced blocks of these languages ("" is none), in order."""
    text = read(page)
    found = []
    for match in _FENCE.finditer(text):
        if match[1] in languages:
            before = text[: match.start()].splitlines()
            found.append(Block(match[1], match[2], before[-1] if before else "", len(before)))
    return found


def code(page: str) -> list[str]:
    """Return the lines of blocks without a language, continued lines joined, and the code spans of the text."""
    lines: list[str] = []
    for block in blocks(page, "", "sh", "bash", "console"):
        joined = re.sub(r"\\\n\s*|\n\s+(?=[-\[])", " ", block.text)
        lines += joined.splitlines()
    return lines + re.findall(r"`([^`\n]+)`", _FENCE.sub("", read(page)))


def commands(page: str) -> list[list[str]]:
    """Return the arguments of every `spikeplug ...` that a page shows.

    Of a synopsis, brackets are dropped, the first of several choices is taken, and N is a number.
    """
    found = []
    for line in code(page):
        match = re.match(r"(?:\$ )?(?:.*-m )?spikeplug (.+)", line)
        if match is not None:
            words = shlex.split(re.sub(r"[\[\]]|\.\.\.", "", match[1]), comments=True)
            found.append(["1" if word == "N" else word.split("|")[0] for word in words])
    return found


def targets(page: str) -> Iterator[str]:
    """Yield the target of every `make ...` that a page shows."""
    for line in code(page):
        match = re.match(r"make ([a-z][a-z-]*)(\s|$)", line)
        if match is not None:
            yield match[1]


def links(page: str) -> list[str]:
    """Return the targets of links to files, without anchors."""
    found = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", read(page)))
    return [link.split("#")[0] for link in found if not re.match(r"[a-z]+:|#", link)]
