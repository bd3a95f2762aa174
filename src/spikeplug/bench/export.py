"""Export a run as JSON (one object, `bench.schema.json`) and as CSV (a line per row, each with device and versions)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spikeplug import kernels
from spikeplug.bench.results import COLUMNS, Row, growths
from spikeplug.measurement.record import origin, read_schema

SCHEMA_VERSION = 1
#: Facts of the machine in every line of the CSV.
MACHINE = ("cpu", "cores", "threads", "torch", "transformers", "spikeplug", "numerics", "commit", "created")


def make_bench_record(rows: Sequence[Row], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run as JSON values, as `bench.schema.json` describes them.

    arguments  of the command, stored in the record as they are
    """
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
    """Return the JSON Schema (draft 2020-12) of the file that `spikeplug bench` writes."""
    return read_schema("spikeplug.bench", "bench.schema.json")


def bench_csv(record: Mapping[str, Any]) -> str:
    """Return the rows of a record as CSV text with a header line; a cell without a figure is empty."""
    machine = {**record["environment"], "commit": record["commit"], "created": record["created"]}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *MACHINE], lineterminator="\n")
    writer.writeheader()
    for row in record["rows"]:
        writer.writerow({**row, **{name: machine[name] for name in MACHINE}})
    return text.getvalue()
