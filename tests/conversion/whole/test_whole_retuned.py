"""A whole model with other numerics and levels for a while: the bits of a model that was converted with them."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_model import tiny_model

import spikeplug
from spikeplug import Numerics, Whole
from spikeplug.conversion.whole.retuned import retuned

IDS = torch.arange(5, 45)[None]


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits


@pytest.fixture(scope="module")
def whole():
    """Rounded to nearest, so that the weights do not depend on the levels."""
    model = tiny_model()
    spikeplug.convert(model, recipe="whole", calibration=False)
    return model


@pytest.mark.parametrize(
    ("numerics", "levels"),
    [
        (Numerics(), Whole(inputs=31)),
        (Numerics(), Whole(cache=7)),
        (Numerics(bits=9, working_bits=14, segments=4), Whole(inputs=127, cache=15)),
    ],
)
def test_it_computes_what_a_conversion_computes(whole, numerics, levels) -> None:
    other = tiny_model()
    spikeplug.convert(other, numerics, recipe=levels, calibration=False)
    before = logits(whole)
    with retuned(whole, numerics, levels):
        found = logits(whole)
    assert torch.equal(found, logits(other))
    assert not torch.equal(found, before)
    assert torch.equal(logits(whole), before)


def test_an_error_brings_its_own_back(whole) -> None:
    before = logits(whole)
    with pytest.raises(ZeroDivisionError), retuned(whole, Numerics(bits=4), Whole(inputs=1, cache=1)):
        raise ZeroDivisionError
    assert torch.equal(logits(whole), before)


def test_what_is_excluded_stays_exact(whole) -> None:
    model = tiny_model()
    exact = copy.deepcopy(model)
    spikeplug.convert(model, recipe="whole", calibration=False, exclude=r"layers\.1\b")
    hidden = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), retuned(model, Numerics(bits=4), Whole(inputs=1, cache=1)):
        assert torch.equal(model.model.layers[1].mlp(hidden), exact.model.layers[1].mlp(hidden))
