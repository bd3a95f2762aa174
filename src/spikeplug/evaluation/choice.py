"""Multiple choice: which continuation has the highest likelihood per token?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.results import ChoiceResult
from spikeplug.measurement.caching import cache_of, with_cache
from spikeplug.measurement.items import Item

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Answer:
    """How both models answered one multiple-choice item: was each right, did they pick the same choice, and seconds."""

    exact_right: bool
    converted_right: bool
    agree: bool
    exact_seconds: float
    converted_seconds: float


def answer_item(arms: Arms, item: Item) -> Answer:
    """Let the exact and the converted model answer one item; return which were right, if they agreed, and seconds."""
    pair = arms.both(partial(answer, item=item))
    return Answer(
        exact_right=pair.exact == item.label,
        converted_right=pair.converted == item.label,
        agree=pair.exact == pair.converted,
        exact_seconds=pair.exact_seconds,
        converted_seconds=pair.converted_seconds,
    )


def choice_result(task: str, answers: Sequence[Answer]) -> ChoiceResult:
    """Return accuracy, agreement (in per cent) and summed seconds of both models over the items of one task.

    task      its name
    answers   one per item, at least one
    """
    count = len(answers)
    exact_right = sum(answer.exact_right for answer in answers)
    converted_right = sum(answer.converted_right for answer in answers)
    exact_seconds = sum(answer.exact_seconds for answer in answers)
    converted_seconds = sum(answer.converted_seconds for answer in answers)
    return ChoiceResult(
        task=task,
        items=count,
        exact_percent=100.0 * exact_right / count,
        converted_percent=100.0 * converted_right / count,
        exact_standard_error=_standard_error(exact_right, count),
        converted_standard_error=_standard_error(converted_right, count),
        agreement_percent=100.0 * sum(answer.agree for answer in answers) / count,
        exact_seconds=exact_seconds,
        converted_seconds=converted_seconds,
        time_ratio=converted_seconds / exact_seconds,
    )


def answer(model: PreTrainedModel, item: Item) -> int:
    """Return the index of the choice with the highest mean log-likelihood per token, the first one if several tie.

    If any score is NaN it is -1, which no item has as its right answer.
    """
    scores = choice_scores(model, item)
    return -1 if bool(scores.isnan().any()) else int(scores.argmax())


def choice_scores(model: PreTrainedModel, item: Item) -> Tensor:
    """Return the mean log-likelihood per token of each choice after the prompt: float64 (choices,).

    The prompt is read once, and the choices share its keys and values. They are read as one batch, padded on the
    right. Attention is causal, so the padding changes no score.
    """
    device, count = model.device, len(item.choices)
    lengths = torch.tensor([len(choice) for choice in item.choices], device=device)
    longest = int(lengths.max())
    targets = torch.tensor([[*choice, *[0] * (longest - len(choice))] for choice in item.choices], device=device)
    prompt = model(input_ids=torch.tensor([item.prompt], device=device), use_cache=True)
    logits = prompt.logits[:, -1:].expand(count, 1, -1)
    if longest > 1:
        cache = cache_of(prompt)
        cache.batch_repeat_interleave(count)
        rest = model(input_ids=targets[:, :-1], **with_cache(model, cache)).logits
        logits = torch.cat((logits, rest), dim=1)
    likelihood: Tensor = logits.double().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    inside = torch.arange(longest, device=device) < lengths[:, None]
    return likelihood.where(inside, 0.0).sum(-1) / lengths


def _standard_error(right: int, count: int) -> float:
    share = right / count
    return 100.0 * math.sqrt(share * (1.0 - share) / count)
