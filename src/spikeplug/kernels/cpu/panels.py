"""Turn vectors of float32 into codes, and codes into panels: what LLVM does not make of loops this short by itself.

Each verb takes arrays, contiguous along their last dimension. Those named after vectors do full ones only; what is left
over is their caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from spikeplug.kernels.cpu.product import HALVES, LONG, PANEL, SUMS, WORD, add_within_pairs, lanes, spread
from spikeplug.kernels.cpu.verbs import compiled, intrinsic

#: Elements that `code_vectors` takes at once: as many codes as fill a vector.
CODES = 2 * PANEL

_FLOATS, _CODED = ir.VectorType(ir.FloatType(), CODES), ir.VectorType(WORD, CODES)
_BYTES = ir.VectorType(ir.IntType(8), CODES)
_EIGHT = ir.VectorType(ir.IntType(16), PANEL)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return the address of an array's first element, as a 64-bit LLVM integer. kind: the array's Numba type."""
    return builder.ptrtoint(context.make_array(kind)(context, builder, array).data, LONG)


def _vector(builder: Any, address: Any, size: int, place: Any, kind: Any) -> Any:
    """Return a pointer to a vector of LLVM type `kind`, `place` elements of `size` bytes after an address."""
    return builder.inttoptr(builder.add(address, builder.mul(place, LONG(size))), kind.as_pointer())


def _loop(builder: Any, count: Any, start: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit an LLVM loop that calls `body` for i = 0, ..., count - 1, count > 0; return the last values it gave.

    body(i, carried): emits one pass and returns the values that the next pass gets as `carried`. start: those of the
    first pass.
    """
    before = builder.basic_block
    loop, after = builder.append_basic_block("vectors"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    place = builder.phi(LONG)
    carried = [builder.phi(value.type) for value in start]
    following = body(place, carried)
    for phi, first, more in zip(carried, start, following, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(more, loop)
    next_place = builder.add(place, LONG(1))
    place.add_incoming(LONG(0), before)
    place.add_incoming(next_place, loop)
    builder.cbranch(builder.icmp_signed("<", next_place, count), loop, after)
    builder.position_at_end(after)
    return following


@intrinsic
def code_vectors(typing_context: Any, x: Any, codes: Any, count: Any, scale: Any, most: Any) -> tuple[Any, Any]:
    """Set count·CODES codes to round(x·scale), clipped to ±most; return the sum of their squares, int64.

    x: float32 or int8; codes: int16; count > 0; most < 2^15.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, codes, count, scale, most = arguments
        source, target = (_data(context, builder, signature.args[i], array) for i, array in enumerate((x, codes)))
        factor, high = (spread(builder, value, _FLOATS) for value in (scale, most))
        low = builder.fneg(high)
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        rint = cgutils.get_or_insert_function(builder.module, kind, f"llvm.rint.v{CODES}f32")
        wide = ir.VectorType(LONG, PANEL)

        def body(place: Any, carried: list[Any]) -> list[Any]:
            first = builder.mul(place, LONG(CODES))
            if signature.args[0].dtype is types.int8:
                level = builder.load(_vector(builder, source, 1, first, _BYTES), align=1)
                value = builder.sitofp(builder.sext(level, _CODED), _FLOATS)
            else:
                value = builder.load(_vector(builder, source, 4, first, _FLOATS), align=4)
            value = builder.call(rint, [builder.fmul(value, factor)])
            value = builder.select(builder.fcmp_ordered(">", value, low), value, low)
            value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
            code = builder.trunc(builder.fptosi(value, _CODED), HALVES)
            builder.store(code, _vector(builder, target, 2, first, HALVES), align=2)
            # Two squares fit 32 bits without a sign.
            return [builder.add(carried[0], builder.zext(add_within_pairs(builder, code, code), wide))]

        (total,) = _loop(builder, count, [ir.Constant(wide, None)], body)
        kind = ir.FunctionType(LONG, [wide])
        added = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.add.v{PANEL}i64")
        return builder.call(added, [total])

    return types.int64(x, codes, types.int64, types.float32, types.float32), generate


@intrinsic
def interleave_vectors(
    typing_context: Any, first: Any, second: Any, target: Any, count: Any, pitch: Any
) -> tuple[Any, Any]:
    """Interleave two int16 vectors, in groups of PANEL elements, into pairs (first[k], second[k]).

    Group i, for i < count, is written to target[i·pitch : i·pitch + PANEL]. target: int32, one pair per element.
    count: more than 0.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *arrays, count, pitch = arguments
        a, b, target = (_data(context, builder, signature.args[i], array) for i, array in enumerate(arrays))
        order = ir.Constant(ir.VectorType(WORD, CODES), [i // 2 + i % 2 * PANEL for i in range(CODES)])

        def body(place: Any, _: list[Any]) -> list[Any]:
            first = builder.mul(place, LONG(PANEL))
            pair = (builder.load(_vector(builder, side, 2, first, _EIGHT), align=2) for side in (a, b))
            both = builder.shuffle_vector(*pair, order)
            builder.store(both, _vector(builder, target, 4, builder.mul(place, pitch), HALVES), align=4)
            return []

        _loop(builder, count, [], body)
        return context.get_dummy_value()

    return types.void(first, second, target, types.int64, types.int64), generate


@intrinsic
def transpose_vectors(typing_context: Any, rows: Any, columns: Any, count: Any, pitch: Any) -> tuple[Any, Any]:
    """Transpose PANEL rows of count·PANEL int32: set columns[j·PANEL + i] to rows[i·pitch + j].

    pitch: elements from one row to the next. count: more than 0.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, columns, count, pitch = arguments
        source, target = (_data(context, builder, signature.args[i], array) for i, array in enumerate((rows, columns)))
        # log2(PANEL) times each row shuffled into the one half of all rows further on: a transposition.
        halves = [lanes([i // 2 + i % 2 * PANEL for i in range(start, start + PANEL)]) for start in (0, PANEL)]

        def body(place: Any, _: list[Any]) -> list[Any]:
            first = builder.mul(place, LONG(PANEL))
            block = []
            for row in range(PANEL):
                at = builder.add(first, builder.mul(pitch, LONG(row)))
                block.append(builder.load(_vector(builder, source, 4, at, SUMS), align=4))
            for _round in range(PANEL.bit_length() - 1):
                half = PANEL // 2
                block = [
                    builder.shuffle_vector(block[i // 2], block[i // 2 + half], halves[i % 2]) for i in range(PANEL)
                ]
            for i, column in enumerate(block):
                at = builder.mul(builder.add(first, LONG(i)), LONG(PANEL))
                builder.store(column, _vector(builder, target, 4, at, SUMS), align=4)
            return []

        _loop(builder, count, [], body)
        return context.get_dummy_value()

    return types.void(rows, columns, types.int64, types.int64), generate


@compiled
def transpose(rows, columns):
    """Transpose int32 `rows` (PANEL, pairs): set columns[j·PANEL + i] to rows[i, j]."""
    pairs = rows.shape[1]
    blocks = pairs // PANEL
    if blocks:
        transpose_vectors(rows, columns, blocks, pairs)
    for pair in range(blocks * PANEL, pairs):
        for member in range(PANEL):
            columns[pair * PANEL + member] = rows[member, pair]
