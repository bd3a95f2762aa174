"""LayerNorm: RMSNorm of the centred vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.coding import affine, as_real, decode, encode, power_of_two
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import arriving
from spikeplug.operators.ratio import signed
from spikeplug.operators.rms_norm import check_norm, rms_norm_integers
from spikeplug.operators.rows import by_rows
from spikeplug.operators.scaling import normalise
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic


def layer_norm_integers(
    mantissa: Tensor, extension: Tensor, numerics: Numerics, on: Arithmetic
) -> tuple[Tensor, Tensor]:
    """(q, exponent): c·sqrt(d) / ‖[c, extension]‖ is q·2^exponent, c = d·mantissa - Σ mantissa; int64.

    mantissa: int32 (..., d), magnitudes at most 2^(P-1); extension: int64 (..., 1) >= 0 at the scale of c, below 2^60.
    c is exact. One shift of the vector then brings [c, extension] to P - 1 bits, where RMSNorm's integers begin.
    """
    width, dimension = numerics.working_bits, mantissa.shape[-1]
    # Codes from 0 on, so that one population sums them: an offset common to all falls out of c.
    code = mantissa.to(torch.int64) + (1 << (width - 1))
    centred = dimension * code - on.accumulate(code, width + 1)
    shifted, _ = normalise(torch.cat([centred.abs(), extension], -1), width - 1)
    return rms_norm_integers(
        signed(shifted[..., :-1], centred).to(torch.int32),
        shifted[..., -1:].to(torch.int32),
        numerics,
        on,
        operator="layer_norm",
    )


@torch.no_grad()
def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    numerics: Numerics | None = None,
    events: Events | None = None,
) -> Tensor:
    """(x - mean(x)) / sqrt(variance(x) + eps) · weight + bias over the last dimension, by spiking integers; x's shape.

    dtype: x's, promoted with the weight's and the bias's.

    `weight` and `bias` (shape (d,), or None) act on the decoded result: they are part of the next layer's synapses.
    A constant vector gives 0 (+ bias), for eps = 0 too. A vector with NaN or an infinity gives NaN, as torch's does.
    events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for a non-floating or 0-dimensional tensor, a weight or bias of another size, eps < 0, more
    channels than working_bits leaves room for.
    """
    numerics = as_numerics(numerics)
    check_norm("layer_norm", x, eps, weight=weight, bias=bias)
    if x.numel() == 0:
        output = torch.empty_like(x)
    else:
        on = arithmetic(numerics, events)
        output = by_rows(lambda rows: _layer_norm_rows(as_real(rows, "layer_norm"), eps, numerics, on), x)
    return affine(output, weight, bias)


def _layer_norm_rows(x: Tensor, eps: float, numerics: Numerics, on: Arithmetic) -> Tensor:
    dimension = x.shape[-1]
    extended = math.sqrt(eps * dimension)
    code = encode(arriving(x, numerics), numerics.working_bits, floor=extended)
    # At the scale of the centred integers, which is 2^exponent / d; float64, as those have more than 24 bits.
    extension = (extended * dimension * power_of_two(-code.exponent, torch.float64)).round_().to(torch.int64)
    output = decode(*layer_norm_integers(code.mantissa, extension, numerics, on), x.dtype)
    return output if code.nonfinite is None else output.masked_fill(code.nonfinite.any(-1, keepdim=True), math.nan)
