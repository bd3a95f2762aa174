"""Real activations: what a language model's nonlinear operators are given, recorded by forward hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikeplug.conversion.match import find
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import default_text, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Rows kept of each place, evenly spread over its tokens.
_ROWS = 48


def record_default_model(tokens: int) -> dict[str, Tensor]:
    """`record` on the default model and the reference text. Errors: SpikeplugError where it is not installed."""
    model, tokenizer = load(find_source(None))
    return record(model, tokenizer, tokens)


@torch.no_grad()
def record(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: int) -> dict[str, Tensor]:
    """Float64 (rows, width) by role, of one window of the reference text through a LLaMA-like model.

    residual: the inputs of the norms; gate: of the activations; query, key, value: one head's (head_dim), after rotary
    embedding; scores: of the last query, over all keys before it, scaled; exponent: those less their maximum;
    numerator, positive: exp of these and their sums; logits: of the last layer; angle: position times frequency.
    """
    kept: defaultdict[str, list[Tensor]] = defaultdict(list)
    ids = torch.tensor([encode(tokenizer, default_text()[: 40 * tokens])[:tokens]])
    handles = [_watch(module, kind, kept) for kind, module in _watched(model)]
    projected: dict[str, Tensor] = {}
    handles += [_project(name, module, projected) for name, module in model.named_modules()]
    try:
        logits = model(ids).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    rotary: Any = model.get_submodule("model.rotary_emb")
    cosine, sine = rotary(logits[None], torch.arange(ids.shape[1])[None])
    for name in [name for name in projected if name.endswith("q_proj")]:
        query, key, value = (projected[name[: -len("q_proj")] + part] for part in ("q_proj", "k_proj", "v_proj"))
        _keep_attention(query, key, value, (cosine[0], sine[0]), kept)
    kept["logits"].append(_thinned(logits))
    kept["angle"].append(torch.arange(0.0, 8192.0, 16.0)[:, None] * rotary.inv_freq)
    return {role: torch.cat(rows).to(torch.float64) for role, rows in kept.items()}


def _watched(model: nn.Module) -> list[tuple[str, nn.Module]]:
    roles = {"rms_norm": "residual", "layer_norm": "residual", "silu": "gate", "gelu": "gate"}
    return [(roles[place.name], place.module) for place in find(model) if place.name in roles]


def _watch(module: nn.Module, role: str, kept: dict[str, list[Tensor]]) -> Any:
    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        kept[role].append(_thinned(given[0][0]))

    return module.register_forward_pre_hook(hook)


def _project(name: str, module: nn.Module, projected: dict[str, Tensor]) -> Any:
    def hook(_: nn.Module, given: Any, output: Tensor) -> None:
        if name.endswith(("q_proj", "k_proj", "v_proj")):
            projected[name] = output[0]

    return module.register_forward_hook(hook)


def _keep_attention(
    query: Tensor, key: Tensor, value: Tensor, rotary: tuple[Tensor, Tensor], kept: dict[str, list[Tensor]]
) -> None:
    """One head of a layer: tokens' queries, keys and values, and what the softmax of the last tokens is given."""
    cosine, sine = rotary
    width = cosine.shape[-1]

    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cosine + torch.cat([-second, first], -1) * sine

    queries = rotated(query[:, :width])
    keys = rotated(key[:, :width])
    scores = queries[-_ROWS // 4 :] @ keys.T * width**-0.5
    below = scores - scores.amax(-1, keepdim=True)
    parts: dict[str, Callable[[], Tensor]] = {
        "query": lambda: _thinned(queries),
        "key": lambda: keys,
        "value": lambda: value[:, :width],
        "scores": lambda: scores,
        "exponent": lambda: below,
        "numerator": lambda: below.exp(),
        "positive": lambda: below.exp().cumsum(-1),
    }
    for role, part in parts.items():
        kept[role].append(part().clone())


def _thinned(x: Tensor) -> Tensor:
    """At most _ROWS of x's rows, evenly spread."""
    return x[:: max(1, x.shape[0] // _ROWS)][:_ROWS].detach().clone()
