"""Define what the kernels' loops are written in: integer verbs that stay in 32 bits, rounding, casts of bits.

Numba widens every integer expression to 64 bits, which costs the vector form of a loop; these say what is meant.
"""

from __future__ import annotations

from typing import Any

import numba
import numba.extending
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from spikeplug.kernels.cpu.wide import WideCompiler

#: How every function of a kernel is compiled. No fast-math: nothing may be reassociated or contracted.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "boundscheck": False}
compiled: Any = numba.njit(pipeline_class=WideCompiler, **OPTIONS)
#: Without vectors of 512 bits being asked for: sums in doubles, which have them anyway, became slower (docs/log.md).
compiled_narrow: Any = numba.njit(**OPTIONS)
inlined: Any = numba.njit(inline="always", **OPTIONS)
intrinsic: Any = numba.extending.intrinsic

#: Float32 as bits: the magnitude, where infinity and NaN begin, and -inf.
MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITE = np.int32(0x7F800000)
MINUS_INFINITY = np.int32(0x7F800000 - (1 << 31))
#: The least exponent of a normal float32.
_LEAST = -126


#: Round y = N·2^-s for integers |N| < 2^SHORT, halves away from 0: (y·LIFTED + ROUNDING) - ROUNDING, |y| < 2^51.
#: The lift, 2^-51 to 2^-48 of y, takes a half beyond itself. It takes nothing else to a half: a half is at least 2^-s
#: away, and the lift is less than 2^(SHORT-s-48). The sum is rounded to an integer, as doubles above 2^52 are integers.
SHORT, LIFTED, ROUNDING = 48, 1 + 2.0**-50, 1.5 * 2.0**52


def _emit(name: str) -> Any:
    """Return a function, for use in kernels, that calls LLVM intrinsic `name`: one argument, result of its type."""

    @intrinsic
    def verb(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.call(builder.module.declare_intrinsic(name, [arguments[0].type]), arguments)

        return x(x), generate

    return verb


#: Round to nearest, ties to even.
rint = _emit("llvm.rint")
floor = _emit("llvm.floor")
#: Cut to the integer nearer to 0.
trunc = _emit("llvm.trunc")


@intrinsic
def shift_right(typing_context: Any, x: Any, places: Any) -> Any:
    """Return x >> places in the width of x, 0 <= places < that width."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ashr(*arguments)

    return x(x, x), generate


@intrinsic
def shift_left(typing_context: Any, x: Any, places: Any) -> Any:
    """Return x << places in the width of x, 0 <= places < that width. Bits shifted beyond the width are dropped."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.shl(*arguments)

    return x(x, x), generate


@intrinsic
def shifted_product(typing_context: Any, a: Any, b: Any, places: Any) -> Any:
    """Return (a·b) >> places, int32, for int32 a, b >= 0 and 0 <= places < 64. The product is formed in 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, places = (builder.zext(value, ir.IntType(64)) for value in arguments)
        return builder.trunc(builder.lshr(builder.mul(a, b), places), ir.IntType(32))

    return types.int32(types.int32, types.int32, types.int32), generate


def _cast(result: Any, argument: Any) -> Any:
    """Return a function, for use in kernels, that reads the bits of Numba type `argument` as type `result`."""

    @intrinsic
    def verb(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(result))

        return result(argument), generate

    return verb


as_float, as_bits = _cast(types.float32, types.int32), _cast(types.int32, types.float32)
#: Non-negative doubles sort as the integers of their bits do, and only a maximum of integers becomes a vector loop.
as_double, as_integer = _cast(types.float64, types.int64), _cast(types.int64, types.float64)


@intrinsic
def bit_length(typing_context: Any, x: Any) -> Any:
    """Return how many bits an int64 x >= 0 has, as int.bit_length does: 0 for 0, 3 for 4."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sub(ir.IntType(64)(64), builder.ctlz(arguments[0], ir.IntType(1)(0)))

    return types.int64(types.int64), generate


@intrinsic
def power_of_two(typing_context: Any, exponent: Any) -> Any:
    """Return 2^exponent as a double, -1022 <= exponent <= 1023, by writing the exponent field."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(64)
        field = builder.shl(builder.add(arguments[0], wide(1023)), wide(52))
        return builder.bitcast(field, ir.DoubleType())

    return types.float64(types.int64), generate


@inlined
def half_of(bits):
    """Return (half, mask), int64, by which `rounded` rounds doubles to `bits` significant bits, 1 <= bits <= 52."""
    half = np.int64(1) << (52 - bits)
    return half, -2 * half


@inlined
def rounded(x, half, mask):
    """Return the finite double x rounded to its leading bits, halves away from 0; -0 becomes 0.

    half, mask: of `half_of`. They act on the bits of x, where sign and magnitude are apart, and where a carry out of
    the significand raises the exponent beside it.
    """
    return as_double((as_integer(x + 0.0) + half) & mask)


@inlined
def quotient_of(numerator, factor):
    """Return 2^n·A/B rounded half up, int32, for integers A and B: numerator = A and factor = 2^n/B, both doubles.

    Exact if B has P <= 24 bits, A at most as many, and n <= 20:
    y + 1/2 with y = 2^n·A/B is a multiple of 1/(2B) >= 2^-25; the rounded factor, product and sum, all below 2^(n+2),
    are off by less than 2^(n-49) <= 2^-29. So 2^-27 more lifts every integer safely and carries nothing else over one.
    """
    return np.int32(numerator * factor + (0.5 + 2.0**-27))


@inlined
def with_sign(x, sign_of):
    """Return x if sign_of >= 0, else -x, int32."""
    sign = shift_right(sign_of, np.int32(31))
    return np.int32(np.int32(x ^ sign) - sign)


@inlined
def absolute(x):
    """Return |x|, int32."""
    return with_sign(x, x)


@inlined
def magnitude_of(bits):
    """Return the bits of |x|, int32, given the bits of a float32 x: the sign bit is cleared."""
    return np.int32(bits & MAGNITUDE)


@compiled
def look_up(indices, table):
    """Replace each index by table[index], in place. indices, table: int32."""
    for i in range(indices.size):
        indices[i] = table[np.uint32(indices[i])]


@inlined
def steps_of(exponent):
    """Return (plain, unit, wide), the step 2^exponent in the forms that `decoded` takes; |exponent| <= 1000.

    plain: whether 2^exponent is a normal float32. unit: 2^exponent as float32, or 1 if not plain. wide: as a double.
    """
    plain = -126 <= exponent <= 127
    return plain, np.float32(power_of_two(exponent if plain else np.int64(0))), power_of_two(exponent)


@inlined
def decoded(quotient, plain, unit, wide):
    """Return quotient·2^exponent as float32, |quotient| < 2^24. It is exact unless the result is denormal.

    plain, unit, wide: what `steps_of(exponent)` returns.
    """
    return np.float32(quotient) * unit if plain else np.float32(np.float64(quotient) * wide)


@compiled
def decode(quotients, output, exponent):
    """Set the output (float32) to quotients·2^exponent. quotients: int32, each below 2^24 in magnitude."""
    plain, unit, wide = steps_of(exponent)
    for i in range(quotients.size):
        output[i] = decoded(quotients[i], plain, unit, wide)


@compiled
def is_normal(exponent):
    """Return whether integers of 31 bits times 2^exponent are decoded by one product of normal numbers."""
    return _LEAST <= exponent <= 96


@compiled
def largest_magnitude(bits):
    """Return the bits of the largest |x|, int32, of a float32 row x; INFINITE or more if an element is not finite.

    bits: the row's memory as int32.
    """
    largest = np.int32(0)
    for i in range(bits.size):
        largest = np.int32(max(largest, np.int32(bits[i] & MAGNITUDE)))
    return largest


@intrinsic
def _prefetch(typing_context: Any, array: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        line = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [line, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@compiled
def fetch(x):
    """Prefetch x (float32): ask the processor to bring it to the nearest cache, without waiting for it."""
    for i in range(0, x.size, 16):
        _prefetch(x, i)


@compiled
def exponent_of(magnitude):
    """Return the exponent e of a finite float32 x >= 0, as frexp does: 2^(e-1) <= x < 2^e; 0 gives 0.

    magnitude: the bits of x, an integer.
    """
    if magnitude >= 1 << 23:
        return (magnitude >> 23) - 126
    return bit_length(np.int64(magnitude)) - 149 if magnitude > 0 else 0


@compiled
def scale_exponent(magnitude, bits):
    """Return the exponent e for which x·2^-e, with x >= 0, has `bits` - 1 integer bits, clipped to -126..127.

    magnitude: the bits of a finite float32 x. 0 gives -126.
    """
    if magnitude == 0:
        return -126
    return min(max(exponent_of(magnitude) - (bits - 1), -126), 127)


@compiled
def square_root(square):
    """Return floor(sqrt(square)), exact, int64; 0 <= square < 2^62. The root in doubles is corrected by steps of 1."""
    root = np.int64(np.sqrt(np.float64(square)))
    while root * root > square:
        root -= 1
    while (root + 1) * (root + 1) <= square:
        root += 1
    return root
