"""A kernel that fails its test on a device is not used there, which is said once, and explained."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from gpu_kernel_cases import DEVICE, seeded
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spikeplug import Numerics
from spikeplug.kernels import Call
from spikeplug.kernels.gpu import KERNELS
from spikeplug.kernels.gpu.self_test import SelfTested, pair_calls
from spikeplug.saturation import reset_saturations, saturations

TESTED = {name: kernel for name, kernel in KERNELS.items() if isinstance(kernel, SelfTested)}
CALL = Call("add", (seeded(3, 4).to(DEVICE), seeded(4).to(DEVICE)), Numerics())
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")


class Other:
    """A kernel that does something else with what another kernel gives."""

    def __init__(self, change: Any) -> None:
        self.change, self.tested = change, 0

    def supports(self, call: Call) -> str | None:
        return "there are no rows" if call.arguments[0].dim() == 0 else None

    def run(self, call: Call) -> tuple[Tensor, Tensor | None]:
        self.tested += 1
        output, rare = TESTED["add"].run(call)
        return self.change(output), rare


def last_bit(output: Tensor) -> Tensor:
    """Change the lowest bit of one number."""
    place = output.view(-1)[-1:]
    place.view(torch.int16 if output.element_size() == 2 else torch.int32).bitwise_xor_(1)
    return output


def broken(output: Tensor) -> Tensor:
    raise RuntimeError("out of registers\nin line 7")


@pytest.mark.parametrize("name", sorted(TESTED))
def test_each_kernel_passes_and_a_changed_bit_is_seen_in_each_call(name: str) -> None:
    tested = TESTED[name]
    assert tested._failure(torch.device(DEVICE)) is None
    for arguments in tested._calls():
        assert tested._is_equal(arguments, torch.device(DEVICE))
        kernel = tested._kernel

        class Changed:
            def run(self, call: Call, kernel: Any = kernel) -> tuple[Tensor, None]:
                output = kernel.run(call)[0]
                if output.dtype is torch.int8:
                    output.view(-1)[0] ^= 1
                    return output, None
                return last_bit(output), None

        again = SelfTested(name, Changed(), tested._calls)  # type: ignore[arg-type]
        assert not again._is_equal(arguments, torch.device(DEVICE))


def test_a_kernel_with_other_bits_is_not_used() -> None:
    kernel = Other(last_bit)
    tested = SelfTested("add", kernel, pair_calls)
    with pytest.warns(RuntimeWarning, match="runs add in its slower closed form on .* gave other bits"):
        reason = tested.supports(CALL)
    assert reason == f"its test on {CALL.arguments[0].device} gave other bits than the closed form"
    assert kernel.tested == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tested.supports(CALL) == reason
    assert kernel.tested == 1


def test_a_kernel_that_does_not_run_is_not_used() -> None:
    tested = SelfTested("add", Other(broken), pair_calls)
    with pytest.warns(RuntimeWarning, match="failed: RuntimeError: out of registers"):
        assert tested.supports(CALL) is not None


def test_a_kernel_that_passes_is_tested_once_and_nobody_sees_it() -> None:
    class Watch(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Watch.seen += 1
            return func(*args, **(kwargs or {}))

    kernel = Other(lambda output: output)
    tested = SelfTested("add", kernel, pair_calls)
    reset_saturations()
    with Watch():
        assert tested.supports(CALL) is None
    assert Watch.seen == 0
    assert saturations() == {}
    count = kernel.tested
    assert count == len(list(pair_calls()))
    assert tested.supports(CALL) is None
    assert tested.supports(Call("add", (torch.ones(()), torch.ones(())), Numerics())) == "there are no rows"
    assert kernel.tested == count
