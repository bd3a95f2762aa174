"""One decoder layer and a whole model: exact as transformers runs it, beside its converted self, on the same weights.

The converted model is a copy that shares every weight, so both stand ready and nothing is converted between runs.
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
from spikeplug.report.layers import find_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Tokens of the prompt on which the contract is checked and the simulation is run.
SHORT = 8
#: Tokens of the longest prefill that the closed form runs too: for long ones it is slow.
_CLOSED = 128
_LENGTHS, _QUICK_LENGTHS = (128, 512, 2048), (32,)


@dataclass(frozen=True)
class Work:
    """Something a model does.

    length  of its prompt, or of what is cached
    tokens  how many one call handles
    names   the arms there are
    make    of the length and some of those names, the arms, which hold what they need
    """

    section: str
    name: str
    length: int
    tokens: int
    names: tuple[str, ...]
    make: Callable[[int, Sequence[str]], dict[str, Arm]]

    @property
    def shape(self) -> str:
        """The length in words."""
        return f"{'after ' if self.name == 'decode' else ''}{self.length} tokens"


class _ReachedError(Exception):
    """Raised where a module is called, to end the model's run there."""


class Pair:
    """A model in evaluation mode, its converted copy, and the token ids both read: (1, at least SHORT).

    Errors: SpikeplugError for a model without decoder layers, or too short a text or context; whatever `convert`
    refuses.
    """

    def __init__(self, model: PreTrainedModel, ids: Tensor, quick: bool) -> None:
        self.exact, self.ids = model, ids
        longest = min(ids.shape[1], _positions(model) - 1)
        if longest < SHORT:
            raise SpikeplugError(f"the model or the text holds {longest} tokens; a measurement needs {SHORT}.")
        self.lengths = [n for n in (_QUICK_LENGTHS if quick else _LENGTHS) if n <= longest]
        self.converted = shared_copy(model)
        conversion.convert(self.converted)
        layers = find_layers(model)
        self.layer, self.depth = layers.path, len(layers)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._copy = weight_copy(model)

    def work(self, sections: Sequence[str] = OF_MODELS) -> list[Work]:
        """Everything that is measured, in order."""
        prompts = (SHORT, *self.lengths)
        found = [Work("layer", "decoder layer", n, n, _names(n), self._layer) for n in prompts]
        found += [Work("model", "prefill", n, n, _names(n, n <= _CLOSED), self._prefill) for n in prompts]
        found += [Work("model", "decode", n, 1, _names(n), self._decode) for n in self.lengths]
        return [work for work in found if work.section in sections]

    @cached_property
    def kept(self) -> bool:
        """Whether logits of the short prompt, and of one step after it, are those of closed forms, to the last bit."""
        arms = ("kernel", "closed")
        with torch.inference_mode():
            prompt = contract.kept(self._prefill(SHORT, arms, every=True))
            return prompt and contract.kept(self._decode(SHORT, arms))

    def _prefill(self, length: int, names: Sequence[str], every: bool = False) -> dict[str, Arm]:
        """every: with the logits of every token, not of the last alone, which is what generating needs."""
        ids, last = self.ids[:, :length], {} if every else last_only(self.exact)

        def run(model: nn.Module) -> Tensor:
            logits: Tensor = model(input_ids=ids, use_cache=False, **last).logits
            return logits

        return _arms(run, self._pair, self._copy, names)

    def _decode(self, length: int, names: Sequence[str]) -> dict[str, Arm]:
        """One token after `length` cached ones; the cache is cut back by every call."""
        token = self.ids[:, -1:]
        caches: dict[nn.Module, Any] = {}
        with torch.inference_mode():
            for model in self._pair:
                caches[model] = model(input_ids=self.ids[:, :length], **last_only(model)).past_key_values

        def run(model: nn.Module) -> Tensor:
            cache = caches[model]
            logits: Tensor = model(input_ids=token, past_key_values=cache, use_cache=True).logits
            cache.crop(-1)
            return logits

        return _arms(run, self._pair, self._copy, names)

    def _layer(self, length: int, names: Sequence[str]) -> dict[str, Arm]:
        """The first layer, given what the model gives it."""
        given: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        layers = tuple(model.get_submodule(self.layer)[0] for model in self._pair)  # type: ignore[index]
        with torch.inference_mode():
            for model, layer in zip(self._pair, layers, strict=True):

                def keep(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
                    given[module] = args, named
                    raise _ReachedError

                handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
                try:
                    with suppress(_ReachedError):  # the rest of the model takes its time and gives nothing
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
    """The arms at a length: the simulation runs on the short prompt alone."""
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
    """A copy of the modules with the very same weights and buffers."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def weight_copy(module: nn.Module) -> Arm:
    """The memory limit: as many bytes moved as reading all weights once takes, half of them read and half written, into
    a tensor that is there: no model allocates its weights anew."""
    source = torch.ones(sum(p.numel() * p.element_size() for p in module.parameters()) // 8)
    target = torch.ones_like(source)
    return lambda: target.copy_(source)


def last_only(model: nn.Module) -> dict[str, int]:
    """The argument that asks a model for the last token's logits alone, where it has one."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(type(model).forward).parameters else {}


def _positions(model: PreTrainedModel) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 30))
