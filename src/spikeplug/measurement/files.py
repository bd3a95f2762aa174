"""Write the files a command line asks for: checked before the work starts, whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from spikeplug.errors import SpikeplugError


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[tuple[str, Path | str | None]] = ()) -> None:
    """Refuse output paths that cannot be written, or that name one file twice. Changes nothing on the disk.

    outputs   option -> path; None if the option was not given
    inputs    (option or argument, path) of what the command reads, which no output may overwrite

    Errors: SpikeplugError, naming the option.
    """
    given = {option: path for option, path in outputs.items() if path is not None}
    read = [(option, Path(path).expanduser()) for option, path in inputs if path is not None]
    for option, path in given.items():
        _check_writable(path, option)
    for (first, one), (second, other) in combinations(given.items(), 2):
        if _same(one, other):
            raise SpikeplugError(f"{first} and {second} name the same file, {other}: give each a file of its own.")
    for option, path in given.items():
        for name, source in read:
            if _same(path, source):
                raise SpikeplugError(f"{option} would overwrite {source}, which {name} reads: give another {option}.")


def write_text(text: str, path: Path, option: str) -> None:
    """Write a text as UTF-8 and make missing folders. `option` is the command-line option named in error messages.

    A regular file is replaced as a whole: a reader sees the old file or the new one. Its mode is kept, and its owner as
    far as this user may. A symbolic link is followed.
    A file that is not regular (a pipe, a device) is written in place.
    Errors: SpikeplugError if it cannot be written.
    """
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            with target.open("w", encoding="utf-8") as file:
                file.write(text)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(text, target)
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot(path, error, option) from error


def _replace(text: str, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        if target.exists():
            there = target.stat()
            with suppress(PermissionError):
                os.chown(temporary, there.st_uid, there.st_gid)
            temporary.chmod(stat.S_IMODE(there.st_mode))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _check_writable(path: Path, option: str) -> None:
    try:
        target = path.resolve()
        if target.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        # The mode itself: the superuser may write to any file.
        if target.exists() and not (os.access(target, os.W_OK) and target.stat().st_mode & 0o222):
            raise PermissionError(0, "it is read-only")
        if target.is_file() or not target.exists():
            folder = next(parent for parent in target.parents if parent.exists())
            with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{target.name}."):
                pass
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise _cannot(path, error, option) from error


def _same(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve() or one.samefile(other)
    except (OSError, ValueError, RuntimeError):  # one of them does not exist
        return False


def _cannot(path: Path, error: Exception, option: str) -> SpikeplugError:
    reason = getattr(error, "strerror", None) or error
    return SpikeplugError(f"cannot write {path}: {reason}; give another {option} path.")
