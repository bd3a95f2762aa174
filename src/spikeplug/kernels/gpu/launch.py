"""How kernels over rows are launched: rows cut into programs, rare rows run again by the closed form."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.numerics import Numerics
from spikeplug.primitives.interpolation import Interpolation

#: Elements of a row that one program holds in registers; longer rows are read three times, `STEP` elements at once.
LARGEST = 1 << 13
STEP = 1 << 12
#: Elements of a program that holds several short rows.
SHARED = 1 << 11


class Shape(NamedTuple):
    """A program's block: `rows` rows of `columns` elements at once; whole: that is all of a row."""

    rows: int
    columns: int
    whole: bool
    warps: int


def block_shape(count: int, dimension: int) -> Shape:
    """The block for `count` rows of `dimension` elements. No result depends on it."""
    whole = dimension <= LARGEST
    columns: int = triton.next_power_of_2(dimension) if whole else STEP
    rows = max(1, min(SHARED // columns, triton.next_power_of_2(count)))
    return Shape(rows, columns, whole, max(1, min(16, rows * columns // 512)))


def run_rows(
    kernel: Any, x: Tensor, dtype: torch.dtype, closed: Callable[[Tensor], Tensor], *arguments: Any, **constants: Any
) -> Tensor:
    """kernel over the rows of x (rows, d) -> (rows, d) of `dtype`.

    kernel(x, output, rare, count, dimension, *arguments, ROWS, COLUMNS, WHOLE, **constants) writes every row it can and
    marks in `rare` (rows + 1 bytes, the last for any) those it cannot; `closed` is given the numbers of these
    alone, so that the ledger counts what it would without kernels. The host waits for the device once, to read the
    last byte.
    """
    count, dimension = x.shape
    output = torch.empty(count, dimension, dtype=dtype, device=x.device)
    rare = torch.zeros(count + 1, dtype=torch.int8, device=x.device)
    shape = block_shape(count, dimension)
    with on_device(x):
        kernel[(-(-count // shape.rows),)](
            x,
            output,
            rare,
            count,
            dimension,
            *arguments,
            ROWS=shape.rows,
            COLUMNS=shape.columns,
            WHOLE=shape.whole,
            num_warps=shape.warps,
            enable_fp_fusion=False,
            **constants,
        )
    if bool(rare[-1]):
        again = rare[:-1].nonzero()[:, 0]
        output[again] = closed(again)
    return output


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device: make it x's."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@lru_cache(maxsize=64)
def knots(table: Interpolation, device: torch.device) -> Tensor:
    """The table's knots, int32, on the device."""
    return torch.tensor(table.knots, dtype=torch.int32, device=device)


def exponential_constants(numerics: Numerics) -> dict[str, int]:
    """n, P, F and the bits of a segment's inputs, under the kernels' names."""
    segment_bits = numerics.segments.bit_length() - 1
    return {
        "N": numerics.bits,
        "P": numerics.working_bits,
        "F": numerics.fraction_bits,
        "REST": numerics.fraction_bits - segment_bits,
    }
