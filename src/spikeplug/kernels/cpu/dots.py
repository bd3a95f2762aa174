"""Multiply a few rows of levels by int8 weights: 16-bit products, added in pairs into 32-bit sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from spikeplug.kernels.cpu.product import LONG, WORD
from spikeplug.kernels.cpu.verbs import compiled, intrinsic

#: Terms of one vector of weights.
TERMS = 32
#: Rows of weights that are multiplied at once, and rows of levels at most.
TOGETHER, FEW = 8, 2
#: Bytes of a cache line, and how far ahead of those in use weights are fetched, further than processors do.
_LINE, _AHEAD = 64, 8192

_BYTE, _HALF = ir.IntType(8), ir.IntType(16)
_BYTES, _HALVES = ir.VectorType(_BYTE, TERMS), ir.VectorType(_HALF, TERMS)
_PRODUCTS, _SUMS = ir.VectorType(WORD, TERMS), ir.VectorType(WORD, TERMS // 2)


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _fetch(builder: Any, address: Any) -> None:
    """Ask the processor to bring the cache line at an address into the nearest cache, without waiting for it."""
    pointer = builder.inttoptr(address, _BYTE.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, WORD, WORD, WORD])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [pointer, WORD(0), WORD(3), WORD(1)])


def _pairs(builder: Any, a: Any, b: Any) -> Any:
    """Return the vector of sums of two products each, int32, of vectors a, b of TERMS int16."""
    product = builder.mul(builder.sext(a, _PRODUCTS), builder.sext(b, _PRODUCTS))
    nothing = ir.Constant(_PRODUCTS, ir.Undefined)
    places = ir.VectorType(WORD, TERMS // 2)
    even, odd = (
        builder.shuffle_vector(product, nothing, ir.Constant(places, list(range(i, TERMS, 2)))) for i in range(2)
    )
    return builder.add(even, odd)


def _sum(builder: Any, vector: Any) -> Any:
    """Return the sum of the elements of a vector of int32."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        nothing, half = ir.Constant(vector.type, ir.Undefined), ir.VectorType(WORD, lanes)
        low, high = (
            builder.shuffle_vector(vector, nothing, ir.Constant(half, list(range(start, start + lanes))))
            for start in (0, lanes)
        )
        vector = builder.add(low, high)
    return builder.extract_element(vector, WORD(0))


def _dots(rows: int, weights: int) -> Any:
    """Return a function for kernels that multiplies `rows` rows of int16 by `weights` rows of int8.

    It sets output[r·pitch + w] (int32) to the products of the first `terms` terms, a positive multiple of TERMS.

    levels  address of int16, `width` from one row to the next; weight: address of int8, `stride` from row to row
    """

    @intrinsic
    def verb(
        typing_context: Any, levels: Any, width: Any, weight: Any, stride: Any, terms: Any, output: Any, pitch: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            levels, width, weight, stride, terms, output, pitch = arguments
            before = builder.basic_block
            loop, after = builder.append_basic_block("terms"), builder.append_basic_block("summed")
            builder.branch(loop)
            builder.position_at_end(loop)
            term = builder.phi(LONG)
            term.add_incoming(LONG(0), before)
            sums = [[builder.phi(_SUMS) for _ in range(weights)] for _ in range(rows)]
            factors = []
            for row in range(rows):
                place = builder.add(builder.mul(width, LONG(row)), term)
                factors.append(_load(builder, builder.add(levels, builder.shl(place, LONG(1))), _HALVES, 2))
            for line in range(0, TERMS * weights, _LINE):
                place = builder.add(builder.mul(term, LONG(weights)), LONG(line + _AHEAD))
                _fetch(builder, builder.add(weight, place))
            totals: list[list[Any]] = [[] for _ in range(rows)]
            for w in range(weights):
                place = builder.add(builder.mul(stride, LONG(w)), term)
                column = builder.sext(_load(builder, builder.add(weight, place), _BYTES, 1), _HALVES)
                for row in range(rows):
                    totals[row].append(builder.add(sums[row][w], _pairs(builder, factors[row], column)))
            for row in range(rows):
                for total, more in zip(sums[row], totals[row], strict=True):
                    total.add_incoming(ir.Constant(_SUMS, None), before)
                    total.add_incoming(more, loop)
            following = builder.add(term, LONG(TERMS))
            term.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)
            builder.position_at_end(after)
            for row in range(rows):
                for w in range(weights):
                    place = builder.shl(builder.add(builder.mul(pitch, LONG(row)), LONG(w)), LONG(2))
                    target = builder.inttoptr(builder.add(output, place), WORD.as_pointer())
                    builder.store(_sum(builder, totals[row][w]), target, align=4)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return verb


_one, _two = (_dots(rows, TOGETHER) for rows in range(1, FEW + 1))
_single = _dots(1, 1)


@compiled
def dots(rows, weights, levels, width, weight, stride, terms, output, pitch):
    """Set output (int32, address) to the products of `rows` <= FEW rows of levels and `weights` rows of weights.

    levels  address of int16, `width` from row to row; weight: address of int8, `stride` from row to row
    terms   a positive multiple of TERMS; output: `pitch` from row to row
    """
    done = np.int64(0)
    while done + TOGETHER <= weights:
        here, target = weight + done * stride, output + 4 * done
        if rows == 1:
            _one(levels, width, here, stride, terms, target, pitch)
        else:
            _two(levels, width, here, stride, terms, target, pitch)
        done += TOGETHER
    while done < weights:
        for row in range(rows):
            here = levels + 2 * row * width
            _single(here, width, weight + done * stride, stride, terms, output + 4 * (done + row * pitch), pitch)
        done += 1
