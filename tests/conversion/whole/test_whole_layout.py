"""The layout in config.json: read back as written, and nothing but known values."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from spikeplug.conversion import convert
from spikeplug.conversion.spiking_config import SpikingConfig
from spikeplug.conversion.whole.layout import Layout
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.errors import SpikeplugError

LAYOUT = Layout(
    Whole(inputs=31, rotate=False),
    coded=("a", "b.c", "b.d"),
    blocks=("a",),
    rotations={"b.c": 64},
    norms={"n": "rms_norm"},
    rotary={"r": "halves"},
    biases=("b.d",),
)


def test_it_is_read_as_written() -> None:
    assert Layout.from_dict(json.loads(json.dumps(LAYOUT.to_dict()))) == LAYOUT
    assert Layout.from_dict({"recipe": {}, "coded": []}) == Layout(Whole())


def test_a_part_has_its_own_paths() -> None:
    part = LAYOUT.under("b.")
    assert part == Layout(LAYOUT.recipe, coded=("c", "d"), rotations={"c": 64}, biases=("d",))
    assert LAYOUT.under("") == LAYOUT


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_models_layout_is_read_as_written(family: str) -> None:
    model = tiny_model(family)
    convert(model, recipe="whole", calibration=False)
    config = model.config.quantization_config
    assert SpikingConfig(**json.loads(json.dumps(config.to_dict()))) == config


def but(**changes: Any) -> dict[str, Any]:
    return {**LAYOUT.to_dict(), **changes}


HOSTILE: list[Any] = [
    None,
    [],
    "whole",
    {},
    {"coded": []},
    {"recipe": {}, "coded": [], "import": "os"},
    but(recipe=None),
    but(recipe="whole"),
    but(recipe={"inputs": -1}),
    but(recipe={"inputs": 1e9}),
    but(recipe={"weights": 1 << 40}),
    but(recipe={"inputs": "127"}),
    but(recipe={"unknown": 1}),
    but(coded="a"),
    but(coded=[1]),
    but(coded=["a" * 2000]),
    but(coded={"a": 1}),
    but(coded=[["a"]]),
    but(blocks=None),
    but(biases=3),
    but(rotations={"b.c": 3}),
    but(rotations={"b.c": -64}),
    but(rotations={"b.c": 1 << 40}),
    but(rotations={"b.c": True}),
    but(rotations={"b.c": "64"}),
    but(rotations=["b.c"]),
    but(norms={"n": "os.system"}),
    but(norms={"n": ["rms_norm"]}),
    but(rotary={"r": "whole"}),
    but(rotary={"r": None}),
    but(rotary=[("r", "halves")]),
]


@pytest.mark.parametrize("values", HOSTILE, ids=lambda values: str(values)[:40])
def test_anything_else_is_refused(values: Any) -> None:
    with pytest.raises(SpikeplugError):
        Layout.from_dict(values)
    if values is not None:
        with pytest.raises(SpikeplugError):
            SpikingConfig(layout=values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(LAYOUT.to_dict(), JSON)))
def test_random_values_are_read_or_refused(values: dict[str, Any]) -> None:
    try:
        layout = Layout.from_dict(values)
    except SpikeplugError:
        return
    assert Layout.from_dict(layout.to_dict()) == layout


@pytest.mark.parametrize(
    "changes",
    [
        {"coded": ("model.norm",)},
        {"coded": ("model.nothing",)},
        {"coded": ("",)},
        {"coded": ("lm_head", "lm_head")},
        {"norms": {"model.norm": "layer_norm"}},
        {"norms": {"lm_head": "rms_norm"}},
        {"rotary": {"lm_head": "halves"}},
        {"rotary": {"model.nothing": "halves"}},
        {"rotations": {"lm_head": 12}},
        {"rotations": {"model.nothing": 4}},
        {"biases": ("model.norm",)},
        {"blocks": ("model.nothing",)},
    ],
    ids=str,
)
def test_a_layout_of_another_model_is_refused_or_harmless(changes: dict[str, Any]) -> None:
    """It may say anything of paths; what comes is a sentence, or a model that runs."""
    from spikeplug.conversion.swap import convert_to_load

    model = tiny_model(num_hidden_layers=1)
    config = SpikingConfig()
    layout = Layout(Whole(), **changes)
    with suppress(SpikeplugError):
        convert_to_load(model, config.numerics, None, None, layout)
