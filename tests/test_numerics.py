"""Numerics: the published recipe, tokens, round trips, versions, and every bad value refused in one sentence."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import warnings
from typing import Any

import pytest

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import NUMERICS_VERSION, Numerics
from spikeplug.presets import PRESETS
from spikeplug.realisation import Realisation

presets = pytest.mark.parametrize("numerics", [preset.numerics for preset in PRESETS.values()], ids=PRESETS)


def test_the_published_recipe() -> None:
    paper = PRESETS["paper"].numerics
    assert (paper.half_range, paper.segments, paper.iterations, paper.bits) == (5.0, 64, 8, 8)
    assert not paper.divide_last
    assert not paper.shift_scaling


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
        {"input_bits": 4},
        {"input_bits": 21},
        {"input_bits": True},
        {"query_key_bits": 7},
        {"query_key_bits": 21},
        {"query_key_bits": 16.0},
        {"scale_block": 0},
        {"scale_block": 1.5},
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
        {"exponential": "exp"},
        {"norm": ["root"]},
        {"norm": "restoring"},
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
    assert any(name in str(caught.value) for name in fields)


def test_blocks_need_scales() -> None:
    with pytest.raises(SpikeplugError, match="scale_block needs shift_scaling"):
        Numerics(scale_block=32, shift_scaling=False, divide_last=False)


def test_numerics_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Numerics().bits = 3  # type: ignore[misc]


@presets
def test_round_trips(numerics: Numerics) -> None:
    assert Numerics.from_dict(json.loads(json.dumps(numerics.to_dict()))) == numerics
    assert Numerics.from_token(numerics.token) == numerics
    assert numerics.to_dict()["version"] == NUMERICS_VERSION
    assert hash(numerics) == hash(dataclasses.replace(numerics))


def test_a_token_holds_what_differs_from_the_default() -> None:
    assert Numerics().token == "{}"
    assert json.loads(Numerics(bits=12, norm="cordic").token) == {"bits": 12, "norm": "cordic"}
    assert Numerics.from_token('{"bits": 12}') is Numerics.from_token('{"bits": 12}'), "cached"
    tokens: tuple[Any, ...] = ("paper", "{", "", "[]", [], {}, None, 3, b"{}")
    for token in tokens:
        with pytest.raises(SpikeplugError, match=r"not a token of numerics: use Numerics\(\.\.\.\)\.token"):
            Numerics.from_token(token)


@pytest.mark.parametrize("name", ["bit", "steps", "code", "division", "realisation"])
def test_a_field_that_is_not_there_is_one_sentence(name: str) -> None:
    with pytest.raises(SpikeplugError, match=f"'{name}' is not a field of Numerics; the fields are bits, ") as caught:
        Numerics.from_dict({name: 8})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [None, 3, [], ["bits"], "bits", {1: 2}], ids=str)
@pytest.mark.parametrize("record", [Numerics, Realisation])
def test_fields_come_in_a_dict(record: Any, values: Any) -> None:
    with pytest.raises(SpikeplugError, match=f"give the fields of {record.__name__} by name|is not a field of"):
        record.from_dict(values)


@pytest.mark.parametrize("version", [0, -1, NUMERICS_VERSION + 1, "3", 3.0, True, None])
def test_an_unknown_version_is_refused(version: object) -> None:
    with pytest.raises(SpikeplugError, match=f"which computes version {NUMERICS_VERSION}: install") as caught:
        Numerics.from_dict({"version": version, "bits": 8})
    assert "\n" not in str(caught.value)


def test_an_earlier_version_warns() -> None:
    with pytest.warns(UserWarning, match="output bits may differ") as caught:
        assert Numerics.from_dict({"version": NUMERICS_VERSION - 1, "bits": 8}) == Numerics(bits=8)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Numerics.from_dict({"version": NUMERICS_VERSION}) == Numerics.from_dict({}) == Numerics()


def test_an_unknown_field_and_a_field_without_a_name_are_one_sentence() -> None:
    words = "'nope' is not a field of Numerics; the fields are bits, "
    with pytest.raises(SpikeplugError, match=words):
        Numerics(nope=1)  # type: ignore[call-arg]
    with pytest.raises(SpikeplugError, match=words):
        dataclasses.replace(Numerics(), nope=1)  # type: ignore[call-arg]
    with pytest.raises(SpikeplugError, match=r"takes its fields by name, such as Numerics\(bits=\.\.\.\)"):
        Numerics(8)  # type: ignore[misc]
    assert copy.deepcopy(Numerics(bits=8)) == pickle.loads(pickle.dumps(Numerics(bits=8))) == Numerics(bits=8)
