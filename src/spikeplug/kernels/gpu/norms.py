"""Share the steps of RMSNorm and LayerNorm: refused calls, the square root, scaled outputs, weight and bias."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from spikeplug.kernels.gpu.integers import decode, is_finite, quotient, rounded, widened
from spikeplug.kernels.protocol import Call
from spikeplug.operators.norms.length import length_places

#: As `check_norm` has it; what is beyond, it refuses.
_LARGEST_EPS = 1e30


def refusal(call: Call) -> str | None:
    """Return why the RMSNorm and LayerNorm kernels cannot run the call, as text, or None if they can."""
    x, eps = call.arguments
    if length_places(x.shape[-1], call.numerics, call.operator)[1]:
        return f"squares of {x.shape[-1]} elements are summed in parts"
    if not (isinstance(eps, (int, float)) and 0 <= eps <= _LARGEST_EPS):
        return f"eps is {eps!r}"
    if any(value is not None and value.shape != x.shape[-1:] for value in (call.weight, call.bias)):
        return "this kernel takes weights and biases of one element per channel"
    return None


@triton.jit
def count_broken(x):
    """Return how many elements of each row are not finite, int32 (ROWS, 1)."""
    return tl.sum((~is_finite(x)).to(tl.int32), 1, keep_dims=True)


@triton.jit
def root(square):
    """Return floor(sqrt(square)), int64, for an int64 0 <= square < 2^62.

    float64 rounds square and its root by a relative 2^-53 each at most: the root, below 2^31, is off by less than
    2^-21, so its floor is the floor wanted or one more; one less is looked for as well, so that one more bit of error
    would do.
    """
    estimate = tl.sqrt(square.to(tl.float64)).to(tl.int64)
    estimate = tl.where(estimate * estimate > square, estimate - 1, estimate)
    return tl.where((estimate + 1) * (estimate + 1) <= square, estimate + 1, estimate)


@triton.jit
def scaled_element(mantissa, factor, places, denominator, inverse, exponent, N: tl.constexpr):
    """Return sign·round(2^N·(|mantissa|·factor·2^places) / denominator)·2^exponent, float32.

    mantissa: int32, the elements of a row. The other arguments are one number per row or call.
    factor: the integer by which every element is multiplied. denominator (int32) and inverse (2^(N + 1) / denominator,
    float32): from `denominator_of`.
    """
    up, down = tl.maximum(places, 0), tl.minimum(tl.maximum(-places, 0), 63).to(tl.int64)
    # Where places > 0 the whole product fits P bits, so the shifted mantissa does.
    numerator = (((tl.abs(mantissa) << up).to(tl.int64) * factor) >> down).to(tl.int32)
    q = (quotient(numerator, denominator, inverse, N + 1) + 1) >> 1
    return decode(tl.where(mantissa < 0, -q, q), exponent)


@triton.jit
def weighted(y, weight, seen, WEIGHTED: tl.constexpr, inner: tl.constexpr, outer: tl.constexpr):
    """Return y (float32) rounded to dtype `inner`, then times its weight, rounded to dtype `outer`, as torch does.

    weight: pointers to the weights. seen: bool, which of them may be loaded. Unless WEIGHTED, only y in `inner`.
    """
    y = rounded(y, inner)
    if WEIGHTED:
        return rounded(widened(y) * widened(tl.load(weight, mask=seen, other=0.0)), outer)
    else:
        return y


@triton.jit
def biased(y, bias, seen, BIASED: tl.constexpr, outer: tl.constexpr):
    """Return y plus its bias, rounded to dtype `outer`; y unchanged unless BIASED.

    bias: pointers to the biases. seen: bool, which of them may be loaded.
    """
    if BIASED:
        return rounded(widened(y) + widened(tl.load(bias, mask=seen, other=0.0)), outer)
    else:
        return y
