"""What the neurons do: spikes and membranes of each operator on one token, neuron by neuron."""

from __future__ import annotations

from functools import partial
from typing import Any

from spikeplug.library import OPERATORS
from spikeplug.presets import as_realisation
from spikeplug.report.bench import Bench
from spikeplug.report.capture import calls
from spikeplug.report.recorder import Recorder
from spikeplug.report.studies import Row

# Elements of the row, or keys of the attention row, that are simulated; populations that are kept.
_WIDTH, _POPULATIONS = 12, 24
# An ordered group of more bits has more neurons than are simulated for a picture.
_MOST_BITS = 8


def steps(bench: Bench) -> int:
    """One row for all operators: which there are is known when the model ran."""
    return 1


def measure(bench: Bench, row: Row) -> None:
    """operators."""
    row("operators", partial(_all, bench))


def _all(bench: Bench) -> dict[str, Any]:
    """Of the first call of each operator, cut to a few elements of the chosen token's row."""
    found: dict[str, Any] = {}
    if as_realisation(None, bench.numerics).division == "ordered" and bench.numerics.bits > _MOST_BITS:
        return {"token": bench.settings.token, "operators": {}}
    for call in calls(bench):
        if call.operator in found:
            continue
        recorder = Recorder()
        OPERATORS[call.operator](*call.cut(_WIDTH), numerics=bench.numerics, events=recorder)
        recorder.done()
        populations = [population.to_dict() for population in recorder.populations]
        found[call.operator] = {
            "elements": min(_WIDTH, call.available),
            "populations": populations[:_POPULATIONS],
            "left_out": len(populations[_POPULATIONS:]),
            "spikes": recorder.spikes,
            "updates": recorder.membrane_updates,
            "steps": recorder.steps,
        }
    return {"token": bench.settings.token, "operators": found}
