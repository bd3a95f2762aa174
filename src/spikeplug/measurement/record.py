"""JSON records: where and when they were made, values JSON can hold, the schema of each, and what breaks it."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import spikeplug
from spikeplug.measurement.files import write_text
from spikeplug.numerics import NUMERICS_VERSION


def write_record(record: Mapping[str, Any], path: Path, option: str = "--json") -> None:
    """Write a record to a JSON file, replaced as a whole; missing folders are made.

    option   the command-line option that gave the path, for error messages

    Errors: SpikeplugError if the file cannot be written; ValueError for NaN and infinities.
    """
    write_text(json_text(record), path, option)


def json_text(record: Mapping[str, Any]) -> str:
    """Return the record as indented JSON with a line end. Errors: ValueError for NaN and infinities (see `finite`)."""
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def read_schema(package: str, name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) that lies in a package, e.g. ("spikeplug.bench", "bench.schema.json")."""
    values: dict[str, Any] = json.loads(resources.files(package).joinpath(name).read_text(encoding="utf-8"))
    return values


def finite(value: Any) -> Any:
    """Return a copy of a value that JSON can hold: NaN and infinities become None, tuples lists, keys strings."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def origin() -> dict[str, Any]:
    """Return when, from which commit and on which machine a record is made."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """Return the versions of spikeplug, torch, transformers and Python, and the platform, CPU, cores and threads."""
    import torch

    return {
        "spikeplug": spikeplug.__version__,
        "numerics": NUMERICS_VERSION,
        "torch": importlib.metadata.version("torch"),
        "transformers": importlib.metadata.version("transformers"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Return the git commit (40 hex digits) of the checkout this package runs from; None if it is not in one.

    "-dirty" is appended if tracked files differ from the commit.
    """
    root = Path(__file__).resolve().parents[3]
    git = ["git", "-C", str(root)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10)
        # An installed package may lie in another project's checkout, e.g. in its .venv.
        if top.returncode or Path(top.stdout.strip()).resolve() != root:
            return None
        name = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return name.stdout.strip() or None


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def mismatch(value: Any, schema: Mapping[str, Any], place: str = "") -> str | None:
    """Check a value against a JSON Schema; return a text that says where and how it breaks it, or None if it fits.

    place   path of the value within the whole record, for the text

    NaN and infinities, which JSON does not have but Python reads, never fit.
    Knows what the schemas here use: type, const, enum, pattern, minimum, minItems, properties, required,
    additionalProperties, items and anyOf.
    """
    if "anyOf" in schema:
        found = [mismatch(value, option, place) for option in schema["anyOf"]]
        return None if None in found else found[0]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, _TYPES[kind]) for kind in kinds):
        return f"{place or 'it'} is not of type {' or '.join(kinds)}"
    if isinstance(value, bool) and kinds and "boolean" not in kinds:
        return f"{place or 'it'} is not of type {' or '.join(kinds)}"
    if "const" in schema and value != schema["const"]:
        return f"{place} is {value!r}, not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{place} is {value!r}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{place} is {value[:40]!r}"
    infinite = isinstance(value, float) and not math.isfinite(value)
    if infinite or (isinstance(value, (int, float)) and value < schema.get("minimum", -math.inf)):
        return f"{place} is {value}"
    if isinstance(value, list):
        return _mismatch_of_list(value, schema, place)
    return _mismatch_of_object(value, schema, place) if isinstance(value, dict) else None


def _mismatch_of_list(value: list[Any], schema: Mapping[str, Any], place: str) -> str | None:
    if len(value) < schema.get("minItems", 0):
        return f"{place} has {len(value)} entries"
    found = (mismatch(item, schema.get("items", {}), f"{place}[{index}]") for index, item in enumerate(value))
    return next((text for text in found if text is not None), None)


def _mismatch_of_object(value: dict[str, Any], schema: Mapping[str, Any], place: str) -> str | None:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return f"{place + '.' if place else ''}{name} is missing"
    for name, item in value.items():
        inside = f"{place}.{name}" if place else str(name)
        if name not in known and others is False:
            return f"{inside} is unknown"
        found = mismatch(item, known.get(name, others if isinstance(others, dict) else {}), inside)
        if found is not None:
            return found
    return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # only Linux has it
    return platform.processor() or platform.machine()
