"""Multiply levels by int8 weights on a GPU's int8 matrix units, exact in int32, and find each row's largest product.

A level of two digits takes two products, which are added as 256·high + low. The matrix units may clamp, so no sum may
leave int32: digits and weights are at most 128 each, and `products_refused` keeps 128·128 times the terms below 2^31
where there are two digits, and the largest level times 128 times the terms where there is one.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

from typing import NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.kernels.gpu.launch import on_device


class Tile(NamedTuple):
    """Describe what one Triton program multiplies: its rows, its outputs, and the inputs that it takes at once."""

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int


def choose_tile(rows: int) -> Tile:
    """Return the tile for a number of rows. No result depends on it.

    The operands of all stages fit 96 KiB of shared memory, which every GPU from Ampere on has.
    """
    if rows <= 16:
        return Tile(16, 64, 128, 4, 4)
    if rows <= 64:
        return Tile(64, 64, 64, 4, 4)
    return Tile(128, 128, 64, 8, 3)


def product(digits: Tensor, weight: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Return (sums, largest): levels @ weightᵀ, int32 (rows, outputs), and max |sum·threshold| of a row, int64 (rows,).

    digits: int8 (planes, rows, inputs). weight: int8 (outputs, inputs), of any strides. threshold: int32 (outputs,).
    """
    planes, rows, inputs = digits.shape
    outputs = weight.shape[0]
    sums = torch.empty(rows, outputs, dtype=torch.int32, device=digits.device)
    largest = torch.zeros(rows, dtype=torch.int64, device=digits.device)
    tile = choose_tile(rows)
    with on_device(digits):
        # Programs that follow each other share a tile of the weight, which is the larger operand.
        product_kernel[(-(-rows // tile.rows), -(-outputs // tile.outputs))](
            digits=digits,
            weight=weight,
            threshold=threshold,
            sums=sums,
            largest=largest,
            rows=rows,
            outputs=outputs,
            inputs=inputs,
            plane=rows * inputs,
            output_stride=weight.stride(0),
            input_stride=weight.stride(1),
            PLANES=planes,
            BLOCK_ROWS=tile.rows,
            BLOCK_OUTPUTS=tile.outputs,
            BLOCK_INPUTS=tile.inputs,
            num_warps=tile.warps,
            num_stages=tile.stages,
            enable_fp_fusion=False,
        )
    return sums, largest


@triton.jit
def product_kernel(
    digits,
    weight,
    threshold,
    sums,
    largest,
    rows,
    outputs,
    inputs,
    plane,  # elements from the high digits to the low ones
    output_stride,
    input_stride,
    PLANES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_INPUTS: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    output = tl.program_id(1) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    index = tl.arange(0, BLOCK_INPUTS)
    here, there = row < rows, output < outputs
    digit_place = digits + row.to(tl.int64)[:, None] * inputs + index[None, :]
    weight_place = weight + output.to(tl.int64)[None, :] * output_stride + index[:, None] * input_stride
    total = tl.zeros([BLOCK_ROWS, BLOCK_OUTPUTS], tl.int32)
    low = tl.zeros([BLOCK_ROWS, BLOCK_OUTPUTS], tl.int32)
    for start in range(0, inputs, BLOCK_INPUTS):
        seen = index < inputs - start
        factor = tl.load(weight_place + start * input_stride, mask=seen[:, None] & there[None, :], other=0)
        level = tl.load(digit_place + start, mask=here[:, None] & seen[None, :], other=0)
        total = tl.dot(level, factor, total, out_dtype=tl.int32)
        if PLANES == 2:
            level = tl.load(digit_place + plane + start, mask=here[:, None] & seen[None, :], other=0)
            low = tl.dot(level, factor, low, out_dtype=tl.int32)
    if PLANES == 2:
        total = (total << 8) + low
    place = row.to(tl.int64)[:, None] * outputs + output[None, :]
    tl.store(sums + place, total, mask=here[:, None] & there[None, :])
    scale = tl.load(threshold + output, mask=there, other=0).to(tl.int64)
    tl.atomic_max(largest + row, tl.max(tl.abs(total.to(tl.int64) * scale[None, :]), 1), mask=here, sem="relaxed")
