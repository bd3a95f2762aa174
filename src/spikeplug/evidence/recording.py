"""Record real activations: the inputs of a language model's nonlinear operators, by forward hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikeplug.conversion.match import find
from spikeplug.english import english_text
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import encode
from spikeplug.operators import RECORDS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Rows kept per module, evenly spread over its tokens.
_ROWS = 48
#: Operators whose modules are recorded, each under the role of its input.
_RECORDED = ("rms_norm", "layer_norm", "silu", "gelu")


def record_default_model(tokens: int) -> dict[str, Tensor]:
    """Record activations of the default model on the first `tokens` tokens of the reference text; return them by role.

    The roles and shapes are those of `record`: float64 (rows, width) for "residual", "gate", "query" and others.
    Errors: SpikeplugError if the default model is not installed.
    """
    model, tokenizer = load(find_source(None))
    return record(model, tokenizer, tokens)


@torch.no_grad()
def record(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: int) -> dict[str, Tensor]:
    """Record activations of a LLaMA-like model on the first `tokens` tokens of the reference text.

    Return float64 (rows, width) by role, the kind of number:
    residual             inputs of the norms
    gate                 inputs of the activations
    query, key, value    one head of each layer, width head_dim; queries and keys after rotary embedding
    scores               scaled scores of the last queries over all keys; keys after the query are not masked
    exponent             those scores minus their maximum over the row
    numerator, positive  exp of the exponents, and its cumulative sums along the row
    logits               outputs of the model
    angle                rotary angles: position times frequency, in radians
    """
    kept: defaultdict[str, list[Tensor]] = defaultdict(list)
    ids = torch.tensor([encode(tokenizer, english_text()[: 40 * tokens])[:tokens]])
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
    return [(RECORDS[place.name].inputs[0], place.module) for place in find(model) if place.name in _RECORDED]


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
    """Keep one head of a layer: queries, keys and values, and the inputs of the softmax for the last tokens."""
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
    """Return at most _ROWS (48) rows of x, evenly spread, as a copy without gradient."""
    return x[:: max(1, x.shape[0] // _ROWS)][:_ROWS].detach().clone()
