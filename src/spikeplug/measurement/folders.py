"""Write a folder that a command line asks for: checked before the work starts, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikeplug.errors import SpikeplugError


def check_new_folder(path: Path, source: str | None = None) -> None:
    """Refuse a folder that cannot be made, or that holds something. Changes nothing on the disk.

    source   folder or file of the model that is read; None: it has none

    Errors: SpikeplugError.
    """
    try:
        target = path.expanduser().resolve()
        if source is not None and os.path.exists(source) and target == Path(source).resolve():
            raise SpikeplugError(f"DIR is {path}, where the model itself lies: give another DIR.")
        if target.is_dir() and any(target.iterdir()):
            raise SpikeplugError(f"the folder {path} is not empty: give the path of a new folder, or empty it first.")
        if target.exists() and not target.is_dir():
            raise FileExistsError(0, "it is a file")
        parent = next(parent for parent in target.parents if parent.exists())
        if not parent.is_dir():
            raise NotADirectoryError(0, f"{parent} is a file")
        if not parent.stat().st_mode & 0o222:  # the mode itself: the superuser may write anywhere
            raise PermissionError(0, f"{parent} is read-only")
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{target.name}."[:100]):
            pass
    except SpikeplugError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        raise _cannot(path, error) from error


def check_space(path: Path, size: int) -> None:
    """Check that the disk of a folder to be made has room for `size` bytes. Errors: SpikeplugError if not."""
    target = path.expanduser().resolve()
    free = shutil.disk_usage(next(parent for parent in target.parents if parent.exists())).free
    if free < size:
        raise SpikeplugError(
            f"the folder {path} needs {size / 1e6:.0f} MB, but its disk has {free / 1e6:.0f} MB left: free some space, "
            "or give a DIR elsewhere."
        )


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to write into; at the end of the block it becomes `path`.

    If the block fails or is interrupted, nothing is left of it.
    Errors: SpikeplugError if the disk is full or cannot be written.
    """
    from safetensors import SafetensorError

    target = path.expanduser().resolve()
    made = [parent for parent in target.parents if not parent.exists()]
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if os.name == "nt" and target.is_dir():  # elsewhere a folder replaces an empty one
            target.rmdir()
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise _cannot(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():
            for parent in made:
                with suppress(OSError):  # somebody else uses it by now
                    parent.rmdir()


def size_of(folder: Path, *patterns: str) -> int:
    """Return the bytes of the files in a folder whose names match one of the patterns."""
    return sum(path.stat().st_size for pattern in patterns for path in folder.glob(pattern))


def _cannot(path: Path, error: Exception) -> SpikeplugError:
    reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
    return SpikeplugError(f"cannot write the folder {path}: {reason}; free some space there, or give another DIR.")
