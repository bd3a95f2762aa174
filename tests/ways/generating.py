"""List the ways to generate text with a converted transformer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from exact_models import exact_model
from tiny_models import tokens
from torch import Tensor, nn
from way import Way

NEW = 6


def _generate(**how: Any) -> Callable[[nn.Module, Tensor], Tensor]:
    def run(model: Any, x: Tensor) -> Tensor:
        torch.manual_seed(0)
        settings = {"max_new_tokens": NEW, "attention_mask": torch.ones_like(x), "do_sample": False, **how}
        found = model.generate(x, output_logits=True, return_dict_in_generate=True, **settings)
        return [found.sequences, *found.logits]  # type: ignore[return-value]

    return run


def _one_by_one(model: Any, x: Tensor) -> list[Tensor]:
    """Return the most likely tokens and their logits, by plain calls without a cache."""
    logits = []
    with torch.no_grad():
        for _ in range(NEW):
            logits.append(model(x, use_cache=False).logits[:, -1])
            x = torch.cat([x, logits[-1].argmax(-1, keepdim=True)], -1)
    return [x, *logits]


def _tokens(run: Callable[[nn.Module, Tensor], Any]) -> Callable[[nn.Module, Tensor], Any]:
    """Return the tokens alone, and the logits of a plain call, which tell a spiking model."""

    def only(model: Any, x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [run(model, x)[0], model(x).logits]

    return only


def _assisted(model: Any, x: Tensor) -> Any:
    return _generate(assistant_model=exact_model("llama"))(model, x)


def _by_itself(model: Any, x: Tensor) -> Any:
    return _generate(assistant_model=copy.deepcopy(model))(model, x)


def _model() -> tuple[nn.Module, Tensor]:
    """Return a transformer whose float sums are exact, so that a cache, which cuts them otherwise, changes no bit."""
    return exact_model("llama"), tokens(2, 6)


def _single() -> tuple[nn.Module, Tensor]:
    model, x = _model()
    return model, x[:1]


WAYS = (
    Way("greedy", _generate(), _model, _one_by_one),
    Way("greedy, without a cache", _generate(use_cache=False), _model, _one_by_one),
    Way("sampling", _generate(do_sample=True), _model, _generate(do_sample=True, use_cache=False)),
    Way("beams", _generate(num_beams=3), _model, _generate(num_beams=3, use_cache=False)),
    Way("static cache", _generate(cache_implementation="static"), _model, _one_by_one),
    Way("assisted by an exact model", _tokens(_assisted), _single, _tokens(_one_by_one)),
    Way("assisted by a copy of itself", _tokens(_by_itself), _single, _tokens(_one_by_one)),
    Way("prompt lookup", _tokens(_generate(prompt_lookup_num_tokens=2)), _single, _tokens(_one_by_one)),
)
