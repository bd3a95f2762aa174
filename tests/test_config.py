"""Numerics: the published recipe, derived T and L, round trips, and every bad value refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS, read_preset


def test_the_published_recipe() -> None:
    paper = PRESETS["paper"].numerics
    assert (paper.half_range, paper.segments, paper.iterations, paper.bits) == (5.0, 64, 8, 8)
    assert paper.time_steps * paper.levels == 256
    assert not paper.divide_last
    assert not paper.shift_scaling


@pytest.mark.parametrize(
    ("fields", "steps", "levels"),
    [
        ({}, 16, 1),
        ({"code": "count"}, 1 << 15, 2),
        ({"code": "count", "steps": 64, "bits": 8}, 64, 4),
        ({"code": "population", "bits": 8}, 1, 256),
    ],
)
def test_steps_and_levels_follow_from_bits_and_code(fields: dict[str, Any], steps: int, levels: int) -> None:
    numerics = Numerics(**fields)
    assert (numerics.time_steps, numerics.levels) == (steps, levels)


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 0},
        {"bits": -8},
        {"bits": 21},
        {"bits": 8.0},
        {"bits": True},
        {"bits": "8"},
        {"working_bits": 16},
        {"working_bits": 25},
        {"steps": 0, "code": "count"},
        {"steps": -4, "code": "count"},
        {"steps": 3, "code": "count"},
        {"steps": 16},
        {"segments": 0},
        {"segments": -64},
        {"segments": 33},
        {"half_range": 0},
        {"half_range": -5.0},
        {"half_range": float("nan")},
        {"half_range": float("inf")},
        {"softmax_half_range": -1.0},
        {"exponential": "piecewise", "divide_last": False, "segments": 4096, "fraction_bits": 4},
        {"exponential": "piecewise", "divide_last": False, "segments": 1},
        {"exponential": "piecewise", "divide_last": False, "segments": 63},
        {"iterations": 0},
        {"iterations": -1},
        {"fraction_bits": 0},
        {"code": "morse"},
        {"code": ["phase"]},
        {"division": "float"},
        {"exponential": "piecewise"},
        {"shift_scaling": False},
        {"divide_last": 1},
    ],
    ids=str,
)
def test_bad_values_are_refused_in_one_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(SpikeplugError) as caught:
        Numerics(**fields)
    assert "\n" not in str(caught.value)


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Numerics().bits = 3  # type: ignore[misc]


@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics])
def test_round_trip(numerics: Numerics, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(numerics.to_dict()))
    assert read_preset(str(path)) == numerics


def test_files(tmp_path: Path) -> None:
    toml = tmp_path / "c.toml"
    toml.write_text("bits = 12\nhalf_range = 4\n")
    assert Numerics.from_file(toml) == Numerics(bits=12, half_range=4)
    assert read_preset("default") == Numerics()
    assert read_preset("paper") == PRESETS["paper"].numerics
    for content, words in (
        ("{", "neither valid JSON"),
        ("[1]", "one table"),
        ('{"bit": 8}', "unknown numerics field 'bit'"),
        ('{"bits": 99}', "between"),
    ):
        bad = tmp_path / "bad.json"
        bad.write_text(content)
        with pytest.raises(SpikeplugError, match=words):
            read_preset(str(bad))
    with pytest.raises(SpikeplugError, match="no numerics"):
        read_preset("nothing-here")
    with pytest.raises(SpikeplugError, match="cannot read"):
        Numerics.from_file(tmp_path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpikeplugError, match="cannot read"):
        Numerics.from_file(binary)
