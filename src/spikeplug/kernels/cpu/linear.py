"""Run a linear layer: encode rows, multiply int8 integers, scale and round."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeplug.kernels.cpu.dots import FEW
from spikeplug.kernels.cpu.launch import launch, new_empty
from spikeplug.kernels.cpu.levels import encoder, largest_step
from spikeplug.kernels.cpu.linear_kernel import (
    Buffers,
    Layer,
    Widths,
    linear_encode_kernel,
    linear_few_kernel,
    linear_product_kernel,
    linear_scale_kernel,
)
from spikeplug.kernels.cpu.product import COLUMNS
from spikeplug.kernels.levels import largest_mantissa, linear_refusal, linear_settings, products_refused
from spikeplug.kernels.protocol import EVERY_ROW, Call
from spikeplug.operators.linear.linear import THRESHOLD_BITS

#: Sums of high digits that are held at a time, in elements.
_SUMS = 1 << 20


class Plan(NamedTuple):
    """Hold what follows from a layer's settings and number of inputs.

    reason  why the kernels cannot run it; "": they can
    planes  int8 digits of a level; 0: a level is one int16
    words   what the kernels' blocks begin with: `Encoder` and `Widths`
    """

    reason: str
    planes: int = 0
    words: tuple[int, ...] = ()


@lru_cache(maxsize=256)
def _plan(levels: Any, block: Any, rotation: Any, inputs: int) -> Plan:
    reason = products_refused(levels, block, rotation, inputs)
    if reason is not None:
        return Plan(reason)
    largest = largest_mantissa(levels, block)
    # For one term, torch's product takes the strides of a weight for those of its transpose, and is wrong.
    planes = (1 if largest <= 127 else 2) if inputs > 1 and has_exact_int8_product() else 0
    doubles = largest * 128 * inputs * largest_step(levels, block) << THRESHOLD_BITS <= 1 << 53
    widths = Widths(inputs=inputs, planes=planes, doubles=int(doubles))
    return Plan("", planes, encoder(levels, block, rotation) + widths)


class Linear:
    """Compute a linear layer of levels and int8 weights."""

    def supports(self, call: Call) -> str | None:
        _, levels, block, rotation = linear_settings(call)
        return linear_refusal(call) or _plan(levels, block, rotation, call.arguments[1].shape[1]).reason or None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        x, weight, threshold, unit = call.arguments[:4]
        bias, levels, block, rotation = linear_settings(call)
        outputs, inputs = weight.shape
        plan, shape, dtype = _plan(levels, block, rotation, inputs), x.shape, x.dtype
        if plan.planes == 0:
            weight = weight.contiguous()
        rows = (x if dtype is torch.float32 else x.to(torch.float32)).contiguous()
        count = rows.numel() // inputs
        threshold = threshold.contiguous()
        if bias is not None:
            bias = bias.to(torch.float32).contiguous()
        output = new_empty(rows, (*shape[:-1], outputs))
        stride, step = weight.stride()
        # In the order of `Layer`, whose names would take a microsecond.
        layer = (
            *(rows.data_ptr(), count, output.data_ptr(), outputs),
            *(weight.data_ptr(), stride, threshold.data_ptr(), unit.data_ptr()),
            *(0 if bias is None else bias.data_ptr(), call.numerics.bits),
        )
        held = (rows, weight, threshold, unit, bias, output)
        if count <= FEW and step == 1:
            left = launch(linear_few_kernel, outputs, inputs * count, plan.words + layer, marks=1, held=held)
        else:
            left = _run_many(plan, Layer(*layer), weight, output.view(count, outputs), held)
        return output if dtype is torch.float32 else output.to(dtype), None if left is None else EVERY_ROW


def _run_many(plan: Plan, layer: Layer, weight: Tensor, output: Tensor, held: tuple[Any, ...]) -> Tensor | None:
    """Fill the output (rows, outputs) of a layer; return the marks of what is left.

    Sums lie in the output until they are scaled; those of high digits in a buffer for some rows at a time.
    """
    rows, outputs = output.shape
    inputs, transposed = weight.shape[1], weight.t()
    if plan.planes == 0:  # int16 levels are read in pairs
        digits = torch.zeros(rows, inputs + inputs % 2, dtype=torch.int16)
    else:
        digits = torch.empty(plan.planes, rows, inputs, dtype=torch.int8)
    scales = torch.empty(rows, 2, dtype=torch.int64)
    buffers = Buffers(digits=digits.data_ptr(), scales=scales.data_ptr(), high=0)
    held = (*held, digits, scales)
    words = plan.words + layer + buffers
    launch(linear_encode_kernel, rows, inputs, words, marks=1, held=held)
    sums, left = output.view(torch.int32), None
    if plan.planes == 0:
        launch(linear_product_kernel, -(-outputs // COLUMNS), rows * inputs * COLUMNS, words, marks=1, held=held)
    elif plan.planes == 1:
        torch._int_mm(digits[0], transposed, out=sums)
    if plan.planes <= 1:
        return launch(linear_scale_kernel, rows, outputs, words, marks=1, held=held)
    step = min(rows, max(64, _SUMS // outputs))
    high = torch.empty(step, outputs, dtype=torch.int32)
    for start in range(0, rows, step):
        end = min(start + step, rows)
        torch._int_mm(digits[0, start:end], transposed, out=high[: end - start])
        torch._int_mm(digits[1, start:end], transposed, out=sums[start:end])
        layer = layer._replace(rows=end - start, output=output[start:].data_ptr())
        buffers = buffers._replace(scales=scales[start:].data_ptr(), high=high.data_ptr())
        found = launch(
            linear_scale_kernel, end - start, outputs, plan.words + layer + buffers, marks=1, held=(*held, high)
        )
        left = left if found is None else found
    return left


@lru_cache(maxsize=1)
def has_exact_int8_product() -> bool:
    """Return whether torch's integer product is exact on this machine: some add pairs of products in 16 bits.

    The factors are all extremes and their neighbours, against each other, in both layouts of the weight.
    """
    extremes = torch.tensor([-128, -127, -126, -1, 0, 1, 126, 127], dtype=torch.int8)
    pairs = torch.cartesian_prod(extremes, extremes)
    try:
        for rows, inputs in ((1, 64), (3, 100), (33, 576), (64, 1536)):
            a = pairs.flatten().repeat(-(-rows * inputs // pairs.numel()))[: rows * inputs].view(rows, inputs)
            b = pairs.flip(0).T.flatten().repeat(inputs)[: 80 * inputs].view(80, inputs).contiguous()
            for left in (a, torch.full_like(a, 127), torch.full_like(a, -128)):
                for right in (b, torch.full_like(b, 127), torch.full_like(b, -128), b.T.contiguous().T):
                    expected = (left.to(torch.float64) @ right.T.to(torch.float64)).to(torch.int32)
                    found = torch.empty_like(expected)
                    torch._int_mm(left, right.T, out=found)
                    if not torch.equal(found, expected):
                        return False
    except (RuntimeError, AttributeError):  # this build has no such product, or not for these shapes
        return False
    return True
