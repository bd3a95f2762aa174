"""Count what numerics cost: neuron updates per token, predicted on a model's real inputs.

    updates = Σ over kinds of call   rows per token · updates of one row

A row is that of the token in the middle of the window, whole. Its events are predicted: they equal those of a
simulation. Where a token attends to all before it, this one attends to as many keys as the mean. It runs alone, as with
a cache, so that no neuron is updated for keys that it may not see.

Counted are membrane updates, driven and idle (`neurons.Events`). Not counted: matrix products with weights, and what
Events does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.realisation import Realisation
from spikeplug.report.capture import Call


def updates_per_token(calls: Sequence[Call], numerics: Numerics, realisation: Realisation) -> dict[str, Any]:
    """Count the membrane updates per token of all spiking operators that `calls` lists.

    Return {"updates_per_token": sum over all operators, "by_operator": {name: updates of this operator}}.
    """
    if realisation.steps is not None:  # T is at most 2^n
        realisation = replace(realisation, steps=min(realisation.steps, 1 << numerics.bits))
    found: Counter[str] = Counter()
    for call in calls:
        events = Events(realisation, predicted=True)
        OPERATORS[call.operator](*call.arguments, numerics=numerics, events=events)
        found[call.operator] += round(call.rows * events.membrane_updates)
    return {"updates_per_token": sum(found.values()), "by_operator": dict(sorted(found.items()))}
