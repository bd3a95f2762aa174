"""Perplexity, agreement and divergence of two models that read the same windows."""

from __future__ import annotations

import math
from collections.abc import Callable
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


class Comparison:
    """Running totals, in float64, over the predictions of two models for the same targets."""

    def __init__(self) -> None:
        self.predictions = 0
        self.agreements = 0
        self.exact_nll = 0.0
        self.converted_nll = 0.0
        self.kl = 0.0
        self.max_kl = torch.zeros((), dtype=torch.float64)

    def add(self, exact: Tensor, converted: Tensor, targets: Tensor) -> None:
        """Logits (predictions, vocabulary) of both models, target ids (predictions,)."""
        rows = max(1, _CHUNK // exact.shape[-1])
        for start in range(0, len(targets), rows):
            chunk = slice(start, start + rows)
            p = exact[chunk].double().log_softmax(-1)
            q = converted[chunk].double().log_softmax(-1)
            target = targets[chunk, None]
            self.exact_nll -= p.gather(-1, target).sum().item()
            self.converted_nll -= q.gather(-1, target).sum().item()
            self.agreements += int((p.argmax(-1) == q.argmax(-1)).sum())
            probability = p.exp()
            # 0 log 0 = 0: a token the exact model rules out adds nothing, whatever the other says of it.
            terms = (probability * (p - q)).masked_fill_(probability == 0.0, 0.0)
            divergence = terms.sum(-1).clamp_min_(0.0)
            self.kl += divergence.sum().item()
            # torch.maximum keeps a NaN, Python's max may lose it.
            self.max_kl = torch.maximum(self.max_kl, divergence.max().cpu())
            self.predictions += target.numel()

    def result(self, windows: Tensor, exact_seconds: float, converted_seconds: float) -> PerplexityResult:
        """The totals as figures. An overflowing perplexity is infinite."""
        exact = _exp(self.exact_nll / self.predictions)
        converted = _exp(self.converted_nll / self.predictions)
        return PerplexityResult(
            context=windows.shape[1],
            windows=windows.shape[0],
            predictions=self.predictions,
            exact_perplexity=exact,
            converted_perplexity=converted,
            change_percent=100.0 * (converted / exact - 1.0),
            agreement_percent=100.0 * self.agreements / self.predictions,
            mean_kl=self.kl / self.predictions,
            max_kl=self.max_kl.item(),
            exact_seconds=exact_seconds,
            converted_seconds=converted_seconds,
            time_ratio=converted_seconds / exact_seconds,
        )


def measure_perplexity(arms: Arms, windows: Tensor, advance: Callable[[int], None]) -> PerplexityResult:
    """Both arms on windows (windows, context) of token ids; `advance` hears of the tokens done in each arm.

    Errors: SpikeplugError if the exact model itself yields NaN.
    """
    comparison = Comparison()
    exact_seconds = converted_seconds = 0.0
    for window in windows.to(arms.model.device):
        pair = arms.both(partial(next_token_logits, arms.model, window[None]))
        comparison.add(pair.exact, pair.converted, window[1:])
        if math.isnan(comparison.exact_nll):
            raise SpikeplugError(
                "the exact model itself yields NaN: its weights are damaged, or the dtype is too narrow for it (try "
                "--dtype float32)."
            )
        exact_seconds += pair.exact_seconds
        converted_seconds += pair.converted_seconds
        advance(window.numel())
    return comparison.result(windows, exact_seconds, converted_seconds)


def next_token_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits (context - 1, vocabulary) of every prediction whose target lies in ids (1, context)."""
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits[0, :-1]


def _exp(value: float) -> float:
    return torch.tensor(value, dtype=torch.float64).exp().item()  # unlike math.exp, overflows to infinity
