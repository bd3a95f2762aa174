"""Regenerate the golden counts: `python tests/golden/make_populations.py`. They pin what a simulation is made of.

verbs      the counts of every verb on the cases of tests/primitives/cases.py, by count
operators  the populations of every operator, by preset: name -> kind
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from operators.samples import SAMPLES, run
from primitives.cases import CASES

from spikeplug.neurons import Events
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Simulated
from spikeplug.realisation import Realisation

FILE = Path(__file__).with_name("populations.json")


def verb_counts(verb: str, realisation: Realisation | None = None) -> dict[str, int]:
    """Return the totals of a verb's case."""
    events = Events(realisation)
    CASES[verb](Simulated(events=events))
    return events.totals()


def populations() -> dict[str, Any]:
    """Return the golden counts."""
    paper = PRESETS["paper"].realisation
    verbs = {verb: verb_counts(verb) for verb in CASES}
    return {
        "verbs": {**verbs, "divide, by the published group": verb_counts("divide", paper)},
        "operators": {name: {preset: kinds(name, preset) for preset in PRESETS} for name in SAMPLES},
    }


def kinds(name: str, preset: str) -> dict[str, str]:
    """Return the populations of an operator's samples, with their kinds."""
    events = Events()
    run(name, numerics=PRESETS[preset].numerics, events=events)
    return {population.name: population.kind for population in events.populations.values()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(populations(), indent=1) + "\n", encoding="utf-8")
