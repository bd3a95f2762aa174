"""Launch kernels over rows: rows cut into programs. Nothing here waits for the device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor

from spikeplug.numerics import Numerics
from spikeplug.primitives.interpolation import Interpolation
from spikeplug.saturation import counter

#: Elements of a row that one program holds in registers; longer rows are read three times, `STEP` elements at once.
LARGEST = 1 << 13
STEP = 1 << 12
#: Elements of a program that holds several short rows.
SHARED = 1 << 11


class Shape(NamedTuple):
    """The block of a program: `rows` rows of `columns` elements at once; whole: that is all of a row."""

    rows: int
    columns: int
    whole: bool
    warps: int


def block_shape(count: int, dimension: int) -> Shape:
    """Return the block for `count` rows of `dimension` elements. No result depends on it."""
    whole = dimension <= LARGEST
    columns: int = triton.next_power_of_2(dimension) if whole else STEP
    rows = max(1, min(SHARED // columns, triton.next_power_of_2(count)))
    return Shape(rows, columns, whole, max(1, min(16, rows * columns // 512)))


def run_rows(kernel: Any, x: Tensor, dtype: torch.dtype, event: str, **given: Any) -> Tensor:
    """Run a kernel over the rows of x (rows, d); return (rows, d) of `dtype`.

    event: what the kernel counts in the ledger of saturations. given: the kernel's own arguments and constants, by
    name; the rest is x, output, ledger, count, dimension, ROWS, COLUMNS and WHOLE.
    """
    count, dimension = x.shape
    output = torch.empty(count, dimension, dtype=dtype, device=x.device)
    shape = block_shape(count, dimension)
    with on_device(x), counter(event, x.device) as ledger:
        kernel[(-(-count // shape.rows),)](
            x=x,
            output=output,
            ledger=ledger,
            count=count,
            dimension=dimension,
            ROWS=shape.rows,
            COLUMNS=shape.columns,
            WHOLE=shape.whole,
            num_warps=shape.warps,
            enable_fp_fusion=False,
            **given,
        )
    return output


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Make x's device the current one, on which Triton launches."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@lru_cache(maxsize=64)
def knots(table: Interpolation, device: torch.device) -> Tensor:
    """Return the table's knots, int32, on the device."""
    return torch.tensor(table.knots, dtype=torch.int32, device=device)


def exponential_constants(numerics: Numerics) -> dict[str, int]:
    """Return n, P, F and the bits of a segment's inputs, under the kernels' names."""
    segment_bits = numerics.segments.bit_length() - 1
    return {
        "N": numerics.bits,
        "P": numerics.working_bits,
        "F": numerics.fraction_bits,
        "REST": numerics.fraction_bits - segment_bits,
    }
