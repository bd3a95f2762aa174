"""Keep the folder of a run: a header, one JSON line per row, and a lock. No row is lost, and none is measured twice."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.record import mismatch, read_schema, write_record

HEADER, ROWS, LOCK = "header.json", "rows.jsonl", "lock"
#: Raised by every change that a reader of the files could notice.
SCHEMA_VERSION = 3


class RunFolder:
    """Hold the header and the rows of a run, in the order in which they were measured; add rows to its file.

    A row is named by its study and its key. Use `opened` to write a folder, `read` to read one.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
        self.path, self.header, self.rows = path, dict(header), rows
        self._by_key = {(row["study"], row["key"]): row for row in rows}

    def find(self, study: str, key: str) -> dict[str, Any] | None:
        """Return the values of the row with this study and key; None if it was not measured."""
        row = self._by_key.get((study, key))
        return None if row is None else row["values"]

    def append(self, study: str, key: str, seconds: float, values: dict[str, Any]) -> None:
        """Add a row; it is on the disk when this returns.

        seconds  the time its measurement took
        Errors: SpikeplugError if it cannot be written.
        """
        row = {"study": study, "key": key, "seconds": round(seconds, 3), "values": values}
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        try:
            with open(_opened(self.path / ROWS, os.O_WRONLY | os.O_APPEND), "wb") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _cannot("write", self.path / ROWS, error) from error
        self.rows.append(row)
        self._by_key[study, key] = row


def check_folder(path: Path) -> None:
    """Check that `path` is new, empty or the folder of a run. Changes nothing.

    Errors: SpikeplugError if it is anything else, or cannot be read.
    """
    try:
        if path.exists() and not path.is_dir():
            raise SpikeplugError(f"{path} is a file: give a folder to --out.")
        there = sorted(file.name for file in path.iterdir()) if path.exists() else []
        for name in {HEADER, ROWS, LOCK} & set(there):
            if not stat.S_ISREG((path / name).lstat().st_mode):
                raise SpikeplugError(f"{path / name} is not a regular file: give another --out.")
        if LOCK in there and not re.fullmatch(rb"\d*\n?", (path / LOCK).read_bytes()[:64]):
            raise SpikeplugError(f"{path / LOCK} is not the lock of a report: give another --out.")
    except OSError as error:
        raise _cannot("read", path, error) from error
    if HEADER in there:
        _header(path)
    elif set(there) - {LOCK}:
        raise SpikeplugError(f"the folder {path} holds files that are not a report's: give another --out.")


def check_arguments(path: Path, arguments: Mapping[str, Any]) -> None:
    """Check that a run with these arguments may be written to the folder: it holds none, or one with the same.

    Errors: SpikeplugError, with the name of the argument that differs.
    """
    if not (path / HEADER).exists():
        return
    there = _header(path)["arguments"]
    for name, value in arguments.items():
        if there.get(name) != value:
            before, now = _difference(there.get(name), value)
            raise SpikeplugError(
                f"the folder {path} holds a run with another {name} ({before}, not {now}): give another --out, or the "
                "same arguments."
            )


@contextmanager
def opened(path: Path, header: Mapping[str, Any]) -> Iterator[RunFolder]:
    """Yield the folder of this run, new or resumed. No other process can open it until the block ends.

    header["arguments"] must equal those of the rows that are there.
    Errors: SpikeplugError if another process has it, it holds a run of other arguments or other files, or it cannot be
    written.
    """
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = _opened(path / LOCK, os.O_RDWR)
    except OSError as error:
        raise _cannot("write", path, error) from error
    try:
        try:
            # The system releases this lock when the process ends, for whatever reason.
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
    """Return what is in the folder of a run, finished or not, also while it is written.

    Errors: SpikeplugError if it is not such a folder, or damaged.
    """
    if not (path / HEADER).is_file():
        raise SpikeplugError(f"{path} holds no report: give the folder that --out named.")
    return RunFolder(path, _header(path), _rows(path)[0])


def _opened(path: Path, flags: int) -> int:
    """Open a file of the folder, made if missing; never another file through a symbolic link."""
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return descriptor


def _resumed(path: Path, header: Mapping[str, Any]) -> RunFolder:
    if not (path / HEADER).exists():
        write_record(header, path / HEADER, "--out")
        return RunFolder(path, header, [])
    check_arguments(path, header["arguments"])
    rows, whole = _rows(path)
    if (path / ROWS).exists() and (path / ROWS).stat().st_size > whole:
        os.truncate(path / ROWS, whole)  # a line that a killed run did not finish
    return RunFolder(path, _header(path), rows)


def _header(path: Path) -> dict[str, Any]:
    schema = read_schema("spikeplug.report", "report.schema.json")
    schema["required"] = [name for name in schema["required"] if name != "studies"]
    try:
        header = json.loads((path / HEADER).read_text(encoding="utf-8"))
        if isinstance(header, dict) and header.get("schema_version") not in (None, SCHEMA_VERSION):
            raise ValueError("it was written by another version")
        if (wrong := mismatch(header, schema)) is not None:
            raise ValueError(wrong)
    except OSError as error:
        raise _cannot("read", path / HEADER, error) from error
    except (ValueError, RecursionError) as error:
        raise SpikeplugError(f"{path / HEADER} is damaged ({error}): give another folder.") from error
    return dict(header)


def _rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return all rows of the file whose line is complete, and the number of bytes of these lines."""
    try:
        content = (path / ROWS).read_bytes() if (path / ROWS).exists() else b""
    except OSError as error:
        raise _cannot("read", path / ROWS, error) from error
    studies = read_schema("spikeplug.report", "report.schema.json")["properties"]["studies"]["properties"]
    whole = content.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            rows.append(_row(json.loads(line), studies))
        except (ValueError, RecursionError) as error:
            raise SpikeplugError(
                f"line {number} of {path / ROWS} is damaged ({error}): take it out, or give another folder."
            ) from error
    return rows, whole


def _row(row: Any, studies: Mapping[str, Any]) -> dict[str, Any]:
    """Check one parsed line of the rows' file against the schema of its study; return it as a dict of known fields.

    Errors: ValueError if it does not fit.
    """
    if not isinstance(row, dict) or not isinstance(row.get("study"), str) or row["study"] not in studies:
        raise ValueError("it is not a row of a study")
    study = row.pop("study")
    if (wrong := _mismatch_of_row(row, studies[study]["items"])) is not None:
        raise ValueError(wrong)
    return {"study": study, **{name: row[name] for name in ("key", "seconds", "values")}}


def _mismatch_of_row(row: dict[str, Any], schema: Mapping[str, Any]) -> str | None:
    """Return in words how the row differs from the schema; None if it fits.

    A study has several kinds of row. The row is compared with the kind that its key names.
    """
    kinds = schema.get("anyOf", [schema])
    named = [kind for kind in kinds if mismatch(row.get("key"), kind["properties"]["key"]) is None]
    return mismatch(row, (named or kinds)[0])


def _difference(there: Any, now: Any) -> tuple[Any, Any]:
    """Return the two values, for a message. Of two dictionaries: the first field that differs, after its name."""
    if isinstance(there, dict) and isinstance(now, dict):
        name = next(name for name in {**now, **there} if there.get(name) != now.get(name))
        return f"{name} {there.get(name)}", now.get(name)
    return there, now


def _cannot(verb: str, path: Path, error: OSError) -> SpikeplugError:
    return SpikeplugError(f"cannot {verb} {path}: {error.strerror or error}; give another folder.")
