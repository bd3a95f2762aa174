"""The exact product of small integers: two 16-bit limbs a factor, pairs of products in 32 bits, sums in doubles.

An integer a = high·2^radix + low is two limbs of 16 bits, the other factor one. A panel holds, for PANEL columns, pairs
of consecutive terms side by side, so that one instruction multiplies 16 of them and adds the pairs (vpmaddwd on x86;
the generic form here is what LLVM makes it, or its like, from).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from spikeplug.kernels.cpu.verbs import intrinsic

#: Columns of a panel: one vector of 32-bit sums.
PANEL = 8
#: Rows of limbs that share each pair that is loaded: 12 sums, a pair of the panel and one of limbs are 14 registers.
ROWS = 6
#: Limbs of a factor.
LIMBS = 2
#: Terms of a block of limbs, at most, and 16-bit words from one row of limbs to the next: as many, and a cache line, so
#: that rows do not fall into the same few sets of the first-level cache.
TERMS = 512
PITCH = TERMS + 32
#: Bits that stay in a sum when it carries.
CARRY = 16
_PAIR = 2

_WORD, _HALF, _DOUBLE = ir.IntType(32), ir.IntType(16), ir.DoubleType()
_LONG = ir.IntType(64)
_SUMS, _HALVES = ir.VectorType(_WORD, PANEL), ir.VectorType(_HALF, PANEL * _PAIR)
_PRODUCTS, _DOUBLES = ir.VectorType(_WORD, PANEL * _PAIR), ir.VectorType(_DOUBLE, PANEL)


def _lanes(*places: int) -> Any:
    return ir.Constant(ir.VectorType(_WORD, PANEL), list(places))


def _pairwise(builder: Any, a: Any, b: Any) -> Any:
    """(a0·b0 + a1·b1, a2·b2 + a3·b3, ...), 32 bits."""
    product = builder.mul(builder.sext(a, _PRODUCTS), builder.sext(b, _PRODUCTS))
    nothing = ir.Constant(_PRODUCTS, ir.Undefined)
    even, odd = (_lanes(*range(first, PANEL * _PAIR, _PAIR)) for first in range(_PAIR))
    return builder.add(builder.shuffle_vector(product, nothing, even), builder.shuffle_vector(product, nothing, odd))


def _spread(builder: Any, x: Any, kind: Any) -> Any:
    """A vector of PANEL times x."""
    nothing = ir.Constant(kind, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, x, _WORD(0)), nothing, _lanes(*[0] * PANEL))


def _product(rows: int, carrying: bool) -> Any:
    """output[r, :PANEL] += Σ_pairs limbs[r]·panel, for `rows` rows of two limbs each.

    limbs: address of int16 (rows·LIMBS, PITCH), a row's high limbs, then its low ones. panel: address of int16
    (pairs, PANEL, 2). radix: 2^radix, what a high limb counts. output: address of doubles (rows, pitch). pairs: more
    than 0; outputs stay below 2^53. carrying: after every `chunk` pairs, all of a sum but its low CARRY bits moves to a
    second sum. A chunk's products, and 2^CARRY - 1 beside them, must fit 32 bits (without: all products), which the
    caller sees to.
    """

    @intrinsic
    def verb(
        typing_context: Any, limbs: Any, panel: Any, pairs: Any, chunk: Any, radix: Any, output: Any, pitch: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            limbs, panel, pairs, chunk, radix, output, pitch = arguments
            count = rows * LIMBS
            base, columns = (builder.inttoptr(x, t.as_pointer()) for x, t in ((limbs, _WORD), (panel, _HALVES)))
            carries = [cgutils.alloca_once(builder, _SUMS) for _ in range(count if carrying else 0)]
            for carry in carries:
                builder.store(ir.Constant(_SUMS, None), carry)
            before = builder.basic_block
            outer, loop, after = (builder.append_basic_block(name) for name in ("chunks", "pairs", "summed"))
            builder.branch(outer)

            builder.position_at_end(outer)
            begin = builder.phi(_LONG)
            begin.add_incoming(_LONG(0), before)
            kept = [builder.phi(_SUMS) for _ in range(count)]
            for total in kept:
                total.add_incoming(ir.Constant(_SUMS, None), before)
            end = pairs
            if carrying:
                end = builder.add(begin, chunk)
                end = builder.select(builder.icmp_signed("<", end, pairs), end, pairs)
            builder.branch(loop)

            builder.position_at_end(loop)
            pair = builder.phi(_LONG)
            pair.add_incoming(begin, outer)
            sums = [builder.phi(_SUMS) for _ in range(count)]
            column = builder.load(builder.gep(columns, [pair]), align=2)
            totals = []
            for row, total in enumerate(sums):
                place = builder.add(pair, _LONG(row * PITCH // _PAIR))
                limb = _spread(builder, builder.load(builder.gep(base, [place]), align=4), _SUMS)
                totals.append(builder.add(total, _pairwise(builder, builder.bitcast(limb, _HALVES), column)))
                total.add_incoming(kept[row], outer)
                total.add_incoming(totals[row], loop)
            following = builder.add(pair, _LONG(1))
            pair.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, end), loop, after)

            builder.position_at_end(after)
            finished = after
            if carrying:
                again, finished = builder.append_basic_block("carry"), builder.append_basic_block("finished")
                builder.cbranch(builder.icmp_signed("<", end, pairs), again, finished)
                builder.position_at_end(again)
                for row, carry in enumerate(carries):
                    high = builder.ashr(totals[row], ir.Constant(_SUMS, [CARRY] * PANEL))
                    builder.store(builder.add(builder.load(carry), high), carry)
                    low = builder.and_(totals[row], ir.Constant(_SUMS, [(1 << CARRY) - 1] * PANEL))
                    kept[row].add_incoming(low, again)
                begin.add_incoming(end, again)
                builder.branch(outer)
            builder.position_at_end(finished)
            doubles = [builder.sitofp(total, _DOUBLES) for total in totals]
            for row, carry in enumerate(carries):
                high = builder.sitofp(builder.load(carry), _DOUBLES)
                weight = ir.Constant(_DOUBLES, [float(1 << CARRY)] * PANEL)
                doubles[row] = builder.fadd(doubles[row], builder.fmul(high, weight))
            scale = _spread(builder, radix, _DOUBLES)
            for row in range(rows):
                high, low = doubles[LIMBS * row : LIMBS * (row + 1)]
                place = builder.add(output, builder.shl(builder.mul(pitch, _LONG(row)), _LONG(3)))
                target = builder.inttoptr(place, _DOUBLES.as_pointer())
                whole = builder.fadd(builder.fmul(high, scale), low)
                builder.store(builder.fadd(builder.load(target, align=8), whole), target, align=8)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4, types.float64, *[types.int64] * 2), generate

    return verb


product_of_rows, product_of_one = _product(ROWS, False), _product(1, False)
carrying_product_of_rows, carrying_product_of_one = _product(ROWS, True), _product(1, True)
