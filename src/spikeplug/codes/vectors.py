"""Encode vectors: one power of two per vector or block of channels, set by the leading one of its largest magnitude."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.codes.coded import BIAS, Coded, power_of_two, scaled
from spikeplug.numerics import Numerics
from spikeplug.saturation import record

#: Event of finite inputs whose nearest code lies beyond the dtype's range.
BEYOND_RANGE = "input: beyond the largest code"


def encode(x: Tensor, bits: int, *, floor: float = 0.0, twos_complement: bool = False) -> Coded:
    """Encode each vector along the last dimension with `bits` bits, sign included: |mantissa| <= 2^(bits-1).

    x: float32 or float64. Rounded to nearest, ties to even: |x - mantissa·2^exponent| <= 2^(exponent-1).
    The scale 2^exponent is the smallest power of two that holds both the largest magnitude and `floor` (a value by
    which the vector is extended, such as RMSNorm's sqrt(eps·d)). It is never below 2^-126 (float64: 2^-1022): smaller
    vectors lose low bits, and denormal ones code as 0.

    twos_complement: |mantissa| <= 2^(bits-1) - 1. What would round to 2^(bits-1) is off by less than one LSB, which is
    less than 2^(1-bits) of a vector's largest magnitude.
    """
    largest = largest_magnitude(x)
    nonfinite = None
    if not bool(torch.isfinite(largest).all()):
        nonfinite = ~torch.isfinite(x)
        record("input: not finite", nonfinite)
        x = x.masked_fill(nonfinite, 0.0)
        largest = largest_magnitude(x)
    largest = largest.clamp(min=floor)
    exponent = _scale(largest, bits)
    mantissa = (x * power_of_two(-exponent, x.dtype)).round_()
    if twos_complement:
        most = (1 << (bits - 1)) - 1
        mantissa.clamp_(-most, most)
    return Coded(mantissa.to(torch.int32), exponent, bits - 1, "vector", nonfinite)


def encode_blocks(x: Tensor, bits: int, block: int | None) -> Coded:
    """Encode x, of finite floats, in `bits` bits with the sign; each block of channels has its own power-of-two scale.

    block: channels per block, along the last dimension; the exponent then has the mantissa's shape.
    None, or at least the vector's length: one scale per vector, exponent (..., 1).
    """
    if block is None or x.shape[-1] <= block:
        return encode(x, bits)
    code = encode(_cut(x, block), bits)
    exponent = code.exponent.expand(code.mantissa.shape)
    dimension = x.shape[-1]
    return Coded(_joined(code.mantissa, dimension), _joined(exponent, dimension), bits - 1, "block")


def encode_for_product(x: Tensor, bits: int) -> Coded:
    """Encode each vector along the last dimension so that the inner product of any two codes fits 2·bits bits.

    x: float32 or float64, finite. The scale is the smallest power of two, from that of `encode` on, for which
    |mantissa| <= 2^(bits-1) - 1 and Σ mantissa² < 2^(2·bits-1). By Cauchy and Schwarz, |a·b| < 2^(2·bits-1) then.
    |x - mantissa·2^exponent| <= 2^(exponent-1).
    """
    exponent = _scale(largest_magnitude(x), bits)
    most, limit = (1 << (bits - 1)) - 1, 1 << (2 * bits - 1)
    while True:
        mantissa = scaled(x, -exponent, x.dtype).round_().to(torch.int32)
        square = mantissa.to(torch.int64).square_().sum(-1, keepdim=True)
        beyond = (largest_magnitude(mantissa) > most) | (square >= limit)
        if not bool(beyond.any()):
            return Coded(mantissa, exponent, bits - 1, "vector")
        exponent = exponent + beyond.to(torch.int32)


def as_received(x: Tensor, bits: int | None) -> Tensor:
    """Round each vector along the last dimension to what a spike train of `bits` bits and a sign can represent.

    x: float32 or float64; the same dtype is returned. |error| <= 2^-(bits+1) of the vector's power of two; NaN and
    infinities stay. `encode` with at least bits + 2 bits loses nothing more. bits: None returns x itself.
    What would round beyond the dtype's range saturates at the largest finite code, off by less than a step, and is
    counted.
    """
    if bits is None:
        return x
    received, saturated = _received(x, bits)
    record(BEYOND_RANGE, saturated)
    return received


def as_input(x: Tensor, numerics: Numerics) -> Tensor:
    """Round x to what an operator's input code holds: `input_bits` bits per block of `scale_block` channels.

    Without input_bits, it returns x itself; without scale_block, the block is the whole last dimension.
    """
    block, bits = numerics.scale_block, numerics.input_bits
    if bits is None or block is None or x.shape[-1] <= block:
        return as_received(x, bits)
    # A last block that is not full holds an element several times, which counts once.
    received, saturated = (_joined(part, x.shape[-1]) for part in _received(_cut(x, block), bits))
    record(BEYOND_RANGE, saturated)
    return received


def _received(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return x rounded to `bits` bits and a sign per vector, and a bool tensor: where it saturates."""
    finite = torch.isfinite(x)
    exponent = _scale(largest_magnitude(x.masked_fill(~finite, 0.0)), bits + 1)
    code = (x * power_of_two(-exponent, x.dtype)).round_()
    # Rounding may carry a code to 2^bits, which is an infinity at the top of the range.
    most = (1 << bits) - 1
    saturated = finite & (code.abs() > most) & (exponent + bits > BIAS[x.dtype])
    code = torch.where(saturated, code.clamp(-most, most), code)
    return torch.where(finite, scaled(code, exponent, x.dtype), x), saturated


def in_blocks(core: Callable[..., Coded], block: int | None, x: Tensor, *others: Tensor | int) -> Coded:
    """Run core(x, *others) -> Coded on (..., blocks, block) in place of (..., d), and join the result.

    others: of x's shape, of (..., 1), or one number for all. Vectors of up to `block` elements, and block = None, are
    left whole: the exponent is (..., 1) there, else of x's shape.
    """
    dimension = x.shape[-1]
    if block is None or dimension <= block:
        return core(x, *others)
    code = core(*(_cut(part, block) for part in (x, *others)))
    exponent = code.exponent.expand(code.mantissa.shape)
    return Coded(_joined(code.mantissa, dimension), _joined(exponent, dimension), code.bits, "block")


def largest_in_blocks(x: Tensor, block: int | None) -> Tensor:
    """Return for each element the largest |x| in its block of `block` channels, in x's shape.

    Where a whole vector is one block (or block is None), the result has the shape (..., 1).
    """
    if block is None or x.shape[-1] <= block:
        return x.abs().amax(-1, keepdim=True)
    cut: Tensor = _cut(x.abs(), block)
    return _joined(cut.amax(-1, keepdim=True).expand(cut.shape), x.shape[-1])


def largest_magnitude(x: Tensor) -> Tensor:
    """Return max |x| over the last dimension, (..., 1); 0 for empty vectors."""
    if x.shape[-1] == 0:
        return x.new_zeros((*x.shape[:-1], 1))
    return torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))


def _scale(largest: Tensor, bits: int) -> Tensor:
    """Return the exponent, int32, of the power-of-two step in which `largest` is an integer of bits - 1 bits."""
    exponent = torch.frexp(largest).exponent.to(torch.int32) - (bits - 1)
    # A zero vector has any scale; the lowest is never ahead of another's where scales are compared (attention).
    bias = BIAS[largest.dtype]
    return exponent.masked_fill(largest == 0, -bias).clamp(1 - bias, bias)


def _cut(x: Tensor | int, block: int) -> Any:
    if isinstance(x, int) or x.dim() == 0:
        return x
    if x.shape[-1] == 1:
        return x.unsqueeze(-1)
    # A last block that is not full repeats the last element: no scale changes, and nothing is divided by 0.
    places = torch.arange(-(-x.shape[-1] // block) * block, device=x.device).clamp(max=x.shape[-1] - 1)
    return x[..., places].unflatten(-1, (-1, block))


def _joined(x: Tensor, dimension: int) -> Tensor:
    return x.flatten(-2)[..., :dimension]
