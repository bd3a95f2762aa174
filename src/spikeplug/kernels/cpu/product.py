"""The exact product of weights and values: doubles that hold integers, so that no order of summing changes a bit."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from spikeplug.kernels.cpu.verbs import intrinsic

#: Values lie in panels of so many channels (two vectors of four doubles), key after key.
PANEL = 8
#: Rows of weights that share each value that is loaded: 12 accumulators, 2 values and a weight are 15 of 16 registers.
ROWS = 6
_LANES = 4


def _product(rows: int) -> Any:
    """output[r, :PANEL] = Σ_k weights[r, k]·panel[k, :PANEL] for `rows` rows of weights.

    Addresses of doubles; stride and pitch: elements from one row of weights, and of the output, to the next. Every
    partial sum is an integer below 2^53 (the caller sees to it), so fused and separate rounding give the same.
    """

    @intrinsic
    def verb(
        typing_context: Any, weights: Any, stride: Any, panel: Any, keys: Any, output: Any, pitch: Any
    ) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word, double = ir.IntType(64), ir.DoubleType()
            vector = ir.VectorType(double, _LANES)
            weights, stride, panel, keys, output, pitch = arguments
            fused = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{_LANES}f64"
            )
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), None)

            def at(address: Any, elements: Any, kind: Any) -> Any:
                where = builder.add(address, builder.shl(elements, word(3)))
                return builder.inttoptr(where, kind.as_pointer())

            def spread(x: Any) -> Any:
                single = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.IntType(32)(0))
                return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), lanes)

            zero = ir.Constant(vector, None)
            before = builder.basic_block
            loop, after = builder.append_basic_block("keys"), builder.append_basic_block("summed")
            builder.cbranch(builder.icmp_signed(">", keys, word(0)), loop, after)
            builder.position_at_end(loop)
            key = builder.phi(word)
            key.add_incoming(word(0), before)
            sums = [[builder.phi(vector) for _ in range(PANEL // _LANES)] for _ in range(rows)]
            first = builder.mul(key, word(PANEL))
            values = [
                builder.load(at(panel, builder.add(first, word(_LANES * part)), vector), align=8)
                for part in range(PANEL // _LANES)
            ]
            following = builder.add(key, word(1))
            ends = []
            for row in range(rows):
                weight = builder.load(at(weights, builder.add(builder.mul(stride, word(row)), key), double), align=8)
                wide = spread(weight)
                ends.append([builder.call(fused, [wide, x, s]) for x, s in zip(values, sums[row], strict=True)])
            for row in range(rows):
                for old, new in zip(sums[row], ends[row], strict=True):
                    old.add_incoming(zero, before)
                    old.add_incoming(new, loop)
            key.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, keys), loop, after)
            builder.position_at_end(after)
            for row in range(rows):
                for part in range(PANEL // _LANES):
                    total = builder.phi(vector)
                    total.add_incoming(zero, before)
                    total.add_incoming(ends[row][part], loop)
                    ends[row][part] = total
            for row in range(rows):
                for part in range(PANEL // _LANES):
                    place = builder.add(builder.mul(pitch, word(row)), word(_LANES * part))
                    builder.store(ends[row][part], at(output, place, vector), align=8)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return verb


product_of_rows, product_of_one = _product(ROWS), _product(1)
