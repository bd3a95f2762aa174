"""A run as JSON (one object, by `bench.schema.json`) and as CSV: a line for each row, device and versions in each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from spikeplug import kernels
from spikeplug.bench.growth import growths
from spikeplug.bench.results import COLUMNS, Row
from spikeplug.evaluation.record import origin

SCHEMA_VERSION = 1
#: What every line of the CSV repeats of the machine.
MACHINE = ("cpu", "cores", "threads", "torch", "transformers", "spikeplug", "numerics", "commit", "created")


def make_bench_record(rows: Sequence[Row], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values, as `bench.schema.json` describes them."""
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": dict(arguments),
        "kernels": sorted(kernels.loaded("cpu")) if kernels.enabled() else [],
        "rows": [asdict(row) for row in rows],
        "growth": [
            {**asdict(growth), "sizes": list(growth.sizes), "seconds": list(growth.seconds)} for growth in growths(rows)
        ],
    }


def bench_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file."""
    text = resources.files("spikeplug.bench").joinpath("bench.schema.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


def bench_csv(record: Mapping[str, Any]) -> str:
    """The rows of a record as a table, with a line of names; empty where there is no figure."""
    machine = {**record["environment"], "commit": record["commit"], "created": record["created"]}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *MACHINE], lineterminator="\n")
    writer.writeheader()
    for row in record["rows"]:
        writer.writerow({**row, **{name: machine[name] for name in MACHINE}})
    return text.getvalue()
