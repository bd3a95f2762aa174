"""Define the integer steps of the Triton kernels: what spikeplug's codes and primitives do, on blocks in registers.

Every function gives the same bits as its counterpart in torch. Kernels are launched with enable_fp_fusion=False: a
product that is rounded before it is added to (encoding, weight and bias) must not be fused with the addition.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from spikeplug.operators.linear.scaled import GUARD_BITS

#: Bit patterns of float32 from here on, without the sign, are infinities and NaN.
NONFINITE = tl.constexpr(0x7F800000)
#: Below every score; stands for -inf. As codes/scores.py has it.
MASKED = tl.constexpr(-(1 << 30))
#: Octaves that the smaller operand of a sum may lie below the larger one without losing a bit.
_GUARD = tl.constexpr(GUARD_BITS)


@triton.jit
def magnitude_bits(x):
    """Return the bit pattern of |x| (float32) as int32. The patterns are ordered as |x| is, with NaN above infinity."""
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
    """Return x (float32) rounded half to even, int32; |x| <= 2^(BITS - 1). It takes the fast way where BITS allows."""
    if BITS <= 23:
        return nearest_small(x)
    else:
        return nearest(x)


@triton.jit
def power_of_two(exponent):
    """Return 2^exponent in float32; an exponent (int32) outside of [-126, 127] counts as the nearer of the two."""
    return (tl.minimum(tl.maximum(exponent + 127, 1), 254) << 23).to(tl.float32, bitcast=True)


@triton.jit
def power_of_two_wide(exponent):
    """Return 2^exponent in float64, |exponent| <= 1022; infinity for 1024."""
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def scale_exponent(bits, BITS: tl.constexpr):
    """Return the exponent e of a vector's scale, int32 in [-126, 127], as `codes.encode` chooses it.

    2^e is the smallest power of two for which the largest |x| / 2^e is below 2^(BITS - 1).
    bits: the largest |x| of the vector, finite, given as `magnitude_bits`. For 0 and denormals e is -126.
    """
    return tl.minimum(tl.maximum((bits >> 23) - 126 - (BITS - 1), -126), 127)


@triton.jit
def decode(q, exponent):
    """Return q·2^exponent in float32. 2^exponent is multiplied in two halves, so that neither half overflows."""
    half = exponent >> 1
    return q.to(tl.float32) * power_of_two(half) * power_of_two(exponent - half)


@triton.jit
def widened(x):
    """Convert x from float16, bfloat16 or float32 to float32, exactly."""
    if x.dtype == tl.bfloat16:  # written out, as the interpreter does not know its denormals
        return (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return x.to(tl.float32)


@triton.jit
def rounded(y, dtype: tl.constexpr):
    """Convert y from float32 to the dtype as torch does: rounded half to even. y has no NaN but torch's own pattern."""
    if dtype == tl.bfloat16:  # written out, as the interpreter cuts the low bits off
        bits = y.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return bits.to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        return y.to(dtype)


@triton.jit
def bit_length(x):
    """Return how many bits x takes without leading zeros, int32, 0 for x = 0; 0 <= x < 2^62.

    It is read from the exponent field of a float64, 31 bits of x at a time, which float64 holds exactly.
    """
    x = x.to(tl.int64)
    high = x >> 31
    field = (tl.where(high > 0, high, x).to(tl.float64).to(tl.int64, bitcast=True) >> 52).to(tl.int32)
    return tl.where(x == 0, 0, field - 1022 + tl.where(high > 0, 31, 0))


@triton.jit
def shift(x, places):
    """Return floor(x·2^places), int64: a left shift of x (int64) for places > 0, a right shift for places < 0."""
    return (x << tl.maximum(places, 0).to(tl.int64)) >> tl.minimum(tl.maximum(-places, 0), 63).to(tl.int64)


@triton.jit
def chord(x, knots, LAST: tl.constexpr, REST: tl.constexpr):
    """Interpolate a table linearly at the integers x >= 0; return int32, rounded towards the segment's left knot.

    knots: pointer to LAST + 2 int32 values of the function, one every 2^REST steps of x. LAST: last segment's index.
    The product of a segment's rise and x's place within it must stay below 2^31. It does for every table in use except
    the coarsest one of 2^-x, for which there is `half_to_the`.
    """
    segment = tl.minimum(x >> REST, LAST)
    left = tl.load(knots + segment)
    rise = tl.load(knots + segment + 1) - left
    step = tl.abs(rise) * (x - (segment << REST)) >> REST
    return tl.where(rise < 0, left - step, left + step)


@triton.jit
def half_to_the(distance, knots, F: tl.constexpr, REST: tl.constexpr, P: tl.constexpr):
    """Return the mantissa of 2^-(distance / 2^F), int32: 2^-f with P fraction bits, f the fraction of distance / 2^F.

    The whole part, distance >> F, is left out: the caller shifts the mantissa right by it, see `decay`.
    knots: pointer to the table of 2^-f, which falls from 2^P to 2^(P-1), with one knot every 2^REST steps of distance.
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
    """Return floor(weight / 2^octaves), int32, for weight >= 0 and octaves >= 0: 0 from 31 octaves on."""
    return weight >> tl.minimum(octaves, 31)


@triton.jit
def reciprocal(b, K: tl.constexpr):
    """Return 2^K / b in float32, correctly rounded: the argument `inverse` of `quotient`. b: int32, 0 < b < 2^24."""
    return tl.div_rn(tl.full(b.shape, 1 << K, tl.float32), b.to(tl.float32))


@triton.jit
def quotient(a, b, inverse, K: tl.constexpr):
    """Return floor(2^K·a / b), int32, for 0 <= a < 2^P, 2^(P-1) <= b < 2^P, P <= 24, K <= 21.

    inverse: 2^K / b in float32, from reciprocal(b, K).

    b = 1 is allowed too where a = 0, and gives 0: `denominator_of` replaces a denominator of 0 by 1.

    Proof. Q = 2^K·a/b < 2^22. a and b are exact in float32; the inverse is off by a relative 2^-24 at most and the
    product by another, so the estimate by less than 2^22·(2^-23 + 2^-48) < 1, and its floor by at most one. Its
    remainder then lies in [-b, 2b), within 2^25, so it is known from its low 32 bits, which int32 keeps when the
    products overflow; and it says which neighbour is the floor.
    """
    return corrected(a, b, (a.to(tl.float32) * inverse).to(tl.int32), K)


@triton.jit
def quotient_each(a, b, K: tl.constexpr):
    """Return floor(2^K·a / b), int32, for 0 <= a < 2^P, 2^P <= b <= 2^(P+1), P <= 24, K <= 21.

    It divides anew for every element; `quotient` serves elements that share a denominator.

    Proof. Q = 2^K·a/b < 2^21. b = 2^P + t rounds by a relative 2^-24 at most, the hardware's fast division is off by 2
    units in the last place, at most 2^-22 (more where the result is denormal; it is 0 or at least 2^-25): the estimate
    by less than 2^21·(2^-22 + 2^-23) < 1, and the rest is as for `quotient`.
    """
    return corrected(a, b, (a.to(tl.float32) * (1 << K) / b.to(tl.float32)).to(tl.int32), K)


@triton.jit
def corrected(a, b, estimate, K: tl.constexpr):
    """Return floor(2^K·a / b), int32, from an integer estimate of it that is off by at most one."""
    rest = (a << K) - estimate * b
    return estimate + (rest >= b).to(tl.int32) - (rest < 0).to(tl.int32)


@triton.jit
def denominator_of(total, N: tl.constexpr, P: tl.constexpr):
    """Return (B, inverse, places), int32, float32 and int32, to divide by total (int64) with `quotient`.

    B = floor(total·2^places) has exactly P bits; it is 1 where total is 0. inverse: 2^(N + 1) / B.
    """
    places = P - bit_length(total)
    denominator = tl.maximum(shift(total, places), 1).to(tl.int32)
    return denominator, reciprocal(denominator, N + 1), places


@triton.jit
def is_finite(x):
    """Return whether x (float32) is neither NaN nor infinite."""
    return magnitude_bits(x) < NONFINITE


@triton.jit
def finite(x):
    """Return x (float32), and 0 for what is NaN or infinite."""
    return tl.where(is_finite(x), x, 0.0)


@triton.jit
def excess_places(largest, F: tl.constexpr):
    """Return the least p >= 0 (int32) for which a row's scores·2^-p can be integers with F fraction bits.

    largest: the largest score of each row, float32, finite. |largest|·2^-p stays below 2^(28 - F): times log2(e) and
    with F fraction bits it then fits 29 bits. As `codes.excess_places`.
    """
    exponent = (magnitude_bits(largest) >> 23) - 126
    return tl.maximum(exponent + (F - 28), 0)


@triton.jit
def score_integers(x, undefined, scale, unit):
    """Return scores x (float32) as integers: round(x·scale·unit) clamped to [-2^30, 2^29], int32.

    undefined: bool, rows with NaN or +inf, which have no softmax; their x counts as 0.
    scale: 2^-places, see `excess_places`. unit: the integer that stands for a score of 1.
    """
    scaled = (tl.where(undefined, 0.0, x) * scale) * unit
    return nearest(tl.minimum(tl.maximum(scaled, float(MASKED)), 536870912.0))


@triton.jit
def row_ceiling(largest, places, F: tl.constexpr):
    """Return a row's largest score rounded up to a whole octave (a factor of 2 in 2^score), int32, at least -2^29.

    largest: int32. Scores were divided by 2^places, so an octave is 2^(F - places) here, or 1 if that is less.
    """
    octave = (places * 0 + (1 << F)) >> tl.minimum(places, F)
    return (tl.maximum(largest, -(1 << 29)) + (octave - 1)) & -octave


@triton.jit
def distance_to(ceiling, score, places):
    """Return (ceiling - score)·2^places, int32, but 2^30 where it would be more. ceiling >= score, both int32."""
    places = tl.minimum(places, 30)
    return tl.minimum(ceiling - score, (places * 0 + (1 << 30)) >> places) << places


@triton.jit
def tally(ledger, count):
    """Add the sum of the block `count` to the int64 at the pointer `ledger`, an entry of the ledger of saturations."""
    total = tl.sum(tl.ravel(count).to(tl.int64), 0)
    tl.atomic_add(ledger, total, mask=total > 0, sem="relaxed")


@triton.jit
def coded(value, largest, BITS: tl.constexpr):
    """Return (mantissa, exponent), int32: value (int64) rounded to a code, as `operators.linear.scaled.coded`.

    largest: int64, the largest |value| of the vector, whose mantissa gets BITS bits. Halves go away from 0.
    """
    places = BITS + 1 - bit_length(largest)
    mantissa = ((shift(tl.abs(value), places) + 1) >> 1).to(tl.int32)
    return tl.where(value < 0, -mantissa, mantissa), 1 - places


@triton.jit
def sum_of(first, first_exponent, second, second_exponent):
    """Return (sum, exponent), int64 and int32, of two codes, as `operators.linear.scaled.sum_integers`.

    The operand with the smaller exponent loses what lies _GUARD octaves below the unit of the other one.
    """
    exponent = tl.maximum(first_exponent, second_exponent)
    total = _aligned(first, first_exponent - exponent) + _aligned(second, second_exponent - exponent)
    return total, exponent - _GUARD


@triton.jit
def _aligned(mantissa, places):
    size = shift(tl.abs(mantissa).to(tl.int64) << _GUARD, places)
    return tl.where(mantissa < 0, -size, size)
