"""Run one decoder layer and a whole model: exact as transformers runs it, and converted.

The converted model is a copy that shares every weight, so nothing is converted between runs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikeplug import conversion, kernels
from spikeplug.bench import contract
from spikeplug.bench.arms import Arm
from spikeplug.bench.cases import BASES, OF_MODELS
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.caching import cache_of, with_cache
from spikeplug.measurement.layers import find_layers
from spikeplug.measurement.text import positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens of the prompt on which the contract is checked and the simulation is run.
SHORT = 8
#: Tokens of the longest prefill that the closed form runs too; it is slow for long ones.
_CLOSED = 128
_LENGTHS, _QUICK_LENGTHS = (128, 512, 2048), (32,)


@dataclass(frozen=True)
class Work:
    """Describe something to time: a forward of a model, or of its first layer.

    section  "layer" or "model"
    name     "decoder layer", "prefill" or "decode"
    length   tokens of the prompt; for decode, tokens in the cache
    tokens   tokens that one call handles
    names    names of the arms that exist
    make     (length, some of the names) -> these arms, functions by name
    """

    section: str
    name: str
    length: int
    tokens: int
    names: tuple[str, ...]
    make: Callable[[int, Sequence[str]], dict[str, Arm]]

    @property
    def shape(self) -> str:
        """Return the length as a short text, such as "512 tokens" or "after 512 tokens"."""
        return f"{'after ' if self.name == 'decode' else ''}{self.length} tokens"


class _ReachedError(Exception):
    """Raised where a module is called, to end the model's run there."""


class Pair:
    """Hold a model in evaluation mode and its converted copy, which shares its weights; build the arms that run them.

    ids    int64 (1, SHORT or more) token ids that both read; SHORT is 8
    quick  True: one short prefill instead of three lengths

    Errors: SpikeplugError for a model without decoder layers, for a text or context that is too short, and those of
    `convert`.
    """

    def __init__(self, model: PreTrainedModel, ids: Tensor, quick: bool) -> None:
        self.exact, self.ids = model, ids
        longest = min(ids.shape[1], positions_of(model) - 1)
        if longest < SHORT:
            raise SpikeplugError(
                f"the model or the text holds {longest} tokens, fewer than {SHORT}: give a longer one."
            )
        self.lengths = [n for n in (_QUICK_LENGTHS if quick else _LENGTHS) if n <= longest]
        self.converted = shared_copy(model)
        conversion.convert(self.converted)
        layers = find_layers(model)
        self.layer, self.depth = layers.path, len(layers)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._copy = weight_copy(model)

    def work(self, sections: Sequence[str] = OF_MODELS) -> list[Work]:
        """Return all that is to be measured in these sections: runs of the first layer, prefills and decode steps."""
        prompts = (SHORT, *self.lengths)
        found = [Work("layer", "decoder layer", n, n, _names(n), self._layer) for n in prompts]
        found += [Work("model", "prefill", n, n, _names(n, n <= _CLOSED), self._prefill) for n in prompts]
        found += [Work("model", "decode", n, 1, _names(n), self._decode) for n in self.lengths]
        return [work for work in found if work.section in sections]

    @cached_property
    def kept(self) -> bool:
        """Return True if kernel and closed form give equal logits, for the short prompt and for one step after it."""
        arms = ("kernel", "closed")
        with torch.inference_mode():
            prompt = contract.kept(self._prefill(SHORT, arms, every=True))
            return prompt and contract.kept(self._decode(SHORT, arms))

    def _prefill(self, length: int, names: Sequence[str], every: bool = False) -> dict[str, Arm]:
        """Return the arms of a prefill of `length` tokens.

        every  True: compute the logits of every token, not only of the last
        """
        ids, last = self.ids[:, :length], {} if every else last_only(self.exact)

        def run(model: nn.Module) -> Tensor:
            logits: Tensor = model(input_ids=ids, use_cache=False, **last).logits
            return logits

        return _arms(run, self._pair, self._copy, names)

    def _decode(self, length: int, names: Sequence[str]) -> dict[str, Arm]:
        """Return the arms that decode one token after `length` cached ones.

        Every call removes its token from the cache again.
        """
        token = self.ids[:, -1:]
        caches: dict[nn.Module, Any] = {}
        with torch.inference_mode():
            for model in self._pair:
                caches[model] = cache_of(model(input_ids=self.ids[:, :length], **last_only(model)))

        def run(model: nn.Module) -> Tensor:
            cache = caches[model]
            logits: Tensor = model(input_ids=token, **with_cache(model, cache)).logits
            cache.crop(-1)
            return logits

        return _arms(run, self._pair, self._copy, names)

    def _layer(self, length: int, names: Sequence[str]) -> dict[str, Arm]:
        """Return the arms of the first layer, on the inputs it has in the model."""
        given: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        layers = tuple(model.get_submodule(self.layer)[0] for model in self._pair)  # type: ignore[index]
        with torch.inference_mode():
            for model, layer in zip(self._pair, layers, strict=True):

                def keep(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
                    given[module] = args, named
                    raise _ReachedError

                handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
                try:
                    with suppress(_ReachedError):  # the rest of the model is not needed
                        model(input_ids=self.ids[:, :length], use_cache=False, **last_only(model))
                finally:
                    handle.remove()

        def run(layer: nn.Module) -> Tensor:
            args, named = given[layer]
            output: Any = layer(*args, **named)
            stream: Tensor = output if isinstance(output, Tensor) else output[0]
            return stream

        return _arms(run, layers, weight_copy(layers[0]), names)

    @property
    def _pair(self) -> tuple[PreTrainedModel, PreTrainedModel]:
        return self.exact, self.converted


def _names(length: int, closed: bool = True) -> tuple[str, ...]:
    """Return the names of the arms for a prompt of `length` tokens; "simulated" only for the short prompt of 8."""
    return (*BASES, *(("closed",) * closed), *(("simulated",) * (length == SHORT)))


def _arms(run: Callable[[Any], Tensor], pair: tuple[Any, Any], moved: Arm, names: Sequence[str]) -> dict[str, Arm]:
    exact, converted = pair

    def closed() -> Tensor:
        with kernels.closed_forms():
            return run(converted)

    def simulated() -> Tensor:
        with conversion.simulate(converted):
            return run(converted)

    arms: dict[str, Arm] = {
        "kernel": lambda: run(converted),
        "exact": lambda: run(exact),
        "copy": moved,
        "closed": closed,
        "simulated": simulated,
    }
    return {name: arms[name] for name in names}


def shared_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of the modules that shares all weights and buffers."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def weight_copy(module: nn.Module) -> Arm:
    """Return a function that copies as many bytes as reading all weights of the module once: the memory limit.

    Half of them are read and half are written, into an existing tensor.
    """
    source = torch.ones(sum(p.numel() * p.element_size() for p in module.parameters()) // 8)
    target = torch.ones_like(source)
    return lambda: target.copy_(source)


def last_only(model: nn.Module) -> dict[str, int]:
    """Return {"logits_to_keep": 1}, for the logits of the last token alone, if the model takes it; else {}."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(type(model).forward).parameters else {}
