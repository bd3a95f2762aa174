"""What kernels do on the way out and in: weights, biases, chunks of a row, results in large pages."""

from __future__ import annotations

import pytest
import torch
from kernels.cases import CONFIGS, both, by_kernel, closed_form, same_bits
from torch import Tensor

from spikeplug import functional
from spikeplug.kernels.cpu.launch import empty_like
from spikeplug.kernels.cpu.rows import CHUNK
from spikeplug.numerics import Numerics

NORMS = {"rms_norm": (1e-5,), "layer_norm": (1e-5,)}
GATES = {"silu": (), "sigmoid": (), "gelu": ("none",)}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check(name: str, x: Tensor, how: tuple[object, ...], numerics: Numerics, **after: Tensor) -> None:
    assert same_bits(by_kernel(name, (x, *how), numerics, **after), closed_form(name, (x, *how), numerics, **after))


@pytest.mark.parametrize("numerics", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", NORMS)
def test_weight_and_bias_of_every_dtype(name: str, numerics: Numerics) -> None:
    for dtype in DTYPES:
        x = (seeded(7, 65) * 3 + 1).to(dtype)
        for weight_dtype, bias_dtype in ((dtype, dtype), (torch.float32, torch.bfloat16), (torch.float16, dtype)):
            weight, bias = seeded(65, seed=1).to(weight_dtype), seeded(65, seed=2).to(bias_dtype)
            check(name, x, NORMS[name], numerics, weight=weight)
            if name == "layer_norm":
                check(name, x, NORMS[name], numerics, weight=weight, bias=bias)
                check(name, x, NORMS[name], numerics, bias=bias)


@pytest.mark.parametrize("name", NORMS)
def test_weights_that_are_strided_or_not_finite(name: str) -> None:
    x, wide = seeded(9, 33), seeded(99, seed=3)
    wide[5], wide[8], wide[11] = torch.inf, -torch.inf, torch.nan
    for weight in (wide[::3], wide[1:34], wide[:33] * 1e-42):
        check(name, x, NORMS[name], Numerics(), weight=weight)


@pytest.mark.parametrize("name", GATES)
def test_gates_times_another_tensor(name: str) -> None:
    for dtype in DTYPES:
        x, up = (seeded(5, 70) * 3).to(dtype), seeded(5, 70, seed=1)
        for weight in (up.to(dtype), up.half(), up.t().contiguous().t(), up[:1], up[0], up[:, :1], up.expand(3, 5, 70)):
            check(name, x, GATES[name], Numerics(), weight=weight)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("width", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_gates_whose_largest_share_is_a_negative_elements(name: str, width: int) -> None:
    """Rows with and without a positive element that outweighs all others, at and around the bound between them."""
    levels = torch.tensor([-5.0, 0.0, 1e-6, 0.1, 0.3, 0.3678, 0.37, 0.4, 0.5, 1.0, 30.0])
    scales = torch.tensor([1e-30, 1e-3, 0.3, 1.0, 7.0, 1e3, 1e6, 3e7, 1e30])
    rows = -(seeded(len(levels), len(scales), width) * scales[:, None]).abs()
    rows[..., width // 2] = levels[:, None]
    for numerics in CONFIGS.values():
        check(name, rows, GATES[name], numerics)


@pytest.mark.parametrize("name", ["softmax", "silu", "rms_norm", "layer_norm"])
def test_large_results(name: str) -> None:
    """From 32 MiB on their memory is asked for in large pages."""
    x = seeded(8 << 10, 1100)
    how = {"softmax": (-1,), "silu": ()}.get(name, (1e-5,))
    part = x[4000:4100].clone()
    ours = by_kernel(name, (x, *how))
    assert x.nbytes > 32 << 20
    assert same_bits(ours[4000:4100], closed_form(name, (part, *how)))


def test_memory_for_results() -> None:
    for shape in ((3, 5), (8 << 20,), ((8 << 20) + 3, 2)):
        x = torch.zeros(shape)
        output = empty_like(x)
        assert (output.shape, output.dtype, output.is_contiguous()) == (x.shape, x.dtype, True)
        assert torch.equal(output.fill_(1.0), x + 1)


def test_swiglu_is_silu_times_up() -> None:
    gate, up = seeded(3, 4, 50) * 4, seeded(3, 4, 50, seed=1)
    assert torch.equal(functional.swiglu(gate, up), functional.silu(gate) * up)
    assert torch.equal(functional.swiglu(gate, up[0]), functional.silu(gate) * up[0])
    assert functional.swiglu(gate.half(), up).dtype == torch.float32
    a, b = gate.clone().requires_grad_(), up.clone().requires_grad_()
    functional.swiglu(a, b).sum().backward()
    assert torch.equal(b.grad, functional.silu(gate))
    assert a.grad is not None


@pytest.mark.parametrize("name", [*NORMS, *GATES, "softmax", "cos"])
def test_rare_rows_alone_are_run_in_closed_form(name: str) -> None:
    """With their own weights, whatever shape these have; what is counted is counted once."""
    x = seeded(4, 6, 40) * 3
    x[1, 2, 3], x[3, 5, 0], x[3, 0, 1] = torch.nan, torch.inf, -torch.inf
    arguments = (x, *{"softmax": (-1,)}.get(name, {**NORMS, **GATES}.get(name, ())))
    weights: list[dict[str, Tensor]] = [{}]
    if name in GATES:
        weights += [{"weight": seeded(*shape, seed=1)} for shape in ((4, 6, 40), (6, 40), (6, 1), (3, 4, 6, 40))]
        weights += [{"weight": seeded(4, 6, 40, seed=1).half()}]
    if name in NORMS:
        weights += [{"weight": seeded(40, seed=1), "bias": seeded(40, seed=2)}, {"weight": seeded(40).bfloat16()}]
    for after in weights:
        ours, closed = both(name, arguments, **after)
        assert same_bits(ours, closed), after
    if name == "softmax":
        assert same_bits(*both(name, (x, 0)))
        assert same_bits(*both(name, (x, -2)))
    one = torch.tensor([1.0, torch.nan, 2.0])
    assert same_bits(*both(name, (one, *arguments[1:])))
    if name in GATES:
        assert same_bits(*both(name, (one, *arguments[1:]), weight=torch.ones(3)))
