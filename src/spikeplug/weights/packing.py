"""Pack the integers of weights in int4 groups: two numbers of 4 bits in a byte, and two factors in a byte.

A row of a packed weight holds the numbers of the row, the first one of a byte in its low half, and then the factors of
its groups in the same way. A number is in two's complement. A factor is its sign, 8, and its magnitude less one.
A missing second half is 0. So every byte that is read stands for something, and no number is out of range.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.weights.rounding import MOST_FACTOR, NIBBLE

_ROWS = 2048  # rows that are worked on at once, so that it takes little memory


def packed_width(columns: int, group: int) -> int:
    """Return the bytes of a packed row of `columns` weights."""
    return _bytes(columns) + _bytes(_groups(columns, group))


def pack(mantissa: Tensor, group: int, name: str = "the weight") -> Tensor:
    """Return the packed form, uint8 (rows, packed_width), of the int8 (rows, columns) of int4 groups.

    group  successive columns that share a factor, the last ones of a row may be fewer
    name   of the weight, for the message

    A factor is found again from its products, so nobody has to keep it: `unpack` gives the same products.
    Errors: SpikeplugError if a group is not made of numbers of 4 bits times a factor.
    """
    if not len(mantissa):
        return mantissa.new_zeros((0, packed_width(mantissa.shape[1], group)), dtype=torch.uint8)
    return torch.cat([_packed(part, group, name) for part in mantissa.split(_ROWS)])


def unpack(packed: Tensor, columns: int, group: int) -> Tensor:
    """Return the int8 (rows, columns) that `pack` packed."""
    numbers, factors = packed.split([_bytes(columns), _bytes(_groups(columns, group))], 1)
    number = _halves(numbers, columns)
    number = torch.where(number > NIBBLE[1], number - 16, number)
    factor = _factor(_halves(factors, _groups(columns, group)))
    return number * factor.repeat_interleave(group, 1)[:, :columns]


def _packed(mantissa: Tensor, group: int, name: str) -> Tensor:
    columns = mantissa.shape[1]
    pieces = F.pad(mantissa, (0, -columns % group)).unflatten(1, (-1, group))
    suiting = _suiting(mantissa.device)[pieces.int() + 128]
    common = reduce(torch.bitwise_and, suiting.unbind(-1))
    if not bool(common.all()):
        raise SpikeplugError(
            f"{name} is no longer made of int4 groups, so it cannot be packed: convert the float model again."
        )
    code = torch.frexp((common & -common).float()).exponent - 1  # the lowest one that suits all
    number = torch.div(pieces, _factor(code)[..., None], rounding_mode="trunc").flatten(1)[:, :columns]
    return torch.cat([_in_bytes(number & 15), _in_bytes(code)], 1)


def _suiting(device: torch.device) -> Tensor:
    """Return which factors suit each product from -128 to 127, int32 (256,): bit c stands for the factor of code c."""
    product, code = torch.arange(-128, 128, device=device)[:, None], torch.arange(16, device=device)
    number = torch.div(product, _factor(code), rounding_mode="floor")
    suits = (number * _factor(code) == product) & (number >= NIBBLE[0]) & (number <= NIBBLE[1])
    return (suits << code).sum(-1).int()


def _factor(code: Tensor) -> Tensor:
    """Return the factors, int8, that codes from 0 to 15 stand for: 1 to 8, -1 to -8."""
    return torch.where(code < MOST_FACTOR, code + 1, MOST_FACTOR - 1 - code).to(torch.int8)


def _groups(columns: int, group: int) -> int:
    return -(-columns // group)


def _bytes(halves: int) -> int:
    return -(-halves // 2)


def _in_bytes(halves: Tensor) -> Tensor:
    """Return numbers from 0 to 15, two in a byte."""
    low, high = F.pad(halves.to(torch.uint8), (0, halves.shape[1] % 2)).unflatten(1, (-1, 2)).unbind(-1)
    return torch.bitwise_or(low, high << 4)


def _halves(held: Tensor, count: int) -> Tensor:
    """Return the first `count` numbers of each row of bytes, int8."""
    return torch.stack((held & 15, held >> 4), -1).flatten(1)[:, :count].to(torch.int8)
