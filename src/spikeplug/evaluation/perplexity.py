"""Perplexity, agreement and divergence of two models that read the same windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.results import PerplexityResult

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Logits are turned to float64 this many at a time (8 MiB a tensor), so that the comparison costs little memory.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Chunk:
    """Sums over a few predictions of one window, in float64; `max_kl` is their largest divergence, or NaN."""

    predictions: int
    agreements: int
    exact_nll: float
    converted_nll: float
    kl: float
    max_kl: float


@dataclass(frozen=True)
class Reading:
    """What both arms made of one window: plain numbers, so that they can be sent between processes."""

    chunks: tuple[Chunk, ...]
    exact_seconds: float
    converted_seconds: float


def compare(exact: Tensor, converted: Tensor, targets: Tensor) -> Iterator[Chunk]:
    """Two models' logits (predictions, vocabulary) for the same target ids (predictions,)."""
    rows = max(1, _CHUNK // exact.shape[-1])
    for start in range(0, len(targets), rows):
        chunk = slice(start, start + rows)
        p = exact[chunk].double().log_softmax(-1)
        q = converted[chunk].double().log_softmax(-1)
        target = targets[chunk, None]
        probability = p.exp()
        # 0 log 0 = 0: a token the exact model rules out adds nothing, whatever the other says of it.
        terms = (probability * (p - q)).masked_fill_(probability == 0.0, 0.0)
        divergence = terms.sum(-1).clamp_min_(0.0)
        yield Chunk(
            predictions=target.numel(),
            agreements=int((p.argmax(-1) == q.argmax(-1)).sum()),
            exact_nll=-p.gather(-1, target).sum().item(),
            converted_nll=-q.gather(-1, target).sum().item(),
            kl=divergence.sum().item(),
            max_kl=divergence.max().item(),
        )


def read_window(arms: Arms, window: Tensor) -> Reading:
    """Both arms on one window of token ids (context,).

    Errors: SpikeplugError if the exact model itself yields NaN.
    """
    window = window.to(arms.model.device)
    pair = arms.both(partial(next_token_logits, arms.model, window[None]))
    chunks = tuple(compare(pair.exact, pair.converted, window[1:]))
    if any(math.isnan(chunk.exact_nll) for chunk in chunks):
        raise SpikeplugError(
            "the exact model itself yields NaN: its weights are damaged, or the dtype is too narrow for it (try "
            "--dtype float32)."
        )
    return Reading(chunks, pair.exact_seconds, pair.converted_seconds)


def perplexity_result(context: int, readings: Sequence[Reading]) -> PerplexityResult:
    """The figures of all windows of one length. An overflowing perplexity is infinite.

    Sums run chunk by chunk in the order of the windows: whoever read a window, no bit depends on it.
    """
    chunks = [chunk for reading in readings for chunk in reading.chunks]
    predictions = sum(chunk.predictions for chunk in chunks)
    exact = _exp(_sum(chunk.exact_nll for chunk in chunks) / predictions)
    converted = _exp(_sum(chunk.converted_nll for chunk in chunks) / predictions)
    exact_seconds = _sum(reading.exact_seconds for reading in readings)
    converted_seconds = _sum(reading.converted_seconds for reading in readings)
    return PerplexityResult(
        context=context,
        windows=len(readings),
        predictions=predictions,
        exact_perplexity=exact,
        converted_perplexity=converted,
        change_percent=100.0 * (converted / exact - 1.0),
        agreement_percent=100.0 * sum(chunk.agreements for chunk in chunks) / predictions,
        mean_kl=_sum(chunk.kl for chunk in chunks) / predictions,
        # torch's maximum keeps a NaN, Python's may lose it.
        max_kl=torch.tensor([chunk.max_kl for chunk in chunks], dtype=torch.float64).max().item(),
        exact_seconds=exact_seconds,
        converted_seconds=converted_seconds,
        time_ratio=converted_seconds / exact_seconds,
    )


def next_token_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits (context - 1, vocabulary) of every prediction whose target lies in ids (1, context)."""
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, :-1]


def _sum(values: Iterable[float]) -> float:
    """One after the other: from Python 3.12 on, sum() of floats carries a correction along, and gives other bits."""
    total = 0.0
    for value in values:
        total += value
    return total


def _exp(value: float) -> float:
    return torch.tensor(value, dtype=torch.float64).exp().item()  # unlike math.exp, overflows to infinity
