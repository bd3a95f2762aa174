"""Which calls the kernels take; all others are the closed form's."""

from __future__ import annotations

import os

from torch import Tensor

from spikeplug.kernels.registry import DTYPES, supports
from spikeplug.numerics import Numerics


def takes(numerics: Numerics, *tensors: Tensor | None) -> bool:
    """Whether a kernel can run on these tensors, all on one GPU (or in Triton's interpreter, on the CPU)."""
    present = [x for x in tensors if x is not None]
    return (
        supports(numerics)
        and all(x.dtype in DTYPES for x in present)
        and len({x.device for x in present}) == 1
        and (present[0].is_cuda or (present[0].device.type == "cpu" and interpreted()))
    )


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter here: on CPU tensors, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
