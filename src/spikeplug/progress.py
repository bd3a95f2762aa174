"""Show how far a run is: a bar with the time left on a terminal, lines with it elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

#: Seconds between two lines of one stage, and at the least between any two, where there is no terminal.
_SAME_STAGE, _ANY = 5.0, 1.0


class Progress(Protocol):
    """Receives how far a run is: the stage that runs now, and how much of all the work is done, in any unit."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Ignore a report of progress: a `Progress` for callers that want nothing shown."""


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """Yield `progress`, or, if it is None, a bar on standard error where that is a terminal."""
    if progress is not None or not sys.stderr.isatty():
        yield progress or silent
        return
    from rich.console import Console

    with shown_on(Console(stderr=True)) as bar:
        yield bar


@contextmanager
def shown_on(console: Console) -> Iterator[Progress]:
    """Yield a function (stage, done, total) that shows progress on the console until the block ends.

    On a terminal it draws a bar with the time left; elsewhere it prints a line every few seconds.
    """
    if not console.is_terminal:
        yield _Lines(console)
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # Speed is averaged over a long time: pieces of work differ in length and in speed.
    with Bar(*columns, console=console, transient=True, speed_estimate_period=300.0) as bar:
        task = bar.add_task("", total=None)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._last: tuple[str | None, float] = (None, 0.0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0:
            self._start = now  # what came before, such as loading, says nothing of the speed
        last, when = self._last
        if last is not None and now - when < (_SAME_STAGE if stage == last else _ANY):
            return
        left = f", about {duration((now - self._start) / done * (total - done))} left" if done else ""
        text = f"{stage} ({100 * done // max(1, total)} % done{left})"
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._last = (stage, now)


def duration(seconds: float) -> str:
    """Return a time in words of one unit: "42 s", "7 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
