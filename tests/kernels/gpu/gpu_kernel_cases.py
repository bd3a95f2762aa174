"""What the checks of the GPU kernels share: configs, rows that break arithmetic, and what equal means.

Without a GPU, the registry is made to choose the Triton kernels for CPU tensors, which the interpreter runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from adversarial import edges
from torch import Tensor

from spikeplug import Numerics, functional
from spikeplug.kernels import closed_forms, registry
from spikeplug.saturation import reset_saturations, saturations

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    registry.DEVICES["cpu"] = registry.DEVICES["cuda"]
    registry.loaded.cache_clear()
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CONFIGS = (
    Numerics(),
    Numerics(bits=4, working_bits=5, fraction_bits=4, segments=1),
    Numerics(bits=8, working_bits=14, fraction_bits=7, segments=16),
    Numerics(bits=15, working_bits=23, fraction_bits=9, segments=512),
    Numerics(bits=20, working_bits=24, fraction_bits=16, segments=4096),
    Numerics(bits=20, working_bits=24, fraction_bits=16, segments=1),
)
SHAPES = ((5,), (1, 1), (123, 123), (2, 3, 4097), (3, 0), (0, 4))
#: (largest whole row, step of longer ones, elements of a program with several rows)
BLOCKS = ((64, 64, 1), (64, 128, 512), (512, 64, 1), (512, 64, 4096))
#: Some of `rows`, where many programs would take the interpreter long.
FEW = [2, 5, 7, 15, 18, 23]


class Closed:
    """The functions of `spikeplug.functional` in closed form: `Closed().softmax(x)`."""

    def __getattr__(self, name: str) -> Callable[..., Tensor]:
        def run(*arguments: Any, **settings: Any) -> Tensor:
            with closed_forms():
                result: Tensor = getattr(functional, name)(*arguments, **settings)
            return result

        return run


operators = Closed()


def dtypes(numerics: Numerics) -> tuple[torch.dtype, ...]:
    """All of them for the default numerics, one for each of the others."""
    place = CONFIGS.index(numerics)
    return DTYPES if place == 0 else (DTYPES[place % 3],)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows(dtype: torch.dtype, width: int = 96) -> Tensor:
    """Rows of every kind there is: zeros, one value, ±2^k and neighbours, denormals, masked, not finite, huge."""
    x = seeded(24, width, seed=1) * 4
    x[0] = 0
    x[1] = 1.25
    x[2] = -7.0
    powers = torch.tensor([float(value) for value in edges(20)])
    x[3:7] = powers[torch.arange(4 * width) % len(powers)].view(4, width) * torch.tensor(
        [[1.0], [-1], [2**-10], [-0.01]]
    )
    x[7] *= 1e-39
    x[8] *= 2.0**-14
    x[9] *= 1e-6
    x[10, 1:] = 0
    x[11] = -x[11].abs() * 5 - 40
    x[12, ::2] = 1e4
    x[13, :-1] = -torch.inf
    x[14] = -torch.inf
    x[15, 3] = torch.nan
    x[16, 4] = torch.inf
    x[17, 5], x[17, 6] = torch.inf, -torch.nan
    x[18, 7] = -torch.inf
    x[19, 0] = 6.5e4
    x[20] *= 3e4
    x[21, 0] = 2.0**15.99
    x[22] = x[22].abs() + 1e3
    x[23] = torch.linspace(-12, 12, width)
    return x.to(dtype).to(DEVICE)


def assert_equal(ours: Callable[[], Tensor], closed: Callable[[], Tensor], *, taken: bool = True) -> None:
    """The same bits (NaN where there is NaN), shape, dtype and ledger. taken: False if no kernel may run."""
    reset_saturations()
    names: list[str] = []
    with registry.reported_to(lambda call, kernel, reason: names.append(kernel)):
        found = ours()
    assert names
    assert all(name.startswith("Triton") is taken for name in names)
    counted = saturations()
    reset_saturations()
    expected = closed()
    assert counted == saturations()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(found.isnan(), expected.isnan())
    # Where there is no NaN: equal, and of the same sign where both are 0.
    wanted = ~expected.isnan()
    assert torch.equal(found[wanted], expected[wanted])
    assert torch.equal(found[wanted].signbit(), expected[wanted].signbit())
