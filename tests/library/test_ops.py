"""Every operator as a torch op: schema, fake rule, autograd, strides, dtypes; the gradient is the exact function's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spikeplug.library import OPERATORS
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS

DEFAULT, PAPER = Numerics().token, PRESETS["paper"].numerics.token
POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal"}


def values(*shape: int, low: float = -2.0, high: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A ramp, shuffled and never 0: the same at every call."""
    count = max(torch.Size(shape).numel(), 1)
    ramp = torch.linspace(low, high, count + 1, dtype=torch.float64)[:-1] + (high - low) / (3 * count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    return ramp[order][: torch.Size(shape).numel()].view(shape).to(dtype)


def integer_layer(rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """An int8 weight, its thresholds, and their unit."""
    weight = torch.arange(rows * columns).mul(37).remainder(255).sub(127).view(rows, columns).to(torch.int8)
    threshold = torch.arange(1, rows + 1, dtype=torch.int32) * 9001
    return weight, threshold, torch.tensor(-22, dtype=torch.int32)


def arguments(name: str, dtype: torch.dtype = torch.float32) -> list[tuple[Any, ...]]:
    """Calls of an operator, without the numerics: every optional argument is given once."""
    x = values(3, 5, 8, low=0.1 if name in POSITIVE else -2.0, dtype=dtype)
    q, k, v = (values(2, heads, rows, 8, dtype=dtype) for heads, rows in ((4, 3), (2, 5), (2, 5)))
    shown = torch.ones(3, 5, dtype=torch.bool).tril(2)
    bias, sinks = values(2, 1, 3, 5, dtype=dtype), values(4, dtype=dtype)
    weight, threshold, unit = integer_layer(6, 8)
    positions, frequency = torch.arange(24.0).view(2, 3, 4).to(dtype), torch.tensor([1.0, 0.25, 0.01], dtype=dtype)
    calls: dict[str, list[tuple[Any, ...]]] = {
        "softmax": [(x, -1), (x, 0)],
        "log_softmax": [(x, -1), (x, 1)],
        "attention": [
            (q, k, v, None, None, None, None),
            (q, k, v, shown, 0.3, 5.0, sinks),
            (q, k, v, bias, 0.2, None, None),
        ],
        "attention_weights": [
            (q, k, None, None, None, None),
            (q, k, shown, 0.3, 5.0, sinks),
            (q, k, bias, 0.2, None, None),
        ],
        "gelu": [(x, "none"), (x, "tanh"), (x, "quick")],
        "softplus": [(x, 1.0, 20.0), (x, 2.0, 1.0)],
        "rms_norm": [(x, 1e-5)],
        "layer_norm": [(x, 1e-5)],
        "vector_norm": [(x, -1, False), (x, 1, True)],
        "divide": [(x, values(5, 1, low=0.5, dtype=dtype))],
        "linear": [
            (x, weight, threshold, unit, None, 1 << 15, 0, 0),
            (x, weight, threshold, unit, values(6, dtype=dtype), 1 << 15, 4, 4),
        ],
        "matmul": [(x, values(3, 8, 4, dtype=dtype)), (x, values(8, 4, dtype=dtype))],
        "add": [(x, values(3, 5, 8, low=0.5, dtype=dtype)), (x, values(8, dtype=dtype))],
        "multiply": [(x, values(3, 5, 8, low=0.5, dtype=dtype)), (x, values(8, dtype=dtype))],
        "sum": [(x, -1), (x, 1)],
        "quantise": [(x, 1 << 15, 0, 0, False), (x, 1 << 15, 4, 4, False)],
        "neuron": [
            (x, torch.tensor(200, dtype=torch.int32), torch.tensor(-22, dtype=torch.int32), "few_spikes 16"),
            (x, 3500 + torch.arange(8, dtype=torch.int32), torch.tensor(-20, dtype=torch.int32), "st_bif -1024 1023"),
        ],
        "gif": [(x, torch.arange(8) > 5, 10, 0), (x, torch.ones(8, dtype=torch.bool), 2, 8)],
        "rotary": [(positions, frequency, quarters) for quarters in (0, 1)],
    }
    return calls.get(name, [(x,)])


def op(name: str) -> Any:
    return getattr(torch.ops.spikeplug, name).default


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_torch_finds_nothing_wrong(name: str) -> None:
    quick = ("test_schema", "test_autograd_registration", "test_faketensor")
    for tests, call in zip(
        ((*quick, "test_aot_dispatch_dynamic"), quick, quick), reversed(arguments(name)), strict=False
    ):
        leaves = [x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in call]
        results = torch.library.opcheck(op(name), (*leaves, DEFAULT), test_utils=tests)
        assert set(results.values()) == {"SUCCESS"}


def odd(x: Tensor, how: str) -> Tensor:
    """The same values in another layout."""
    if how == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how == "strided":
        return torch.stack([x, x], -1)[..., 0]
    if how == "offset":
        return torch.cat([x[:1], x])[1:] if x.dim() else torch.stack([x, x])[1]
    return x.clone()


@pytest.mark.parametrize("token", [DEFAULT, PAPER], ids=["default", "paper"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_fake_rule_says_what_comes_out(name: str, token: str) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for call in arguments(name, dtype):
            plain = op(name)(*call, token)
            assert plain.dtype == dtype
            for how in ("transposed", "strided", "offset"):
                given = [odd(x, how) if isinstance(x, Tensor) else x for x in call]
                real = op(name)(*given, token)
                assert torch.equal(real, plain)
                fake = op(name)(*(x.to("meta") if isinstance(x, Tensor) else x for x in given), token)
                assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
                assert not any(isinstance(x, Tensor) and x.data_ptr() == real.data_ptr() for x in given)


@pytest.mark.parametrize("name", OPERATORS)
def test_empty_batches_have_a_shape(name: str) -> None:
    for call in arguments(name):
        given = [x[:0] if isinstance(x, Tensor) and x.dim() > 2 else x for x in call]
        real = op(name)(*given, DEFAULT)
        fake = op(name)(*(x.to("meta") if isinstance(x, Tensor) else x for x in given), DEFAULT)
        assert real.numel() == 0
        assert (fake.shape, fake.dtype) == (real.shape, real.dtype)


def gradients(run: Any, call: tuple[Any, ...]) -> list[Tensor]:
    """Of a weighted sum of the output, by every floating input."""
    leaves = [x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in call]
    output = run(*leaves)
    wanted = [x for x in leaves if isinstance(x, Tensor) and x.requires_grad]
    return list(torch.autograd.grad(output, wanted, values(*output.shape, dtype=output.dtype)))


@pytest.mark.parametrize("token", [DEFAULT, PAPER], ids=["default", "paper"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_gradient_is_that_of_the_exact_function_at_the_same_inputs(name: str, token: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for call in arguments(name, dtype):
            found = gradients(lambda *given: op(name)(*given, token), call)
            expected = gradients(OPERATORS[name].exact, call)
            for mine, exact in zip(found, expected, strict=True):
                assert mine.dtype == dtype
                assert torch.equal(mine, exact)


@pytest.mark.parametrize("name", OPERATORS)
def test_the_exact_function_is_what_the_operator_approximates_and_is_differentiable(name: str) -> None:
    for call in arguments(name, torch.float64):
        exact = OPERATORS[name].exact(*call)
        spiking = op(name)(*call, DEFAULT)
        assert (spiking - exact).abs().max() <= 2e-3 * exact.abs().max()
        leaves = [x.clone().requires_grad_() if isinstance(x, Tensor) and x.is_floating_point() else x for x in call]
        assert torch.autograd.gradcheck(OPERATORS[name].exact, leaves, fast_mode=True)


def test_the_gradient_of_a_gradient_is_the_exact_functions_too() -> None:
    x = values(4, 6, dtype=torch.float64)

    def curvature(run: Any) -> Tensor:
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(run(leaf).square().sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), leaf)
        return second

    spiking, exact = curvature(lambda x: op("silu")(x, DEFAULT)), curvature(OPERATORS["silu"].exact)
    assert (spiking - exact).abs().max() < 1e-2 * exact.abs().max()


def test_one_tensor_in_several_places_gets_the_sum() -> None:
    x = values(2, 4, 3, 8)

    def gradient(run: Any) -> Tensor:
        leaf = x.clone().requires_grad_()
        output = run(leaf, leaf, leaf)
        (found,) = torch.autograd.grad(output, leaf, values(*output.shape))
        return found

    spiking = gradient(lambda *given: op("attention")(*given, None, None, None, None, DEFAULT))
    exact = gradient(lambda *given: OPERATORS["attention"].exact(*given, None, None, None, None))
    assert (spiking - exact).abs().max() < 1e-5 * exact.abs().max()


def test_inputs_that_need_no_gradient_get_none() -> None:
    q, k, v, *others = arguments("attention")[0]
    k.requires_grad_()
    op("attention")(q, k, v, *others, DEFAULT).sum().backward()
    assert k.grad is not None
    assert q.grad is None
    assert v.grad is None
    assert not op("attention")(q, k.detach(), v, *others, DEFAULT).requires_grad
