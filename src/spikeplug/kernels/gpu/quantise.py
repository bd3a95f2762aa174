"""Run the encoder alone on a GPU: each row in few levels of its step, as numbers or bytes."""

from __future__ import annotations

from torch import Tensor

from spikeplug.codes import STEP_BYTES, pack
from spikeplug.kernels.gpu.levels import block_refusal, encode, rounded_to_levels
from spikeplug.kernels.levels import quantise_refusal, quantise_settings
from spikeplug.kernels.protocol import Call


class Quantise:
    """Encode vectors in few levels, and return the numbers, or bytes."""

    def supports(self, call: Call) -> str | None:
        return quantise_refusal(call) or block_refusal(quantise_settings(call)[1])

    def run(self, call: Call) -> tuple[Tensor, None]:
        x, (levels, block, rotation, packed) = call.arguments[0], quantise_settings(call)
        width = x.shape[-1]
        rows = x.reshape(-1, width).contiguous()
        if not packed:
            return rounded_to_levels(rows, levels, block, rotation).view(x.shape), None
        digits, steps, exponents = encode(rows, levels, block, rotation, planes=1)
        return pack(digits[0], steps, exponents).view(*x.shape[:-1], width + STEP_BYTES), None
