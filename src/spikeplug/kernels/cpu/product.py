"""Multiply small integers exactly: 16 bits per factor, pairs of products in 32 bits.

A panel holds, for PANEL columns, pairs of consecutive terms side by side, so that one instruction multiplies 16 numbers
and adds the pairs (vpmaddwd on x86; the generic form here is what LLVM makes it, or its like, from).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from spikeplug.kernels.cpu.verbs import compiled, intrinsic
from spikeplug.kernels.cpu.wide import WIDE_VECTORS

#: Columns of a panel: one vector of 32-bit sums. No result depends on it.
PANEL = 16 if WIDE_VECTORS else 8
#: Rows of factors. Each has two vectors of sums. With a factor and what it is multiplied with they fill 14 of 16
#: registers, or 20 of 32 where vectors are wide: more rows were no faster.
ROWS = 8 if WIDE_VECTORS else 6
#: Panels, and columns, that `product_of` multiplies with at once.
PANELS_AT_ONCE = 2
COLUMNS = PANELS_AT_ONCE * PANEL
#: Limbs of a wide factor.
LIMBS = 2
#: Terms of a block of limbs, at most, and 16-bit words from one row of limbs to the next: as many, and a cache line, so
#: that rows do not fall into the same few sets of the first-level cache.
TERMS = 512
PITCH = TERMS + 32
#: Bits that stay in a sum when it carries.
CARRY = 16

WORD, _HALF, LONG, _DOUBLE = ir.IntType(32), ir.IntType(16), ir.IntType(64), ir.DoubleType()
SUMS, _DOUBLES = ir.VectorType(WORD, PANEL), ir.VectorType(_DOUBLE, PANEL)
HALVES, _PRODUCTS = ir.VectorType(_HALF, 2 * PANEL), ir.VectorType(WORD, 2 * PANEL)
_ZERO = ir.Constant(SUMS, None)


def lanes(places: Sequence[int]) -> Any:
    return ir.Constant(ir.VectorType(WORD, PANEL), list(places))


def spread(builder: Any, x: Any, kind: Any) -> Any:
    """Return an LLVM vector of type `kind` whose every element is x."""
    nothing, same = ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(WORD, kind.count), [0] * kind.count)
    return builder.shuffle_vector(builder.insert_element(nothing, x, WORD(0)), nothing, same)


def _add_pairs(builder: Any, total: Any, factor: Any, column: Any) -> Any:
    """Return total + (a0·b0 + a1·b1, a0·b2 + a1·b3, ...), a vector of PANEL int32.

    factor: pointer to the int16 pair (a0, a1). column: vector of int16 b0, b1, ..., one pair per panel column.
    """
    pair = builder.bitcast(spread(builder, builder.load(factor, align=2), SUMS), HALVES)
    return builder.add(total, add_within_pairs(builder, pair, column))


def add_within_pairs(builder: Any, a: Any, b: Any) -> Any:
    """Return (a0·b0 + a1·b1, a2·b2 + a3·b3, ...): PANEL int32 from two vectors a, b of 2·PANEL int16."""
    product = builder.mul(builder.sext(a, _PRODUCTS), builder.sext(b, _PRODUCTS))
    nothing = ir.Constant(_PRODUCTS, ir.Undefined)
    even, odd = (builder.shuffle_vector(product, nothing, lanes(range(i, 2 * PANEL, 2))) for i in range(2))
    return builder.add(even, odd)


def _at(builder: Any, address: Any, size: int, elements: Any, kind: Any) -> Any:
    """Return a pointer to LLVM type `kind`, `elements` elements of `size` bytes after an address."""
    return builder.inttoptr(builder.add(address, builder.mul(elements, LONG(size))), kind.as_pointer())


def _column(builder: Any, panel: Any, pair: Any) -> Any:
    return builder.load(_at(builder, panel, 4 * PANEL, pair, HALVES), align=2)


def _narrow(rows: int) -> Any:
    """Return a function for kernels that sets output[r, :PANELS_AT_ONCE·PANEL] = Σ_pairs factors[r]·panels, r < rows.

    factors: address of int16 (rows, stride), read in pairs. panels: address of int16 (PANELS_AT_ONCE, pairs, PANEL, 2).
    output: address of int32 (rows, pitch). pairs: more than 0. Partial sums may wrap around; sums must fit 32 bits.
    """

    @intrinsic
    def verb(
        typing_context: Any, factors: Any, stride: Any, panels: Any, pairs: Any, output: Any, pitch: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            factors, stride, panels, pairs, output, pitch = arguments
            before = builder.basic_block
            loop, after = builder.append_basic_block("pairs"), builder.append_basic_block("summed")
            builder.branch(loop)
            builder.position_at_end(loop)
            pair = builder.phi(LONG)
            pair.add_incoming(LONG(0), before)
            sums = [[builder.phi(SUMS) for _ in range(PANELS_AT_ONCE)] for _ in range(rows)]
            columns = [
                _column(builder, panels, builder.add(pair, builder.mul(pairs, LONG(i)))) for i in range(PANELS_AT_ONCE)
            ]
            totals = []
            for row in range(rows):
                place = builder.add(builder.mul(stride, LONG(row)), builder.shl(pair, LONG(1)))
                factor = _at(builder, factors, 2, place, WORD)
                totals.append([_add_pairs(builder, s, factor, c) for s, c in zip(sums[row], columns, strict=True)])
                for total, more in zip(sums[row], totals[row], strict=True):
                    total.add_incoming(_ZERO, before)
                    total.add_incoming(more, loop)
            following = builder.add(pair, LONG(1))
            pair.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, pairs), loop, after)
            builder.position_at_end(after)
            for row in range(rows):
                for i in range(PANELS_AT_ONCE):
                    place = builder.add(builder.mul(pitch, LONG(row)), LONG(PANEL * i))
                    builder.store(totals[row][i], _at(builder, output, 4, place, SUMS), align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return verb


def _wide(rows: int) -> Any:
    """Return a function for kernels that multiplies `rows` rows of wide factors, in two limbs each, by a panel.

    It does output[r, :PANEL] += Σ_pairs (high limbs[r]·2^radix + low limbs[r])·panel.

    limbs: address of int16 (rows·LIMBS, PITCH), a row's high limbs, then its low ones. panel: address of int16
    (pairs, PANEL, 2). place: 2^radix, a double. output: address of doubles (rows, pitch), which stay below 2^53. pairs:
    more than 0. After every `chunk` pairs, all of a sum but its low CARRY bits moves to a second sum: a chunk's
    products, and 2^CARRY - 1 beside them, must fit 32 bits.
    """

    @intrinsic
    def verb(
        typing_context: Any, limbs: Any, panel: Any, pairs: Any, chunk: Any, place: Any, output: Any, pitch: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            limbs, panel, pairs, chunk, place, output, pitch = arguments
            count = rows * LIMBS
            carries = [cgutils.alloca_once(builder, SUMS) for _ in range(count)]
            for carry in carries:
                builder.store(_ZERO, carry)
            before = builder.basic_block
            names = ("chunks", "pairs", "summed", "carry", "finished")
            outer, loop, after, again, finished = (builder.append_basic_block(name) for name in names)
            builder.branch(outer)

            builder.position_at_end(outer)
            begin = builder.phi(LONG)
            begin.add_incoming(LONG(0), before)
            kept = [builder.phi(SUMS) for _ in range(count)]
            for total in kept:
                total.add_incoming(_ZERO, before)
            end = builder.add(begin, chunk)
            end = builder.select(builder.icmp_signed("<", end, pairs), end, pairs)
            builder.branch(loop)

            builder.position_at_end(loop)
            pair = builder.phi(LONG)
            pair.add_incoming(begin, outer)
            sums = [builder.phi(SUMS) for _ in range(count)]
            column = _column(builder, panel, pair)
            totals = []
            for row, total in enumerate(sums):
                limb = _at(builder, limbs, 4, builder.add(pair, LONG(row * PITCH // 2)), WORD)
                totals.append(_add_pairs(builder, total, limb, column))
                total.add_incoming(kept[row], outer)
                total.add_incoming(totals[row], loop)
            following = builder.add(pair, LONG(1))
            pair.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, end), loop, after)

            builder.position_at_end(after)
            builder.cbranch(builder.icmp_signed("<", end, pairs), again, finished)
            builder.position_at_end(again)
            for total, keep, carry in zip(totals, kept, carries, strict=True):
                high = builder.ashr(total, ir.Constant(SUMS, [CARRY] * PANEL))
                builder.store(builder.add(builder.load(carry), high), carry)
                keep.add_incoming(builder.and_(total, ir.Constant(SUMS, [(1 << CARRY) - 1] * PANEL)), again)
            begin.add_incoming(end, again)
            builder.branch(outer)

            builder.position_at_end(finished)
            doubles = []
            for total, carry in zip(totals, carries, strict=True):
                high = builder.sitofp(builder.load(carry), _DOUBLES)
                high = builder.fmul(high, ir.Constant(_DOUBLES, [float(1 << CARRY)] * PANEL))
                doubles.append(builder.fadd(high, builder.sitofp(total, _DOUBLES)))
            scale = spread(builder, place, _DOUBLES)
            for row in range(rows):
                high, low = doubles[LIMBS * row : LIMBS * (row + 1)]
                target = _at(builder, output, 8, builder.mul(pitch, LONG(row)), _DOUBLES)
                whole = builder.fadd(builder.fmul(high, scale), low)
                builder.store(builder.fadd(builder.load(target, align=8), whole), target, align=8)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4, types.float64, *[types.int64] * 2), generate

    return verb


_narrow_of_rows, _narrow_of_one = _narrow(ROWS), _narrow(1)
wide_product_of_rows, wide_product_of_one = _wide(ROWS), _wide(1)


@compiled
def product_of(rows, factors, stride, panels, pairs, output, pitch):
    """Do what `_narrow` says for rows <= ROWS, with its other arguments."""
    if rows == ROWS:
        _narrow_of_rows(factors, stride, panels, pairs, output, pitch)
    else:
        for row in range(rows):
            _narrow_of_one(factors + 2 * stride * row, stride, panels, pairs, output + 4 * pitch * row, pitch)
