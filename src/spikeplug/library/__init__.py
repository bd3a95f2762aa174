"""The registry of all operators: tests, audit and comparisons iterate over `OPERATORS`."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug import operators
from spikeplug.library import exact
from spikeplug.library.dispatch import Operator


def _normed(x: Tensor, eps: float, **how: Any) -> Tensor:
    return operators.rms_norm(x, None, eps, **how)


def _centred(x: Tensor, eps: float, **how: Any) -> Tensor:
    return operators.layer_norm(x, None, None, eps, **how)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    sinks: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    **how: Any,
) -> Tensor:
    return operators.attention(query, key, value, mask, scaling=scaling, softcap=softcap, sinks=sinks, **how)


def _weights(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    sinks: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    **how: Any,
) -> Tensor:
    return operators.attention_weights(query, key, mask, scaling=scaling, softcap=softcap, sinks=sinks, **how)


_SCORES = "Tensor? mask, Tensor? sinks, float? scaling, float? softcap"

OPERATORS = {
    operator.name: operator
    for operator in (
        Operator("softmax", "Tensor x, int dim", operators.softmax, torch.softmax),
        Operator("log_softmax", "Tensor x, int dim", operators.log_softmax, torch.log_softmax),
        Operator("attention", f"Tensor query, Tensor key, Tensor value, {_SCORES}", _attention, exact.attention),
        Operator("attention_weights", f"Tensor query, Tensor key, {_SCORES}", _weights, exact.attention_weights),
        Operator("silu", "Tensor x", operators.silu, F.silu),
        Operator("gelu", "Tensor x, str approximate", operators.gelu, exact.gelu),
        Operator("sigmoid", "Tensor x", operators.sigmoid, torch.sigmoid),
        Operator("tanh", "Tensor x", operators.tanh, torch.tanh),
        Operator("softplus", "Tensor x, float beta, float threshold", operators.softplus, F.softplus),
        Operator("mish", "Tensor x", operators.mish, F.mish),
        Operator("relu_squared", "Tensor x", operators.relu_squared, exact.relu_squared),
        Operator("rms_norm", "Tensor x, float eps", _normed, exact.rms_norm),
        Operator("layer_norm", "Tensor x, float eps", _centred, exact.layer_norm),
        Operator("vector_norm", "Tensor x, int dim, bool keepdim", operators.vector_norm, exact.vector_norm),
        Operator("cos", "Tensor x", operators.cos, torch.cos),
        Operator("sin", "Tensor x", operators.sin, torch.sin),
        Operator("exp", "Tensor x", operators.exp, torch.exp),
        Operator("log", "Tensor x", operators.log, torch.log),
        Operator("sqrt", "Tensor x", operators.sqrt, torch.sqrt),
        Operator("rsqrt", "Tensor x", operators.rsqrt, torch.rsqrt),
        Operator("square", "Tensor x", operators.square, torch.square),
        Operator("reciprocal", "Tensor x", operators.reciprocal, torch.reciprocal),
        Operator("divide", "Tensor a, Tensor b", operators.divide, torch.div),
    )
}
for _operator in OPERATORS.values():
    _operator.register()
