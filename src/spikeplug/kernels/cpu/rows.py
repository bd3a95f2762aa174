"""Run operators that treat each vector on its own: one kernel over all rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeplug.kernels.cpu.launch import empty_like, launch
from spikeplug.kernels.cpu.memory import HEADER, Layout, as_words, floats, integers, places_of
from spikeplug.kernels.cpu.verbs import inlined

#: Elements of a row that pass through all loops at once, so that what lies between loops stays in the nearest cache.
CHUNK = 1024


class Rows(NamedTuple):
    """Hold the 64-bit words that follow the header in every block, a kernel's input, that `by_rows` makes.

    x, output  addresses of float32 (rows, width)
    width      elements of a row
    weight     address of what the output is multiplied by, float32 (rows, width) or (width,), by kernel; 0: none
    bias       address of what is added to the output, float32, in the same shapes; 0: none
    """

    x: Any
    output: Any
    width: Any
    weight: Any
    bias: Any


class Settings(NamedTuple):
    """Hold a kernel's own 64-bit words, and the values they were made from, so that their tensors stay alive."""

    words: tuple[int, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Settings:
        """Convert a kernel's layout, filled with tensors, integers and doubles, to settings."""
        return cls(as_words(values), values)


ROWS = places_of(Rows, after=HEADER)


def own_places(layout: type[Layout]) -> Layout:
    """Return the layout filled with the indices of a kernel's own words in its block, after those of `Rows`."""
    return places_of(layout, after=ROWS)


@inlined
def rows_of(block):
    """Return views of a block that `by_rows` made: x as float32, the same memory as int32, and the output."""
    rows, width = block[HEADER.count], block[ROWS.width]
    x, output = block[ROWS.x], block[ROWS.output]
    return floats(x, rows, width), integers(x, rows, width), floats(output, rows, width)


def by_rows(
    kernel: Any,
    x: Tensor,
    settings: Settings,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    output: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run the kernel over the vectors along the last dimension of x.

    output: where the kernel writes; None: a new tensor of x's shape and dtype.
    Returns the output, and the rows that the kernel left: bool, in the shape of x without its last dimension; None if
    there are none.
    """
    shape, given = x.shape, x.dtype
    rows = (x if given is torch.float32 else x.to(torch.float32)).contiguous()
    if output is None:
        output, dtype = empty_like(rows), given
    else:
        dtype = output.dtype
    weight, bias = weight if weight is None else weight.contiguous(), bias if bias is None else bias.contiguous()
    width = shape[-1]
    count = rows.numel() // width
    # In the order of `Rows`, whose names would take half a microsecond.
    places = (
        *(rows.data_ptr(), output.data_ptr(), width),
        *(0 if weight is None else weight.data_ptr(), 0 if bias is None else bias.data_ptr()),
    )
    held = (rows, output, weight, bias, settings)
    left = launch(kernel, count, width, places + settings.words, marks=count, held=held)
    return output if output.dtype is dtype else output.to(dtype), None if left is None else left.view(shape[:-1])
