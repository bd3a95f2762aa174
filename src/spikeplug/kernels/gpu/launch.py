"""Launch Triton kernels over the rows of a tensor, several rows per program. The host never waits for the device."""

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
    """Describe the block that one Triton program holds at once: `rows` rows of `columns` elements each.

    whole: a row fits into `columns`; else the program reads its row in several steps. warps: Triton's num_warps.
    """

    rows: int
    columns: int
    whole: bool
    warps: int


def block_shape(count: int, dimension: int) -> Shape:
    """Return the block of a program for `count` rows of `dimension` elements. It changes the speed, never a result."""
    whole = dimension <= LARGEST
    columns: int = triton.next_power_of_2(dimension) if whole else STEP
    rows = max(1, min(SHARED // columns, triton.next_power_of_2(count)))
    return Shape(rows, columns, whole, max(1, min(16, rows * columns // 512)))


def run_rows(kernel: Any, x: Tensor, dtype: torch.dtype, event: str, **given: Any) -> Tensor:
    """Run a Triton kernel over the rows of x (rows, d), contiguous; return a new tensor (rows, d) of `dtype`.

    event: name of the count in the ledger of saturations to which the kernel adds.
    given: the kernel's own arguments and constants, by name. This function adds those that all kernels over rows take:
    x, output, ledger, count, dimension, ROWS, COLUMNS and WHOLE.
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
    """Return a context in which x's CUDA device is current: Triton launches there. It does nothing for a CPU tensor."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@lru_cache(maxsize=64)
def knots(table: Interpolation, device: torch.device) -> Tensor:
    """Return the knots of an interpolation table as an int32 tensor on the device; the last 64 are kept in a cache."""
    return torch.tensor(table.knots, dtype=torch.int32, device=device)


def exponential_constants(numerics: Numerics) -> dict[str, int]:
    """Return the widths that a kernel with an exponential takes as constants, by the kernel's names for them.

    N: bits of a result. P: working_bits. F: fraction_bits of an exponent. REST: input bits within one table segment.
    """
    segment_bits = numerics.segments.bit_length() - 1
    return {
        "N": numerics.bits,
        "P": numerics.working_bits,
        "F": numerics.fraction_bits,
        "REST": numerics.fraction_bits - segment_bits,
    }
