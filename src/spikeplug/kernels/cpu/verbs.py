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

#: How every function of a kernel is compiled. No fast-math: nothing may be reassociated or contracted.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "boundscheck": False}
compiled: Any = numba.njit(**OPTIONS)
inlined: Any = numba.njit(inline="always", **OPTIONS)
intrinsic: Any = numba.extending.intrinsic

#: Float32 as bits: the magnitude, where infinity and NaN begin, and -inf.
MAGNITUDE = np.int32(0x7FFFFFFF)
INFINITE = np.int32(0x7F800000)
MINUS_INFINITY = np.int32(0x7F800000 - (1 << 31))


def _emit(name: str) -> Any:
    """Return a verb for an LLVM intrinsic of one argument, of the same type."""

    @intrinsic
    def verb(typing_context: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.call(builder.module.declare_intrinsic(name, [arguments[0].type]), arguments)

        return x(x), generate

    return verb


#: Round to nearest, ties to even.
rint = _emit("llvm.rint")
floor = _emit("llvm.floor")


@intrinsic
def shift_right(typing_context: Any, x: Any, places: Any) -> Any:
    """Return x >> places in the width of x, 0 <= places < that width."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ashr(*arguments)

    return x(x, x), generate


@intrinsic
def shift_left(typing_context: Any, x: Any, places: Any) -> Any:
    """Return x << places in the width of x, what is beyond dropped, 0 <= places < that width."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.shl(*arguments)

    return x(x, x), generate


@intrinsic
def shifted_product(typing_context: Any, a: Any, b: Any, places: Any) -> Any:
    """Return (a·b) >> places of int32 >= 0, the product in 64 bits, the result in 32, 0 <= places < 64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, places = (builder.zext(value, ir.IntType(64)) for value in arguments)
        return builder.trunc(builder.lshr(builder.mul(a, b), places), ir.IntType(32))

    return types.int32(types.int32, types.int32, types.int32), generate


def _cast(result: Any, argument: Any) -> Any:
    """Return a verb that gives the same bits another type."""

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
    """Return the bits of an int64 x >= 0: 0 for 0."""

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
def quotient_of(numerator, factor):
    """Return floor(2^n·A/B + 1/2), int32; doubles A < 2^P and factor = 2^n/B, B < 2^P, P <= 24, n <= 20.

    y + 1/2 with y = 2^n·A/B is a multiple of 1/(2B) >= 2^-25; the rounded factor, product and sum, all below 2^(n+2),
    are off by less than 2^(n-49) <= 2^-29. So 2^-27 more lifts every integer safely and carries nothing else over one.
    """
    return np.int32(numerator * factor + (0.5 + 2.0**-27))


@inlined
def with_sign(x, sign_of):
    """Return x >= 0 (int32) with the sign of `sign_of`."""
    sign = shift_right(sign_of, np.int32(31))
    return np.int32(np.int32(x ^ sign) - sign)


@inlined
def absolute(x):
    """Return |x|, int32."""
    return with_sign(x, x)


@inlined
def magnitude_of(bits):
    """Return |x| of a float32 given as bits, as bits."""
    return np.int32(bits & MAGNITUDE)


@compiled
def look_up(indices, table):
    """Replace each index by its entry of the table."""
    for i in range(indices.size):
        indices[i] = table[np.uint32(indices[i])]


@inlined
def steps_of(exponent):
    """Return, for `decoded`, whether 2^exponent is a normal float32, it, and it as a double; |exponent| <= 1000."""
    plain = -126 <= exponent <= 127
    return plain, np.float32(power_of_two(exponent if plain else np.int64(0))), power_of_two(exponent)


@inlined
def decoded(quotient, plain, unit, wide):
    """Return quotient·2^exponent, |quotient| < 2^24: rounded once, and only where it is denormal."""
    return np.float32(quotient) * unit if plain else np.float32(np.float64(quotient) * wide)


@compiled
def decode(quotients, output, exponent):
    """Set the output to quotients·2^exponent, |quotients| < 2^24."""
    plain, unit, wide = steps_of(exponent)
    for i in range(quotients.size):
        output[i] = decoded(quotients[i], plain, unit, wide)


@compiled
def largest_magnitude(bits):
    """Return the largest |x| of a row of float32 given as bits, as bits; INFINITE or more if one is not finite."""
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
    """Ask for x (float32) to be brought to the nearest cache, while the loop goes on."""
    for i in range(0, x.size, 16):
        _prefetch(x, i)


@compiled
def exponent_of(magnitude):
    """Return frexp's exponent of a finite float32 >= 0 given as bits: 2^(e-1) <= x < 2^e; 0 gives 0."""
    if magnitude >= 1 << 23:
        return (magnitude >> 23) - 126
    return bit_length(np.int64(magnitude)) - 149 if magnitude > 0 else 0


@compiled
def scale_exponent(magnitude, bits):
    """Return the exponent of an LSB, as `coding._scale`, with which a magnitude (as bits) fills bits - 1 bits."""
    if magnitude == 0:
        return -126
    return min(max(exponent_of(magnitude) - (bits - 1), -126), 127)


@compiled
def square_root(square):
    """Return floor(sqrt(S)), 0 <= S < 2^62: the double root is off by less than 1."""
    root = np.int64(np.sqrt(np.float64(square)))
    while root * root > square:
        root -= 1
    while (root + 1) * (root + 1) <= square:
        root += 1
    return root
