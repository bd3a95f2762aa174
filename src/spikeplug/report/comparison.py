"""Compare one model with any conversion of it on one text: predictions, residual streams, figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikeplug.conversion.match import find
from spikeplug.measurement.comparing import Predictions, compare, converted, next_token_logits
from spikeplug.measurement.layers import Layers, find_layers
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics, as_realisation
from spikeplug.report.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Exact logits of all windows are kept if they take no more than this; else they are computed for each measurement.
_KEPT_BYTES = 2 << 30


@dataclass(frozen=True)
class Change:
    """Describe a way to convert the model, as `convert` takes it.

    numerics   the numerics of the spiking operators
    operators  names of the operators to replace; None: all
    exclude    regular expression for the paths of modules that stay exact; None: no module
    """

    numerics: Numerics
    operators: tuple[str, ...] | None = None
    exclude: str | None = None


class Comparison:
    """Measure conversions of a model. The model is exact again after every call.

    windows   int64 (windows, context) of token ids

    The figures of a change are computed once and kept.
    Errors: SpikeplugError for a model without decoder layers, and those of `convert`.
    """

    def __init__(self, model: PreTrainedModel, windows: Tensor, settings: Settings) -> None:
        self.model, self.windows, self.settings = model, windows.to(model.device), settings
        self.numerics = as_numerics(settings.numerics)
        self.realisation = as_realisation(settings.realisation, self.numerics)
        self.layers: Layers = find_layers(model)
        with self.converted(Change(self.numerics)):
            pass  # a model that cannot be converted is refused before anything runs
        self.operators = tuple(sorted({name for place in find(model) for name in place.operators}))
        self._exact: dict[int, Tensor] = {}
        self._figures: dict[Change | None, dict[str, Any]] = {}

    @contextmanager
    def converted(self, change: Change | None) -> Iterator[None]:
        """Convert the model within the block; None converts nothing."""
        if change is None:
            yield
            return
        with converted(self.model, change.numerics, change.operators, change.exclude):
            yield

    @torch.inference_mode()
    def residual_stream(self, change: Change | None) -> list[Tensor]:
        """Return the residual stream before the first layer and after each layer, on the first window.

        One tensor (tokens, channels) each. change: the conversion; None: the exact model.
        """
        with self.converted(change), self.layers.recorded() as kept:
            self.model(input_ids=self.windows[:1], use_cache=False)
        return kept

    def figures(self, change: Change | None) -> dict[str, Any]:
        """Return perplexity, KL divergence and agreement of the converted model over all windows, by name.

        change  the conversion; None: the exact model
        """
        if change not in self._figures:
            self._figures[change] = figures_of(self.predictions(change))
        return dict(self._figures[change])

    @torch.inference_mode()
    def predictions(self, change: Change | None) -> Predictions:
        """Compare every next-token prediction of the converted model with the exact model's.

        The result holds negative log-likelihoods, KL divergence and agreement, each (windows, context - 1).
        Errors: SpikeplugError if the exact model yields NaN.
        """
        windows = []
        for index, window in enumerate(self.windows):
            exact = self._exact_logits(index)
            with self.converted(change):
                logits = next_token_logits(self.model, window[None])
            chunks = [_on_cpu(chunk) for chunk in compare(exact, logits, window[1:])]
            windows.append([torch.cat(kind) for kind in zip(*chunks, strict=True)])
        return Predictions(*(torch.stack(kind) for kind in zip(*windows, strict=True)))

    def _exact_logits(self, index: int) -> Tensor:
        logits = self._exact.get(index)
        if logits is None:
            logits = next_token_logits(self.model, self.windows[index][None])
            if logits.numel() * logits.element_size() * len(self.windows) <= _KEPT_BYTES:
                self._exact[index] = logits
        return logits


def figures_of(found: Predictions) -> dict[str, Any]:
    """Return the means of all predictions by name, as plain numbers.

    Both perplexities; the change of perplexity in per cent and its standard error, from the differences per prediction;
    mean and largest KL divergence in nats; the share of equal most likely tokens in per cent; the predictions' number.
    """
    rise = (found.converted - found.exact).flatten()
    change, count = math.expm1(min(float(rise.mean()), 700.0)), rise.numel()
    spread = float(rise.std()) / math.sqrt(count) if count > 1 else math.nan
    return {
        "exact_perplexity": float(found.exact.mean().exp()),
        "converted_perplexity": float(found.converted.mean().exp()),
        "change_percent": 100.0 * change,
        "standard_error_percent": 100.0 * (1.0 + change) * spread,
        "mean_kl": float(found.kl.mean()),
        "max_kl": float(found.kl.max()),
        "agreement_percent": 100.0 * float(found.agree.mean()),
        "predictions": count,
    }


def _on_cpu(chunk: Predictions) -> list[Tensor]:
    return [getattr(chunk, field.name).cpu() for field in fields(chunk)]
