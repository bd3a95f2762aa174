"""Write the table of docs/ways-of-running.md: `python benchmarks/ways.py`.

Runs a converted model in every way that tests/ways lists. Exits with 1 if one is neither right nor refused.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ways"))

import pages
import torch
from all_ways import WAYS
from way import Verdict, Way, judge

from spikeplug.measurement.record import environment


def measure(way: Way) -> Verdict:
    """Return the verdict on a way; an error is wrong, too."""
    try:
        return judge(way)
    except Exception as error:  # the other ways are to be seen, too
        return Verdict("wrong", type(error).__name__)


def line(way: Way, verdict: Verdict) -> str:
    """Return a row of the table: what was measured stands in the column of its kind."""
    detail = f"{verdict.detail} ({way.note})" if way.note else verdict.detail
    cells = [detail if verdict.kind == kind else "" for kind in ("right", "refused", "wrong")]
    return f"| {way.name} | {' | '.join(cells)} |"


def main() -> int:
    """Measure all ways and write the page; return the exit code."""
    torch.set_num_threads(1)
    verdicts = {group: [(way, measure(way)) for way in ways] for group, ways in WAYS.items()}
    kinds = [verdict.kind for rows in verdicts.values() for _, verdict in rows]
    facts = environment()
    text = [
        f"{len(kinds)} ways: {kinds.count('right')} right, {kinds.count('refused')} refused with a sentence, "
        f"{kinds.count('wrong')} wrong (torch {facts['torch']}, transformers {facts['transformers']}; `make ways`)."
    ]
    for group, rows in verdicts.items():
        text += ["", f"### {group}", "", "| | right | refused | wrong |", "|---|---|---|---|"]
        text += [line(way, verdict) for way, verdict in rows]
    pages.write("docs/ways-of-running.md", "ways", "\n".join(text))
    for rows in verdicts.values():
        for way, verdict in rows:
            if verdict.kind == "wrong":
                print(f"{way.name}: {verdict.detail}", file=sys.stderr)
    return 1 if "wrong" in kinds else 0


if __name__ == "__main__":
    sys.exit(main())
