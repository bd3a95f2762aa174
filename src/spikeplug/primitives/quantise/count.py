"""Predict what quantising neurons do. No time step runs."""

from __future__ import annotations

from torch import Tensor

from spikeplug.neurons import Needs, Scope, reached
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
    largest = 2 * spec.pace * max(spec.weights) * ((1 << spec.threshold_bits) - 1)
    needs = Needs(
        threshold="moving" if len(set(spec.weights)) > 1 else "operand",
        threshold_bits=largest.bit_length(),
        soft_reset=True,
        gated=spec.bounds is not None,  # by the sum of what it sent
        arriving_bits=spec.bits + 1,
    )
    neurons = scope.population("threshold", spec.width, size * spec.levels * spec.populations, needs)
    neurons.sent(sent)
    updates = size * spec.populations * spec.levels * spec.steps
    neurons.updated(updates, reached(x, x) * spec.levels * (spec.steps if spec.paced else 1))
    neurons.compares += 2 * updates if spec.bounds else updates
    neurons.steps += spec.steps
    signs = 2 if spec.lowest < 0 else 1
    adds = Needs(
        fan_in=spec.levels * spec.populations,
        weight_bits=max(spec.weights).bit_length(),
        weights=signs * len(set(spec.weights)),
    )
    total = (scope / "total").population("accumulator", spec.total_width, size, adds)
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
