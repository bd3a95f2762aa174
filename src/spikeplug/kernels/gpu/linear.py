"""Run a linear layer on a GPU: encode rows, multiply int8 integers, scale and round."""

from __future__ import annotations

from torch import Tensor

from spikeplug.kernels.gpu.levels import block_refusal, encode
from spikeplug.kernels.gpu.linear_product import product
from spikeplug.kernels.gpu.linear_scale import encode_bias, scale
from spikeplug.kernels.levels import largest_mantissa, linear_refusal, linear_settings, products_refused
from spikeplug.kernels.protocol import Call


class Linear:
    """Compute a linear layer of levels and int8 weights, whose thresholds lie in [0, 2^16)."""

    def supports(self, call: Call) -> str | None:
        _, levels, block, rotation = linear_settings(call)
        return (
            linear_refusal(call)
            or products_refused(levels, block, rotation, call.arguments[1].shape[1])
            or block_refusal(block)
        )

    def run(self, call: Call) -> tuple[Tensor, None]:
        x, weight, threshold, unit = call.arguments[:4]
        bias, levels, block, rotation = linear_settings(call)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        planes = 1 if largest_mantissa(levels, block) <= 127 else 2
        threshold = threshold.contiguous()
        digits, steps, exponents = encode(rows, levels, block, rotation, planes)
        sums, largest = product(digits, weight, threshold)
        offset = None if bias is None else encode_bias(bias.contiguous())
        output = scale(sums, largest, steps, exponents, threshold, unit, offset, call.numerics.bits, x.dtype)
        return output.view(*x.shape[:-1], weight.shape[0]), None
