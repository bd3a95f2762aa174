"""The JSON file of a run: an evaluation with all that is needed to repeat it. Its schema is `eval.schema.json`."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import spikeplug
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.results import Evaluation
from spikeplug.numerics import NUMERICS_VERSION, Numerics

SCHEMA_VERSION = 2


def make_record(
    evaluation: Evaluation, numerics: Numerics, arguments: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of the JSON file, as `eval.schema.json` describes them."""
    found = evaluation.to_dict()
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": dict(arguments),
        "numerics": numerics.to_dict(),
        "model": dict(model),
        **found,
    }


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file."""
    text = resources.files("spikeplug.evaluation").joinpath("eval.schema.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


def origin() -> dict[str, Any]:
    """When, from which commit and where a record was made."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """Versions and machine."""
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
    """The git commit of the checkout this package runs from, with "-dirty" if files differ from it; else None."""
    root = Path(__file__).resolve().parents[3]
    git = ["git", "-C", str(root)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10)
        # An installed package may lie in somebody else's checkout, e.g. in its .venv.
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


def check_writable(path: Path, option: str = "--json") -> None:
    """Refuse a path, given by `option`, that no file can be put at, before the work starts; make its folder.

    Errors: SpikeplugError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpikeplugError(f"cannot write {path}: {reason}; give another {option} path.") from error


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write all or nothing, as JSON. Errors: SpikeplugError."""
    write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path, option: str = "--json") -> None:
    """Write all or nothing: a reader sees the old file or the new one. Errors: SpikeplugError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SpikeplugError(f"cannot write {path}: {error.strerror or error}; give another {option} path.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # only Linux has it
    return platform.processor() or platform.machine()
