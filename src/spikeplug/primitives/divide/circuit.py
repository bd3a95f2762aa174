"""Build divisions: the ordered-threshold group and the restoring neuron."""

from __future__ import annotations

from torch import Tensor

from spikeplug.circuit import Gate, Place, StageBuilder, held
from spikeplug.errors import SpikeplugError
from spikeplug.primitives.divide.spec import DivideSpec

#: Neurons of an ordered group that a circuit lists one by one.
MOST_ORDERED = 1 << 16


def ordered_group(numerator: Tensor, denominator: Tensor, spec: DivideSpec, scope: Place, *, steps: int = 1) -> Tensor:
    """Return floor(2^n·A / B), int64, as the number of neurons that fire, of N = spec.largest per element.

    A and B arrive as one graded spike each, in the first step. In the second, a go axon adds 1, and neuron i fires iff
    2·2^n·A - 2i·B + 1 >= 1. The denominator's own spikes relay the go spike: without a denominator, no neuron fires.
    steps: of a simulation's count code; the same integers in fewer steps here.
    Errors: SpikeplugError for more neurons than a circuit lists.
    """
    if spec.largest > MOST_ORDERED:
        raise SpikeplugError(
            f"an ordered group of {spec.largest:,} neurons is more than the {MOST_ORDERED:,} that a circuit lists: use "
            "division='restoring'."
        )
    width = max(spec.numerator_bits + spec.fraction_bits, (spec.largest - 1).bit_length() + spec.denominator_bits) + 2

    def build(stage: StageBuilder, a: int, b: int) -> int:
        numerator = stage.train("numerator", a, "graded", only=0)
        denominator = stage.train("denominator", b, "graded", only=0)
        go = stage.train("go", b, "positive", only=1)
        neurons = []
        for i in range(1, spec.largest + 1):
            neuron = stage.neuron("", "threshold", width, threshold=(1,), fires_if=(Gate(go),))
            stage.synapse(neuron, 2 << spec.fraction_bits, numerator)
            stage.synapse(neuron, -2 * i, denominator)
            stage.synapse(neuron, 1, go)
            neurons.append(neuron)
        return stage.counted(neurons, 2)

    return scope.each(build, numerator, denominator)


def restoring_neuron(numerator: Tensor, denominator: Tensor, spec: DivideSpec, scope: Place) -> Tensor:
    """Return floor(2^n·A / B), int64, from the spike train of one neuron per element.

    The neuron doubles its membrane v at each step, fires where v >= B, and then subtracts B. The bits of A arrive one
    per step, the most significant first, then n steps without input. A go axon gates it: without B, it is silent.
    """

    def build(stage: StageBuilder, a: int, b: int) -> int:
        (_, top), (least, _) = scope.bounds(a), scope.bounds(b)
        steps = spec.numerator_bits + spec.fraction_bits
        train = stage.train("numerator", a, "bits", spec.numerator_bits)
        go = () if least > 0 else (stage.train("go", b, "positive"),)
        gates = tuple(Gate(g) for g in go)
        neuron = stage.neuron("", "threshold", spec.denominator_bits + 2, leak=1, threshold=(held(b),), fires_if=gates)
        stage.synapse(neuron, 1, train, *go)
        highest = (top << spec.fraction_bits) // max(1, least)
        width = spec.largest.bit_length() + (1 if spec.limit is None else 2)
        ceiling = spec.largest if highest > spec.largest else None
        quotient = stage.neuron("quotient", "accumulator", width, leak=1, ceiling=ceiling)
        stage.synapse(quotient, 1, neuron)
        return stage.settled(quotient, steps, 0, min(highest, spec.largest))

    return scope.each(build, numerator, denominator)
