"""Deliver results: first the files, then the tables, on any standard output: pipe, terminal, ASCII or none."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, RenderableType
from rich.table import Table

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.table import folded

#: Columns where the standard output is not a terminal and COLUMNS is not set.
_WIDTH = 120
#: Spellings for an output that cannot show a character.
_ASCII = {"±": "+/-", "×": "x", "·": "*", "–": "-", "…": "...", "µ": "u", "Σ": "sum", "²": "^2", "↑": "up", "↓": "down"}


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # handled by `printing`; rich itself would exit


class _Results(io.TextIOWrapper):
    """The standard output of a command, under `printing` whoever writes to it, such as a library or an option."""

    def write(self, text: str, /) -> int:
        """Write a text. Errors: as `printing`."""
        with _explained():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Send what was written so far. Errors: as `printing`."""
        with _explained():
            super().flush()


class _Messages(io.TextIOWrapper):
    """The standard error of a command. What cannot be written is dropped: it must not cost the results."""

    def write(self, text: str, /) -> int:
        """Write a text, or drop it."""
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Send what was written so far, or drop it."""
        with suppress(OSError):
            super().flush()


def status_console(*, quiet: bool = False) -> Console:
    """Return a console on the standard error, for progress and messages."""
    return Console(stderr=True, quiet=quiet)


def deliver(writes: Iterable[Callable[[], object]], parts: Iterable[RenderableType]) -> None:
    """Write all files, then print texts and tables. Tables wider than the console are split into parts.

    writes   functions without arguments, each of which writes a file
    parts    texts and tables, in order

    A file that cannot be written costs neither the other files nor the tables.
    Errors: SpikeplugError of the first file that could not be written, once everything else is done.
    """
    failures = []
    for write in writes:
        try:
            write()
        except SpikeplugError as error:
            failures.append(error)
    console = _Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = _Console(highlight=False, width=_WIDTH)
    with printing():
        for part in parts:
            for piece in folded(part, console.width) if isinstance(part, Table) else [part]:
                console.print(piece, markup=False)
    if failures:
        raise failures[0]


@contextmanager
def printing() -> Iterator[None]:
    """Guard a block that prints: flush at its end, and ignore that a reader has closed the pipe.

    Errors: SpikeplugError if the standard output cannot be written for another reason, such as a full disk.
    """
    with _explained():
        yield
        if sys.stdout is not None:
            sys.stdout.flush()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        raise SpikeplugError(
            f"cannot write to the standard output: {error.strerror or error}; free some space, or redirect it."
        ) from error


def prepare_streams() -> None:
    """Make standard streams safe to print to, whoever prints.

    Closed ones discard text. Characters that they lack are spelled in ASCII. A reader that is gone is no error, and
    the standard error drops what it cannot take.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would get this number, and all that is printed
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error("spikeplug", _spelled)
    for name, kind in (("stdout", _Results), ("stderr", _Messages)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper) and not isinstance(stream, kind):  # the two share a buffer
            lines = stream.line_buffering
            setattr(sys, name, kind(stream.buffer, stream.encoding, "spikeplug", line_buffering=lines))


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def _discard_output() -> None:
    """Send the standard output to the null device, so that the flush at interpreter exit cannot fail."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass  # the output has no descriptor
