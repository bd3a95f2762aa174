"""Predict what quantising neurons do. No time step runs."""

from __future__ import annotations

from torch import Tensor

from spikeplug.neurons import Scope, reached
from spikeplug.primitives.quantise import closed
from spikeplug.primitives.quantise.spec import QuantiseSpec


def quantise(x: Tensor, threshold: Tensor | int, spec: QuantiseSpec, scope: Scope) -> Tensor:
    """Return the sum of the spikes for each x, int64, in units of the firing threshold θ, which broadcasts to x.

    The read-out is driven in the time steps in which an element sends.
    """
    answer = closed.quantise(x, threshold, spec)
    x, threshold = spec.operands(x, threshold)
    if spec.bounds:
        sent = sending = int(answer.abs().sum())
    else:
        sent, sending = _spikes(x, threshold, spec)
    size = x.numel()
    neurons = scope.population("threshold", spec.width, size * spec.levels * spec.populations)
    neurons.sent(sent)
    updates = size * spec.populations * spec.levels * spec.steps
    neurons.updated(updates, reached(x, x) * spec.levels * (spec.steps if spec.paced else 1))
    neurons.compares += 2 * updates if spec.bounds else updates
    neurons.steps += spec.steps
    total = (scope / "total").population("accumulator", spec.total_width, size)
    total.updated(size * spec.steps, sending)
    total.steps += spec.steps
    return answer


def _spikes(x: Tensor, threshold: Tensor, spec: QuantiseSpec) -> tuple[int, int]:
    """Return all spikes, and the time steps in which an element sends any, summed over the elements."""
    sent = sending = 0
    for _, steps, spikes in closed.spikes_by_run(x, threshold, spec):
        sent += int(spikes.sum())
        # A constant current sends in every step, or one spike at a time; else the first steps send all they can.
        sending += int((spikes.clamp(max=steps) if spec.paced else -(-spikes // spec.levels)).sum())
    return sent, sending
