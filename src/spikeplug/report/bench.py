"""The measuring bench: one model, one text, and the figures of any way to convert it against the exact model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikeplug import conversion
from spikeplug.conversion.match import find
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.perplexity import next_token_logits
from spikeplug.numerics import Numerics
from spikeplug.report.layers import Layers, find_layers
from spikeplug.report.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Exact logits are kept for all measurements if they take no more than this; else computed for each.
_KEPT_BYTES = 2 << 30
# Logits are turned to float64 this many at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Change:
    """A way to convert the model. None as operators or exclude: all, and nothing."""

    numerics: Numerics
    operators: tuple[str, ...] | None = None
    exclude: str | None = None


@dataclass(frozen=True)
class Predictions:
    """Of every prediction, in the order of the text, float64 (windows, context - 1): negative log-likelihood of the
    true token by both models, divergence Σ p (log p - log q) in nats, whether the likeliest token is the same."""

    exact: Tensor
    converted: Tensor
    kl: Tensor
    agree: Tensor

    def figures(self) -> dict[str, Any]:
        """Perplexities, their change in per cent and its standard error (of paired predictions), divergences."""
        rise = (self.converted - self.exact).flatten()
        change, count = math.expm1(min(float(rise.mean()), 700.0)), rise.numel()
        spread = float(rise.std()) / math.sqrt(count) if count > 1 else math.nan
        return {
            "exact_perplexity": float(self.exact.mean().exp()),
            "converted_perplexity": float(self.converted.mean().exp()),
            "change_percent": 100.0 * change,
            "standard_error_percent": 100.0 * (1.0 + change) * spread,
            "mean_kl": float(self.kl.mean()),
            "max_kl": float(self.kl.max()),
            "agreement_percent": 100.0 * float(self.agree.mean()),
            "predictions": count,
        }


class Bench:
    """Measures; the model is exact again after every call.

    windows: int64 (windows, context) of token ids. Figures of one change are computed once.
    Errors: SpikeplugError for a model without decoder layers, and whatever `convert` refuses.
    """

    def __init__(self, model: PreTrainedModel, windows: Tensor, settings: Settings) -> None:
        self.model, self.windows, self.settings = model, windows.to(model.device), settings
        self.numerics = settings.numerics
        self.layers: Layers = find_layers(model)
        with self.converted(Change(self.numerics)):
            pass  # a model that cannot be converted is refused before anything runs
        self.operators = tuple(sorted({name for place in find(model) for name in place.operators}))
        self._exact: dict[int, Tensor] = {}
        self._figures: dict[Change | None, dict[str, Any]] = {}

    @contextmanager
    def converted(self, change: Change | None) -> Iterator[None]:
        """The model converted inside, exact outside; None converts nothing."""
        if change is None:
            yield
            return
        conversion.convert(self.model, change.numerics, operators=change.operators, exclude=change.exclude)
        try:
            yield
        finally:
            conversion.revert(self.model)

    @torch.inference_mode()
    def residual_stream(self, change: Change | None) -> list[Tensor]:
        """Before the layers and after each, on the first window: (tokens, channels) each."""
        with self.converted(change), self.layers.recorded() as kept:
            self.model(input_ids=self.windows[:1], use_cache=False)
        return kept

    def figures(self, change: Change | None) -> dict[str, Any]:
        """Perplexity and divergence over all windows."""
        if change not in self._figures:
            self._figures[change] = self.predictions(change).figures()
        return dict(self._figures[change])

    @torch.inference_mode()
    def predictions(self, change: Change | None) -> Predictions:
        """Both models on every window. Errors: SpikeplugError if the exact model itself yields NaN."""
        parts = []
        for index, window in enumerate(self.windows):
            exact = self._exact_logits(index)
            with self.converted(change):
                logits = next_token_logits(self.model, window[None])
            parts.append(_compared(exact, logits, window[1:]))
        found = Predictions(*(torch.stack(kind) for kind in zip(*parts, strict=True)))
        if bool(found.exact.isnan().any()):
            raise SpikeplugError("the exact model itself yields NaN: its weights are damaged, or its dtype too narrow.")
        return found

    def _exact_logits(self, index: int) -> Tensor:
        logits = self._exact.get(index)
        if logits is None:
            logits = next_token_logits(self.model, self.windows[index][None])
            if logits.numel() * logits.element_size() * len(self.windows) <= _KEPT_BYTES:
                self._exact[index] = logits
        return logits


def _compared(exact: Tensor, converted: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The parts of `Predictions` of one window; logits (predictions, vocabulary)."""
    rows = max(1, _CHUNK // exact.shape[-1])
    parts = []
    for start in range(0, len(targets), rows):
        chunk = slice(start, start + rows)
        p, q = (logits[chunk].double().log_softmax(-1) for logits in (exact, converted))
        probability, target = p.exp(), targets[chunk, None]
        # 0 log 0 = 0: a token the exact model rules out adds nothing, whatever the other says of it.
        kl = (probability * (p - q)).masked_fill_(probability == 0.0, 0.0).sum(-1).clamp_min_(0.0)
        agree = (p.argmax(-1) == q.argmax(-1)).double()
        parts.append((-p.gather(-1, target)[:, 0], -q.gather(-1, target)[:, 0], kl, agree))
    first, second, third, fourth = (torch.cat(kind).cpu() for kind in zip(*parts, strict=True))
    return first, second, third, fourth
