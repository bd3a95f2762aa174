"""Neurons of other pipelines: recognised by what they are, left alone bit for bit, and not counted by the audit."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pipelines.doubles import IF, STBIF, FewSpikes, Phase, SignedIF
from torch import Tensor, nn

from spikeplug.conversion import audit, convert, revert
from spikeplug.conversion.neurons import is_neuron, neurons_in, parts_of

NEURONS = {
    "ST-BIF": lambda: STBIF(0.3, -7, 7),
    "IF": lambda: IF(4),
    "few spikes": FewSpikes,
    "phase": Phase,
    "signed IF": lambda: SignedIF(torch.full((6,), 0.3), 4),
}
each_neuron = pytest.mark.parametrize("name", NEURONS)


class Router(nn.Module):
    """Keep what is above a threshold: a layer, though it has a threshold and a state called v."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold, self.v = 0.1, torch.tensor(0.0)

    def forward(self, x: Tensor) -> Tensor:
        self.v = torch.softmax(x, -1)
        return torch.where(self.v > self.threshold, self.v, torch.zeros_like(self.v))


class Clip(nn.Module):
    """Hold a norm below a threshold: it divides the threshold by a float norm, and has no potential."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.threshold / x.norm(dim=-1, keepdim=True)).clamp(max=1.0)


class Surrogate(nn.Module):
    """Stand for the derivative of a spike: a part of a neuron that computes a sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(4 * x)


class Leaky(nn.Module):
    """Leak by a learnt constant, as a parametric LIF neuron does; with a surrogate and a layer with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.v_threshold, self.v = 1.0, torch.tensor(0.0)
        self.w = nn.Parameter(torch.tensor(0.2))
        self.surrogate, self.recurrent = Surrogate(), nn.Sequential(nn.Linear(6, 6), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v + (self.recurrent(x) - self.v) * torch.sigmoid(self.w) / torch.tensor(3.0)
        return (self.surrogate(self.v - self.v_threshold) >= 0.5).to(x)


class Block(nn.Module):
    """Compute a softmax, then spikes of it."""

    def __init__(self, neuron: nn.Module, method: str = "__call__") -> None:
        super().__init__()
        self.neuron, self.method = neuron, method

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self.neuron, self.method)(torch.softmax(x, -1))


def inputs() -> Tensor:
    return torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(0))


@each_neuron
def test_neurons_are_recognised(name: str) -> None:
    assert is_neuron(NEURONS[name]())


@pytest.mark.parametrize(
    "layer",
    [Router, Clip, nn.GELU, lambda: nn.Threshold(0.1, 0.0), nn.Softplus, nn.Hardshrink, lambda: Block(IF(4))],
)
def test_layers_are_no_neurons(layer: type[nn.Module]) -> None:
    assert not is_neuron(layer())


def test_a_layer_with_a_threshold_is_replaced() -> None:
    report = convert(nn.Sequential(Router(), Clip()))
    assert {(entry.path, entry.operator) for entry in report.replaced} >= {("0", "softmax"), ("1", "norm")}
    assert not report.leftovers


@each_neuron
@pytest.mark.parametrize("method", ["__call__", "encode"])
def test_a_neuron_in_a_converted_block_is_left_alone(name: str, method: str) -> None:
    neuron = NEURONS[name]()
    if not hasattr(neuron, method):
        method = "__call__"
    model, exact = Block(neuron, method), copy.deepcopy(neuron)
    before = copy.deepcopy(model)(inputs())
    report = convert(model)
    assert [(entry.path, entry.operator) for entry in report.left] == [("neuron", "neuron")]
    assert not report.leftovers
    spiking = torch.nn.Sequential(nn.Softmax(-1))
    convert(spiking)
    with audit(model) as found:
        output = model(inputs())
    assert found.entries == ()
    assert torch.equal(output, getattr(exact, method)(spiking(inputs())))
    revert(model)
    if hasattr(neuron, "reset"):
        neuron.reset()
    assert torch.equal(model(inputs()), before)


def test_surrogates_belong_to_a_neuron_and_layers_do_not() -> None:
    neuron = Leaky()
    assert is_neuron(neuron)
    assert list(parts_of(neuron)) == [neuron.surrogate]
    model = nn.Sequential(nn.Softmax(-1), neuron)
    assert neurons_in(model) == {id(neuron), id(neuron.surrogate)}
    report = convert(model)
    assert {(entry.path, entry.operator) for entry in report.replaced} == {("0", "softmax"), ("1.recurrent.1", "gelu")}
    with torch.no_grad(), audit(model) as found:
        model(inputs())
    assert found.entries == ()


def test_the_audit_of_an_exact_model_leaves_neurons_out() -> None:
    model = nn.Sequential(STBIF(0.3, -7, 7), Clip())
    with audit(model) as found:
        model(inputs())
    assert {entry.path for entry in found.entries} == {"1"}


def test_methods_of_an_excluded_module_stay_exact() -> None:
    class Embedder(nn.Module):
        def encode(self, x: Tensor) -> Tensor:
            return F.gelu(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.encode(x)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedder = Embedder()

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(x, -1) + self.embedder.encode(x)

    model = Model()
    convert(model, exclude="embedder")
    with audit(model) as found:
        model(inputs())
    assert {(entry.path, entry.op) for entry in found.entries} == {("embedder", "gelu")}
