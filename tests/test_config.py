"""SpikeConfig: the published recipe, derived T and L, round trips, and every bad value refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from spikeplug.config import SpikeConfig
from spikeplug.errors import SpikeplugError
from spikeplug.presets import resolve_config


def test_the_published_recipe() -> None:
    paper = SpikeConfig.paper()
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
    config = SpikeConfig(**fields)
    assert (config.time_steps, config.levels) == (steps, levels)


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
        SpikeConfig(**fields)
    assert "\n" not in str(caught.value)


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SpikeConfig().bits = 3  # type: ignore[misc]


@pytest.mark.parametrize("config", [SpikeConfig(), SpikeConfig.paper()])
def test_round_trip(config: SpikeConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert resolve_config(str(path)) == config


def test_files(tmp_path: Path) -> None:
    toml = tmp_path / "c.toml"
    toml.write_text("bits = 12\nhalf_range = 4\n")
    assert SpikeConfig.from_file(toml) == SpikeConfig(bits=12, half_range=4)
    assert resolve_config("default") == SpikeConfig()
    assert resolve_config("paper") == SpikeConfig.paper()
    for content, words in (
        ("{", "neither valid JSON"),
        ("[1]", "one table"),
        ('{"bit": 8}', "unknown config field 'bit'"),
        ('{"bits": 99}', "between"),
    ):
        bad = tmp_path / "bad.json"
        bad.write_text(content)
        with pytest.raises(SpikeplugError, match=words):
            resolve_config(str(bad))
    with pytest.raises(SpikeplugError, match="no config"):
        resolve_config("nothing-here")
    with pytest.raises(SpikeplugError, match="cannot read"):
        SpikeConfig.from_file(tmp_path)
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpikeplugError, match="cannot read"):
        SpikeConfig.from_file(binary)
