"""Norms are recognised by what they do, activations by class, and what is left is told apart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from spikeplug.conversion import convert
from spikeplug.conversion.match import find, rms_norm_mismatch


class Norm(nn.Module):
    """A norm by formula."""

    def __init__(self, formula: Callable[[Tensor, Tensor, float], Tensor], width: int = 16, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps, self.formula = nn.Parameter(torch.ones(width)), eps, formula

    def forward(self, x: Tensor) -> Tensor:
        return self.formula(x, self.weight, self.eps)


def mean_square(x: Tensor) -> Tensor:
    return x.pow(2).mean(-1, keepdim=True)


WRONG = {
    "one plus weight": lambda x, w, eps: x * torch.rsqrt(mean_square(x) + eps) * (1 + w),
    "no weight": lambda x, w, eps: x * torch.rsqrt(mean_square(x) + eps),
    "eps outside the root": lambda x, w, eps: x / (mean_square(x).sqrt() + eps) * w,
    "no eps": lambda x, w, eps: x * torch.rsqrt(mean_square(x)) * w,
    "sum, not mean": lambda x, w, eps: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps) * w,
    "centred": lambda x, w, eps: (x - x.mean(-1, keepdim=True)) * torch.rsqrt(x.var(-1, keepdim=True) + eps) * w,
    "identity": lambda x, w, eps: x * w,
    "NaN": lambda x, w, eps: x * torch.nan,
    "wrong shape": lambda x, w, eps: x[:, :1],
}


@given(width=st.integers(1, 300), eps=st.floats(1e-12, 1e-2))
@settings(max_examples=50, deadline=None)
def test_rms_norms_of_any_width_and_eps_are_recognised(width: int, eps: float) -> None:
    norms = (LlamaRMSNorm(width, eps), T5LayerNorm(width, eps), nn.RMSNorm(width, eps))
    assert [rms_norm_mismatch(norm) for norm in norms] == ["", "", ""]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_probing_leaves_the_module_alone(dtype: torch.dtype) -> None:
    norm = LlamaRMSNorm(16).to(dtype)
    norm.register_forward_hook(lambda *_: pytest.fail("the module itself was run"))
    weight, attributes = norm.weight, dict(vars(norm))
    assert rms_norm_mismatch(norm) == ""
    assert norm.weight is weight
    assert torch.equal(weight, torch.ones(16, dtype=dtype))
    assert vars(norm) == attributes


@pytest.mark.parametrize("name", WRONG)
def test_other_norms_are_not_taken_for_rms_norm(name: str) -> None:
    assert rms_norm_mismatch(Norm(WRONG[name])).startswith("not an RMSNorm: probing it")


def test_modules_that_cannot_be_probed_say_why() -> None:
    assert "one weight vector" in rms_norm_mismatch(nn.LayerNorm(8))
    assert "one weight vector" in rms_norm_mismatch(nn.RMSNorm(8, elementwise_affine=False))
    assert "no number called eps" in rms_norm_mismatch(nn.RMSNorm(8))  # eps None: decided by the input's dtype
    assert "difference" in rms_norm_mismatch(GemmaRMSNorm(8))
    norm = LlamaRMSNorm(8)
    norm.forward = lambda x: x  # type: ignore[method-assign]
    assert "overridden" in rms_norm_mismatch(norm)
    assert "raised ZeroDivisionError" in rms_norm_mismatch(Norm(lambda x, w, eps: x * (1 // 0)))


def test_every_place_of_a_qwen3_is_found() -> None:
    counts: dict[str, int] = {}
    for found in find(tiny_model("qwen3")):
        counts[found.operator] = counts.get(found.operator, 0) + 1
    assert counts == {"softmax": 2, "silu": 2, "rms_norm": 9, "matmul": 2 * 8 + 1, "product": 2, "rotary": 1}


def test_a_strange_norm_and_activation_are_left_with_the_reason() -> None:
    model = tiny_model()
    model.model.norm = Norm(WRONG["one plus weight"], 32)
    model.model.layers[1].mlp.act_fn = ACT2FN["gelu"]
    left = {entry.path: entry for entry in convert(model).left}
    assert left["model.norm"].reason.startswith("not an RMSNorm: probing it gave a relative difference")
    assert left["model.norm"].operator == "other"
    assert left["model.layers.1.mlp.act_fn"].reason == "no spiking operator for GELUActivation"


@pytest.mark.parametrize("activation", ["silu", "swish"])
def test_both_silu_classes_are_found(activation: str) -> None:
    report = convert(tiny_model(hidden_act=activation))
    assert report.counts["silu"] == {"replaced": 2, "left": 0}
