"""Test every architecture of the conformance table: convert, compare, generate with and without cache, revert."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from architectures import ARCHITECTURES
from examine import Whole, examine, examine_whole
from small_models import Architecture

from spikeplug.presets import PRESETS

#: Of the largest value of the output. The operators are good to about 2^-16 each; two layers of random weights, whose
#: attention is nearly one-hot, magnify that.
BOUND = 2e-3

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_an_architecture_is_converted_whole(architecture: Architecture) -> None:
    found = examine(architecture)
    assert sum(found.before.values()) > 0
    assert found.leftovers == ()
    assert found.after == ()
    assert found.error < BOUND
    assert found.reverted
    if found.generation is not None:
        assert found.generation.exact_alike
        assert found.generation.cached_alike


@pytest.mark.parametrize("name", ["Llama 3", "gpt-oss", "DeBERTa-v2", "T5", "Swin", "wav2vec 2.0"])
def test_the_published_recipe_too(name: str) -> None:
    """Its steps of 2^-8 are coarse, so the test only requires that there is an error."""
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    found = examine(architecture, PRESETS["paper"].numerics)
    assert found.after == found.leftovers == ()
    assert 0 < found.error < 1
    assert found.reverted
    assert found.generation is None or found.generation.cached_alike


@cache
def examined_whole(architecture: Architecture) -> Whole:
    return examine_whole(architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_the_recipe_whole_names_all_that_stays_float(architecture: Architecture) -> None:
    """The report says what the audit finds: the same paths, and nothing but names of layers in place of operations."""
    found = examined_whole(architecture)
    assert {place.partition(": ")[0] for place in found.left} == {place.partition(": ")[0] for place in found.executed}
    layers = {place for place in found.left if place.endswith(": matmul")}
    assert set(found.left) - layers <= set(found.executed)
    assert found.error < 0.3  # of random weights
    assert found.reverted


# Where attention is written out, the scores of a row share a scale with those of later keys, until these are masked:
# what lies 2^-16 below it depends on whether they are there. No such model is sure of it; this one shows it.
SHOWS_LATER_KEYS = "MPT"


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(
            each,
            marks=[pytest.mark.xfail(reason="scores written out share a scale with later keys", strict=True)]
            if each.name == SHOWS_LATER_KEYS
            else [],
        )
        for each in ARCHITECTURES
    ],
    ids=lambda architecture: architecture.name,
)
def test_the_cache_changes_no_token_of_the_recipe_whole(architecture: Architecture) -> None:
    found = examined_whole(architecture)
    if found.generation is not None:
        assert found.generation.cached_alike


def test_the_table_is_wide_enough() -> None:
    names = [architecture.name for architecture in ARCHITECTURES]
    assert len(names) == len(set(names)) >= 60
    assert {architecture.kind for architecture in ARCHITECTURES} == {
        "decoder",
        "encoder",
        "encoder-decoder",
        "speech",
        "vision",
        "vision + text",
        "plain torch",
    }
