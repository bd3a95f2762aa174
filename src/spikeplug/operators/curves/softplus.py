"""Compute softplus: max(x, 0) + ln(1 + exp(-|βx|))/β, as two spike trains."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.codes import Coded, decode, encode_amplitude, encode_distance
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.curves.scaled import scaled
from spikeplug.operators.elements.log import logarithm_integers
from spikeplug.operators.errors import falling_error, relative, weight_error
from spikeplug.operators.exponentials import falling
from spikeplug.operators.finite import elementwise
from spikeplug.operators.gates.gate import coding_error, input_range, largest
from spikeplug.operators.operands import Operands
from spikeplug.operators.record import Operator, Spelling
from spikeplug.primitives.arithmetic import Arithmetic


def softplus_integers(code: Coded, distance: Tensor, linear: Tensor, on: Arithmetic) -> tuple[Coded, Coded]:
    """Return the codes of max(x, 0) and log2(1 + exp(-|β·x|)): two spike trains, which the next layer's synapses add.

    code      x, as `encode_amplitude` returns it; β is softplus's `beta`
    distance  |β·x| as integers, as `encode_distance` returns them
    linear    bool: where softplus is x itself, so that the logarithm is set to 0
    """
    width = on.numerics.working_bits
    total = on.add(falling(distance, on), 1 << width, width + 1, "total")
    octaves = logarithm_integers(total, -width, 1.0, on)
    positive = on.clamp(code.mantissa, 0, None, code.bits, "positive").to(torch.int64)
    positive_part = scaled(positive, code.exponent, code.bits + 1, on.numerics.fraction_bits, on)
    exponent = torch.tensor(-width, dtype=torch.int32, device=octaves.device)
    octaves = on.select(linear, 0, octaves, width + 1, "linear")
    return positive_part, scaled(octaves, exponent, width + 2, width, on)


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0, *, on: Arithmetic) -> Tensor:
    """Return ln(1 + exp(beta·x))/beta; x itself (rounded to the output's scale) where beta·x > threshold.

    max(x, 0) and ln(1 + exp(-|beta·x|))/beta are two spike trains, each with a scale of its own, summed when decoded.
    Errors: SpikeplugError unless beta is a number above 0 and threshold a number of at least 0.
    """
    if not _is_number(beta) or not 0 < beta < math.inf:
        raise SpikeplugError(f"softplus got beta={beta!r}; give a number above 0.")
    if not _is_number(threshold) or threshold < 0:
        raise SpikeplugError(f"softplus got threshold={threshold!r}; give a number of at least 0.")

    def rows(x: Tensor) -> Tensor:
        numerics = on.numerics
        code = encode_amplitude(x, "softplus", numerics)
        linear = x * beta > threshold
        distance = encode_distance(x.masked_fill(linear, 0.0), beta, numerics.fraction_bits, numerics)
        positive, octaves = softplus_integers(code, distance, linear, on)
        return decode(positive, x.dtype) + decode(octaves, x.dtype) * (math.log(2) / beta)

    return elementwise(rows, x, on, ends=(0.0, math.inf))


def bound(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - exact| for beta = 1 and threshold = 20, in x's shape.

    The two spike trains, max(x, 0) and ln(1 + exp(-|x|)), are each rounded on their own; their errors are added.
    """
    unit, lsb = 2.0**-numerics.working_bits, 2.0**-numerics.bits
    if numerics.exponential == "shift":
        logarithm = torch.sigmoid(-x.abs()) * relative(weight_error(numerics))
    else:
        t, lost = (-x.abs()).exp(), falling_error(x.abs(), numerics, numerics.half_range).absolute
        logarithm = lost / (1 + t - lost).clamp(min=1e-300)
    logarithm = logarithm + 4 * unit
    if numerics.shift_scaling:
        top = x.abs().amax(-1, keepdim=True) * 2 * unit + x.clamp(min=0).amax(-1, keepdim=True) * lsb
        error = (logarithm + lsb + top) * (1 + 2.0 ** (1 - numerics.bits))
    else:
        table = 1 / (8 * 4.0 ** math.ceil(numerics.bits / 2))
        error = logarithm + table + (1 + math.log(2)) * lsb + coding_error(x, numerics)
    return error + torch.where(x > 20, (-x).exp(), 0.0)  # F.softplus itself is linear there


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _call(operator: Callable[..., Tensor], input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return operator(input, beta, threshold)


def integers(given: Operands, on: Arithmetic) -> tuple[Coded, Coded]:
    """Return the codes of the operator's two parts, from integers that are given."""
    linear = given.vector("linear", 0, 1, torch.bool)
    return softplus_integers(given.amplitude(), given.distance(), linear, on)


RECORD = Operator(
    name="softplus",
    family="curve",
    formula="ln(1 + exp(beta·x)) / beta; x itself where beta·x is above the threshold",
    spiking=softplus,
    integers=integers,
    exact=F.softplus,
    inputs=("gate",),
    settings=(1.0, 20.0),
    scale="vector",
    grid="exponent",
    bound=bound,
    largest=largest,
    input_range=input_range,
    spellings=(
        Spelling(("softplus",), _call),
        Spelling(("logsigmoid",), lambda operator, input: -operator(-input, 1.0, 20.0)),
    ),
    aten=("softplus", "log_sigmoid_forward"),
    module="Softplus",
)
