"""Perplexity, agreement and KL against the plain formulas."""

from __future__ import annotations

import math

import pytest
import torch

from spikeplug import conversion
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.perplexity import Reading, perplexity_result, read_window, summed
from spikeplug.measurement import comparing
from spikeplug.numerics import Numerics

OPERATORS = ("attention", "silu", "rms_norm")


def compare(exact, converted, targets):
    return perplexity_result(8, [Reading(tuple(map(summed, comparing.compare(exact, converted, targets))), 1.0, 2.0)])


def logits(rows=50, vocabulary=97, seed=0):
    generator = torch.Generator().manual_seed(seed)
    exact = 3 * torch.randn(rows, vocabulary, generator=generator)
    converted = exact + 0.3 * torch.randn(rows, vocabulary, generator=generator)
    return exact, converted, torch.randint(0, vocabulary, (rows,), generator=generator)


@pytest.mark.parametrize("chunk", [1, 97, 1000, 1 << 20])
def test_figures_are_the_formulas_whatever_the_chunk(monkeypatch, chunk):
    monkeypatch.setattr(comparing, "_CHUNK", chunk)
    exact, converted, targets = logits()
    result = compare(exact, converted, targets)
    p, q = (torch.softmax(x.double(), -1) for x in (exact, converted))
    rows = torch.arange(len(targets))
    kl = (p * (p / q).log()).sum(-1)
    assert result.predictions == 50
    assert result.exact_perplexity == pytest.approx(math.exp(-p[rows, targets].log().mean()), rel=1e-12)
    assert result.converted_perplexity == pytest.approx(math.exp(-q[rows, targets].log().mean()), rel=1e-12)
    assert result.mean_kl == pytest.approx(kl.mean().item(), rel=1e-9)
    assert result.max_kl == pytest.approx(kl.max().item(), rel=1e-9)
    assert result.agreement_percent == 100 * (p.argmax(-1) == q.argmax(-1)).double().mean().item()
    assert result.change_percent == pytest.approx(100 * (result.converted_perplexity / result.exact_perplexity - 1))
    assert result.time_ratio == 2.0


def test_a_model_compared_with_itself():
    exact, _, targets = logits()
    result = compare(exact, exact.clone(), targets)
    assert (result.mean_kl, result.max_kl, result.change_percent, result.agreement_percent) == (0.0, 0.0, 0.0, 100.0)


def test_tiny_differences_are_seen():
    exact, _, targets = logits()
    shifted = exact.double()
    shifted[:, 0] += 1e-5
    p = torch.softmax(exact.double(), -1)[:, 0]
    # KL of a change d in one logit is p (1 - p) d^2 / 2 to leading order.
    assert compare(exact, shifted, targets).mean_kl == pytest.approx((p * (1 - p) * 1e-10 / 2).mean().item(), rel=1e-3)


def test_a_token_the_exact_model_rules_out_adds_nothing():
    exact, converted, targets = logits()
    targets.fill_(1)
    exact[:, 0] = -math.inf
    finite = compare(exact, converted, targets)
    assert math.isfinite(finite.mean_kl)
    both = converted.clone()
    both[:, 0] = -math.inf
    assert 0 < compare(exact, both, targets).mean_kl < finite.mean_kl


def test_a_token_only_the_converted_model_rules_out_is_an_infinite_divergence():
    exact, converted, targets = logits()
    converted[3, 5] = -math.inf
    targets.fill_(5)
    result = compare(exact, converted, targets)
    assert (result.mean_kl, result.max_kl, result.converted_perplexity) == (math.inf, math.inf, math.inf)


@pytest.mark.parametrize("row", [0, 20, 49])
def test_a_nan_of_the_converted_model_is_never_lost(monkeypatch, row):
    monkeypatch.setattr(comparing, "_CHUNK", 97)
    exact, converted, targets = logits()
    converted[row, 1] = math.nan
    result = compare(exact, converted, targets)
    assert math.isnan(result.mean_kl)
    assert math.isnan(result.max_kl)
    assert math.isnan(result.converted_perplexity)
    assert math.isfinite(result.exact_perplexity)


def test_huge_logits_stay_finite():
    exact = torch.tensor([[1e4, -1e4, 0.0]])
    result = compare(exact, exact - 3e4, torch.tensor([0]))
    assert result.exact_perplexity == 1.0
    assert result.mean_kl == 0.0


def test_windows_against_a_plain_loop(model):
    windows = torch.randint(0, 256, (5, 24), generator=torch.Generator().manual_seed(1))
    arms = Arms(model, Numerics(), OPERATORS, None)
    result = perplexity_result(24, [read_window(arms, window) for window in windows])
    with torch.no_grad():
        losses = [model(input_ids=window[None], labels=window[None]).loss.double() for window in windows]
        conversion.convert(model, operators=OPERATORS)
        converted = [model(input_ids=window[None], labels=window[None]).loss.double() for window in windows]
    assert result.exact_perplexity == pytest.approx(torch.stack(losses).mean().exp().item(), rel=1e-6)
    assert result.converted_perplexity == pytest.approx(torch.stack(converted).mean().exp().item(), rel=1e-6)
    assert (result.context, result.windows, result.predictions) == (24, 5, 5 * 23)


def test_a_model_that_is_broken_before_conversion_is_told_from_a_broken_conversion(model):
    model.lm_head.weight.data[7] = math.nan
    arms = Arms(model, Numerics(), OPERATORS, None)
    with pytest.raises(SpikeplugError, match="the exact model itself yields NaN"):
        read_window(arms, torch.zeros(8, dtype=torch.int64))
