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
    """Sums over a few consecutive next-token predictions of one window. Likelihoods and divergences are in nats.

    predictions                number of predictions
    agreements                 of these, those for which both models have the same most likely token
    exact_nll, converted_nll   sums of the negative log-likelihood of the true token
    kl, max_kl                 sum and largest value (or NaN) of the KL divergence of converted from exact
    """

    predictions: int
    agreements: int
    exact_nll: float
    converted_nll: float
    kl: float
    max_kl: float


@dataclass(frozen=True)
class Reading:
    """What both models predicted in one window, as sums over chunks of the window, and the seconds of each model."""

    chunks: tuple[Chunk, ...]
    exact_seconds: float
    converted_seconds: float


def read_window(arms: Arms, window: Tensor) -> Reading:
    """Let the exact and the converted model read one window; return their losses, agreement, divergence and seconds.

    window   token ids, int64 (context,)

    Errors: SpikeplugError if the exact model yields NaN.
    """
    window = window.to(arms.model.device)
    pair = arms.both(partial(next_token_logits, ids=window[None]))
    chunks = tuple(map(summed, compare(pair.exact, pair.converted, window[1:])))
    return Reading(chunks, pair.exact_seconds, pair.converted_seconds)


def summed(found: Predictions) -> Chunk:
    """Add up the figures of some predictions: counts, losses and divergences, in float64."""
    return Chunk(
        predictions=found.kl.numel(),
        agreements=int(found.agree.sum()),
        exact_nll=found.exact.sum().item(),
        converted_nll=found.converted.sum().item(),
        kl=found.kl.sum().item(),
        max_kl=found.kl.max().item(),
    )


def perplexity_result(context: int, readings: Sequence[Reading]) -> PerplexityResult:
    """Return perplexity, agreement and divergence of both models over all windows of the length `context`.

    A perplexity that overflows is infinite. Chunks are added up in the order of the windows, so the result is
    bit for bit the same whichever process read a window.
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
    """Add floats one after the other. From Python 3.12 on, sum() corrects rounding: other last bits."""
    total = 0.0
    for value in values:
        total += value
    return total


def _exp(value: float) -> float:
    return torch.tensor(value, dtype=torch.float64).exp().item()  # unlike math.exp, overflows to infinity
