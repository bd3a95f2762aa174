"""Blocks of channels with a power-of-two scale each, where a vector's own would drown its small channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from spikeplug.coding import Coded, encode, received
from spikeplug.numerics import Numerics


def in_blocks(
    core: Callable[..., tuple[Tensor, Tensor]], block: int | None, x: Tensor, *others: Tensor | int
) -> tuple[Tensor, Tensor]:
    """core(x, *others) -> (q, exponent), called with (..., blocks, block) in place of (..., d); q as x, and exponent.

    others: of x's shape, of (..., 1), or one number for all. Vectors of up to `block` elements, and block = None, are
    left whole: exponent is (..., 1) there and else as q.
    """
    dimension = x.shape[-1]
    if block is None or dimension <= block:
        return core(x, *others)
    quotient, exponent = core(*(_cut(part, block) for part in (x, *others)))
    return _joined(quotient, dimension), _joined(exponent.expand(quotient.shape), dimension)


def encode_blocks(x: Tensor, bits: int, block: int | None) -> Coded:
    """`encode`, every block at a scale of its own: exponent as mantissa where there are blocks. x: finite."""
    code = encode(x if block is None or x.shape[-1] <= block else _cut(x, block), bits)
    if code.mantissa.shape == x.shape:
        return code
    exponent = code.exponent.expand(code.mantissa.shape)
    return Coded(_joined(code.mantissa, x.shape[-1]), _joined(exponent, x.shape[-1]), None)


def arriving(x: Tensor, numerics: Numerics) -> Tensor:
    """x as the spike code of numerics.input_bits carries it, in blocks of numerics.scale_block; x itself without them."""
    block = numerics.scale_block
    if numerics.input_bits is None or block is None or x.shape[-1] <= block:
        return received(x, numerics.input_bits)
    return _joined(received(_cut(x, block), numerics.input_bits), x.shape[-1])


def _cut(x: Tensor | int, block: int) -> Any:
    if isinstance(x, int) or x.dim() == 0:
        return x
    if x.shape[-1] == 1:
        return x.unsqueeze(-1)
    # A last block that is not full repeats the last element: no scale changes, and nothing is divided by 0.
    places = torch.arange(-(-x.shape[-1] // block) * block, device=x.device).clamp(max=x.shape[-1] - 1)
    return x[..., places].unflatten(-1, (-1, block))


def _joined(x: Tensor, dimension: int) -> Tensor:
    return x.flatten(-2)[..., :dimension]
