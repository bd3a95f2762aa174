"""Build the arms of an operator: ways to compute it, or to read and write as much, from the same tensors.

kernel     what a user gets
exact      torch's own op
copy       the memory limit: a clone of x; for attention, of as many bytes as it must read and write
published  the published recipe in float, in plain torch, before its floor to 8 bits (evidence/baselines.py)
closed     the closed form, plain torch integers
simulated  neuron by neuron and time step by time step

Each allocates its own output. All run on the threads torch is set to, in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from spikeplug import functional, kernels
from spikeplug.bench.cases import ARMS, Case, wanted
from spikeplug.neurons import Events

Arm = Callable[[], Tensor]
_EPS = 1e-5


def arms(case: Case, names: Sequence[str] = ARMS) -> dict[str, Arm]:
    """Return the arms (functions without arguments) that compute the case, by name, in the order of ARMS.

    names  the arms to time. Those that are always timed or checked are returned too: kernel, exact and closed
    """
    inputs = case.inputs()
    spiking, exact, published = (
        _attention(case, *inputs) if case.operator == "attention" else _OF[case.operator](*inputs)
    )
    moved = _moved(case, inputs)

    def closed() -> Tensor:
        with kernels.closed_forms():
            return spiking(None)

    found: dict[str, Arm] = {
        "kernel": lambda: spiking(None),
        "exact": exact,
        "copy": moved.clone,
    }
    if published is not None and "published" in names:
        _recipe()  # imported before it is timed
        found["published"] = published
    found["closed"] = closed
    if case.section == "simulated":
        found["simulated"] = lambda: spiking(Events())
    return {name: found[name] for name in wanted(found, names)}


def _moved(case: Case, inputs: tuple[Tensor, ...]) -> Tensor:
    """Return the tensor that the copy arm clones: x; for attention, half as many numbers as are read and written."""
    if case.operator != "attention":
        return inputs[0]
    query = inputs[0]
    return torch.ones((sum(x.numel() for x in inputs) + query.numel()) // 2)


@lru_cache
def _recipe() -> Any:
    """Import and return the module with the published recipe. It imports transformers, which other arms do not need."""
    return import_module("spikeplug.evidence.baselines")


_Ways = tuple[Callable[[Events | None], Tensor], Arm, Arm | None]


def _softmax(x: Tensor) -> _Ways:
    return (
        lambda events: functional.softmax(x, events=events),
        lambda: torch.softmax(x, -1),
        lambda: _recipe().published_softmax(x),
    )


def _silu(x: Tensor) -> _Ways:
    return lambda events: functional.silu(x, events=events), lambda: F.silu(x), lambda: _recipe().published_silu(x)


def _gelu(x: Tensor) -> _Ways:
    return lambda events: functional.gelu(x, events=events), lambda: F.gelu(x), None


def _rms_norm(x: Tensor, weight: Tensor) -> _Ways:
    return (
        lambda events: functional.rms_norm(x, weight, _EPS, events=events),
        lambda: F.rms_norm(x, weight.shape, weight, _EPS),
        lambda: _recipe().published_rms_norm(x, eps=_EPS) * weight,
    )


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> _Ways:
    return (
        lambda events: functional.layer_norm(x, weight, bias, _EPS, events=events),
        lambda: F.layer_norm(x, weight.shape, weight, bias, _EPS),
        None,
    )


def _attention(case: Case, query: Tensor, key: Tensor, value: Tensor) -> _Ways:
    heads, groups, queries, keys, channels = case.shape
    causal = queries > 1
    # As in transformers: a bool mask for the spiking operator; none for torch's, which has an argument for it.
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries) if causal else None
    square = queries == keys or not causal  # torch's own causal mask begins in the upper left corner

    def exact() -> Tensor:
        how = {"is_causal": causal} if square else {"attn_mask": mask}
        return F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **how)

    def published() -> Tensor:
        repeats = heads // groups
        scores = query @ key.repeat_interleave(repeats, 1).transpose(-1, -2) / math.sqrt(channels)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        weights: Tensor = _recipe().published_softmax(scores)
        return weights @ value.repeat_interleave(repeats, 1)

    return lambda events: functional.attention(query, key, value, mask, events=events), exact, published


_OF: dict[str, Callable[..., _Ways]] = {
    "softmax": _softmax,
    "silu": _silu,
    "gelu": _gelu,
    "rms_norm": _rms_norm,
    "layer_norm": _layer_norm,
}
