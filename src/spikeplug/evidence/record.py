"""Write the JSON file of `spikeplug ops`. Its schema is `ops.schema.json`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from spikeplug.evidence.results import BoundRow, Study
from spikeplug.measurement.record import finite, origin, read_schema
from spikeplug.numerics import Numerics
from spikeplug.realisation import Realisation

SCHEMA_VERSION = 2
#: Numbers per input; longer inputs are left out of the file.
_LONGEST = 256


def make_study_record(
    found: Study, numerics: Numerics, realisation: Realisation, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a study as JSON values, as `ops.schema.json` describes them; numbers that are not finite become null.

    arguments  of the command, stored in the record as they are
    """
    values = {
        "measurements": [asdict(row) for row in found.rows],
        "facts": [{**asdict(facts), "neurons": facts.neurons} for facts in found.facts],
        "figures": [{**asdict(figure), "ratio": figure.ratio} for figure in found.figures],
        "bounds": [_bound(row) for row in found.bounds],
        "saturations": dict(found.saturations),
        "seconds": found.seconds,
    }
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": dict(arguments),
        "numerics": numerics.to_dict(),
        "realisation": realisation.to_dict(),
        **{name: finite(value) for name, value in values.items()},
    }


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file that `spikeplug ops` writes."""
    return read_schema("spikeplug.evidence", "ops.schema.json")


def measurements_csv(found: Study) -> str:
    """Return the measurements as CSV text, with a header line."""
    rows = csv_rows(found)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def csv_rows(found: Study) -> list[dict[str, Any]]:
    """Return one flat dict per measurement, a column name to a value; None where an error measure does not apply."""
    rows = []
    for row in found.rows:
        values = asdict(row)
        rows.append({**{name: value for name, value in values.items() if name != "measures"}, **values["measures"]})
    return rows


def _bound(row: BoundRow) -> dict[str, Any]:
    worst = asdict(row.worst)
    if sum(len(vector) for vector in worst["inputs"]) > _LONGEST:
        worst["inputs"] = None
    return {"name": row.name, "source": row.source, "dimension": row.dimension, "holds": row.holds, **worst}
