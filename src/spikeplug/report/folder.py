"""The folder of a run: a header, one JSON line a row, and a lock. What was written once is never lost or doubled."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.record import write_record

HEADER, ROWS, LOCK = "header.json", "rows.jsonl", "lock"
#: Raised by every change that a reader of the files could notice.
SCHEMA_VERSION = 1


class RunFolder:
    """Rows by (study, key), in the order in which they were measured. Made by `opened` for writing, `read` without."""

    def __init__(self, path: Path, header: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        self.path, self.header, self.rows = path, dict(header), rows
        self._by_key = {(row["study"], row["key"]): row for row in rows}

    def find(self, study: str, key: str) -> dict[str, Any] | None:
        """The values of a row, if it was measured."""
        row = self._by_key.get((study, key))
        return None if row is None else row["values"]

    def append(self, study: str, key: str, seconds: float, values: dict[str, Any]) -> None:
        """Add a row, on the disk before this returns. Errors: SpikeplugError if it cannot be written."""
        row = {"study": study, "key": key, "seconds": round(seconds, 3), "values": values}
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        try:
            with (self.path / ROWS).open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _cannot("write", self.path / ROWS, error) from error
        self.rows.append(row)
        self._by_key[study, key] = row


@contextmanager
def opened(path: Path, header: Mapping[str, Any]) -> Iterator[RunFolder]:
    """The folder of this run, new or gone on with, and nobody else's until the block ends.

    header["arguments"] must be those of the rows that are there.
    Errors: SpikeplugError if another process has it, it holds a run of other arguments or something else, or it cannot
    be written.
    """
    if path.exists() and not path.is_dir():
        raise SpikeplugError(f"{path} is a file: give a folder to --out.")
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in (HEADER, LOCK)):
        raise SpikeplugError(f"the folder {path} holds something else than a report: give another --out.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _cannot("write", path, error) from error
    try:
        try:
            # The system drops this lock when the process ends, however it ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise SpikeplugError(
                f"process {holder} is writing to {path}: wait for it, or give another --out."
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield _resumed(path, header)
    finally:
        os.close(lock)


def read(path: Path) -> RunFolder:
    """What is in the folder of a run, finished or not, also while it goes on. Errors: SpikeplugError if it is none."""
    if not (path / HEADER).is_file():
        raise SpikeplugError(f"{path} holds no report: give the folder that --out named.")
    header = _header(path)
    return RunFolder(path, header, _rows(path)[0])


def _resumed(path: Path, header: Mapping[str, Any]) -> RunFolder:
    if not (path / HEADER).exists():
        write_record(header, path / HEADER)
        return RunFolder(path, header, [])
    there = _header(path)
    for name, value in header["arguments"].items():
        if there["arguments"].get(name) != value:
            before, now = _difference(there["arguments"].get(name), value)
            raise SpikeplugError(
                f"the folder {path} holds a run with another {name} ({before}, not {now}): give another --out, or the "
                "same arguments."
            )
    rows, whole = _rows(path)
    if (path / ROWS).exists() and (path / ROWS).stat().st_size > whole:
        os.truncate(path / ROWS, whole)  # a line that a killed run did not finish
    return RunFolder(path, there, rows)


def _header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads((path / HEADER).read_text(encoding="utf-8"))
        if header["schema_version"] != SCHEMA_VERSION or not isinstance(header["arguments"], dict):
            raise ValueError("it was written by another version")
    except OSError as error:
        raise _cannot("read", path / HEADER, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SpikeplugError(f"{path / HEADER} is damaged ({error}): give another --out.") from error
    return dict(header)


def _rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """All whole rows, and how many bytes they take."""
    try:
        content = (path / ROWS).read_bytes() if (path / ROWS).exists() else b""
    except OSError as error:
        raise _cannot("read", path / ROWS, error) from error
    whole = content.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append({name: row[name] for name in ("study", "key", "seconds", "values")})
        except (ValueError, KeyError, TypeError) as error:
            raise SpikeplugError(
                f"line {number} of {path / ROWS} is damaged: take it out, or give another --out."
            ) from error
    return rows, whole


def _difference(there: Any, now: Any) -> tuple[Any, Any]:
    """The first thing that differs: of two configs or models, the field."""
    if isinstance(there, dict) and isinstance(now, dict):
        name = next(name for name in {**now, **there} if there.get(name) != now.get(name))
        return f"{name} {there.get(name)}", now.get(name)
    return there, now


def _cannot(verb: str, path: Path, error: OSError) -> SpikeplugError:
    return SpikeplugError(f"cannot {verb} {path}: {error.strerror or error}; give another --out.")
