"""The JSON file of `spikeplug lm-eval --compare`. Its schema is `compare.schema.json`."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from spikeplug.evaluation.record import environment, origin
from spikeplug.evaluation.results import finite
from spikeplug.harness.compare import HarnessComparison

SCHEMA_VERSION = 1


def make_comparison_record(found: HarnessComparison, arguments: Sequence[str]) -> dict[str, Any]:
    """JSON values, as `compare.schema.json` describes them; what is not a finite number becomes null."""
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "environment": {**environment(), "lm_eval": importlib.metadata.version("lm_eval")},
        "arguments": [*arguments],
        "settings": finite(found.settings),
        "numerics": dict(found.numerics),
        "model": dict(found.model),
        "conversion": finite(found.conversion),
        "tasks": finite(found.tasks),
        "rows": [
            finite({**{k: v for k, v in vars(row).items() if k != "found"}, **asdict(row.found)}) for row in found.rows
        ],
        "saturations": dict(found.saturations),
        "seconds": dict(found.seconds),
    }


def comparison_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file."""
    text = resources.files("spikeplug.harness").joinpath("compare.schema.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values
