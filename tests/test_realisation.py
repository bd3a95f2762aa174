"""Realisations: T and L follow from the code, round trips, and every bad value refused in one sentence."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from spikeplug.errors import SpikeplugError
from spikeplug.presets import PRESETS
from spikeplug.realisation import Realisation


@pytest.mark.parametrize(
    ("fields", "bits", "steps", "levels"),
    [
        ({}, 16, 16, 1),
        ({"code": "count"}, 16, 1 << 15, 2),
        ({"code": "count", "steps": 64}, 8, 64, 4),
        ({"code": "count", "steps": 256}, 8, 256, 1),
        ({"code": "population"}, 8, 1, 256),
    ],
)
def test_steps_and_levels_follow_from_bits_and_code(fields: dict[str, Any], bits: int, steps: int, levels: int) -> None:
    realisation = Realisation(**fields)
    assert (realisation.time_steps(bits), realisation.levels(bits)) == (steps, levels)


def test_the_published_recipe_is_counted() -> None:
    paper = PRESETS["paper"]
    assert paper.realisation.division == "ordered"
    assert paper.realisation.time_steps(paper.numerics.bits) * paper.realisation.levels(paper.numerics.bits) == 256


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0, "code": "count"},
        {"steps": -4, "code": "count"},
        {"steps": 3, "code": "count"},
        {"steps": 16.0, "code": "count"},
        {"steps": 16},
        {"steps": 16, "code": "population"},
        {"code": "morse"},
        {"code": ["phase"]},
        {"division": "float"},
        {"norm": "root"},
    ],
    ids=str,
)
def test_bad_values_are_refused_in_one_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(SpikeplugError) as caught:
        Realisation(**fields)
    assert "\n" not in str(caught.value)
    assert any(name in str(caught.value) for name in fields)


def test_more_steps_than_levels_are_refused_where_the_bits_are_known() -> None:
    with pytest.raises(SpikeplugError, match=r"steps is 64; T must be at most 2\^bits = 16\."):
        Realisation(code="count", steps=64).time_steps(4)


@pytest.mark.parametrize("realisation", [preset.realisation for preset in PRESETS.values()], ids=PRESETS)
def test_round_trip(realisation: Realisation) -> None:
    assert Realisation.from_dict(json.loads(json.dumps(realisation.to_dict()))) == realisation


def test_a_field_that_is_not_there_is_one_sentence() -> None:
    words = "'bits' is not a field of Realisation; the fields are code, division, norm, schedule, steps"
    with pytest.raises(SpikeplugError, match=words):
        Realisation.from_dict({"bits": 8})


def test_a_realisation_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Realisation().code = "count"  # type: ignore[misc]


def test_an_unknown_field_is_one_sentence() -> None:
    with pytest.raises(SpikeplugError, match="'nope' is not a field of Realisation; the fields are code, "):
        Realisation(nope=1)  # type: ignore[call-arg]
    with pytest.raises(SpikeplugError, match=r"takes its fields by name, such as Realisation\(code=\.\.\.\)"):
        Realisation("phase")  # type: ignore[misc]
