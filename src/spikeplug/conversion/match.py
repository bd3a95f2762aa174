"""What there is in a model: every softmax, SiLU and RMSNorm, and what else it computes, found by looking at it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import activations as transformers_activations
from transformers.activations import SiLUActivation

OPERATORS = ("softmax", "silu", "rms_norm")
_SILU_CLASSES = (nn.SiLU, SiLUActivation)
_ACTIVATION_FILES = (nn.SiLU.__module__, transformers_activations.__name__)
_NO_ARITHMETIC = (nn.Embedding, nn.Dropout, nn.Identity)

# What a conversion of operators does not touch: whole spiking networks are a pipeline's business.
_LINEAR = "matrix product with a weight"
_ATTENTION_PRODUCTS = "matrix product query · key, and weights · value unless divide_last"
_GATE = "elementwise product gate · up"
_ROTARY = "cos and sin of the positions, once a forward"


@dataclass(frozen=True)
class Found:
    """One place. `reason` says why it cannot be replaced; empty for the three operators we have."""

    path: str
    operator: str
    module: nn.Module
    reason: str = ""


def find(model: PreTrainedModel) -> list[Found]:
    """Every place where the model computes, in the order of `named_modules()`; a shared module once per path."""
    attention_class = attention_class_of(model)
    probed: dict[object, str] = {}
    return [
        found
        for path, module in model.named_modules(remove_duplicate=False)
        for found in _look_at(path, module, attention_class, probed)
    ]


def attention_class_of(model: PreTrainedModel) -> type[nn.Module] | None:
    """The class whose attention weights transformers can record: the one that calls the attention interface."""
    recorded = (getattr(model, "_can_record_outputs", None) or {}).get("attentions")
    return recorded if isinstance(recorded, type) else None


def _look_at(
    path: str, module: nn.Module, attention_class: type[nn.Module] | None, probed: dict[object, str]
) -> Iterator[Found]:
    if attention_class is not None and isinstance(module, attention_class):
        yield Found(path, "softmax", module)
        yield Found(path, "matmul", module, _ATTENTION_PRODUCTS)
    elif type(module) in _SILU_CLASSES:
        yield Found(path, "silu", module)
    elif type(module).__module__ in _ACTIVATION_FILES:
        yield Found(path, "activation", module, f"no spiking operator for {type(module).__name__}")
    elif isinstance(module, nn.Linear):
        yield Found(path, "matmul", module, _LINEAR)
    elif hasattr(module, "inv_freq"):
        yield Found(path, "rotary", module, _ROTARY)
    elif hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
        yield Found(path, "product", module, _GATE)
    elif next(module.children(), None) is None and not isinstance(module, (*_NO_ARITHMETIC, nn.ModuleList)):
        reason = rms_norm_mismatch(module, probed)
        yield Found(path, "rms_norm" if not reason else "other", module, reason)


def eps_of(module: nn.Module) -> float | None:
    """The norm's epsilon, under either of the two names in use."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return eps if isinstance(eps, float) else None


def rms_norm_mismatch(module: nn.Module, probed: dict[object, str] | None = None) -> str:
    """Why a module is not x · rsqrt(mean(x²) + eps) · weight over the last dimension; empty if it is.

    Names mislead (`T5LayerNorm` is one, others multiply by 1 + weight), so a copy with a random weight is run on the
    CPU. `probed` remembers the answer for modules of the same class, width and epsilon. The module itself is not run.
    """
    weight, eps = module._parameters.get("weight"), eps_of(module)
    if weight is None or weight.dim() != 1 or len(module._parameters) != 1 or module._buffers:
        return "not an RMSNorm: does not hold one weight vector and nothing else"
    if eps is None:
        return "not an RMSNorm that can be read: no number called eps or variance_epsilon"
    if "forward" in vars(module):
        return "its forward was overridden on the instance"
    probed = {} if probed is None else probed
    key = (type(module), weight.shape[0], eps)
    if key not in probed:
        probed[key] = _probe(module, weight.shape[0], eps)
    return probed[key]


def _probe(module: nn.Module, width: int, eps: float) -> str:
    generator = torch.Generator().manual_seed(width)
    # Scales from where eps decides the result to where it does not matter.
    scales = torch.tensor([0.1 * eps**0.5, eps**0.5, 1.0, 30.0], device="cpu", dtype=torch.float32)[:, None]
    x = torch.randn(4, width, generator=generator, device="cpu", dtype=torch.float32) * scales
    weight = torch.rand(width, generator=generator, device="cpu", dtype=torch.float32) + 0.5
    probe = copy.copy(module)
    # A shallow copy shares the dict of parameters with the model: give it its own before touching it.
    probe._parameters = {"weight": nn.Parameter(weight, requires_grad=False)}
    expected = x.double() * torch.rsqrt(x.double().pow(2).mean(-1, keepdim=True) + eps) * weight.double()
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            answer = probe.forward(x)
        error = float((answer.double() - expected).abs().max() / expected.abs().max())
    except Exception as failure:  # a stranger's forward may raise anything
        return f"not an RMSNorm: probing it raised {type(failure).__name__}"
    if not error < 1e-4:
        return f"not an RMSNorm: probing it gave a relative difference of {error:.1e}"
    return ""
