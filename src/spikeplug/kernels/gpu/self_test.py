"""Test a kernel on a device before it is used there: it must give the closed form's bits on a few fixed calls.

What runs on a GPU depends on its architecture, its driver and Triton's version. A kernel that differs on any of the
calls, or does not compile, is not used on that device: `supports` says so, and the closed form runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from spikeplug.kernels.protocol import Call, Kernel
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR
from spikeplug.primitives.arithmetic import Closed
from spikeplug.saturation import not_recorded


class SelfTested:
    """Run a linear operator's kernel on a device if it passes its test there, which is made at the first use.

    calls: returns the arguments of each call of the test, on the CPU.
    """

    def __init__(self, operator: str, kernel: Kernel, calls: Callable[[], Iterator[tuple[Any, ...]]]) -> None:
        self._operator, self._kernel, self._calls = operator, kernel, calls
        self._reasons: dict[torch.device, str | None] = {}

    def supports(self, call: Call) -> str | None:
        reason = self._kernel.supports(call)
        if reason is not None:
            return reason
        device = call.arguments[0].device
        if device not in self._reasons:
            self._reasons[device] = self._failure(device)
        return self._reasons[device]

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        return self._kernel.run(call)

    def _failure(self, device: torch.device) -> str | None:
        """Return why the kernel is not used on a device, which is warned of; None if it passes the test."""
        try:
            # Whoever watches torch's operations is to see those of the model only.
            with _disable_current_modes(), torch.no_grad(), not_recorded():
                passed = all(self._is_equal(arguments, device) for arguments in self._calls())
        except Exception as error:  # compilers raise errors of many kinds
            found = f"its test on {device} failed: {type(error).__name__}: {error}".splitlines()[0]
        else:
            if passed:
                return None
            found = f"its test on {device} gave other bits than the closed form"
        warnings.warn(
            f"spikeplug runs {self._operator} in its slower closed form on {device}: the kernel is not used, because "
            f"{found}. Please report this, with the versions of torch and triton.",
            RuntimeWarning,
            stacklevel=2,
        )
        return found

    def _is_equal(self, arguments: tuple[Any, ...], device: torch.device) -> bool:
        numerics = Numerics()
        expected = LINEAR[self._operator].spiking(*arguments, on=Closed(numerics, self._operator))
        there = tuple(x.to(device) if isinstance(x, Tensor) else x for x in arguments)
        found = self._kernel.run(Call(self._operator, there, numerics))[0].cpu()
        return found.dtype == expected.dtype and torch.equal(_comparable(found), _comparable(expected))


def _comparable(x: Tensor) -> Tensor:
    """Return what must be equal: numbers, with every NaN replaced by one number that no code has."""
    return x.to(torch.float64).nan_to_num(1e300, float("inf"), float("-inf"))


def _rows(count: int, width: int, seed: int) -> Tensor:
    """Return float32 rows of all magnitudes; the first ones of zeros, with an outlier, NaN, denormal, and alike."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=g) * 10.0 ** torch.randint(-30, 30, (count, 1), generator=g)
    kinds = (
        x[0] * 0,
        x[0] * (1 + 1e4 * (torch.arange(width) == 1)),
        x[0] * torch.nan,
        x[0].sign() * 1e-40,
        x[0] * 0 - 1,
    )
    for row, kind in enumerate(kinds[: count - 1]):
        x[row + 1] = kind
    return x


def linear_calls() -> Iterator[tuple[Any, ...]]:
    """Return calls of `linear` for every tile, one and two digits, blocks, a rotation, with a bias and without."""
    for count, inputs, levels, block, rotation in (
        (2, 80, 256, 0, 0),
        (40, 192, 127, 0, 64),
        (40, 96, 256, 32, 0),
        (70, 256, 256, 0, 128),
        (70, 80, 127, 0, 0),
    ):
        g = torch.Generator().manual_seed(inputs)
        weight = torch.randint(-128, 128, (130, inputs), generator=g).to(torch.int8)
        weight[0], weight[1] = -128, 127
        threshold = torch.randint(0, 1 << 16, (130,), generator=g, dtype=torch.int32)
        bias = torch.randn(130, generator=g) if rotation else None
        x = _rows(count, inputs, levels).to(torch.float32 if block else torch.bfloat16)
        yield x, weight, threshold, torch.tensor(-20, dtype=torch.int32), bias, levels, block, rotation


def pair_calls() -> Iterator[tuple[Any, ...]]:
    """Return calls of `add` and `multiply`: contiguous and broadcast, octaves apart, in two dtypes."""
    a, b = _rows(7, 1200, 1), _rows(7, 1200, 2)
    yield a, b
    yield a, a.roll(1, -1) * 2.0**-20
    yield a.bfloat16().view(7, 20, 60), b[6].bfloat16().view(20, 60)[:, :1]


def quantise_calls() -> Iterator[tuple[Any, ...]]:
    """Return calls of `quantise`: numbers and bytes, blocks, a rotation."""
    x = _rows(9, 192, 3)
    yield x, 127, 0, 0, True
    yield x.bfloat16(), 256, 32, 0, False
    yield x, 127, 0, 64, True
