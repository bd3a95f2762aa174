"""Arguments for every verb of `Arithmetic`: one large case, whose events are pinned, and tensors of any width."""

from __future__ import annotations

from collections.abc import Callable

import torch
from adversarial import integers
from torch import Tensor

from spikeplug.neurons import Events, Scope
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.exponential import PiecewiseExponential, ShiftExponential
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.primitives.norm import CordicSpec, RootSpec
from spikeplug.primitives.quantise import few_spikes, st_bif

Case = Callable[[Arithmetic], Tensor]
#: Widest operand of a verb whose answer is as wide as its operand and a sign.
WIDEST = 62


def scope(events: Events | None = None) -> Scope:
    """Return where a primitive finds its populations: in `events`, or in some that are thrown away."""
    return Scope(Events() if events is None else events, "test")


def signed(count: int, bits: int, seed: int = 0) -> Tensor:
    """Return int64 in (-2^bits, 2^bits): `adversarial.integers` with alternating signs."""
    return integers(count, bits, seed) * (1 - 2 * (torch.arange(count) & 1))


MATRIX = integers(3000, 16, seed=5).view(60, 50)
DISTANCE = integers(4000, 31).to(torch.int32)
NARROW = signed(600, 30).to(torch.int32)
#: By verb.
CASES: dict[str, Case] = {
    "divide": lambda on: on.divide(integers(3000, 16), integers(3000, 16, 1), DivideSpec(16, 16, 8, 256)),
    "interpolate": lambda on: on.interpolate(DISTANCE & 0x3FF, Interpolation((5, -90, 7, 7, 1 << 20), 8)),
    "mantissa": lambda on: on.mantissa(DISTANCE, ShiftExponential(12, 32, 22)),
    "decay": lambda on: on.decay(integers(4000, 24).to(torch.int32), DISTANCE >> 12),
    "piecewise": lambda on: on.piecewise(DISTANCE - (1 << 14), PiecewiseExponential(5.0, 64, 12, 22)),
    "square_sum": lambda on: on.square_sum(MATRIX - 40, 17),
    "root": lambda on: on.root(integers(4000, 44), RootSpec(22)),
    "cordic": lambda on: on.cordic(MATRIX, CordicSpec(8, 16)),
    "quantise": lambda on: on.quantise(MATRIX - 1000, MATRIX[:, :1] + 1, st_bif(17, 17, -16, 15)),
    "gate": lambda on: on.gate(MATRIX, MATRIX.flip(0), 16),
    "accumulate": lambda on: on.accumulate(MATRIX, 16),
    "dot": lambda on: on.dot(MATRIX, MATRIX.mT - 300, 16, 16),
    "signed_dot": lambda on: on.signed_dot(MATRIX - 300, MATRIX.mT - 300, 16, 16),
    "maximum": lambda on: on.maximum(signed(3000, 16).view(60, 50), 16),
    "leading_one": lambda on: on.leading_one(integers(3000, WIDEST), WIDEST),
    "reaches": lambda on: on.reaches(NARROW, NARROW.flip(0), 30),
    "add": lambda on: on.add(signed(3000, 40), signed(3000, 40, 1), 40),
    "scale": lambda on: on.scale(NARROW, -1_000_003, 30),
    "select": lambda on: on.select(NARROW > 0, NARROW, NARROW.flip(0), 30),
    "magnitude": lambda on: on.magnitude(NARROW, 30),
    "signed": lambda on: on.signed(integers(600, 40), NARROW, 40),
    "shift": lambda on: on.shift(integers(600, 40), integers(600, 6, 1) - 45, 40, 18),
    "round_half": lambda on: on.round_half(NARROW, 30),
    "clamp": lambda on: on.clamp(NARROW, -1000, 70_000, 30),
}
#: Populations of one neuron per level can be simulated for narrow numbers only; for the others, the cases above.
ORDERED: dict[str, Case] = {
    "divide": CASES["divide"],
    "square_sum": lambda on: on.square_sum(signed(60, 6).view(6, 10), 6),
    "root": lambda on: on.root(integers(60, 12), RootSpec(6)),
}


def _factor(bits: int) -> int:
    return (1 << max(1, min(20, WIDEST - bits))) - 1


#: (on, a, b, bits) for any a and b that broadcast, |a|, |b| < 2^bits; the bits up to the second number.
OF_TWO: dict[str, tuple[Callable[[Arithmetic, Tensor, Tensor, int], Tensor], int]] = {
    "maximum": (lambda on, a, b, bits: on.maximum(a, bits), WIDEST),
    "leading_one": (lambda on, a, b, bits: on.leading_one(a.abs(), bits), WIDEST),
    "reaches": (lambda on, a, b, bits: on.reaches(a, b, bits), WIDEST),
    "add": (lambda on, a, b, bits: on.add(a, b, bits), WIDEST),
    "scale": (lambda on, a, b, bits: on.scale(a, -_factor(bits), bits), WIDEST),
    "select": (lambda on, a, b, bits: on.select(b > 0, a, b, bits), WIDEST),
    "magnitude": (lambda on, a, b, bits: on.magnitude(a, bits), WIDEST),
    "signed": (lambda on, a, b, bits: on.signed(a.abs(), b, bits), WIDEST),
    "shift": (lambda on, a, b, bits: on.shift(a.abs(), WIDEST - bits - (b & 0x7F), bits, WIDEST - bits), WIDEST),
    "round_half": (lambda on, a, b, bits: on.round_half(a, bits), WIDEST),
    "clamp": (lambda on, a, b, bits: on.clamp(a, -(1 << bits // 2), 1 << bits - 1, bits), WIDEST),
    "gate": (lambda on, a, b, bits: on.gate(a.abs(), b, bits), WIDEST // 2),
    "accumulate": (lambda on, a, b, bits: on.accumulate(a.abs(), bits), WIDEST - 6),
    "square_sum": (lambda on, a, b, bits: on.square_sum(a, bits), (WIDEST - 6) // 2),
    "decay": (lambda on, a, b, bits: on.decay(a.abs(), b.abs() & 0x3F), WIDEST),
    "divide": (lambda on, a, b, bits: on.divide(a.abs(), b.abs(), DivideSpec(bits, bits, 8)), 52),
    "root": (lambda on, a, b, bits: on.root(a.abs(), RootSpec((bits + 1) // 2)), WIDEST),
    "cordic": (lambda on, a, b, bits: on.cordic(a.abs(), CordicSpec(8, bits)), 24),
    "quantise": (lambda on, a, b, bits: on.quantise(a, b.abs().clamp(min=1), few_spikes(bits, bits, 6)), 55),
}
