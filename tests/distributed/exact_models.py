"""Tiny models whose float matrix products are exact, so that no order of summation can show in a bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[1] / "conversion"))
from tiny_models import tiny_model, tokens

IDS = tokens(batch=2, length=12)


def exact_model(family: str, gate: Literal["uneven", "twin"] = "uneven", hidden_act: str = "silu") -> PreTrainedModel:
    """A float64 model with weights k/16, |k| <= 4, and norm weights 1/2, 1 or 2.

    Spiking operators give at most 24-bit numbers, and a few binades of scale and 96 addends leave every sum of products
    far below 53 bits. gate: `uneven`, the second half of its channels is 8 times smaller than the first; `twin`, it is
    the first in reverse order, so that both halves hold the same largest magnitudes.
    """
    model = tiny_model(family, hidden_act=hidden_act).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.copy_(2.0 ** torch.randint(-1, 2, weight.shape, generator=generator))
            else:
                weight.copy_(torch.randint(-4, 5, weight.shape, generator=generator) / 16)
            if name.endswith("gate_proj.weight"):
                half = weight.shape[0] // 2
                weight[half:] = weight[:half].flip(0) if gate == "twin" else weight[half:] / 8
    return model


@torch.no_grad()
def states(model: PreTrainedModel) -> dict[str, Tensor]:
    """The logits and everything between the layers, stacked. Not inference_mode: fully_shard forbids mixing it."""
    output: Any = model(input_ids=IDS, output_hidden_states=True)
    return {"logits": output.logits.clone(), "hidden": torch.stack(output.hidden_states)}
