"""Round to what the spikes of GIF neurons add up to (SpikeLLM): a range per vector, more levels where they count.

    y = (q - z)·Δ,   Δ = ceil((max x - min x) / (2^b - 1)),   z = round(-min x / Δ),   q: the spikes for x + z·Δ

Salient channels have b + extra bits, sent in 2^extra time steps; the others have b bits and one step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.codes import as_real, scaled
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators.linear.levels import STEP_BITS, magnitudes, smallest_step
from spikeplug.operators.linear.receiver import received
from spikeplug.operators.record import Operator
from spikeplug.operators.rows import by_rows
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.divide import DivideSpec
from spikeplug.primitives.quantise import gif as gif_neuron

#: Bits of a salient channel's code at most.
MOST_BITS = 10


def codes(x: Tensor, least: Tensor, span: Tensor, width: int, bits: tuple[int, int], on: Arithmetic) -> Tensor:
    """Return (q - z)·Δ, int64, for integers x (..., channels) of a vector with the minimum `least`.

    least, span  (..., 1): the vector's minimum, and its maximum less that; |x| < 2^width
    bits         of a code in one time step, and beyond
    """
    levels = (1 << sum(bits)) - 1
    step = on.clamp(smallest_step(span, levels, width + 1, on), 1, None, width, "step/least")
    twice = on.divide(on.magnitude(least, width), step, DivideSpec(width, width, 1), "zero")
    size = on.round_half(twice, width + 1, "zero/round")
    zero = on.signed(on.gate(size, step, width + 1, "zero/product"), -least, width + 1, "zero/sign")
    spec = gif_neuron(width + 2, width, *bits)
    q = on.quantise(on.add(x, zero, width + 1, "shifted"), step, spec, "spikes")
    scaled_up = on.gate(q, step, spec.highest.bit_length(), "product")
    return on.add(scaled_up, -zero, width + 2, "difference")


def gif(x: Tensor, salient: Tensor, code_bits: int = 4, extra_bits: int = 1, *, on: Arithmetic) -> Tensor:
    """Return x rounded by GIF neurons, each vector along the last dimension in its own range; shape and dtype of x.

    salient     bool (channels,): which channels have extra bits
    code_bits   b; extra_bits: beyond b, of salient channels

    A vector with NaN or an infinity gives NaN.
    Errors: SpikeplugError for a tensor that is not floating, a mask that does not fit, and bits out of their domain.
    """
    as_real(x, on.operator)
    if not 1 <= code_bits <= MOST_BITS or not 0 <= extra_bits <= MOST_BITS - code_bits:
        raise SpikeplugError(
            f"{on.operator} got code_bits={code_bits} and extra_bits={extra_bits}: choose at least 1 and 0, "
            f"together at most {MOST_BITS}."
        )
    if salient.dtype != torch.bool or salient.shape != x.shape[-1:]:
        raise SpikeplugError(
            f"{on.operator} got a mask of {salient.dtype} {tuple(salient.shape)} for an input of {tuple(x.shape)}: "
            "give bool (channels,)."
        )
    if x.numel() == 0:
        return x.clone()
    width = STEP_BITS + code_bits + extra_bits

    def rows(x: Tensor) -> Tensor:
        undefined = ~torch.isfinite(x).all(-1, keepdim=True)
        code = received(x.masked_fill(undefined, 0.0))
        size, exponent = magnitudes(code, width, on)
        integers = on.signed(size, code.mantissa, width, "receiver/sign")
        most, least = on.maximum(integers, width, "maximum"), -on.maximum(-integers, width, "minimum")
        span = on.add(most, -least, width, "range")
        found = torch.empty_like(integers)
        for mask, bits in ((~salient, (code_bits, 0)), (salient, (code_bits, extra_bits))):
            if bool(mask.any()):
                found[..., mask] = codes(integers[..., mask], least, span, width, bits, on)
        return scaled(found, exponent, x.dtype).masked_fill(undefined, torch.nan)

    return by_rows(lambda part: rows(as_real(part, on.operator)), x)


def exact(x: Tensor, salient: Tensor, code_bits: int, extra_bits: int) -> Tensor:
    """Return x itself: what is encoded."""
    return x.clone()


def bound(x: Tensor, salient: Tensor, code_bits: int = 4, extra_bits: int = 1, *, numerics: Numerics) -> Tensor:
    """Return the bound of |spiking - x|: half of the channel's step, and two units of the vector's integers."""
    largest = x.abs().amax(-1, keepdim=True)
    unit = largest * 2.0 ** (2 - STEP_BITS - code_bits - extra_bits)
    span = x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True) + unit
    bits = code_bits + extra_bits * salient.to(x.dtype)
    return span / (2.0**bits - 1) / 2 + 2 * unit


RECORD = Operator(
    name="gif",
    family="linear",
    formula="x by GIF neurons, a range per vector",
    spiking=gif,
    exact=exact,
    inputs=("residual", "salient"),
    settings=(4, 1),
    scale="vector",
    bound=bound,
    input_range=lambda numerics: "the range of each vector",
)
