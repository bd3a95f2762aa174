"""Estimate what numerics cost: neuron updates per token, from simulations of small pieces of a model's real inputs.

    updates = Σ over kinds of call   rows · (a + b·width)

a and b come from two simulations of one real row, cut to two small widths: every operator's populations grow with the
elements (attention's with the keys; a linear layer's with its inputs, as all outputs are kept). An ordered group has
2^n neurons or more per quotient, too many to simulate at large n. Its updates grow as 2^n·(T + 1), so it is simulated
at two small n and scaled.

Counted are membrane updates, idle ones included (`neurons.Events`). Not counted: what is not an operator, such as
matrix products with float weights, and what Events does not count.
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

# Width of the narrower one of the simulated rows, and the n and T at which ordered groups are simulated.
_WIDTH = 8
_SMALL_BITS, _SMALL_STEPS = (5, 6), 32


def updates_per_token(calls: Sequence[Call], numerics: Numerics, realisation: Realisation) -> dict[str, Any]:
    """Estimate the membrane updates per token of all spiking operators that `calls` lists.

    Return {"updates_per_token": sum over all operators, "by_operator": {name: updates of this operator}}.
    """
    if realisation.steps is not None:  # T is at most 2^n
        realisation = replace(realisation, steps=min(realisation.steps, 1 << numerics.bits))
    found: Counter[str] = Counter()
    for call in calls:
        narrow = call.elements(_WIDTH)
        wide = call.elements(2 * narrow)
        wide_cost = _row(call, wide, numerics, realisation)
        slope = wide_cost / wide
        if wide > narrow:
            slope = (wide_cost - _row(call, narrow, numerics, realisation)) / (wide - narrow)
        found[call.operator] += round(call.rows * max(0.0, wide_cost + slope * (call.width - wide)))
    return {"updates_per_token": sum(found.values()), "by_operator": dict(sorted(found.items()))}


def _row(call: Call, width: int, numerics: Numerics, realisation: Realisation) -> float:
    if realisation.division != "ordered":
        return simulated(call, width, numerics, realisation)
    small = replace(realisation, steps=_SMALL_STEPS if realisation.code == "count" else None)
    few, many = (replace(numerics, bits=bits) for bits in _SMALL_BITS)
    low, high = simulated(call, width, few, small), simulated(call, width, many, small)
    per_neuron = (high - low) / (_neuron_steps(many, small) - _neuron_steps(few, small))
    return low + per_neuron * (_neuron_steps(numerics, realisation) - _neuron_steps(few, small))


def _neuron_steps(numerics: Numerics, realisation: Realisation) -> int:
    """Return 2^n·(T + 1), n = numerics.bits, to which the updates of an ordered group are proportional.

    T is the number of time steps of the count code, and 1 for the other codes.
    """
    steps = realisation.time_steps(numerics.bits) if realisation.code == "count" else 1
    return (1 << numerics.bits) * (steps + 1)


def simulated(call: Call, width: int, numerics: Numerics, realisation: Realisation) -> float:
    """Simulate one row of the call, cut to `width` elements, neuron by neuron; return the membrane updates."""
    events = Events(realisation)
    OPERATORS[call.operator](*call.cut(width), numerics=numerics, events=events)
    return float(events.membrane_updates)
