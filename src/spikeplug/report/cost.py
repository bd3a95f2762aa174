"""What a config costs: neuron updates a token, by simulating small pieces of what the model's operators are given.

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

from spikeplug.config import SpikeConfig
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.report.capture import Call

# Widths of the simulated rows, and the n and T at which ordered groups are simulated.
_WIDTHS = (8, 16)
_SMALL_BITS, _SMALL_STEPS = (5, 6), 32


def updates_per_token(calls: Sequence[Call], config: SpikeConfig) -> dict[str, Any]:
    """{"updates_per_token": all, "by_operator": {name: its share}}."""
    found: Counter[str] = Counter()
    for call in calls:
        narrow, wide = (min(width, call.available) for width in _WIDTHS)
        wide_cost = _row(call, wide, config)
        slope = (wide_cost - _row(call, narrow, config)) / (wide - narrow) if wide > narrow else wide_cost / wide
        found[call.operator] += round(call.rows * max(0.0, wide_cost + slope * (call.width - wide)))
    return {"updates_per_token": sum(found.values()), "by_operator": dict(sorted(found.items()))}


def _row(call: Call, width: int, config: SpikeConfig) -> float:
    if config.division != "ordered":
        return _simulated(call, width, config)
    counted = config.code == "count"
    few, many = (replace(config, bits=bits, steps=_SMALL_STEPS if counted else None) for bits in _SMALL_BITS)
    low, high = _simulated(call, width, few), _simulated(call, width, many)
    per_neuron = (high - low) / (_neuron_steps(many) - _neuron_steps(few))
    return low + per_neuron * (_neuron_steps(config) - _neuron_steps(few))


def _neuron_steps(config: SpikeConfig) -> int:
    """What the updates of an ordered group grow by."""
    steps = config.time_steps if config.code == "count" else 1
    return (1 << config.bits) * (steps + 1)


def _simulated(call: Call, width: int, config: SpikeConfig) -> float:
    events = Events()
    OPERATORS[call.operator](*call.cut(width), config=config, events=events)
    return float(events.membrane_updates)
