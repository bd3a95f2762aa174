"""RMSNorm: x·sqrt(d) / ‖[x, sqrt(eps·d)]‖, times weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.coding import affine, as_real, decode, encode, power_of_two
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import arriving
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.rows import by_rows
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic
from spikeplug.primitives.norm import CordicSpec, RootSpec

#: Fraction bits of the constant sqrt(d).
SQRT_BITS = 16


def length_bits(dimension: int, numerics: Numerics, operator: str) -> int:
    """Bits of ‖[x, extension]‖ <= 2^(P-1)·sqrt(d + 1), which exceed P by at most half those of d.

    Errors: SpikeplugError for a vector too long for working_bits, in `operator`'s name.
    """
    width, growth = numerics.working_bits, (dimension.bit_length() + 1) // 2
    if width + growth > 31:
        raise SpikeplugError(f"{operator} over {dimension} channels needs working_bits <= {31 - growth}, not {width}.")
    return width + growth


def length_integers(
    mantissa: Tensor, extension: Tensor | None, numerics: Numerics, on: Arithmetic, operator: str
) -> tuple[Tensor, int]:
    """(‖[mantissa, extension]‖, its bits) over the last dimension, int64 (..., 1); arguments as `rms_norm_integers`.

    Errors: SpikeplugError for a vector too long for working_bits, in `operator`'s name.
    """
    width, bits = numerics.working_bits, length_bits(mantissa.shape[-1], numerics, operator)
    if numerics.norm == "root":
        square = on.square_sum(mantissa, width)
        if extension is not None:
            square = square + on.square_sum(extension, width)
        length = on.root(square, RootSpec(bits))
    else:
        magnitude = mantissa.abs()
        length = on.cordic(
            magnitude if extension is None else torch.cat([magnitude, extension], -1),
            CordicSpec(numerics.iterations, width),
        )
    return length, bits


def rms_norm_integers(
    mantissa: Tensor, extension: Tensor, numerics: Numerics, on: Arithmetic, operator: str = "rms_norm"
) -> tuple[Tensor, Tensor]:
    """(q, exponent): x·sqrt(d) / ‖[x, extension]‖ is q·2^exponent; int64.

    mantissa: int32 (..., d), extension: int32 (..., 1) at the same scale, magnitudes at most 2^(working_bits-1). The
    scale itself cancels. The norm needs no shift: the encoder's scale already puts the largest magnitude within a
    factor 4 of the top. operator: the name under which saturations are counted.
    """
    length, length_bits = length_integers(mantissa, extension, numerics, on, operator)
    dimension = mantissa.shape[-1]
    root_dimension = math.isqrt(dimension << 2 * SQRT_BITS)  # floor(sqrt(d) · 2^SQRT_BITS): an integer constant
    numerator = mantissa.abs().to(torch.int64) * root_dimension
    numerator_bits = numerics.working_bits + root_dimension.bit_length()
    ratio = Ratio(operator, numerator_bits, length_bits, 2 << dimension.bit_length() // 2)
    quotient, exponent = ratio(numerator, length, -SQRT_BITS, numerics, on)
    return signed(quotient, mantissa), exponent


def check_norm(operator: str, x: Tensor, eps: float, **affine: Tensor | None) -> None:
    """Errors: SpikeplugError for a non-floating or 0-dimensional x, eps < 0, a weight or bias of another size."""
    as_real(x, operator)
    if x.dim() == 0:
        raise SpikeplugError(f"{operator} needs at least one dimension to normalise over; reshape the scalar to (1,).")
    if not (isinstance(eps, (int, float)) and 0 <= eps <= 1e30):  # beyond, sqrt(eps·d) may leave float32
        raise SpikeplugError(f"{operator} got eps={eps}; it must be a number from 0 to 1e30.")
    dimension = x.shape[-1]
    for name, value in affine.items():
        if value is not None and value.shape != (dimension,):
            raise SpikeplugError(f"{operator} got a {name} of shape {tuple(value.shape)}; give one of ({dimension},).")


@torch.no_grad()
def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    numerics: Numerics | None = None,
    events: Events | None = None,
) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last dimension, by spiking integers; shape of x.

    dtype: x's, promoted with the weight's.

    `weight` (shape (d,), or None) multiplies the decoded result: it is part of the next layer's synaptic weights.
    All-zero vectors give 0. A vector with +-inf gives 0 but NaN at the infinities, one with NaN gives NaN, as torch's
    does. events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for a non-floating or 0-dimensional tensor, a weight of another size, eps < 0.
    """
    numerics = as_numerics(numerics)
    check_norm("rms_norm", x, eps, weight=weight)
    if x.numel() == 0:
        return torch.empty_like(x)
    on = arithmetic(numerics, events)
    output = by_rows(lambda rows: _rms_norm_rows(as_real(rows, "rms_norm"), eps, numerics, on), x)
    return affine(output, weight)


def _rms_norm_rows(x: Tensor, eps: float, numerics: Numerics, on: Arithmetic) -> Tensor:
    extended = math.sqrt(eps * x.shape[-1])
    code = encode(arriving(x, numerics), numerics.working_bits, floor=extended)
    extension = (extended * power_of_two(-code.exponent, x.dtype)).round_().to(torch.int32)
    output = decode(*rms_norm_integers(code.mantissa, extension, numerics, on), x.dtype)
    if code.nonfinite is None:
        return output
    broken = code.nonfinite.any(-1, keepdim=True)
    output = torch.where(broken, torch.where(code.nonfinite, torch.nan, 0.0), output)
    return torch.where(torch.isnan(x).any(-1, keepdim=True), torch.nan, output)
