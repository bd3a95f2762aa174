"""Round to what the spikes of a pipeline's neuron add up to: ST-BIF, QCFS, few spikes, phase. Its threshold is fixed.

    y = θ·q(x / θ),   θ = threshold · 2^unit,   q: the sum of the neuron's spikes (primitives/quantise)

An ANN-to-SNN pipeline has such a neuron wherever a tensor has to spike; the spikes then drive a linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.codes import as_real, power_of_two, scaled
from spikeplug.errors import SpikeplugError, shown
from spikeplug.numerics import Numerics
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.quantise import QuantiseSpec, few_spikes, gif, phase, qcfs, st_bif
from spikeplug.saturation import record

#: Bits of a threshold, and of a level times its threshold, which float32 has to hold exactly.
THRESHOLD_BITS, PRODUCT_BITS = 12, 24
#: The most that the spikes of one number may add up to.
MOST_LEVELS = 1 << 20


def _phase(bits: int, threshold_bits: int, *bases: float) -> QuantiseSpec:
    places = [step * math.log2(base) if base > 1 else 0.0 for step, base in enumerate(bases, 1)]
    whole = all(place == int(place) for place in places)
    # Weights that are no powers of two get four bits more.
    return phase(bits, threshold_bits, bases, math.ceil(max(places, default=0)) + (0 if whole else 4))


#: Name of a neuron -> its record, of bits, bits of the threshold and the numbers of its kind.
NEURONS: dict[str, Callable[..., QuantiseSpec]] = {
    "st_bif": st_bif,
    "qcfs": qcfs,
    "if": lambda bits, threshold_bits, steps: qcfs(bits, threshold_bits, steps, signed=False),
    "gif": gif,
    "few_spikes": few_spikes,
    "phase": _phase,
}


@lru_cache(maxsize=256)
def neuron_of(kind: str) -> QuantiseSpec:
    """Return the record of a neuron by its kind: its name and its numbers.

    kind  "st_bif LOW HIGH", "qcfs STEPS", "if STEPS" (no negative numbers), "gif BITS EXTRA_BITS" (no negative
          numbers), "few_spikes STEPS", or "phase BASE ...", a base for each time step
    Errors: SpikeplugError for an unknown kind, and for numbers that make no such neuron.
    """
    name, *words = kind.split() or [""]
    levels: float
    try:
        numbers = [float(word) if name == "phase" else int(word) for word in words]
        if (levels := max(map(abs, numbers), default=0)) <= MOST_LEVELS:
            levels = _levels(NEURONS[name](1, 1, *numbers))
    except SpikeplugError:
        raise
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise SpikeplugError(
            f"unknown neuron {shown(kind)}: give st_bif LOW HIGH, qcfs STEPS, if STEPS, gif BITS EXTRA_BITS, "
            "few_spikes STEPS, or phase and a base for each step."
        ) from error
    if not levels <= MOST_LEVELS:
        raise SpikeplugError(f"the neuron {kind!r} counts up to {levels:,}: choose at most {MOST_LEVELS:,}.")
    width = int(levels).bit_length()
    threshold_bits = min(THRESHOLD_BITS, PRODUCT_BITS - width)
    # One bit more than the largest level: what is clamped to it is beyond every level.
    return NEURONS[name](threshold_bits + width + 1, threshold_bits, *numbers)


def _levels(spec: QuantiseSpec) -> int:
    return max(spec.highest, -spec.lowest)


def as_threshold(threshold: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return firing thresholds as integers that fill their bits, and the exponents of their units: int32 of that shape.

    threshold  float, positive and finite, () or (channels,)
    """
    bits, wide = neuron_of(kind).threshold_bits, threshold.to(torch.float64)
    unit = torch.frexp(wide).exponent.to(torch.int32) - bits
    integers = torch.ldexp(wide, -unit).round().clamp(max=(1 << bits) - 1)
    return integers.to(torch.int32), unit


def neuron(x: Tensor, threshold: Tensor, unit: Tensor, kind: str = "qcfs 127", *, on: Arithmetic) -> Tensor:
    """Return what the spikes of a neuron add up to for each x, times its threshold; shape and dtype of x.

    x          float (..., channels); NaN gives NaN, what lies beyond the last level saturates there, and is counted
    threshold  int32, () or (channels,), at least 1 and of the bits that `neuron_of` says
    unit       int32, () or of the thresholds' shape: the exponents of their units
    kind       see `neuron_of`

    x is received in units of 2^unit, rounded to nearest. A level times its threshold is exact in float32.
    Errors: SpikeplugError for tensors that do not fit, and for negative x that the neuron cannot send.
    """
    spec = neuron_of(kind)
    as_real(x, on.operator)
    for name, given in (("thresholds", threshold), ("units", unit)):
        if given.dtype != torch.int32 or (given.dim() and given.shape != x.shape[-1:]):
            raise SpikeplugError(
                f"{on.operator} got {name} of {given.dtype} {tuple(given.shape)} for an input of {tuple(x.shape)}: "
                "give int32, () or (channels,)."
            )
    if x.numel() == 0:
        return x.clone()
    wide = threshold.to(torch.int64)

    def rows(x: Tensor) -> Tensor:
        undefined = torch.isnan(x)
        integers = arriving(x, unit, spec)
        twice = 2 * integers
        beyond = (twice > (2 * spec.highest + 1) * wide) | (twice < (2 * spec.lowest - 1) * wide)
        record(beyond_event(on.operator), beyond)
        spikes = on.quantise(integers, threshold, spec, "spikes")
        return scaled(spikes * wide, unit, x.dtype).masked_fill(undefined, torch.nan)

    vectors = torch.atleast_1d(x)
    return by_rows(lambda part: rows(as_real(part, on.operator)), vectors).reshape(x.shape)


def beyond_event(operator: str) -> str:
    """Return the name of the event that a number lies beyond a neuron's last level, in the ledger of saturations."""
    return f"{operator}: beyond the last level"


def arriving(x: Tensor, unit: Tensor, spec: QuantiseSpec) -> Tensor:
    """Return the integers at which a neuron receives x, in units of 2^unit, int64; NaN is received as 0."""
    most = (1 << spec.bits) - 1
    received = scaled(x.nan_to_num(0.0, math.inf, -math.inf), -unit, torch.float64).clamp(-most, most).round()
    return received.to(torch.int64)


def exact(x: Tensor, threshold: Tensor, unit: Tensor, kind: str) -> Tensor:
    """Return x itself: what is encoded."""
    return x.clone()


def bound(x: Tensor, threshold: Tensor, unit: Tensor, kind: str = "qcfs 127", *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - x|: half a threshold (one, if the neuron does not round), and what saturates.

    For weights that are complete, see primitives/quantise/README.md.
    """
    spec, least = neuron_of(kind), power_of_two(unit, x.dtype)
    scale = threshold.to(x.dtype) * least
    step = scale * min(spec.weights) * (0.5 if spec.rounds else 1.0)
    beyond = (x - scale * spec.highest).clamp(min=0) + (scale * spec.lowest - x).clamp(min=0)
    return step + beyond + least


RECORD = Operator(
    name="neuron",
    family="linear",
    formula="θ·q(x/θ), q the spikes of a pipeline's neuron",
    spiking=neuron,
    exact=exact,
    inputs=("residual", "threshold", "unit"),
    settings=("qcfs 127",),
    scale="step",
    elementwise=True,
    bound=bound,
    input_range=lambda numerics: "θ times the neuron's last level",
)
