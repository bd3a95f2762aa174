"""Perplexity, agreement and divergence of both models on the same windows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.results import PerplexityResult
from spikeplug.measurement.comparing import Predictions, compare, next_token_logits


@dataclass(frozen=True)
class Chunk:
    """Float64 sums over a few predictions of one window; `max_kl` is their largest divergence, or NaN."""

    predictions: int
    agreements: int
    exact_nll: float
    converted_nll: float
    kl: float
    max_kl: float


@dataclass(frozen=True)
class Reading:
    """The results of both models for one window, as plain numbers, so that processes can exchange them."""

    chunks: tuple[Chunk, ...]
    exact_seconds: float
    converted_seconds: float


def read_window(arms: Arms, window: Tensor) -> Reading:
    """Return the results of both models for one window of token ids (context,).

    Errors: SpikeplugError if the exact model yields NaN.
    """
    window = window.to(arms.model.device)
    pair = arms.both(partial(next_token_logits, arms.model, window[None]))
    chunks = tuple(map(summed, compare(pair.exact, pair.converted, window[1:])))
    return Reading(chunks, pair.exact_seconds, pair.converted_seconds)


def summed(found: Predictions) -> Chunk:
    """Return the sums of some predictions."""
    return Chunk(
        predictions=found.kl.numel(),
        agreements=int(found.agree.sum()),
        exact_nll=found.exact.sum().item(),
        converted_nll=found.converted.sum().item(),
        kl=found.kl.sum().item(),
        max_kl=found.kl.max().item(),
    )


def perplexity_result(context: int, readings: Sequence[Reading]) -> PerplexityResult:
    """Return the figures of all windows of one length. A perplexity that overflows is infinite.

    Sums run chunk by chunk in the order of the windows, so no bit depends on which process read a window.
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


def _sum(values: Iterable[float]) -> float:
    """Add one after the other: from Python 3.12 on, sum() compensates rounding and gives other bits."""
    total = 0.0
    for value in values:
        total += value
    return total


def _exp(value: float) -> float:
    return torch.tensor(value, dtype=torch.float64).exp().item()  # unlike math.exp, overflows to infinity
