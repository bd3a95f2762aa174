"""What a numerics costs: neuron updates a token, by simulating small pieces of what the model's operators are given.

    updates = Σ over kinds of call   rows · (a + b·width)

a and b from two simulations of one real row, cut to two small widths: every operator's population grows by the element
(attention's by the key). The ordered group has 2^n neurons and more for each quotient, too many to simulate at large n;
its updates grow by 2^n·(T + 1), so it is simulated at two small n and scaled. Counted: membrane updates, idle ones
included (see `neurons.Events`). Not counted: matrix products, and what Events does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import as_realisation
from spikeplug.realisation import Realisation
from spikeplug.report.capture import Call

# Widths of the simulated rows, and the n and T at which ordered groups are simulated.
_WIDTHS = (8, 16)
_SMALL_BITS, _SMALL_STEPS = (5, 6), 32


def updates_per_token(calls: Sequence[Call], numerics: Numerics) -> dict[str, Any]:
    """{"updates_per_token": all, "by_operator": {name: its share}}."""
    found: Counter[str] = Counter()
    for call in calls:
        narrow, wide = (min(width, call.available) for width in _WIDTHS)
        wide_cost = _row(call, wide, numerics)
        slope = (wide_cost - _row(call, narrow, numerics)) / (wide - narrow) if wide > narrow else wide_cost / wide
        found[call.operator] += round(call.rows * max(0.0, wide_cost + slope * (call.width - wide)))
    return {"updates_per_token": sum(found.values()), "by_operator": dict(sorted(found.items()))}


def _row(call: Call, width: int, numerics: Numerics) -> float:
    realisation = as_realisation(None, numerics)
    if realisation.division != "ordered":
        return _simulated(call, width, numerics, realisation)
    small = replace(realisation, steps=_SMALL_STEPS if realisation.code == "count" else None)
    few, many = (replace(numerics, bits=bits) for bits in _SMALL_BITS)
    low, high = _simulated(call, width, few, small), _simulated(call, width, many, small)
    per_neuron = (high - low) / (_neuron_steps(many, small) - _neuron_steps(few, small))
    return low + per_neuron * (_neuron_steps(numerics, realisation) - _neuron_steps(few, small))


def _neuron_steps(numerics: Numerics, realisation: Realisation) -> int:
    """What the updates of an ordered group grow by."""
    steps = realisation.time_steps(numerics.bits) if realisation.code == "count" else 1
    return (1 << numerics.bits) * (steps + 1)


def _simulated(call: Call, width: int, numerics: Numerics, realisation: Realisation) -> float:
    events = Events(realisation)
    OPERATORS[call.operator](*call.cut(width), numerics=numerics, events=events)
    return float(events.membrane_updates)
