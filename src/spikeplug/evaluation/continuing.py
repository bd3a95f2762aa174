"""Continue a prompt with the exact and the spiking model, token by token, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikeplug.conversion.whole.spikes import InputSpikes, counting_spikes
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.caching import cache_of, with_cache
from spikeplug.measurement.text import check_vocabulary, encode, positions_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Continuation:
    """Continue a prompt by the most likely token, one token per `step`.

    ids              the tokens so far
    finished         True after a token that ends a text, or after a prompt without room for more
    prompt_seconds   wall-clock seconds that the first token took; it reads the prompt
    seconds          wall-clock seconds of all later tokens
    """

    def __init__(self, model: PreTrainedModel, prompt: Sequence[int]) -> None:
        self.model, self.ids, self.finished = model, [], False  # type: tuple[Any, list[int], bool]
        self.prompt_seconds = self.seconds = 0.0
        self._next = torch.tensor([[*prompt]], dtype=torch.int64, device=model.device)
        self._cache: Any = None
        self._ends = _ends(model)

    @property
    def tokens_per_second(self) -> float | None:
        """Return the speed after the first token; None if there is no later one."""
        return (len(self.ids) - 1) / self.seconds if len(self.ids) > 1 else None

    def step(self) -> int:
        """Return the next token. Errors: SpikeplugError if the model yields NaN."""
        start = time.perf_counter()
        with torch.inference_mode():
            output = self.model(input_ids=self._next, **with_cache(self.model, self._cache))
            logits: Tensor = output.logits[0, -1]
            token = int(logits.argmax())
        spent = time.perf_counter() - start
        if bool(logits.isnan().any()):
            raise SpikeplugError(
                "the model yields NaN: its weights are damaged, or the dtype is too narrow for it (try --dtype "
                "float32)."
            )
        if self.ids:
            self.seconds += spent
        else:
            self.prompt_seconds = spent
        self._cache, self._next = cache_of(output), torch.tensor([[token]], device=self._next.device)
        self.ids.append(token)
        self.finished = token in self._ends
        return token


@dataclass(frozen=True)
class Agreement:
    """Compare two continuations of one prompt.

    equal      positions with the same token
    length     positions that both have
    first      position of the first token that differs, from 0; None: none differs
    """

    equal: int
    length: int
    first: int | None


def agreement(exact: Sequence[int], spiking: Sequence[int]) -> Agreement:
    """Return in how many positions two lists of tokens agree, and where they differ first."""
    same = [one == other for one, other in zip(exact, spiking, strict=False)]
    prefix = sum(1 for _ in takewhile(bool, same))
    differs = prefix < max(len(exact), len(spiking))
    return Agreement(sum(same), len(same), prefix if differs else None)


def continue_in_turns(arms: Mapping[str, Continuation], tokens: int) -> Iterator[str]:
    """Let each arm add a token in turn, until each has `tokens` tokens or has ended; yield the arm's name each time."""
    for _ in range(tokens):
        for name, arm in arms.items():
            if not arm.finished:
                arm.step()
                yield name
        if all(arm.finished for arm in arms.values()):
            return


def warm_up(model: PreTrainedModel, prompt: Sequence[int]) -> None:
    """Run a model on the prompt and two more tokens, so that kernels are compiled before time counts."""
    arm = Continuation(model, prompt)
    for _ in range(3):
        arm.step()


def spikes_sent(model: PreTrainedModel, tokens: Sequence[int]) -> dict[str, InputSpikes]:
    """Return the spikes at the inputs of the linear layers by module path, of one run over these tokens.

    A token's codes are the same whether it is read alone, with a cache, or together with the others.
    """
    ids = torch.tensor([[*tokens]], dtype=torch.int64, device=model.device)
    with counting_spikes(model) as counts, torch.inference_mode():
        model(input_ids=ids, use_cache=False)
    return counts


def prompt_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int) -> list[int]:
    """Return the tokens of a prompt that `tokens` more are to follow.

    Errors: SpikeplugError for a prompt without tokens or longer than the model reads, and for a foreign tokenizer.
    """
    ids = encode(tokenizer, prompt)
    if not ids:
        raise SpikeplugError('the prompt is empty: give some text, e.g. spikeplug generate "The capital of France is".')
    if len(ids) + tokens > positions_of(model):
        raise SpikeplugError(
            f"the prompt of {len(ids)} tokens and {tokens} more are above the model's {positions_of(model)} positions: "
            "give a shorter prompt or fewer --tokens."
        )
    check_vocabulary(model, ids)
    return ids


def _ends(model: PreTrainedModel) -> frozenset[int]:
    """Return the tokens that end a text."""
    config = getattr(model, "generation_config", None) or model.config
    found = getattr(config, "eos_token_id", None)
    return frozenset([found] if isinstance(found, int) else found or [])
