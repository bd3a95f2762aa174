"""Render a run as a page, as one JSON object (`report.schema.json`) and as CSV tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from spikeplug.measurement.files import write_text
from spikeplug.measurement.page import render_sections
from spikeplug.measurement.record import read_schema
from spikeplug.measurement.section import Table
from spikeplug.report.sections import sections_of


def render(header: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the report as one HTML page, drawn from the rows measured so far.

    Errors: SpikeplugError if plotly is not installed.
    """
    name = str(header["arguments"]["model"]["name"])
    return render_sections(
        sections_of(header, rows),
        title=f"{name}, spiking: how errors build up",
        heading=f"{name}, spiking",
        subtitle=_subtitle(header),
        command="spikeplug report",
        facts=_facts(header),
    )


def make_record(header: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the report as JSON values: the header, and under "studies" the rows of each study in measured order."""
    studies: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        studies.setdefault(row["study"], []).append({name: row[name] for name in ("key", "seconds", "values")})
    return {**header, "studies": studies}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `make_record` returns."""
    return read_schema("spikeplug.report", "report.schema.json")


def write_tables(header: dict[str, Any], rows: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write each table of the page as `folder`/NAME.csv; return the paths of the files.

    Errors: SpikeplugError if a file cannot be written.
    """
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


def _subtitle(header: dict[str, Any]) -> str:
    arguments = header["arguments"]
    model = arguments["model"]
    return (
        f"{model['type']}, {_size(model['parameters'])} parameters, {header['layers']} layers, {model['dtype']}; "
        f"{_recipe(arguments['recipe'])}{header['windows']} × {arguments['context']} tokens of text; measured "
        f"{header['created'][:10]}"
        f"{', quick run' if arguments['quick'] else ''}"
    )


def _recipe(recipe: dict[str, Any]) -> str:
    levels = recipe["levels"]
    if levels is None:
        return ""
    return f"recipe {recipe['name']}, {levels['inputs']} levels of inputs, {levels['cache']} of keys and values; "


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def _facts(header: dict[str, Any]) -> dict[str, Any]:
    arguments = header["arguments"]
    recipe = arguments["recipe"]
    calibration = recipe["calibration"]
    return {
        "recipe": recipe["name"],
        **{f"levels: {name}": value for name, value in (recipe["levels"] or {}).items()},
        **{f"calibration: {name}": value for name, value in (calibration or {}).items() if value is not None},
        **{f"numerics: {name}": value for name, value in arguments["numerics"].items() if value is not None},
        **{f"realisation: {name}": value for name, value in arguments["realisation"].items() if value is not None},
        "text, SHA-256": arguments["text"],
        "hash of the arguments": header["hash"],
        **header["environment"],
        "commit": header["commit"] or "not run from a checkout",
    }
