"""Scale the sums of a linear layer by step and thresholds on a GPU, add the bias, and round to a code per row.

See `linear_integers` in operators/linear/linear.py. Products are below 2^59, in int64. What a row's scale depends on,
its largest product or sum, is found by an earlier kernel, so a row may be cut into several programs.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.kernels.gpu.integers import (
    coded,
    decode,
    finite,
    is_finite,
    magnitude_bits,
    nearest_mantissa,
    power_of_two,
    rounded,
    scale_exponent,
    sum_of,
    tally,
    widened,
)
from spikeplug.kernels.gpu.launch import on_device
from spikeplug.operators.linear.linear import THRESHOLD_BITS
from spikeplug.saturation import counter

#: Bits that the product has where a bias is added to it.
_SUMMED_BITS = tl.constexpr(24)
#: Outputs of a program.
_STEP = 1024


class Bias(NamedTuple):
    """Hold a bias as integers: codes, int32 (outputs,), in units of 2^exponent, int32 (1,)."""

    codes: Tensor
    exponent: Tensor


def encode_bias(bias: Tensor) -> Bias:
    """Return the codes of a bias, floating (outputs,); what is not finite is 0, and counted."""
    codes = torch.empty(bias.shape, dtype=torch.int32, device=bias.device)
    exponent = torch.empty(1, dtype=torch.int32, device=bias.device)
    with on_device(bias), counter("input: not finite", bias.device) as ledger:
        _encode_bias[(1,)](
            bias=bias,
            codes=codes,
            exponent=exponent,
            ledger=ledger,
            count=bias.numel(),
            BITS=THRESHOLD_BITS + 1,
            STEP=_STEP,
            num_warps=4,
            enable_fp_fusion=False,
        )
    return Bias(codes, exponent)


def scale(
    sums: Tensor,
    largest: Tensor,
    steps: Tensor,
    exponents: Tensor,
    threshold: Tensor,
    unit: Tensor,
    bias: Bias | None,
    bits: int,
    dtype: torch.dtype,
) -> Tensor:
    """Return the outputs (rows, outputs) of a linear layer, codes of `bits` bits and an exponent per row, in `dtype`.

    sums, largest     as `linear_product.product` returns them
    steps, exponents  of the levels, int32 (rows, 1); a step of -1 makes a row NaN
    threshold, unit   int32 (outputs,) and (): the thresholds, and the exponent that they share
    """
    rows, outputs = sums.shape
    output = torch.empty(rows, outputs, dtype=dtype, device=sums.device)
    tops = largest if bias is None else torch.zeros_like(largest)
    given: dict[str, Any] = {
        "sums": sums,
        "largest": largest,
        "steps": steps,
        "exponents": exponents,
        "threshold": threshold,
        "unit": unit,
        "codes": threshold if bias is None else bias.codes,
        "code_exponent": unit if bias is None else bias.exponent,
        "tops": tops,
        "output": output,
        "outputs": outputs,
        "BITS": bits,
        "BIASED": bias is not None,
        "STEP": _STEP,
        "num_warps": 4,
        "enable_fp_fusion": False,
    }
    with on_device(sums):
        for finding in (True, False) if bias is not None else (False,):
            scale_kernel[(rows, -(-outputs // _STEP))](FINDING=finding, **given)
    return output


@triton.jit
def scale_kernel(
    sums,
    largest,
    steps,
    exponents,
    threshold,
    unit,
    codes,
    code_exponent,
    tops,  # the largest |product + bias| of each row
    output,
    outputs,
    BITS: tl.constexpr,
    BIASED: tl.constexpr,
    FINDING: tl.constexpr,  # tops, not the output
    STEP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * STEP + tl.arange(0, STEP)
    seen = index < outputs
    place = row * outputs + index
    step = tl.load(steps + row)
    strange, step = step < 0, tl.maximum(step, 0)
    factor = tl.load(threshold + index, mask=seen, other=0).to(tl.int64) * step
    value = tl.load(sums + place, mask=seen, other=0) * factor
    top = tl.load(largest + row) * step
    exponent = tl.load(exponents + row) + tl.load(unit)
    if BIASED:
        mantissa, places = coded(value, top, _SUMMED_BITS)
        addend = tl.load(codes + index, mask=seen, other=0)
        value, exponent = sum_of(mantissa, exponent + places, addend, tl.load(code_exponent))
        if FINDING:
            tl.atomic_max(tops + row, tl.max(tl.where(seen, tl.abs(value), 0), 0), sem="relaxed")
        else:
            top = tl.load(tops + row)
    if not FINDING:
        mantissa, places = coded(value, top, BITS)
        y = tl.where(strange, float("nan"), decode(mantissa, exponent + places))
        tl.store(output + place, rounded(y, output.dtype.element_ty), mask=seen)


@triton.jit
def _encode_bias(bias, codes, exponent, ledger, count, BITS: tl.constexpr, STEP: tl.constexpr):
    largest, broken = tl.zeros([STEP], tl.int32), tl.zeros([STEP], tl.int32)
    index = tl.arange(0, STEP)
    for start in range(0, count, STEP):
        value = widened(tl.load(bias + start + index, mask=start + index < count, other=0.0))
        largest = tl.maximum(largest, tl.where(is_finite(value), magnitude_bits(value), 0))
        broken += (~is_finite(value)).to(tl.int32)
    tally(ledger, broken)
    unit = scale_exponent(tl.max(largest, 0), BITS)
    tl.store(exponent, unit)
    for start in range(0, count, STEP):
        seen = start + index < count
        value = widened(tl.load(bias + start + index, mask=seen, other=0.0))
        tl.store(codes + start + index, nearest_mantissa(finite(value) * power_of_two(-unit), BITS), mask=seen)
