"""The spiking operators on float tensors: `spikeplug.functional.softmax(x)` in place of `torch.softmax(x, -1)`.

Each is one opaque torch op (`torch.ops.spikeplug.<name>`): it works under torch.compile and torch.export, and its
gradient goes straight through, that of the exact function. All take any floating dtype and give the same one.

numerics  Numerics, the name of a preset, or None: the default
events    an `Events`: simulate neuron by neuron and count into it, with the same result and no gradient

Formulas, bounds and the results of every bad input: operators/README.md.
Errors, in every function: SpikeplugError for non-float inputs or mismatched shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics


def softmax(
    x: Tensor, dim: int = -1, *, numerics: Numerics | str | None = None, events: Events | None = None
) -> Tensor:
    """Return exp(x_i) / Σ_j exp(x_j) along `dim`. A row of nothing but -inf gives zeros."""
    return OPERATORS["softmax"](x, dim, numerics=numerics, events=events)


def log_softmax(
    x: Tensor, dim: int = -1, *, numerics: Numerics | str | None = None, events: Events | None = None
) -> Tensor:
    """Return x_i - ln Σ_j exp(x_j) along `dim`."""
    return OPERATORS["log_softmax"](x, dim, numerics=numerics, events=events)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    *,
    numerics: Numerics | str | None = None,
    events: Events | None = None,
) -> Tensor:
    """Return softmax(query·keyᵀ·scaling + mask)·value; (B, H, Q, Dv). See `AttentionCall` for every argument.

    query (B, H, Q, D); key (B, G, K, D), value (B, G, K, Dv), not repeated; mask bool (True = may attend), a float
    bias, or int64 counts of visible keys (..., Q, 1), broadcastable to (B, H, Q, K); softcap: scores become
    softcap·tanh(score / softcap); sinks: (H,).
    """
    return OPERATORS["attention"](query, key, value, mask, scaling, softcap, sinks, numerics=numerics, events=events)


def attention_weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    *,
    numerics: Numerics | str | None = None,
    events: Events | None = None,
) -> Tensor:
    """Return the probabilities of `attention`, each divided on its own; (B, H, Q, K)."""
    return OPERATORS["attention_weights"](query, key, mask, scaling, softcap, sinks, numerics=numerics, events=events)


def silu(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return x·σ(x)."""
    return OPERATORS["silu"](x, numerics=numerics, events=events)


def swiglu(gate: Tensor, up: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return gate·σ(gate)·up, LLaMA's gated unit: `silu(gate)`, decoded, times `up`, broadcast."""
    if not isinstance(up, Tensor):
        raise SpikeplugError(
            f"swiglu takes a torch tensor as up, not a {type(up).__name__}; use torch.as_tensor first."
        )
    if _has_shape(gate) and _has_shape(up) and gate.shape != up.shape:
        try:
            torch.broadcast_shapes(gate.shape, up.shape)
        except RuntimeError as error:
            raise SpikeplugError(
                f"swiglu got gate {tuple(gate.shape)} and up {tuple(up.shape)}, which do not broadcast; reshape one of "
                "them."
            ) from error
    return OPERATORS["silu"](gate, numerics=numerics, events=events, weight=up)


def gelu(
    x: Tensor, approximate: str = "none", *, numerics: Numerics | str | None = None, events: Events | None = None
) -> Tensor:
    """Return x·Φ(x); its tanh form for approximate="tanh"; x·σ(1.702·x) for "quick"."""
    return OPERATORS["gelu"](x, approximate, numerics=numerics, events=events)


def sigmoid(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return 1 / (1 + exp(-x))."""
    return OPERATORS["sigmoid"](x, numerics=numerics, events=events)


def tanh(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return (exp(x) - exp(-x)) / (exp(x) + exp(-x)), accurate near 0 too."""
    return OPERATORS["tanh"](x, numerics=numerics, events=events)


def softplus(
    x: Tensor,
    beta: float = 1.0,
    threshold: float = 20.0,
    *,
    numerics: Numerics | str | None = None,
    events: Events | None = None,
) -> Tensor:
    """Return ln(1 + exp(beta·x)) / beta; x itself where beta·x is above the threshold."""
    return OPERATORS["softplus"](x, beta, threshold, numerics=numerics, events=events)


def mish(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return x·tanh(ln(1 + exp(x)))."""
    return OPERATORS["mish"](x, numerics=numerics, events=events)


def hardswish(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return x·min(max(x + 3, 0), 6)/6."""
    return OPERATORS["hardswish"](x, numerics=numerics, events=events)


def relu_squared(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return max(x, 0)²."""
    return OPERATORS["relu_squared"](x, numerics=numerics, events=events)


def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    numerics: Numerics | str | None = None,
    events: Events | None = None,
) -> Tensor:
    """Return x / sqrt(mean(x²) + eps) · weight over the last dimension; dtype: x's, promoted with the weight's."""
    weight = _of_width(weight, x, "rms_norm", "weight")
    return OPERATORS["rms_norm"](x, eps, numerics=numerics, events=events, weight=weight)


def layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    numerics: Numerics | str | None = None,
    events: Events | None = None,
) -> Tensor:
    """Return (x - mean) / sqrt(variance + eps) · weight + bias over the last dimension; dtype: promoted with both."""
    weight, bias = _of_width(weight, x, "layer_norm", "weight"), _of_width(bias, x, "layer_norm", "bias")
    return OPERATORS["layer_norm"](x, eps, numerics=numerics, events=events, weight=weight, bias=bias)


def vector_norm(
    x: Tensor,
    dim: int = -1,
    keepdim: bool = False,
    *,
    numerics: Numerics | str | None = None,
    events: Events | None = None,
) -> Tensor:
    """Return sqrt(Σ x²) along `dim`."""
    return OPERATORS["vector_norm"](x, dim, keepdim, numerics=numerics, events=events)


def cos(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return cos x, x in radians, from a table of one quarter wave."""
    return OPERATORS["cos"](x, numerics=numerics, events=events)


def sin(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return sin x, x in radians, from a table of one quarter wave."""
    return OPERATORS["sin"](x, numerics=numerics, events=events)


def exp(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return e^x; each element has its own power-of-two scale."""
    return OPERATORS["exp"](x, numerics=numerics, events=events)


def log(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return ln x; -inf at 0, NaN below."""
    return OPERATORS["log"](x, numerics=numerics, events=events)


def sqrt(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return √x; NaN below 0."""
    return OPERATORS["sqrt"](x, numerics=numerics, events=events)


def rsqrt(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return 1 / √x; inf at 0."""
    return OPERATORS["rsqrt"](x, numerics=numerics, events=events)


def square(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return x²."""
    return OPERATORS["square"](x, numerics=numerics, events=events)


def reciprocal(x: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return 1 / x; ±inf at ±0."""
    return OPERATORS["reciprocal"](x, numerics=numerics, events=events)


def divide(a: Tensor, b: Tensor, *, numerics: Numerics | str | None = None, events: Events | None = None) -> Tensor:
    """Return a / b, broadcast."""
    return OPERATORS["divide"](a, b, numerics=numerics, events=events)


def _of_width(parameter: Tensor | None, x: Tensor, operator: str, name: str) -> Tensor | None:
    if parameter is not None and not isinstance(parameter, Tensor):
        raise SpikeplugError(f"{operator} got a {name} of type {type(parameter).__name__}; give a tensor.")
    if parameter is not None and _has_shape(parameter) and _has_shape(x) and parameter.shape != x.shape[-1:]:
        raise SpikeplugError(
            f"{operator} got a {name} of shape {tuple(parameter.shape)}; give one of ({x.shape[-1]},)."
        )
    return parameter


def _has_shape(x: object) -> bool:
    """Return whether x is a tensor with a shape. Strided nested ones have none; operators refuse them."""
    return isinstance(x, Tensor) and not (x.is_nested and x.layout is torch.strided)
