"""Rotary embeddings from whole positions: every kind that fits is found, and near its own factors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import logits, tiny_model, tokens
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.models.cohere.modeling_cohere import CohereRotaryEmbedding
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from spikeplug.conversion import audit, convert
from spikeplug.conversion.whole.rotary import RotaryPlug, find_rotary
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics

SIZES = {"hidden_size": 32, "num_attention_heads": 4, "head_dim": 8, "max_position_embeddings": 4096}
ROPES: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 1e4},
    "large base": {"rope_type": "default", "rope_theta": 5e6},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 1e4,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}


def made(rope: dict[str, Any], cls: Any = LlamaRotaryEmbedding, **sizes: Any) -> nn.Module:
    config = AutoConfig.for_model("llama", **SIZES, **sizes, rope_parameters=rope)
    return cls(config)


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_factors_are_near_the_modules_own(rope: dict[str, Any]) -> None:
    module = made(rope)
    assert find_rotary(module) == "halves"
    plug = RotaryPlug(module, Numerics(), "halves")
    positions = torch.tensor([[0, 1, 2, 500, 4095], [7, 7, 3, 4000, 1]])
    x = torch.zeros(2, 5, 8)
    for spiking, exact in zip(plug(x, position_ids=positions), module(x, positions), strict=True):
        assert (spiking.shape, spiking.dtype) == (exact.shape, exact.dtype)
        assert (spiking - exact).abs().max() < 1e-3


def test_pairs_are_found() -> None:
    assert find_rotary(made(ROPES["default"], CohereRotaryEmbedding)) == "pairs"


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "factor": 4.0,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 64,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)
def test_ropes_that_follow_the_length_or_scale_their_factors_are_not_taken(rope: dict[str, Any]) -> None:
    assert find_rotary(made(rope)) is None


@pytest.mark.parametrize("rope", ["dynamic", "yarn"])
def test_a_model_with_another_rope_has_its_waves_replaced(rope: str) -> None:
    parameters = {"rope_type": rope, "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}
    model = tiny_model(rope_parameters=parameters, num_hidden_layers=1)
    exact = logits(model, tokens())
    report = convert(model, recipe="whole", calibration=tokens())
    with audit(model, linear=True) as found:
        spiking = logits(model, tokens())
    assert {(e.path, e.op) for e in found.entries} == {(e.path, e.operator) for e in report.left}
    assert (spiking - exact).norm() < 0.2 * exact.norm()


class Hidden(nn.Module):
    """Something with frequencies that is no rotary embedding."""

    inv_freq: Tensor

    def __init__(self, run: Any = None) -> None:
        super().__init__()
        self.register_buffer("inv_freq", torch.ones(4))
        self.run = run

    def forward(self, x: Tensor, position_ids: Tensor) -> Any:
        if self.run is None:
            raise RuntimeError("not on these")
        return self.run(x, position_ids)


def test_what_is_no_rotary_embedding_is_not_taken() -> None:
    def sines(x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        angle = positions[..., None] * torch.ones(4)
        return angle.sin(), angle.cos()

    for run in (None, sines, lambda x, p: x, lambda x, p: None, lambda x, p: (x,), lambda x, p: (x, x, x)):
        assert find_rotary(Hidden(run)) is None
    assert find_rotary(nn.Linear(3, 3)) is None


def test_positions_out_of_range_are_refused() -> None:
    plug = RotaryPlug(made(ROPES["default"]), Numerics(), "halves")
    for wrong in (-1, 1 << 24):
        with pytest.raises(SpikeplugError, match="whole positions"):
            plug(torch.zeros(1, 1, 8), torch.tensor([[wrong]]))
