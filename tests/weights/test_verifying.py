"""Test the float64 run: everything in it is wide, and the model is not changed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeplug.weights.verifying import relative_difference, run_wide


class Narrowing(nn.Module):
    """Compute in float32 whatever its input is, as norms of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.other.weight = self.layer.weight
        self.scale = nn.Buffer(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.layer(x)).to(torch.float32).float().softmax(-1, dtype=torch.float32)
        return (x * self.scale).to(self.layer.weight.dtype)


def test_every_step_is_in_float64() -> None:
    model = Narrowing()
    x = torch.randn(3, 6, dtype=torch.float64)
    (found,) = run_wide(model, {"x": x.float()}, lambda _, tensor: tensor.detach().double(), {}, {})
    weight = model.layer.weight.detach().double()
    first = x.float().double() @ weight.T + model.layer.bias.detach().double()
    expected = (first @ weight.T + model.other.bias.detach().double()).softmax(-1)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
    assert model.layer.weight.dtype == torch.float32


def test_tied_weights_are_told_apart_by_their_module() -> None:
    asked: list[str] = []

    def weight(name: str, tensor: Tensor) -> Tensor:
        asked.append(name)
        return tensor.detach().double()

    run_wide(Narrowing(), {"x": torch.ones(2, 6)}, weight, {}, {})
    assert {"layer.weight", "other.weight", "layer.bias", "other.bias", "scale"} <= set(asked)


def test_inputs_and_outputs_of_modules_can_be_replaced() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    x = torch.randn(2, 4)
    (found,) = run_wide(
        model, {"input": x}, lambda _, tensor: tensor.detach().double(), {"1": lambda y: y * 2}, {"0": lambda a, b: a}
    )
    torch.testing.assert_close(found, model[1].double()(x.double() * 2).detach())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_differences() -> None:
    x = torch.tensor([1.0, -4.0, float("inf")])
    assert relative_difference([x], [x]) == 0.0
    assert relative_difference([x + 1], [x]) == 0.25
    assert relative_difference([x[:2]], [x]) == float("inf")
    assert relative_difference([], [x]) == float("inf")
    assert relative_difference([torch.tensor([float("nan")])], [torch.ones(1)]) == float("inf")
    assert relative_difference([torch.empty(0)], [torch.empty(0)]) == 0.0
