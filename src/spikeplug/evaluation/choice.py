"""Multiple choice: which continuation does a model find most likely, per token?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.items import Item
from spikeplug.evaluation.results import ChoiceResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def measure_choices(arms: Arms, task: str, items: Sequence[Item], advance: Callable[[int], None]) -> ChoiceResult:
    """Accuracy of both arms on the same items; `advance` hears of the tokens done in each arm."""
    exact_right = converted_right = agreements = 0
    exact_seconds = converted_seconds = 0.0
    for item in items:
        pair = arms.both(partial(answer, arms.model, item))
        exact_right += pair.exact == item.label
        converted_right += pair.converted == item.label
        agreements += pair.exact == pair.converted
        exact_seconds += pair.exact_seconds
        converted_seconds += pair.converted_seconds
        advance(item.tokens)
    count = len(items)
    return ChoiceResult(
        task=task,
        items=count,
        exact_percent=100.0 * exact_right / count,
        converted_percent=100.0 * converted_right / count,
        exact_standard_error=_standard_error(exact_right, count),
        converted_standard_error=_standard_error(converted_right, count),
        agreement_percent=100.0 * agreements / count,
        exact_seconds=exact_seconds,
        converted_seconds=converted_seconds,
        time_ratio=converted_seconds / exact_seconds,
    )


def answer(model: PreTrainedModel, item: Item) -> int:
    """Index of the choice with the best score, the first among equals; -1, which no label is, if a score is NaN."""
    scores = choice_scores(model, item)
    return -1 if bool(scores.isnan().any()) else int(scores.argmax())


def choice_scores(model: PreTrainedModel, item: Item) -> Tensor:
    """Mean log-likelihood per token of each choice after the prompt: float64 (choices,).

    The prompt is read once; its keys and values are shared by the choices, which are read side by side, padded on the
    right. Attention is causal, so no score sees the padding.
    """
    device, count = model.device, len(item.choices)
    lengths = torch.tensor([len(choice) for choice in item.choices], device=device)
    longest = int(lengths.max())
    targets = torch.tensor([[*choice, *[0] * (longest - len(choice))] for choice in item.choices], device=device)
    prompt = model(input_ids=torch.tensor([item.prompt], device=device), use_cache=True)
    logits = prompt.logits[:, -1:].expand(count, 1, -1)
    if longest > 1:
        cache = prompt.past_key_values
        cache.batch_repeat_interleave(count)
        rest = model(input_ids=targets[:, :-1], past_key_values=cache, use_cache=True).logits
        logits = torch.cat((logits, rest), dim=1)
    likelihood: Tensor = logits.double().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    inside = torch.arange(longest, device=device) < lengths[:, None]
    return likelihood.where(inside, 0.0).sum(-1) / lengths


def _standard_error(right: int, count: int) -> float:
    share = right / count
    return 100.0 * math.sqrt(share * (1.0 - share) / count)
