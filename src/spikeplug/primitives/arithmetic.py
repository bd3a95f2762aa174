"""Define three ways to run an operator: `Closed` (vectorised), `Simulated` (neurons and time steps), `Counted`.

An operator is written once, against `Arithmetic`. All ways give the same integers on every input.
The tests iterate over the verbs of `Arithmetic` and fail if one of the ways lacks a verb.
Every verb has a population, named operator/name: the verb `divide` of "softmax" has the population "softmax/divide".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

from torch import Tensor

from spikeplug.circuit import Builder, Place
from spikeplug.neurons import Events, Scope
from spikeplug.numerics import Numerics
from spikeplug.presets import as_realisation
from spikeplug.primitives import compare, divide, exponential, interpolation, norm, product, quantise, relay
from spikeplug.primitives.compare import circuit as circuit_compare
from spikeplug.primitives.compare import count as counted_compare
from spikeplug.primitives.compare import simulate as simulated_compare
from spikeplug.primitives.divide import circuit as circuit_divide
from spikeplug.primitives.divide import count as counted_divide
from spikeplug.primitives.divide import simulate as simulated_divide
from spikeplug.primitives.exponential import circuit as circuit_exponential
from spikeplug.primitives.exponential import count as counted_exponential
from spikeplug.primitives.exponential import simulate as simulated_exponential
from spikeplug.primitives.interpolation import circuit as circuit_interpolation
from spikeplug.primitives.interpolation import count as counted_interpolation
from spikeplug.primitives.interpolation import simulate as simulated_interpolation
from spikeplug.primitives.norm import circuit as circuit_norm
from spikeplug.primitives.norm import count as counted_norm
from spikeplug.primitives.norm import simulate as simulated_norm
from spikeplug.primitives.product import circuit as circuit_product
from spikeplug.primitives.product import count as counted_product
from spikeplug.primitives.product import simulate as simulated_product
from spikeplug.primitives.quantise import circuit as circuit_quantise
from spikeplug.primitives.quantise import count as counted_quantise
from spikeplug.primitives.quantise import simulate as simulated_quantise
from spikeplug.primitives.relay import circuit as circuit_relay
from spikeplug.primitives.relay import count as counted_relay
from spikeplug.primitives.relay import simulate as simulated_relay
from spikeplug.realisation import Realisation


class Arithmetic(Protocol):
    """List the integer functions (verbs) that an operator may use between encoding and decoding its numbers.

    Closed computes them with tensor operations, Simulated neuron by neuron. Counted computes as Closed does, and
    predicts the events of Simulated. Widths (`bits`) exclude the sign.
    Each folder of spikeplug/primitives has a README that says what its verbs compute.

    operator  the name of the operator, with which the names of its populations begin
    numerics  the numerics that the operator computes with
    """

    @property
    def operator(self) -> str: ...

    @property
    def numerics(self) -> Numerics: ...

    # Primitives with a specification of their own.
    def divide(
        self, numerator: Tensor, denominator: Tensor, spec: divide.DivideSpec, name: str = "divide"
    ) -> Tensor: ...

    def interpolate(self, x: Tensor, spec: interpolation.Interpolation, name: str = "table") -> Tensor: ...

    def mantissa(self, distance: Tensor, spec: exponential.ShiftExponential, name: str = "exp") -> Tensor: ...

    def decay(self, weight: Tensor, octaves: Tensor, name: str = "decay") -> Tensor: ...

    def piecewise(self, x: Tensor, spec: exponential.PiecewiseExponential, name: str = "exp") -> Tensor: ...

    def square_sum(self, x: Tensor, bits: int, name: str = "squares") -> Tensor: ...

    def root(self, square: Tensor, spec: norm.RootSpec, name: str = "root") -> Tensor: ...

    def cordic(self, x: Tensor, spec: norm.CordicSpec, name: str = "cordic") -> Tensor: ...

    def quantise(
        self, x: Tensor, threshold: Tensor | int, spec: quantise.QuantiseSpec, name: str = "quantise"
    ) -> Tensor: ...

    # Products and sums. A product whose operand b is `constant`, such as stored weights, needs no gated synapse.
    def gate(self, spikes: Tensor, value: Tensor, bits: int, name: str = "product") -> Tensor: ...

    def accumulate(self, weight: Tensor, bits: int, name: str = "sum") -> Tensor: ...

    def dot(self, weight: Tensor, value: Tensor, weight_bits: int, value_bits: int, name: str = "values") -> Tensor: ...

    def signed_dot(
        self,
        a: Tensor,
        b: Tensor,
        a_bits: int,
        b_bits: int,
        levels: bool = False,
        constant: bool = False,
        name: str = "scores",
    ) -> Tensor: ...

    # Comparisons.
    def maximum(self, x: Tensor, bits: int, name: str = "maximum") -> Tensor: ...

    def leading_one(self, x: Tensor, bits: int, name: str = "leading_one") -> Tensor: ...

    def reaches(self, x: Tensor, threshold: Tensor | int, bits: int, name: str = "threshold") -> Tensor: ...

    # Relays.
    def add(self, a: Tensor, b: Tensor | int, bits: int, name: str = "add") -> Tensor: ...

    def scale(self, x: Tensor, factor: int | Tensor, bits: int, name: str = "scale") -> Tensor: ...

    def select(
        self, condition: Tensor, a: Tensor | int, b: Tensor | int, bits: int, name: str = "select"
    ) -> Tensor: ...

    def magnitude(self, x: Tensor, bits: int, name: str = "magnitude") -> Tensor: ...

    def signed(self, magnitude: Tensor, sign_of: Tensor, bits: int, name: str = "sign") -> Tensor: ...

    def shift(self, x: Tensor, places: Tensor, bits: int, left: int, name: str = "shift") -> Tensor: ...

    def round_half(self, x: Tensor, bits: int, name: str = "round") -> Tensor: ...

    def clamp(self, x: Tensor, low: int | None, high: int | None, bits: int, name: str = "clamp") -> Tensor: ...


@dataclass(frozen=True)
class Closed:
    """Run every verb in closed form: vectorised integers, without neurons."""

    numerics: Numerics = field(default_factory=Numerics)
    operator: str = ""

    def divide(self, numerator: Tensor, denominator: Tensor, spec: divide.DivideSpec, name: str = "divide") -> Tensor:
        return divide.divide(numerator, denominator, spec)

    def interpolate(self, x: Tensor, spec: interpolation.Interpolation, name: str = "table") -> Tensor:
        return interpolation.interpolate(x, spec)

    def mantissa(self, distance: Tensor, spec: exponential.ShiftExponential, name: str = "exp") -> Tensor:
        return exponential.mantissa(distance, spec)

    def decay(self, weight: Tensor, octaves: Tensor, name: str = "decay") -> Tensor:
        return exponential.decay(weight, octaves)

    def piecewise(self, x: Tensor, spec: exponential.PiecewiseExponential, name: str = "exp") -> Tensor:
        return exponential.piecewise(x, spec)

    def square_sum(self, x: Tensor, bits: int, name: str = "squares") -> Tensor:
        return norm.square_sum(x)

    def root(self, square: Tensor, spec: norm.RootSpec, name: str = "root") -> Tensor:
        return norm.root(square, spec)

    def cordic(self, x: Tensor, spec: norm.CordicSpec, name: str = "cordic") -> Tensor:
        return norm.cordic(x, spec)

    def quantise(
        self, x: Tensor, threshold: Tensor | int, spec: quantise.QuantiseSpec, name: str = "quantise"
    ) -> Tensor:
        return quantise.quantise(x, threshold, spec)

    def gate(self, spikes: Tensor, value: Tensor, bits: int, name: str = "product") -> Tensor:
        return product.gate(spikes, value)

    def accumulate(self, weight: Tensor, bits: int, name: str = "sum") -> Tensor:
        return product.accumulate(weight)

    def dot(self, weight: Tensor, value: Tensor, weight_bits: int, value_bits: int, name: str = "values") -> Tensor:
        return product.dot(weight, value, weight_bits, value_bits)

    def signed_dot(
        self,
        a: Tensor,
        b: Tensor,
        a_bits: int,
        b_bits: int,
        levels: bool = False,
        constant: bool = False,
        name: str = "scores",
    ) -> Tensor:
        return product.dot(a, b, a_bits, b_bits)

    def maximum(self, x: Tensor, bits: int, name: str = "maximum") -> Tensor:
        return compare.maximum(x)

    def leading_one(self, x: Tensor, bits: int, name: str = "leading_one") -> Tensor:
        return compare.leading_one(x)

    def reaches(self, x: Tensor, threshold: Tensor | int, bits: int, name: str = "threshold") -> Tensor:
        return compare.reaches(x, threshold)

    def add(self, a: Tensor, b: Tensor | int, bits: int, name: str = "add") -> Tensor:
        return relay.add(a, b)

    def scale(self, x: Tensor, factor: int | Tensor, bits: int, name: str = "scale") -> Tensor:
        return relay.scale(x, factor)

    def select(self, condition: Tensor, a: Tensor | int, b: Tensor | int, bits: int, name: str = "select") -> Tensor:
        return relay.select(condition, a, b)

    def magnitude(self, x: Tensor, bits: int, name: str = "magnitude") -> Tensor:
        return relay.magnitude(x)

    def signed(self, magnitude: Tensor, sign_of: Tensor, bits: int, name: str = "sign") -> Tensor:
        return relay.signed(magnitude, sign_of)

    def shift(self, x: Tensor, places: Tensor, bits: int, left: int, name: str = "shift") -> Tensor:
        return relay.shift(x, places)

    def round_half(self, x: Tensor, bits: int, name: str = "round") -> Tensor:
        return relay.round_half(x)

    def clamp(self, x: Tensor, low: int | None, high: int | None, bits: int, name: str = "clamp") -> Tensor:
        return relay.clamp(x, low, high)


@dataclass(frozen=True)
class Simulated:
    """Run every verb neuron by neuron. `events` holds the realisation and counts the events."""

    numerics: Numerics = field(default_factory=Numerics)
    operator: str = ""
    events: Events = field(default_factory=Events)

    # The modules that run the verbs.
    _compare = simulated_compare
    _divide = simulated_divide
    _exponential = simulated_exponential
    _interpolation = simulated_interpolation
    _norm = simulated_norm
    _product = simulated_product
    _quantise = simulated_quantise
    _relay = simulated_relay

    @property
    def realisation(self) -> Realisation:
        """Return which neurons compute each verb: that of `events`, or else the one that goes with the numerics."""
        return as_realisation(self.events.realisation, self.numerics)

    def _scope(self, name: str) -> Any:
        return Scope(self.events, f"{self.operator}/{name}" if self.operator else name)

    def divide(self, numerator: Tensor, denominator: Tensor, spec: divide.DivideSpec, name: str = "divide") -> Tensor:
        chosen, scope = self.realisation, self._scope(name)
        if chosen.division == "ordered":
            steps = chosen.time_steps(self.numerics.bits) if chosen.code == "count" else 1
            return self._divide.ordered_group(numerator, denominator, spec, scope, steps=steps)
        return self._divide.restoring_neuron(numerator, denominator, spec, scope)

    def interpolate(self, x: Tensor, spec: interpolation.Interpolation, name: str = "table") -> Tensor:
        return self._interpolation.interpolate(x, spec, self._scope(name))

    def mantissa(self, distance: Tensor, spec: exponential.ShiftExponential, name: str = "exp") -> Tensor:
        return self._exponential.mantissa(distance, spec, self._scope(name))

    def decay(self, weight: Tensor, octaves: Tensor, name: str = "decay") -> Tensor:
        return self._exponential.decay(weight, octaves, self._scope(name))

    def piecewise(self, x: Tensor, spec: exponential.PiecewiseExponential, name: str = "exp") -> Tensor:
        return self._exponential.piecewise(x, spec, self._scope(name))

    def square_sum(self, x: Tensor, bits: int, name: str = "squares") -> Tensor:
        ordered = self.realisation.norm == "ordered"
        run = self._norm.square_sum_ordered if ordered else self._norm.square_sum
        return run(x, bits, self._scope(name))

    def root(self, square: Tensor, spec: norm.RootSpec, name: str = "root") -> Tensor:
        run = self._norm.root_ordered if self.realisation.norm == "ordered" else self._norm.root
        return run(square, spec, self._scope(name))

    def cordic(self, x: Tensor, spec: norm.CordicSpec, name: str = "cordic") -> Tensor:
        return self._norm.cordic(x, spec, self._scope(name))

    def quantise(
        self, x: Tensor, threshold: Tensor | int, spec: quantise.QuantiseSpec, name: str = "quantise"
    ) -> Tensor:
        return self._quantise.quantise(x, threshold, spec, self._scope(name))

    def gate(self, spikes: Tensor, value: Tensor, bits: int, name: str = "product") -> Tensor:
        return self._product.gate(spikes, value, bits, self._scope(name))

    def accumulate(self, weight: Tensor, bits: int, name: str = "sum") -> Tensor:
        return self._product.accumulate(weight, bits, self._scope(name))

    def dot(self, weight: Tensor, value: Tensor, weight_bits: int, value_bits: int, name: str = "values") -> Tensor:
        # A weight may equal 2^weight_bits, which takes one phase more.
        return self._product.dot(weight, value, weight_bits + 1, self._scope(name))

    def signed_dot(
        self,
        a: Tensor,
        b: Tensor,
        a_bits: int,
        b_bits: int,
        levels: bool = False,
        constant: bool = False,
        name: str = "scores",
    ) -> Tensor:
        # Levels at a linear layer's input arrive in the schedule of the realisation; other numbers send their bits.
        schedule = self.realisation.schedule if levels else "bits"
        return self._product.signed_dot(a, b, a_bits, self._scope(name), schedule, constant)

    def maximum(self, x: Tensor, bits: int, name: str = "maximum") -> Tensor:
        return self._compare.maximum(x, bits, self._scope(name))

    def leading_one(self, x: Tensor, bits: int, name: str = "leading_one") -> Tensor:
        return self._compare.leading_one(x, bits, self._scope(name))

    def reaches(self, x: Tensor, threshold: Tensor | int, bits: int, name: str = "threshold") -> Tensor:
        return self._compare.reaches(x, threshold, bits, self._scope(name))

    def add(self, a: Tensor, b: Tensor | int, bits: int, name: str = "add") -> Tensor:
        return self._relay.add(a, b, bits, self._scope(name))

    def scale(self, x: Tensor, factor: int | Tensor, bits: int, name: str = "scale") -> Tensor:
        return self._relay.scale(x, factor, bits, self._scope(name))

    def select(self, condition: Tensor, a: Tensor | int, b: Tensor | int, bits: int, name: str = "select") -> Tensor:
        return self._relay.select(condition, a, b, bits, self._scope(name))

    def magnitude(self, x: Tensor, bits: int, name: str = "magnitude") -> Tensor:
        return self._relay.magnitude(x, bits, self._scope(name))

    def signed(self, magnitude: Tensor, sign_of: Tensor, bits: int, name: str = "sign") -> Tensor:
        return self._relay.signed(magnitude, sign_of, bits, self._scope(name))

    def shift(self, x: Tensor, places: Tensor, bits: int, left: int, name: str = "shift") -> Tensor:
        return self._relay.shift(x, places, bits, left, self._scope(name))

    def round_half(self, x: Tensor, bits: int, name: str = "round") -> Tensor:
        return self._relay.round_half(x, bits, self._scope(name))

    def clamp(self, x: Tensor, low: int | None, high: int | None, bits: int, name: str = "clamp") -> Tensor:
        return self._relay.clamp(x, low, high, bits, self._scope(name))


@dataclass(frozen=True)
class Counted(Simulated):
    """Predict the events of every verb, without time steps. Integers and events are those of Simulated."""

    _compare = counted_compare
    _divide = counted_divide
    _exponential = counted_exponential
    _interpolation = counted_interpolation
    _norm = counted_norm
    _product = counted_product
    _quantise = counted_quantise
    _relay = counted_relay


@dataclass(frozen=True)
class Recorded(Simulated):
    """Build the circuit of every verb, in `builder`, from integers that are `circuit.Traced`. Nothing is computed.

    The populations have the names of Simulated. The circuit, run step by step, gives the integers of Closed.
    """

    builder: Builder = field(default_factory=lambda: Builder("circuit"))

    _compare = circuit_compare
    _divide = circuit_divide
    _exponential = circuit_exponential
    _interpolation = circuit_interpolation
    _norm = circuit_norm
    _product = circuit_product
    _quantise = circuit_quantise
    _relay = circuit_relay

    def _scope(self, name: str) -> Any:
        return Place(self.builder, f"{self.operator}/{name}" if self.operator else name)


def inside(on: Arithmetic, name: str) -> Arithmetic:
    """Return the arithmetic for an operator that runs inside another; its populations are named operator/name/verb."""
    changed: Arithmetic = replace(cast(Any, on), operator=f"{on.operator}/{name}")
    return changed


def arithmetic(operator: str, numerics: Numerics, events: Events | None) -> Arithmetic:
    """Return `Closed` if `events` is None; else `Counted` or `Simulated`, as `events.predicted` says, to fill them."""
    if events is None:
        return Closed(numerics, operator)
    return (Counted if events.predicted else Simulated)(numerics, operator, events)
