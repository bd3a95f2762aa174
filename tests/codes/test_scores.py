"""Scores are fixed-point exponents: half a step off, masked far below all, and rows that are too large give up bits."""

from __future__ import annotations

import math

import torch

from spikeplug.codes import MASKED, encode_scores, excess_places, score_fraction_bits
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.saturation import saturations

NARROW = PRESETS["narrow"].numerics


def test_scores_are_within_half_a_step() -> None:
    x = torch.randn(20, 30, dtype=torch.float64) * 100
    for numerics in (Numerics(), NARROW):
        scores = encode_scores(x, 1.0, numerics)
        assert scores.places is None
        assert scores.undefined is None
        error = (scores.integers.double() / (1 << numerics.fraction_bits) - x).abs()
        assert float(error.max()) <= 2.0 ** -(score_fraction_bits(numerics) + 1)


def test_narrow_scores_keep_what_their_range_leaves() -> None:
    assert score_fraction_bits(Numerics()) == 12
    assert score_fraction_bits(NARROW) == 4
    low = encode_scores(torch.tensor([[0.3, 5.0]]), 1.0, NARROW).integers
    assert bool((low & 0xFF == 0).all()), "4 of 12 fraction bits"


def test_hidden_scores_and_rows_without_a_softmax() -> None:
    x = torch.tensor([[-math.inf, 1.0], [-math.inf, -math.inf], [math.nan, 0.0], [math.inf, 0.0]])
    scores = encode_scores(x, 1.0, Numerics())
    assert scores.undefined is not None
    assert scores.undefined.flatten().tolist() == [False, False, True, True]
    assert scores.integers[0].tolist() == [MASKED, 1 << 12]
    assert scores.integers[1].tolist() == [MASKED, MASKED]
    assert saturations() == {"softmax: row not finite": 2}
    assert encode_scores(torch.zeros(2, 0), 1.0, Numerics()).integers.shape == (2, 0)


def test_a_row_that_is_too_large_has_places() -> None:
    x = torch.tensor([[1e12, -1e12, 0.0], [3.0, 2.0, 1.0]])
    scores = encode_scores(x, 1.0, Numerics())
    assert scores.places is not None
    places = int(scores.places[0])
    assert places == int(excess_places(torch.tensor(1e12), Numerics())) > 0
    assert int(scores.places[1]) == 0
    assert abs(int(scores.integers[0, 0]) * 2.0 ** (places - 12) - float(x[0, 0])) <= 2.0 ** (places - 13)
    assert int(scores.integers.abs().max()) <= 1 << 29
