"""The two ways to run any operator: `Closed` (vectorised integers) and `Simulated` (neurons and time steps).

Operators are written once, against `Arithmetic`. Both ways give the same integers on every input; tests iterate over
`Arithmetic`'s verbs and fail if either lacks one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import as_realisation
from spikeplug.primitives import divide, exponential, interpolation, norm, product
from spikeplug.primitives.divide import simulate as simulated_divide
from spikeplug.primitives.exponential import simulate as simulated_exponential
from spikeplug.primitives.interpolation import simulate as simulated_interpolation
from spikeplug.primitives.norm import simulate as simulated_norm
from spikeplug.primitives.product import simulate as simulated_product


class Arithmetic(Protocol):
    """The integer verbs an operator may use between encoding and decoding; see the primitives for each meaning."""

    def divide(self, numerator: Tensor, denominator: Tensor, spec: divide.DivideSpec) -> Tensor: ...

    def interpolate(self, x: Tensor, spec: interpolation.Interpolation) -> Tensor: ...

    def mantissa(self, distance: Tensor, spec: exponential.ShiftExponential) -> Tensor: ...

    def decay(self, weight: Tensor, octaves: Tensor) -> Tensor: ...

    def piecewise(self, x: Tensor, spec: exponential.PiecewiseExponential) -> Tensor: ...

    def square_sum(self, x: Tensor, bits: int) -> Tensor: ...

    def root(self, square: Tensor, spec: norm.RootSpec) -> Tensor: ...

    def cordic(self, x: Tensor, spec: norm.CordicSpec) -> Tensor: ...

    def gate(self, spikes: Tensor, value: Tensor, bits: int) -> Tensor: ...

    def accumulate(self, weight: Tensor, bits: int) -> Tensor: ...

    def dot(self, weight: Tensor, value: Tensor, weight_bits: int, value_bits: int) -> Tensor: ...

    def signed_dot(self, a: Tensor, b: Tensor, a_bits: int, b_bits: int) -> Tensor: ...


class Closed:
    """Every verb in closed form."""

    divide = staticmethod(divide.divide)
    interpolate = staticmethod(interpolation.interpolate)
    mantissa = staticmethod(exponential.mantissa)
    decay = staticmethod(exponential.decay)
    piecewise = staticmethod(exponential.piecewise)
    root = staticmethod(norm.root)
    cordic = staticmethod(norm.cordic)

    def square_sum(self, x: Tensor, bits: int) -> Tensor:
        return norm.square_sum(x)

    def gate(self, spikes: Tensor, value: Tensor, bits: int) -> Tensor:
        return product.gate(spikes, value)

    def accumulate(self, weight: Tensor, bits: int) -> Tensor:
        return product.accumulate(weight)

    def dot(self, weight: Tensor, value: Tensor, weight_bits: int, value_bits: int) -> Tensor:
        return product.dot(weight, value, weight_bits, value_bits)

    def signed_dot(self, a: Tensor, b: Tensor, a_bits: int, b_bits: int) -> Tensor:
        return product.dot(a, b, a_bits, b_bits)


@dataclass
class Simulated:
    """Every verb neuron by neuron; `numerics` chooses the form of division, `events` counts what happened."""

    numerics: Numerics
    events: Events = field(default_factory=Events)

    def divide(self, numerator: Tensor, denominator: Tensor, spec: divide.DivideSpec) -> Tensor:
        realisation = as_realisation(self.events.realisation, self.numerics)
        if realisation.division == "ordered":
            steps = realisation.time_steps(self.numerics.bits) if realisation.code == "count" else 1
            return simulated_divide.ordered_group(numerator, denominator, spec, self.events, steps=steps)
        return simulated_divide.restoring_neuron(numerator, denominator, spec, self.events)

    def interpolate(self, x: Tensor, spec: interpolation.Interpolation) -> Tensor:
        return simulated_interpolation.interpolate(x, spec, self.events)

    def mantissa(self, distance: Tensor, spec: exponential.ShiftExponential) -> Tensor:
        return simulated_exponential.mantissa(distance, spec, self.events)

    def decay(self, weight: Tensor, octaves: Tensor) -> Tensor:
        return simulated_exponential.decay(weight, octaves, self.events)

    def piecewise(self, x: Tensor, spec: exponential.PiecewiseExponential) -> Tensor:
        return simulated_exponential.piecewise(x, spec, self.events)

    def square_sum(self, x: Tensor, bits: int) -> Tensor:
        return simulated_norm.square_sum(x, bits, self.events)

    def root(self, square: Tensor, spec: norm.RootSpec) -> Tensor:
        return simulated_norm.root(square, spec, self.events)

    def cordic(self, x: Tensor, spec: norm.CordicSpec) -> Tensor:
        return simulated_norm.cordic(x, spec, self.events)

    def gate(self, spikes: Tensor, value: Tensor, bits: int) -> Tensor:
        return simulated_product.gate(spikes, value, bits, self.events)

    def accumulate(self, weight: Tensor, bits: int) -> Tensor:
        return simulated_product.accumulate(weight, bits, self.events)

    def dot(self, weight: Tensor, value: Tensor, weight_bits: int, value_bits: int) -> Tensor:
        # A weight may be 2^weight_bits itself, which takes one phase more.
        return simulated_product.dot(weight, value, weight_bits + 1, self.events)

    def signed_dot(self, a: Tensor, b: Tensor, a_bits: int, b_bits: int) -> Tensor:
        return simulated_product.signed_dot(a, b, a_bits, self.events)


def arithmetic(numerics: Numerics, events: Events | None) -> Arithmetic:
    """`Simulated` if events are to be counted, else `Closed`."""
    return Closed() if events is None else Simulated(numerics, events)
