"""Say which encoders of levels and which linear layers kernels run, on any device: their settings and their reasons."""

from __future__ import annotations

from typing import Any

import torch

from spikeplug.codes import MOST_PACKED
from spikeplug.hadamard import factors_of
from spikeplug.kernels.protocol import DTYPES, NO_AFFINE, Call, with_settings
from spikeplug.operators.linear import linear, quantise
from spikeplug.operators.linear.levels import MOST_LEVELS, MOST_ROTATION, SHARE_BITS

#: The largest mantissa that two int8 digits hold.
MOST_MANTISSA = 127 * 256 + 127


def largest_mantissa(levels: int, block: int) -> int:
    """Return the bound of |mantissa| of the levels."""
    return levels << (SHARE_BITS if block else 0)


def refused(levels: int, block: int, rotation: int, *, short: bool = True) -> str | None:
    """Return why the kernels do not encode with these settings, or None; values out of their domain are refused too.

    short: whether mantissas must fit 16 bits. Others have 31 bits, as the magnitudes that the step divides.
    """
    if levels < 1 or block < 0 or largest_mantissa(levels, block) > (MOST_MANTISSA if short or block else MOST_LEVELS):
        return f"levels of {levels} with block={block} do not fit 16 bits"
    if rotation and (rotation < 2 or rotation > MOST_ROTATION or not factors_of(rotation)):
        return f"rotation={rotation} is not the order of a Hadamard matrix up to {MOST_ROTATION}"
    return None


def linear_settings(call: Call) -> tuple[Any, ...]:
    """Return bias, levels, block and rotation of a call of `linear`."""
    return with_settings(call.arguments[4:], linear.RECORD.settings)


def quantise_settings(call: Call) -> tuple[Any, ...]:
    """Return levels, block, rotation and packed of a call of `quantise`."""
    return with_settings(call.arguments[1:], quantise.RECORD.settings)


def linear_refusal(call: Call) -> str | None:
    """Return why the tensors of a call of `linear` are not ones that kernels take, or None."""
    x, weight, threshold, unit = call.arguments[:4]
    bias = linear_settings(call)[0]
    if call.weight is not None or call.bias is not None:
        return NO_AFFINE
    if weight.dtype is not torch.int8 or threshold.dtype is not torch.int32 or unit.dtype is not torch.int32:
        return "kernels take int8 weights, int32 thresholds and an int32 unit"
    if weight.dim() != 2 or threshold.dim() != 1 or unit.dim():
        return "the weight, its thresholds or its unit have other dimensions"
    outputs, inputs = weight.shape
    if x.size(-1) != inputs or threshold.numel() != outputs:
        return "the input or the thresholds do not fit the weight"
    if bias is not None and (bias.dtype not in DTYPES or bias.shape != threshold.shape):
        return "kernels take one float32, bfloat16 or float16 bias per output"
    return None


def quantise_refusal(call: Call) -> str | None:
    """Return why kernels do not run a call of `quantise`, or None."""
    if call.weight is not None or call.bias is not None:
        return NO_AFFINE
    levels, block, rotation, packed = quantise_settings(call)
    width = call.arguments[0].shape[-1]
    if rotation and width % rotation:
        return f"rotation={rotation} does not divide {width} channels"
    if packed and (block or levels > MOST_PACKED):
        return "bytes do not hold these levels"
    return refused(levels, block, rotation, short=False)


def products_refused(levels: int, block: int, rotation: int, inputs: int) -> str | None:
    """Return why kernels do not multiply `inputs` levels of these settings by int8 weights, or None."""
    reason = refused(levels, block, rotation)
    if reason is not None:
        return reason
    if rotation and inputs % rotation:
        return f"rotation={rotation} does not divide {inputs} channels"
    if largest_mantissa(levels, block) * 128 * inputs >= 1 << 31:
        return f"sums of {inputs} products do not fit 32 bits"
    return None
