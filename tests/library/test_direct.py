"""A call passes by the torch op only where nothing could notice, and gives the same either way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from spikeplug import functional, kernels
from spikeplug.conversion.redirection import Redirection, only
from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS
from spikeplug.library.dispatch import may_go_direct
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics

X = torch.linspace(-3, 3, 40).view(5, 8)


class Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Subclass(Tensor):
    pass


@contextmanager
def dual() -> Iterator[None]:
    with forward_ad.dual_level():
        yield


@pytest.mark.parametrize("watcher", [Functions, Dispatches, dual, torch.profiler.profile])
def test_whoever_watches_sees_the_op(watcher: Any) -> None:
    assert may_go_direct((X,))
    expected = functional.silu(X)
    with watcher():
        assert not may_go_direct((X,))
        assert torch.equal(functional.silu(X), expected)
    assert may_go_direct((X,))


def test_a_dispatch_mode_sees_one_op() -> None:
    with Dispatches() as mode:
        functional.silu(X)
    assert mode.seen == ["spikeplug.silu.default"]


def test_a_profile_names_the_operator() -> None:
    with torch.profiler.profile() as profile:
        functional.silu(X)
    assert "spikeplug::silu" in {event.key for event in profile.key_averages()}


def test_gradients_subclasses_and_other_devices_go_through_the_op() -> None:
    leaf = X.clone().requires_grad_()
    assert not may_go_direct((leaf,))
    with torch.no_grad():
        assert may_go_direct((leaf,))
    assert functional.silu(leaf).requires_grad
    assert not may_go_direct((X.as_subclass(Subclass),))
    assert not may_go_direct((X.to("meta"),))
    assert functional.silu(X.to("meta")).shape == X.shape


def test_a_conversions_own_scope_is_no_watcher() -> None:
    with only(Redirection(None, frozenset({"silu"}))):
        assert may_go_direct((X,))


def test_traces_and_graphs_hold_the_op() -> None:
    traced = make_fx(lambda x: functional.silu(x) + 1)(X)
    assert "spikeplug.silu.default" in traced.code

    class Module(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.silu(x)

    program = torch.export.export(Module(), (X,))
    assert "spikeplug.silu.default" in program.graph_module.code


def test_a_transform_is_not_passed_by() -> None:
    seen = []
    torch.func.vmap(lambda x: seen.append(may_go_direct((x,))) or x)(X)
    assert seen == [False]


def test_the_ops_results_have_plain_strides_and_no_result_is_an_input() -> None:
    for x in (X.t(), X[:, None].expand(5, 1, 8), X[:1].t(), X[::2, ::3]):
        expected = functional.silu(x.contiguous())
        direct, by_op = functional.silu(x), torch.ops.spikeplug.silu(x, Numerics().token)
        assert by_op.stride() == torch.empty(x.shape).stride()
        for y in (direct, by_op):
            assert torch.equal(y, expected)
            assert y.data_ptr() != x.data_ptr()
    with torch.inference_mode():
        assert functional.silu(X).is_inference()


def test_attentions_heads_lie_side_by_side() -> None:
    """What models do next, transpose and merge the heads, is a view."""
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8)
    output = functional.attention(query, key, key)
    assert output.transpose(1, 2).is_contiguous()
    by_op = torch.ops.spikeplug.attention(query, key, key, None, None, None, None, Numerics().token)
    assert by_op.is_contiguous()
    assert torch.equal(output, by_op)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_tensors_on_several_devices_are_refused(place: int) -> None:
    """By every way to the op: its fake rule would return memory that nobody wrote."""
    given: list[Tensor] = [torch.randn(1, 2, 3, 8), *[torch.randn(1, 2, 3, 8)] * 2, torch.ones(3, 3, dtype=torch.bool)]
    given[place] = given[place].to("meta")
    message = "attention got tensors on (cpu and meta|meta and cpu); move them to one device"
    token = Numerics().token
    for call in (
        lambda: functional.attention(*given),
        lambda: functional.attention(*given, events=Events()),
        lambda: torch.ops.spikeplug.attention(*given, None, None, None, token),
        lambda: OPERATORS["attention"].kernel(*given, None, None, None, token),
    ):
        with pytest.raises(SpikeplugError, match=message):
            call()
    with kernels.closed_forms(), pytest.raises(SpikeplugError, match=message):
        functional.attention(*given)
    with pytest.raises(SpikeplugError, match="silu got tensors on cpu and meta"):
        functional.swiglu(X, X.to("meta"))


def test_a_scalar_on_another_device_is_no_other_device() -> None:
    assert torch.equal(functional.divide(X, torch.tensor(2.0)), functional.divide(X, torch.full_like(X, 2.0)))
    with pytest.raises(SpikeplugError, match="divide got tensors on cpu and meta"):
        functional.divide(X, torch.tensor(2.0, device="meta"))
