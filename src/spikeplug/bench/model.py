"""One decoder layer and a whole model: exact as transformers runs it, beside its converted self, on the same weights.

The converted model is a copy that shares every weight, so both stand ready and nothing is converted between runs.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from spikeplug import conversion, kernels
from spikeplug.bench import contract
from spikeplug.errors import SpikeplugError
from spikeplug.report.layers import find_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Arm = Callable[[], Tensor]
#: Tokens of the prompt on which the contract is checked and the simulation is run.
SHORT = 8
#: Tokens of the longest prefill that the closed form runs too: it takes minutes for long ones.
_CLOSED = 128
_LENGTHS, _QUICK_LENGTHS = (128, 512, 2048), (32,)


@dataclass(frozen=True)
class Work:
    """Something a model does. tokens: how many one call handles."""

    section: str
    name: str
    shape: str
    tokens: int
    arms: dict[str, Arm]


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
        self.layer = find_layers(model).path
        self._copy = weight_copy(model)

    def work(self) -> list[Callable[[], Work]]:
        """Makers of everything that is measured, in order; each keeps what it needs only while it is used."""
        made: list[Callable[[], Work]] = [lambda: self._layer(SHORT, simulated=True)]
        made += [lambda n=n: self._layer(n) for n in self.lengths]  # type: ignore[misc]
        made += [lambda: self._prefill(SHORT, simulated=True)]
        made += [lambda n=n: self._prefill(n) for n in self.lengths]  # type: ignore[misc]
        made += [lambda n=n: self._decode(n) for n in self.lengths]  # type: ignore[misc]
        return made

    @torch.inference_mode()
    def kept(self) -> bool:
        """Whether logits of the short prompt, and of one step after it, are those of closed forms, to the last bit."""
        prompt, step = self._prefill(SHORT, every=True).arms, self._decode(SHORT).arms
        return contract.kept(prompt) and contract.kept(step)

    def _prefill(self, length: int, simulated: bool = False, every: bool = False) -> Work:
        """every: with the logits of every token, not of the last alone, which is what generating needs."""
        ids, last = self.ids[:, :length], {} if every else last_only(self.exact)

        def run(model: nn.Module) -> Tensor:
            logits: Tensor = model(input_ids=ids, use_cache=False, **last).logits
            return logits

        arms = self._arms(run, self._pair, simulated)
        if length > _CLOSED:
            del arms["closed"]
        return Work("model", "prefill", f"{length} tokens", length, arms)

    def _decode(self, length: int) -> Work:
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

        return Work("model", "decode", f"after {length} tokens", 1, self._arms(run, self._pair, False))

    def _layer(self, length: int, simulated: bool = False) -> Work:
        """The first layer, given what the model gives it."""
        given: dict[nn.Module, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        layers = tuple(model.get_submodule(self.layer)[0] for model in self._pair)  # type: ignore[index]
        with torch.inference_mode():
            for model, layer in zip(self._pair, layers, strict=True):

                def keep(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
                    given[module] = args, named

                handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
                try:
                    model(input_ids=self.ids[:, :length], use_cache=False, **last_only(model))
                finally:
                    handle.remove()

        def run(layer: nn.Module) -> Tensor:
            args, named = given[layer]
            output: Any = layer(*args, **named)
            stream: Tensor = output if isinstance(output, Tensor) else output[0]
            return stream

        arms = {**self._arms(run, layers, simulated), "copy": weight_copy(layers[0])}
        return Work("layer", "decoder layer", f"{length} tokens", length, arms)

    @property
    def _pair(self) -> tuple[PreTrainedModel, PreTrainedModel]:
        return self.exact, self.converted

    def _arms(self, run: Callable[[Any], Tensor], pair: tuple[Any, Any], simulated: bool) -> dict[str, Arm]:
        exact, converted = pair

        def closed() -> Tensor:
            with kernels.closed_forms():
                return run(converted)

        def simulation() -> Tensor:
            with conversion.simulate(converted):
                return run(converted)

        arms: dict[str, Arm] = {
            "kernel": lambda: run(converted),
            "exact": lambda: run(exact),
            "copy": self._copy,
            "closed": closed,
        }
        return {**arms, "simulated": simulation} if simulated else arms


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
