"""Predict what the neurons of products do. No time step runs."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes.counting import ones, spikes_of, steps_of_any_in, time_steps
from spikeplug.neurons import Needs, Scope
from spikeplug.primitives.product import closed
from spikeplug.primitives.product.simulate import magnitude_bits
from spikeplug.realisation import Schedule


def gate(spikes: Tensor, value: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return spikes · value, elementwise, int64, for integers 0 <= spikes < 2^bits. Each spike drives one neuron."""
    product = closed.gate(spikes, value)
    gated(spikes, value, bits, scope)
    return product


def gated(spikes: Tensor, value: Tensor, bits: int, scope: Scope) -> None:
    """Count the events of `gate`; spikes and value may have any sign, which sends no spike."""
    if bits == 0:
        return
    size = torch.broadcast_shapes(spikes.shape, value.shape).numel()
    arrived = ones(spikes) * (size // max(1, spikes.numel()))
    value_bits = magnitude_bits(value) if size else 0
    opened = Needs(leak=2.0, weight_bits=value_bits, gated=True)
    population = scope.population("accumulator", bits + value_bits + 1, size, opened)
    population.updated(size * bits, arrived)
    population.steps += bits
    (scope / "operand").population("input", 1, size).sent(arrived)


def accumulate(weight: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return the sum along the last dimension, kept with size 1, int64, for integers 0 <= weight < 2^bits."""
    total = closed.accumulate(weight)
    width = bits + max(1, weight.shape[-1]).bit_length() + 1
    needs = Needs(leak=2.0, fan_in=weight.shape[-1])
    _count(weight, total, 1, weight.numel(), (1, width), bits, "bits", needs, scope)
    return total


def dot(weight: Tensor, value: Tensor, bits: int, scope: Scope) -> Tensor:
    """Return weight (..., m, k) @ value (..., k, n), int64, for integers 0 <= weight < 2^bits."""
    value_bits = magnitude_bits(value)
    product = closed.dot(weight, value, bits, value_bits)
    width = bits + value_bits + max(1, weight.shape[-1]).bit_length() + 1
    needs = Needs(leak=2.0, fan_in=weight.shape[-1], weight_bits=value_bits, weights=None, gated=True)
    _count(weight, product, value.shape[-1], weight.numel(), (1, width), bits, "bits", needs, scope)
    return product


def signed_dot(
    a: Tensor, b: Tensor, bits: int, scope: Scope, schedule: Schedule = "bits", constant: bool = False
) -> Tensor:
    """Return a (..., m, k) @ b (..., k, n), int64, for integers |a| < 2^bits, which are sent in a schedule.

    constant: whether b holds constants, not data.
    """
    value_bits = magnitude_bits(b)
    product = closed.dot(a, b, bits, value_bits)
    if schedule == "bits":  # one row of both signs
        widths = 1, bits + value_bits + max(1, 2 * a.shape[-1]).bit_length() + 1
    else:
        widths = bits, bits + value_bits + max(1, a.shape[-1]).bit_length() + 2
    digits = schedule in ("bits", "signed_digits")
    most = 1 if digits else -(-((1 << bits) - 1) // time_steps(bits, schedule))
    needs = Needs(
        leak=2.0 if digits else 1.0,
        fan_in=2 * a.shape[-1],  # of both signs
        weight_bits=value_bits,
        weights=2 if value_bits <= 1 else None,  # 1 and -1, or any
        gated=not constant,
        arriving_bits=most.bit_length(),
    )
    _count(a, product, b.shape[-1], 2 * a.numel(), widths, bits, schedule, needs, scope)
    return product


def _count(
    weight: Tensor,
    product: Tensor,
    fan_out: int,
    inputs: int,
    widths: tuple[int, int],
    bits: int,
    schedule: Schedule,
    needs: Needs,
    scope: Scope,
) -> None:
    """Count the events of a product of `weight` (..., m, k) by matrix, (..., m, n), without looking at a synapse.

    A spike is delivered to fan_out neurons. All neurons of a row of the product are driven in a step in which any
    element of that row of `weight` sends.

    inputs  neurons of the spike train;  widths: of the train, and of a membrane;  needs: of a neuron
    """
    size, steps = product.numel(), time_steps(bits, schedule)
    train = (scope / "operand").population("input", widths[0], inputs)
    train.sent(spikes_of(weight, schedule), fan_out)
    population = scope.population("accumulator", widths[1], size, needs)
    row = size // max(1, weight.shape[:-1].numel())
    population.updated(size * steps, steps_of_any_in(weight, bits, schedule) * row)
    population.steps += steps
