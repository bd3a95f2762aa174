"""A run as JSON (one object, by `report.schema.json`) and as CSV (one file a table of the page)."""

from __future__ import annotations

import csv
import io
import json
from importlib import resources
from pathlib import Path
from typing import Any

from spikeplug.evaluation.record import check_writable, write_text
from spikeplug.report.section import Table
from spikeplug.report.sections import sections_of


def make_record(header: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The header, and the rows of each study in the order in which they were measured."""
    studies: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        studies.setdefault(row["study"], []).append({name: row[name] for name in ("key", "seconds", "values")})
    return {**header, "studies": studies}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the record."""
    text = resources.files("spikeplug.report").joinpath("report.schema.json").read_text(encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


def write_tables(header: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Each table of the page as `folder`/NAME.csv. Errors: SpikeplugError if it cannot be written."""
    check_writable(folder / "tables.csv", "--csv")  # makes the folder
    written = []
    for section in sections_of(header, rows):
        for part in section.parts:
            if isinstance(part, Table):
                written.append(folder / f"{part.name}.csv")
                buffer = io.StringIO()
                writer = csv.writer(buffer, lineterminator="\n")
                writer.writerow(part.columns)
                writer.writerows(part.rows)
                write_text(buffer.getvalue(), written[-1], "--csv")
    return written
