"""Jagged tensors run on their values, bit for bit as their parts do; other layouts are refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikeplug import conversion, functional
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.operators import RECORDS

PARTS = [torch.linspace(-4, 3, 3 * 8).view(3, 8), torch.linspace(-1, 9, 5 * 8).view(5, 8), torch.ones(1, 8)]
ONE_TENSOR = [name for name, record in RECORDS.items() if record.family != "attention" and len(record.inputs) == 1]


def jagged(parts: list[Tensor] = PARTS, **how: Any) -> Tensor:
    return torch.nested.nested_tensor(parts, layout=torch.jagged, **how)


@pytest.mark.parametrize("name", ONE_TENSOR)
@pytest.mark.parametrize("numerics", ["default", "narrow", "paper"])
def test_a_jagged_tensor_gives_the_bits_of_its_parts(name: str, numerics: str) -> None:
    x, function = jagged(), getattr(functional, name)
    y = function(x, numerics=numerics)
    assert y.layout is torch.jagged
    for part, own in zip(y.unbind(), PARTS, strict=True):
        assert torch.equal(part.nan_to_num(7.0), function(own, numerics=numerics).nan_to_num(7.0))
    if name != "vector_norm":
        assert (x + y).shape == x.shape, "it has the structure of the input"
    if numerics == "paper":
        return  # its populations are large
    events = Events()
    simulated = function(x, numerics=numerics, events=events)
    assert torch.equal(simulated.values().nan_to_num(7.0), y.values().nan_to_num(7.0))
    assert events.spikes > 0


def test_several_jagged_tensors_and_weights() -> None:
    x, weight, bias = jagged(), torch.linspace(0, 1, 8), torch.ones(8)
    for y, own in [
        (functional.divide(x, x * 2), lambda part: functional.divide(part, part * 2)),
        (functional.divide(x, torch.tensor(3.0)), lambda part: functional.divide(part, torch.tensor(3.0))),
        (functional.divide(torch.tensor(3.0), x), lambda part: functional.divide(torch.tensor(3.0), part)),
        (functional.swiglu(x, x), lambda part: functional.swiglu(part, part)),
        (functional.layer_norm(x, weight, bias), lambda part: functional.layer_norm(part, weight, bias)),
        (functional.softmax(x, 2), functional.softmax),
    ]:
        assert all(torch.equal(part, own(given)) for part, given in zip(y.unbind(), PARTS, strict=True))


def test_gradients_go_through() -> None:
    x = jagged(requires_grad=True)
    functional.gelu(x).values().square().sum().backward()
    assert x.grad is not None
    own = [part.clone().requires_grad_() for part in PARTS]
    sum(functional.gelu(part).square().sum() for part in own).backward()  # type: ignore[union-attr]
    assert all(torch.equal(part, given.grad) for part, given in zip(x.grad.unbind(), own, strict=True))


def test_a_converted_model_takes_jagged_tensors() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.Softmax(-1)).eval()
    conversion.convert(model)
    with torch.inference_mode():
        y = model(jagged())
        # The linear layer's own sums may depend on how many rows it is given.
        for part, own in zip(y.unbind(), PARTS, strict=True):
            torch.testing.assert_close(part, model(own), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda: functional.softmax(jagged(), 1), r"x\.unbind\(\)"),
        (lambda: functional.gelu(jagged([torch.ones(2), torch.ones(3)])), r"x\.unbind\(\)"),
        (lambda: functional.silu(jagged().transpose(1, 2)), r"x\.unbind\(\)"),
        (lambda: functional.divide(jagged(), jagged()), "of one structure"),
        (lambda: functional.divide(jagged(), torch.ones(3, 1, 8)), "of one structure"),
        (lambda: functional.attention(*[jagged().unsqueeze(1)] * 3), "to_padded_tensor"),
        (lambda: functional.gelu(torch.nested.nested_tensor(PARTS)), r"layout=torch\.jagged"),
        (lambda: functional.rms_norm(torch.nested.nested_tensor(PARTS), torch.ones(8)), r"layout=torch\.jagged"),
        (lambda: functional.gelu(torch.eye(3).to_sparse()), r"sparse_coo ones; use \.to_dense\(\)"),
        (lambda: functional.exp(torch.eye(3).to_sparse_csr()), r"sparse_csr ones; use \.to_dense\(\)"),
        (lambda: functional.divide(torch.eye(3), torch.eye(3).to_sparse()), r"use \.to_dense\(\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch says that these layouts are new
def test_what_has_no_rows_is_refused(run: Any, words: str) -> None:
    with pytest.raises(SpikeplugError, match=words) as caught:
        run()
    assert "\n" not in str(caught.value)
