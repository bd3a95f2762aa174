"""Run sums and products of two tensors on a GPU: integers in registers, a power of two per element."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: N803  (what is in capitals is known when a kernel is compiled)

from __future__ import annotations

import struct

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.kernels.broadcast import NO_BROADCAST, broadcast
from spikeplug.kernels.gpu.integers import coded, decode, magnitude_bits, rounded, sum_of, widened
from spikeplug.kernels.gpu.launch import on_device
from spikeplug.kernels.protocol import DTYPES, NO_AFFINE, Call
from spikeplug.operators.linear.pair import HUGE
from spikeplug.operators.linear.receiver import LOWEST_EXPONENT

#: Numbers from here on have no code; their bits, as `magnitude_bits` gives them.
_HUGE_BITS = tl.constexpr(struct.unpack("i", struct.pack("f", HUGE))[0])
_LOWEST = tl.constexpr(LOWEST_EXPONENT)
#: Elements of a program.
_ELEMENTS = 1024
#: Axes that the kernel walks over; tensors with more of them are copied.
_AXES = 4


class Pair:
    """Compute the sum or the product of two tensors, which may broadcast."""

    def __init__(self, *, product: bool) -> None:
        self._product = product

    def supports(self, call: Call) -> str | None:
        a, b = call.arguments
        if call.weight is not None or call.bias is not None:
            return NO_AFFINE
        if not (a.dtype in DTYPES and b.dtype in DTYPES):
            return "kernels take two tensors of floats"
        return None if a.shape == b.shape or broadcast(a.shape, b.shape) else NO_BROADCAST

    def run(self, call: Call) -> tuple[Tensor, None]:
        dtype = torch.result_type(*call.arguments)
        a, b = torch.broadcast_tensors(*call.arguments)
        output = torch.empty(a.shape, dtype=dtype, device=a.device)
        walked = axes(tuple(a.shape), a.stride(), b.stride())
        if len(walked) > _AXES:
            a, b = a.contiguous(), b.contiguous()
            walked = axes(tuple(a.shape), a.stride(), b.stride())
        sizes, a_strides, b_strides = zip(*([(1, 0, 0)] * (_AXES - len(walked)) + walked), strict=True)
        width = sizes[-1]
        rows = output.numel() // width
        columns = min(_ELEMENTS, triton.next_power_of_2(width))
        height, across = _ELEMENTS // columns, -(-width // columns)
        with on_device(a):
            pair_kernel[(-(-rows // height) * across,)](
                a=a,
                b=b,
                output=output,
                rows=rows,
                width=width,
                across=across,
                middle=sizes[1],
                inner=sizes[2],
                **{f"a{axis}": stride for axis, stride in enumerate(a_strides)},
                **{f"b{axis}": stride for axis, stride in enumerate(b_strides)},
                PRODUCT=self._product,
                BITS=call.numerics.bits,
                ROWS=height,
                COLUMNS=columns,
                num_warps=4,
                enable_fp_fusion=False,
            )
        return output, None


def axes(shape: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Return the fewest axes, (size, a's stride, b's stride), over which two tensors of one shape are walked."""
    found: list[tuple[int, int, int]] = []
    for size, first, second in zip(shape, a, b, strict=True):
        if size == 1:
            continue
        if found and found[-1][1:] == (first * size, second * size):
            found[-1] = (found[-1][0] * size, first, second)
        else:
            found.append((size, first, second))
    return found or [(1, 0, 0)]


@triton.jit
def pair_kernel(
    a,
    b,
    output,
    rows,
    width,
    across,  # programs that share a row
    middle,
    inner,
    a0,
    a1,
    a2,
    a3,
    b0,
    b1,
    b2,
    b3,
    PRODUCT: tl.constexpr,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = program // across * ROWS + tl.arange(0, ROWS)[:, None]
    column = program % across * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    seen = (row < rows) & (column < width)
    rest, last = row // inner, row % inner
    outer, between = rest // middle, rest % middle
    x = widened(tl.load(a + (outer * a0 + between * a1 + last * a2) + column * a3, mask=seen, other=0.0))
    y = widened(tl.load(b + (outer * b0 + between * b1 + last * b2) + column * b3, mask=seen, other=0.0))
    has_code = (magnitude_bits(x) < _HUGE_BITS) & (magnitude_bits(y) < _HUGE_BITS)
    first, first_exponent = _received(tl.where(has_code, x, 0.0))
    second, second_exponent = _received(tl.where(has_code, y, 0.0))
    if PRODUCT:
        value, exponent = first.to(tl.int64) * second, first_exponent + second_exponent
    else:
        value, exponent = sum_of(first, first_exponent, second, second_exponent)
    mantissa, places = coded(value, tl.abs(value), BITS)
    code = decode(mantissa, exponent + places)
    exact = x * y if PRODUCT else x + y
    exact = tl.where(exact == exact, exact, float("nan"))  # `rounded` takes no other NaN
    result = rounded(tl.where(has_code, code, exact), output.dtype.element_ty)
    tl.store(output + row * width + column, result, mask=seen)


@triton.jit
def _received(x):
    """Return (mantissa, exponent), int32, of finite float32: x = mantissa·2^exponent; 0 has an exponent below all.

    A denormal number keeps its unit, 2^-149, of which every sum and product is a multiple or rounds as such: no code
    depends on where the mantissa's leading one stands.
    """
    bits = magnitude_bits(x)
    field = bits >> 23
    mantissa = (bits & 0x7FFFFF) | tl.where(field > 0, 1 << 23, 0)
    exponent = tl.where(bits == 0, _LOWEST, tl.maximum(field, 1) - 150)
    return tl.where(x < 0, -mantissa, mantissa), exponent
