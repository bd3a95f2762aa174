"""Neurons of Norse and snnTorch beside Transformers: left alone (`make test-spikingjelly` has both libraries)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_model import tiny_model
from torch import Tensor, nn

import spikeplug

norse = pytest.importorskip("norse.torch", exc_type=ImportError)
snntorch = pytest.importorskip("snntorch", exc_type=ImportError)

NEURONS = {
    "Norse LIFCell": norse.LIFCell,
    "Norse LIF": norse.LIF,
    "Norse IAFCell": norse.IAFCell,
    "Norse LIFBoxCell": norse.LIFBoxCell,
    "Norse LIFRecurrentCell": lambda: norse.LIFRecurrentCell(64, 64),
    "snnTorch Leaky": lambda: snntorch.Leaky(beta=0.9),
    "snnTorch Synaptic": lambda: snntorch.Synaptic(alpha=0.9, beta=0.8),
    "snnTorch Lapicque": lambda: snntorch.Lapicque(beta=0.9),
}


class Spiking(nn.Module):
    """Feed the logits of a Transformer to neurons."""

    def __init__(self, neurons: nn.Module) -> None:
        super().__init__()
        self.transformer, self.neurons = tiny_model(), neurons

    def forward(self, ids: Tensor) -> Any:
        return self.neurons(self.transformer(ids).logits.transpose(0, 1)[..., :64].contiguous()[0])


@pytest.mark.parametrize("name", NEURONS)
def test_neurons_are_left_alone(name: str) -> None:
    torch.manual_seed(0)
    model = Spiking(NEURONS[name]()).eval()
    exact = copy.deepcopy(model.neurons)
    ids = torch.arange(2, 14)[None]
    report = spikeplug.convert(model, strict=True)
    assert [entry.path for entry in report.left if entry.operator == "neuron"] == ["neurons"]
    assert not any(entry.path.startswith("neurons") for entry in report.replaced)
    given: list[Tensor] = []
    model.neurons.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].clone()))
    with torch.no_grad(), spikeplug.audit(model) as found:
        output = model(ids)
    with torch.no_grad():
        expected = exact(given[0])
    assert found.entries == ()
    for one, other in zip(_tensors(output), _tensors(expected), strict=True):
        assert torch.equal(one, other)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [tensor for each in value if each is not None for tensor in _tensors(each)]
