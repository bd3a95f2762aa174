"""Compute with integers: shifts, bit lengths, constants, the exact matrix product.

Every function takes and returns integer tensors.
int32 holds mantissas and weights (up to 24 bits); int64 holds sums and products.
Widths are in bits and exclude the sign.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError

#: float64 holds every integer up to 2^53. A float64 sum whose partial sums stay within that is an integer sum.
FLOAT64_EXACT_BITS = 53


def constant(value: float, fraction_bits: int) -> int:
    """Return value · 2^fraction_bits, rounded to the nearest integer without float error; halves away from zero."""
    scaled = Fraction(value) * (1 << fraction_bits)
    return int(math.copysign(math.floor(abs(scaled) + Fraction(1, 2)), scaled))


def is_power_of_two(value: float) -> bool:
    """Return whether |value| is a power of two: multiplying by it moves an exponent, and changes no mantissa."""
    return math.isfinite(value) and math.frexp(abs(value))[0] == 0.5


def shift_right(x: Tensor, places: Tensor | int) -> Tensor:
    """Return floor(x / 2^places) for places >= 0, in x's dtype.

    If `places` exceeds the bits of the dtype, the result is 0 or -1 (x < 0), which is the exact floor.
    """
    last = torch.iinfo(x.dtype).bits - 1
    if isinstance(places, int):
        return x >> min(places, last)
    return x >> places.clamp(max=last).to(x.dtype)


def shift(x: Tensor, places: Tensor) -> Tensor:
    """Return floor(x · 2^places); places may be negative. The caller sees to it that the result fits x's dtype."""
    return torch.where(places >= 0, x << places.clamp(min=0).to(x.dtype), shift_right(x, (-places).clamp(min=0)))


def halve_to_nearest(x: Tensor) -> Tensor:
    """Return floor(x/2 + 1/2): half of each integer x, rounded to the nearest integer, halves up."""
    return (x + 1) >> 1


def bit_length(x: Tensor) -> Tensor:
    """Return the number of bits of x >= 0 (0 for 0): the position of the leading one, plus one. int64 in, int64 out.

    As neurons: a population with the thresholds 2^0, 2^1, ..., 2^62; the number that fires.
    """
    return torch.bucketize(x.to(torch.int64).contiguous(), _powers(x.device), right=True)


@lru_cache
def _powers(device: torch.device) -> Tensor:
    return torch.ones(63, dtype=torch.int64, device=device) << torch.arange(63, device=device)


def matrix_product(a: Tensor, b: Tensor, a_bits: int, b_bits: int) -> Tensor:
    """Return a @ b, exact; int64.

    a  integers (..., m, k), |a| <= 2^a_bits
    b  integers (..., k, n), |b| <= 2^b_bits

    The caller guarantees both bounds. Over k terms, every partial sum stays within 2^(a_bits + b_bits + log2 k).
    The product is cut along k so that this is at most 2^53. Within that, a float64 GEMM *is* an integer GEMM.
    It runs inside the opaque op `spikeplug::matrix_product`.
    Errors: SpikeplugError if a single product, or the whole int64 sum, would not fit.
    """
    total_bits = a_bits + b_bits + max(a.shape[-1] - 1, 0).bit_length()
    if a_bits + b_bits > FLOAT64_EXACT_BITS or total_bits > 62:
        raise SpikeplugError(
            f"an integer product of {a_bits} by {b_bits} bits over {a.shape[-1]} terms does not fit 63 bits; "
            "use a smaller working_bits or a shorter context."
        )
    product: Tensor = torch.ops.spikeplug.matrix_product(a, b, 1 << (FLOAT64_EXACT_BITS - a_bits - b_bits))
    return product


def _matrix_product(a: Tensor, b: Tensor, block: int) -> Tensor:
    total: Tensor | None = None
    for start in range(0, max(a.shape[-1], 1), block):
        part = a[..., start : start + block].to(torch.float64) @ b[..., start : start + block, :].to(torch.float64)
        total = part.to(torch.int64) if total is None else total + part.to(torch.int64)
    assert total is not None
    return total


def _matrix_product_fake(a: Tensor, b: Tensor, block: int) -> Tensor:
    return torch.matmul(a.to(torch.int64), b.to(torch.int64))


_library = torch.library.Library("spikeplug", "DEF")
_library.define("matrix_product(Tensor a, Tensor b, int block) -> Tensor")
_library.impl("matrix_product", _matrix_product, "CompositeExplicitAutograd")
torch.library.register_fake("spikeplug::matrix_product", _matrix_product_fake, lib=_library)
