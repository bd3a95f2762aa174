"""Compare one model with any spiking form of it on one text: predictions, residual streams, figures."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from spikeplug.conversion.match import find
from spikeplug.conversion.sites import Group, find_sites
from spikeplug.measurement.comparing import Predictions, compare, next_token_logits
from spikeplug.measurement.layers import Layers
from spikeplug.presets import as_numerics, as_realisation
from spikeplug.progress import Progress, silent
from spikeplug.report.arms import Change, OperatorsArm, WholeArm
from spikeplug.report.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Exact logits of all windows are kept if they take no more than this; else they are computed for each measurement.
_KEPT_BYTES = 2 << 30
# Sites are found on so many tokens of the first window: enough to reach what runs.
_TRACED_TOKENS = 64


class Comparison:
    """Measure spiking forms of a model. The model is exact again after every call.

    windows   int64 (windows, context) of token ids
    spiking   the whole spiking model that was made from the model, which the recipe whole measures; None: the model is
              converted for each measurement
    progress  is told of preparations that take long

    The predictions under a change are computed once and kept.
    Errors: SpikeplugError for a model without decoder layers, and those of `convert`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        windows: Tensor,
        settings: Settings,
        spiking: PreTrainedModel | None = None,
        progress: Progress = silent,
    ) -> None:
        self.model, self.windows, self.settings = model, windows.to(model.device), settings
        self.numerics = as_numerics(settings.numerics)
        self.realisation = as_realisation(settings.realisation, self.numerics)
        self.arm = OperatorsArm(model) if spiking is None else WholeArm(model, spiking, progress)
        with self.converted(Change(self.numerics)):
            pass  # a model that cannot be converted is refused before anything runs
        self._exact: dict[int, Tensor] = {}
        self._predictions: dict[Change | None, Predictions] = {}

    @property
    def whole(self) -> bool:
        """Return whether a whole spiking model is compared."""
        return isinstance(self.arm, WholeArm)

    @property
    def layers(self) -> Layers:
        """Return the layers of the model that runs."""
        return self.arm.layers

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Return the sites at which the spiking model rounds."""
        with torch.inference_mode(), self.converted(Change(self.numerics)) as model:
            return find_sites(model, lambda: model(input_ids=self.windows[:1, :_TRACED_TOKENS], use_cache=False))

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """Return the names of the operators that the spiking model has."""
        if self.whole:
            return tuple(dict.fromkeys(site.operator for group in self.groups for site in group.sites))
        return tuple(sorted({name for place in find(self.model) for name in place.operators}))

    @contextmanager
    def converted(self, change: Change | None) -> Iterator[PreTrainedModel]:
        """Yield the model that runs under the change; None: the exact model."""
        if change is None:
            yield self.model
            return
        with self.arm.converted(change) as model:
            yield model

    @torch.inference_mode()
    def residual_stream(self, change: Change | None) -> list[Tensor]:
        """Return the residual stream before the first layer and after each layer, on the first window.

        One tensor (tokens, channels) each. change: the spiking form; None: exact. All are in one basis: that of the
        model, or, of a whole model, the one that its weights were rotated to.
        """
        with self.converted(change or self.arm.reference) as model, self.layers.recorded() as kept:
            model(input_ids=self.windows[:1], use_cache=False)
        return kept

    def figures(self, change: Change | None) -> dict[str, Any]:
        """Return perplexity, KL divergence and agreement of the spiking form over all windows, by name.

        change  the spiking form; None: the exact model
        """
        return figures_of(self.predictions(change))

    def predictions(self, change: Change | None) -> Predictions:
        """Compare every next-token prediction of the spiking form with the exact model's.

        The result holds negative log-likelihoods, KL divergence and agreement, each (windows, context - 1).
        Errors: SpikeplugError if the exact model yields NaN.
        """
        if change not in self._predictions:
            self._predictions[change] = self._compared(change)
        return self._predictions[change]

    @torch.inference_mode()
    def _compared(self, change: Change | None) -> Predictions:
        windows = []
        for index, window in enumerate(self.windows):
            exact = self._exact_logits(index)
            with self.converted(change) as model:
                logits = next_token_logits(model, window[None])
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
    mean and largest KL divergence in nats, with the standard error of the mean; the share of equal most likely tokens
    in per cent; the predictions' number.
    """
    rise = (found.converted - found.exact).flatten()
    change, error = perplexity_change(rise)
    return {
        "exact_perplexity": float(found.exact.mean().exp()),
        "converted_perplexity": float(found.converted.mean().exp()),
        "change_percent": change,
        "standard_error_percent": error,
        "mean_kl": float(found.kl.mean()),
        "standard_error_kl": standard_error(found.kl),
        "max_kl": float(found.kl.max()),
        "agreement_percent": 100.0 * float(found.agree.mean()),
        "predictions": rise.numel(),
    }


def perplexity_change(rise: Tensor) -> tuple[float, float]:
    """Return the change of perplexity in per cent, and its standard error. rise: of each prediction's loss, in nats."""
    change = math.expm1(min(float(rise.mean()), 700.0))
    return 100.0 * change, 100.0 * (1.0 + change) * standard_error(rise)


def standard_error(values: Tensor) -> float:
    """Return the standard error of the mean of values, as if each were independent; NaN for a single one."""
    return float(values.std()) / math.sqrt(values.numel()) if values.numel() > 1 else math.nan


def _on_cpu(chunk: Predictions) -> list[Tensor]:
    return [getattr(chunk, field.name).cpu() for field in fields(chunk)]
