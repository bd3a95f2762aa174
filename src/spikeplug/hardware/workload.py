"""Measure what one token asks of a model: the events of its spiking operators, and the numbers that they work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikeplug.codes.packed import levels_of
from spikeplug.conversion.simulation import Simulation
from spikeplug.conversion.tracking import Running
from spikeplug.conversion.whole.retuned import retuned
from spikeplug.conversion.whole.spikes import InputSpikes, counting_spikes
from spikeplug.hardware.token import count_last, read_before
from spikeplug.kernels.protocol import Call
from spikeplug.library import OPERATORS
from spikeplug.library.dispatch import substituted_by
from spikeplug.measurement.caching import with_cache
from spikeplug.measurement.recipes import saved_levels, saved_numerics
from spikeplug.operators import LINEAR

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Operators whose keys, and values, are read as weights are.
_ATTENTION = ("attention", "attention_weights")


@dataclass
class Work:
    """Hold what all calls of one operator in one module work on, for one token.

    numbers_in   numbers that the calls read, weights excepted
    weights      numbers that their matrix products read as weights: those of layers, keys and values, a second matrix
    numbers_out  numbers that they return
    macs         multiply-accumulates of their matrix products
    """

    path: str
    operator: str
    numbers_in: int = 0
    weights: int = 0
    numbers_out: int = 0
    macs: int = 0

    @property
    def linear(self) -> bool:
        """Return whether the operator is linear, as matrix products, sums and their encoders are."""
        return self.operator in LINEAR


@dataclass(frozen=True)
class Token:
    """Hold the events and the work of one token that has read `context` tokens, itself included."""

    context: int
    events: Simulation
    work: tuple[Work, ...]


@torch.inference_mode()
def one_token(model: PreTrainedModel, ids: Sequence[int]) -> Token:
    """Count the last of these tokens in a converted model; those before it are in the cache.

    Errors: SpikeplugError for a model that keeps no keys and values, if there is a token before.
    """
    read = torch.tensor([[*ids]], dtype=torch.int64, device=model.device)
    events = count_last(model, read)
    # A second run notes the sizes: where somebody asks for substitutes, keys and values are cached in another form.
    with Running(model) as running, substituted_by(watch := _Watch(running)):
        cache = read_before(model, read)
        watch.found.clear()
        model(input_ids=read[:, -1:], **with_cache(model, cache))
    return Token(read.shape[1], events, tuple(watch.found.values()))


@dataclass(frozen=True)
class SpikesPerValue:
    """Hold the mean number of spikes that carry one input of a linear layer, over all layers, by the code.

    levels  T·L, the levels of the code
    phase   spikes of a phase code: the binary digits 1 of a level
    count   spikes of a count code: the level itself
    """

    levels: int
    phase: float
    count: float


@torch.inference_mode()
def spikes_per_value(model: PreTrainedModel, ids: Sequence[int], levels: Sequence[int]) -> list[SpikesPerValue]:
    """Return the spikes per input of the linear layers of a whole spiking model, for codes of so many levels each.

    An empty list for a model without such layers.
    """
    read, found = torch.tensor([[*ids]], dtype=torch.int64, device=model.device), []
    own = saved_levels(model)
    for wanted in levels:
        with retuned(model, saved_numerics(model), replace(own, inputs=wanted)), counting_spikes(model) as counts:
            model(input_ids=read, use_cache=False)
        total = InputSpikes()
        for sent in counts.values():
            total.spikes += sent.spikes
            total.magnitude += sent.magnitude
            total.levels += sent.levels
        if not total.levels:
            return []
        found.append(SpikesPerValue(wanted, total.spikes / total.levels, total.magnitude / total.levels))
    return found


class _Watch:
    """Note the sizes of every call before it runs as usual."""

    def __init__(self, running: Running) -> None:
        self.found: dict[tuple[str, str], Work] = {}
        self._running = running

    def __call__(self, call: Call, part: str) -> Tensor:
        operator = OPERATORS[call.operator]
        output = operator(*call.arguments, numerics=call.numerics, weight=call.weight, bias=call.bias, part=part)
        place = (self._running.path, call.operator)
        work = self.found.setdefault(place, Work(*place))
        numbers, weights, macs = _sizes(call, output)
        work.numbers_in += numbers
        work.numbers_out += output.numel()
        work.weights += weights
        work.macs += macs
        return output


def _sizes(call: Call, output: Tensor) -> tuple[int, int, int]:
    """Return the numbers that a call reads, those that it reads as weights, and its multiply-accumulates."""
    tensors = [x for x in call.arguments if isinstance(x, Tensor)]
    if call.operator == "linear":
        x, weight = tensors[:2]
        return x.numel(), weight.numel(), output.numel() * weight.shape[-1]
    if call.operator == "matmul":
        a, b = tensors[:2]
        return a.numel(), b.numel(), output.numel() * a.shape[-1]
    if call.operator in _ATTENTION:
        query, key, *others = map(levels_of, tensors)
        weighed = others[0] if call.operator == "attention" else None
        scores = query.numel() // query.shape[-1] * key.shape[-2]
        read = key.numel() + (0 if weighed is None else weighed.numel())
        return query.numel(), read, scores * (query.shape[-1] + (0 if weighed is None else weighed.shape[-1]))
    return sum(x.numel() for x in tensors if x.is_floating_point()), 0, 0
