"""A whole spiking model on the GPU = the same in closed forms, bit for bit, and which operators have kernels there."""

from __future__ import annotations

import pytest
import torch
from gpu_kernel_cases import DEVICE
from transformers import LlamaConfig, LlamaForCausalLM

import spikeplug
from spikeplug.kernels import closed_forms

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
CONFIG = LlamaConfig(
    vocab_size=32,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=32,
)


def test_a_whole_model() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG).eval()
    spikeplug.convert(model, recipe="whole", calibration=False)
    model.to(DEVICE)
    ids = torch.arange(5, device=DEVICE)[None]
    with torch.inference_mode():
        found = spikeplug.explain(model, ids)
        ours = model(ids).logits
        with closed_forms():
            assert torch.equal(model(ids).logits, ours)
    chosen = {(entry.operator, entry.kernel.split(" ")[0]) for entry in found.entries}
    kernels = {"linear", "add", "multiply", "quantise", "attention", "rms_norm", "silu"}
    assert {operator for operator, kernel in chosen if kernel == "Triton"} == kernels
    assert {operator for operator, kernel in chosen if kernel == "closed"} == {"rotary"}
