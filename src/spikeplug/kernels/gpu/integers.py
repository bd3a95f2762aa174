"""Define the verbs of the kernels: what coding.py, fixedpoint.py and the primitives do, on blocks in registers.

Every verb gives the bits of its namesake. Kernels are launched with enable_fp_fusion=False: a product that is rounded
before it is added to (encoding, weight and bias) must not be fused with the addition.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

#: Bit patterns of float32 from here on, without the sign, are infinities and NaN.
NONFINITE = tl.constexpr(0x7F800000)
#: Below every score; stands for -inf. As operators/scores.py has it.
MASKED = tl.constexpr(-(1 << 30))


@triton.jit
def magnitude_bits(x):
    """Return the bits of |x|, float32 -> int32: ordered as |x| is, with NaN above infinity."""
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def nearest(x):
    """Return round(x), half to even, int32; |x| <= 2^30."""
    # From 2^23 on a float32 is an integer; below, adding 2^23 leaves no room for a fraction.
    size = tl.abs(x)
    size = tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size).to(tl.int32)
    return tl.where(x < 0, -size, size)


@triton.jit
def nearest_small(x):
    """Return round(x), half to even, int32; |x| <= 2^22: the integer stands in the low bits of x + 1.5·2^23."""
    return (x + 12582912.0).to(tl.int32, bitcast=True) - 0x4B400000


@triton.jit
def nearest_mantissa(x, BITS: tl.constexpr):
    """Return round(x), half to even, int32; |x| <= 2^(BITS - 1)."""
    if BITS <= 23:
        return nearest_small(x)
    else:
        return nearest(x)


@triton.jit
def power_of_two(exponent):
    """Return 2^exponent in float32; exponents beyond the normal range take its nearest end."""
    return (tl.minimum(tl.maximum(exponent + 127, 1), 254) << 23).to(tl.float32, bitcast=True)


@triton.jit
def power_of_two_wide(exponent):
    """Return 2^exponent in float64, |exponent| <= 1022; infinity for 1024."""
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def scale_exponent(bits, BITS: tl.constexpr):
    """Return coding.encode's exponent for a vector whose largest magnitude, given as bits, then fills BITS - 1 bits.

    Denormals and 0 have a field of 0, which lies below the lowest exponent as their own would.
    """
    return tl.minimum(tl.maximum((bits >> 23) - 126 - (BITS - 1), -126), 127)


@triton.jit
def decode(q, exponent):
    """Return q·2^exponent in float32, the scale in two halves, as coding.decode."""
    half = exponent >> 1
    return q.to(tl.float32) * power_of_two(half) * power_of_two(exponent - half)


@triton.jit
def widened(x):
    """Return x, float16, bfloat16 or float32, in float32."""
    if x.dtype == tl.bfloat16:  # written out, as the interpreter does not know its denormals
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def rounded(y, dtype: tl.constexpr):
    """Return y, float32, in the dtype as torch's conversion would: half to even; a NaN is one of torch's own."""
    if dtype == tl.bfloat16:  # written out, as the interpreter cuts the low bits off
        bits = y.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return bits.to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return y.to(dtype)


@triton.jit
def bit_length(x):
    """Return the bits of 0 <= x < 2^62, int32: the exponent field of a float64, which holds 31 bits exactly."""
    x = x.to(tl.int64)
    high = x >> 31
    field = (tl.where(high > 0, high, x).to(tl.float64).to(tl.int64, bitcast=True) >> 52).to(tl.int32)
    return tl.where(x == 0, 0, field - 1022 + tl.where(high > 0, 31, 0))


@triton.jit
def shift(x, places):
    """Return x·2^places for either sign of places, floored; int64 in and out."""
    return (x << tl.maximum(places, 0).to(tl.int64)) >> tl.minimum(tl.maximum(-places, 0), 63).to(tl.int64)


@triton.jit
def chord(x, knots, LAST: tl.constexpr, REST: tl.constexpr):
    """Return the interpolation of rising or falling knots[0..LAST + 1], REST bits per segment, at x >= 0; int32.

    The product of a rise and a rest stays below 2^31 for every table in use but the coarsest 2^-x, `half_to_the`.
    """
    segment = tl.minimum(x >> REST, LAST)
    left = tl.load(knots + segment)
    rise = tl.load(knots + segment + 1) - left
    step = tl.abs(rise) * (x - (segment << REST)) >> REST
    return tl.where(rise < 0, left - step, left + step)


@triton.jit
def half_to_the(distance, knots, F: tl.constexpr, REST: tl.constexpr, P: tl.constexpr):
    """Return 2^-(distance / 2^F) in Q(P) without its octaves (those are distance >> F): the mantissa, int32.

    knots fall, from 2^P to 2^(P-1), over segments of 2^REST inputs.
    """
    fraction = distance & ((1 << F) - 1)
    segment = fraction >> REST
    left = tl.load(knots + segment)
    fall = left - tl.load(knots + segment + 1)
    rest = fraction & ((1 << REST) - 1)
    # A segment falls by less than 2^P·ln 2/S + 1, S = 2^(F - REST), and rest < 2^REST.
    if P + 2 * REST - F <= 30:
        return left - (fall * rest >> REST)
    else:
        return left - (fall.to(tl.int64) * rest >> REST).to(tl.int32)


@triton.jit
def decay(weight, octaves):
    """Return weight >> octaves, octaves >= 0."""
    return weight >> tl.minimum(octaves, 31)


@triton.jit
def reciprocal(b, K: tl.constexpr):
    """Return 2^K / b in float32, correctly rounded, for `quotient`; int32 0 < b < 2^24."""
    return tl.div_rn(tl.full(b.shape, 1 << K, tl.float32), b.to(tl.float32))


@triton.jit
def quotient(a, b, inverse, K: tl.constexpr):
    """Return floor(2^K·a / b), int32, for 0 <= a < 2^P, 2^(P-1) <= b < 2^P, P <= 24, K <= 21.

    inverse: reciprocal(b).

    b = 1 beside a = 0 is 0 as well: what a silent denominator, B = 0, is replaced by.

    Proof. Q = 2^K·a/b < 2^22. a and b are exact in float32; the inverse is off by a relative 2^-24 at most and the
    product by another, so the estimate by less than 2^22·(2^-23 + 2^-48) < 1, and its floor by at most one. Its
    remainder then lies in [-b, 2b), within 2^25, so it is known from its low 32 bits, which int32 keeps when the
    products overflow; and it says which neighbour is the floor.
    """
    return corrected(a, b, (a.to(tl.float32) * inverse).to(tl.int32), K)


@triton.jit
def quotient_each(a, b, K: tl.constexpr):
    """Return floor(2^K·a / b), int32, for 0 <= a < 2^P, 2^P <= b <= 2^(P+1), P <= 24, K <= 21.

    For a denominator per element.

    Proof. Q = 2^K·a/b < 2^21. b = 2^P + t rounds by a relative 2^-24 at most, the hardware's fast division is off by 2
    units in the last place, at most 2^-22 (more where the result is denormal; it is 0 or at least 2^-25): the estimate
    by less than 2^21·(2^-22 + 2^-23) < 1, and the rest is as for `quotient`.
    """
    return corrected(a, b, (a.to(tl.float32) * (1 << K) / b.to(tl.float32)).to(tl.int32), K)


@triton.jit
def corrected(a, b, estimate, K: tl.constexpr):
    """Return floor(2^K·a / b) from an estimate of it that is off by one at most."""
    rest = (a << K) - estimate * b
    return estimate + (rest >= b).to(tl.int32) - (rest < 0).to(tl.int32)


@triton.jit
def denominator_of(total, N: tl.constexpr, P: tl.constexpr):
    """Return (B, its reciprocal, places): total·2^places = B fills P bits; int32, float32, int32. 0 becomes 1."""
    places = P - bit_length(total)
    denominator = tl.maximum(shift(total, places), 1).to(tl.int32)
    return denominator, reciprocal(denominator, N + 1), places


@triton.jit
def is_finite(x):
    """Return whether x (float32) is neither NaN nor infinite."""
    return magnitude_bits(x) < NONFINITE


@triton.jit
def excess_places(largest, F: tl.constexpr):
    """Return the p with which scores·2^-p fit F fraction bits, int32: 0 where they do. largest: a row's, finite.

    As operators/scores.py has it: frexp's exponent, one bit for log2(e), and F within 29. A denormal fits.
    """
    exponent = (magnitude_bits(largest) >> 23) - 126
    return tl.maximum(exponent + (F - 28), 0)


@triton.jit
def score_integers(x, undefined, scale, unit):
    """Return round(x·scale·unit) within [MASKED, 2^29], int32; 0 in rows that have no softmax."""
    scaled = (tl.where(undefined, 0.0, x) * scale) * unit
    return nearest(tl.minimum(tl.maximum(scaled, float(MASKED)), 536870912.0))


@triton.jit
def row_ceiling(largest, places, F: tl.constexpr):
    """Return the largest score (int32) rounded up to a whole octave, in units of 2^places; never below -2^29."""
    octave = (places * 0 + (1 << F)) >> tl.minimum(places, F)
    return (tl.maximum(largest, -(1 << 29)) + (octave - 1)) & -octave


@triton.jit
def distance_to(ceiling, score, places):
    """Return (ceiling - score)·2^places, int32. A distance that would overflow becomes one of at least 2^30."""
    places = tl.minimum(places, 30)
    return tl.minimum(ceiling - score, (places * 0 + (1 << 30)) >> places) << places


@triton.jit
def tally(ledger, count):
    """Add a sum of counts to an entry of the ledger of saturations, without waiting for it."""
    total = tl.sum(tl.ravel(count).to(tl.int64), 0)
    tl.atomic_add(ledger, total, mask=total > 0, sem="relaxed")
