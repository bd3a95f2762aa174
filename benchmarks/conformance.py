"""Write the table of docs/architectures.md, and its summary into README.md: `python benchmarks/conformance.py FOLDER`.

Every architecture of architectures.py is built small, with random weights, and examined. FOLDER/conformance.json gets
the figures too. Exits with 1 if an architecture is not converted whole, or does not come back.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pages
import torch
from architectures import ARCHITECTURES
from examine import NEW_TOKENS, Conformance, Whole, examine, examine_whole

from spikeplug.measurement.record import commit, environment

SCHEMA_VERSION = 1


def sweep() -> tuple[list[Conformance], list[Whole]]:
    """Examine all architectures by both recipes, with a line on stderr for each."""
    rows: list[Conformance] = []
    wholes: list[Whole] = []
    start = time.perf_counter()
    for done, architecture in enumerate(ARCHITECTURES):
        spent = time.perf_counter() - start
        left = f", about {spent / done * (len(ARCHITECTURES) - done):.0f} s left" if done else ""
        print(f"[{done + 1}/{len(ARCHITECTURES)}] {architecture.name}{left}", file=sys.stderr, flush=True)
        rows.append(examine(architecture))
        wholes.append(examine_whole(architecture))
    return rows, wholes


def whole(row: Conformance) -> bool:
    """Tell whether nothing is left in float, the cache changes no token, and `revert` restores every bit."""
    alike = row.generation is None or row.generation.cached_alike or not row.generation.exact_alike
    return not row.after and not row.leftovers and row.reverted and alike


def summary(rows: list[Conformance], facts: dict[str, Any]) -> str:
    """Return what the table says, in a few sentences."""
    generating = [row.generation for row in rows if row.generation is not None]
    alike = sum(generation.cached_alike for generation in generating)
    as_exact = sum(generation.agreement == 1.0 for generation in generating)
    largest = max(rows, key=lambda row: row.error)
    executed, left = sum(sum(row.before.values()) for row in rows), sum(len(row.after) for row in rows)
    return (
        f"{sum(map(whole, rows))} of {len(rows)} architectures, two layers with random weights each, are converted by "
        f"the one mechanism with nothing left in floating point: {executed:,} "
        f"float nonlinearities executed before, {left} after. Outputs differ by "
        f"{_median([row.error for row in rows]):.0e} of their largest value in the median, at most by "
        f"{largest.error:.0e} ({largest.name}). All {len(generating)} that generate write {NEW_TOKENS} tokens: {alike} "
        f"of them alike with and without the cache, {as_exact} just as the exact model. Revert: "
        f"{sum(row.reverted for row in rows)} of {len(rows)} bit-identical (torch {facts['torch']}, transformers "
        f"{facts['transformers']}; `make conformance`)."
    )


def whole_summary(wholes: list[Whole]) -> str:
    """Return what the column "whole" says, in a few sentences."""
    full = sum(not found.left and not found.executed for found in wholes)
    generating = [found.generation for found in wholes if found.generation is not None]
    moved = max(found.moved for found in wholes)
    return (
        f'With `recipe="whole"`, {full} of {len(wholes)} compute everything in spike codes, linear layers and sums '
        "included; of the others, the column names what stays in float. Outputs differ by "
        f"{_median([found.error for found in wholes]):.0%} of their norm in the median (random weights are harder than "
        f"trained ones; left out are tokens that a router sends to other experts, {moved:.0%} at most); "
        f"{sum(each.cached_alike for each in generating)} of {len(generating)} generate alike with and without the "
        f"cache; revert: {sum(found.reverted for found in wholes)} of {len(wholes)} bit-identical."
    )


def line(rows: list[Conformance]) -> str:
    """Return the README's sentence."""
    return (
        f"- **{sum(map(whole, rows))} of {len(rows)} architectures** (decoders, encoders, speech, vision, plain torch) "
        "are converted with nothing left in floating point (`make conformance`, "
        "[all of them](docs/architectures.md))."
    )


def table(rows: list[Conformance], wholes: list[Whole]) -> str:
    """Return a Markdown table with a row per architecture."""
    lines = [
        f"| | | nonlinearities executed, exact | spiking | output differs by | {NEW_TOKENS} tokens: cache = no cache "
        "| = exact | revert identical | convert | whole: left in float | whole: differs by |",
        "|---|---|---:|---|---:|---|---:|---|---:|---|---:|",
    ]
    return "\n".join([*lines, *map(_row, rows, wholes)])


def _row(row: Conformance, whole: Whole) -> str:
    left = ", ".join(f"`{place}`" for place in dict.fromkeys((*row.after, *row.leftovers))) or "0"
    alike = agreement = ""
    if row.generation is not None:
        alike = _yes(row.generation.cached_alike)
        if not row.generation.exact_alike:
            alike += " (exact: no)"
        agreement = f"{row.generation.agreement:.0%}"
    cells = (
        row.name,
        row.kind,
        str(sum(row.before.values())),
        left,
        f"{row.error:.1e}",
        alike,
        agreement,
        _yes(row.reverted),
        f"{row.seconds * 1000:.0f} ms",
        ", ".join(f"`{name}`" for name in dict.fromkeys(place.rpartition(": ")[2] for place in whole.left)) or "0",
        f"{whole.error:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _median(values: list[float]) -> float:
    return float(torch.tensor(values).median())


def main(folder: Path) -> int:
    (rows, wholes), facts = sweep(), environment()
    record = {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "environment": facts,
        "architectures": [row.to_dict() for row in rows],
        "whole": [found.to_dict() for found in wholes],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "conformance.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    pages.write(
        "docs/architectures.md",
        "conformance",
        f"{summary(rows, facts)}\n\n{whole_summary(wholes)}\n\n{table(rows, wholes)}",
    )
    pages.write("README.md", "conformance", line(rows))
    broken = [row.name for row in rows if not whole(row)]
    if broken:
        print("not whole:", ", ".join(broken), file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
