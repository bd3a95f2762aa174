"""A folder of a whole model that somebody changed: a sentence that names the tensor, never a model of other numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import logits, tiny_model, tokens
from torch import Tensor
from transformers import AutoModelForCausalLM

from spikeplug.conversion import convert
from spikeplug.errors import SpikeplugError

LAYER = "model.layers.0.mlp.up_proj.weight"
TABLE = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny_model(num_hidden_layers=1)
    convert(model, recipe="whole", calibration=False)
    model.save_pretrained(tmp_path)
    return tmp_path


def change(folder: Path, name: str, into: Callable[[Tensor], Tensor] | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    value = tensors.pop(name)
    if into is not None:
        tensors[name] = into(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", [LAYER, TABLE])
@pytest.mark.parametrize("part", ["", "_threshold", "_unit"])
def test_missing_tensors_are_named(folder: Path, name: str, part: str) -> None:
    change(folder, name + part, None)
    with pytest.raises(SpikeplugError, match=rf"the folder has no {name}{part}:"):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("name", [LAYER, TABLE])
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("", -128),
        ("_threshold", -1),
        ("_threshold", 1 << 16),
        ("_threshold", 2**31 - 1),
        ("_unit", 10**6),
        ("_unit", -999),
    ],
)
def test_numbers_out_of_range_are_named(folder: Path, name: str, part: str, value: int) -> None:
    change(folder, name + part, lambda x: torch.full_like(x, value))
    with pytest.raises(SpikeplugError, match=rf"{name}{part} in the folder is out of range"):
        AutoModelForCausalLM.from_pretrained(folder)


def configured(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config["quantization_config"])
    file.write_text(json.dumps(config))


def test_another_numerics_version_is_refused(folder: Path) -> None:
    configured(folder, lambda config: config["numerics"].update(version=99))
    with pytest.raises(SpikeplugError, match="numerics version 99"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_integers_of_a_layer_that_the_layout_does_not_name_are_refused_when_they_run(folder: Path) -> None:
    configured(folder, lambda config: config["layout"]["coded"].remove(LAYER.removesuffix(".weight")))
    with pytest.raises((SpikeplugError, RuntimeError, NotImplementedError)):
        logits(AutoModelForCausalLM.from_pretrained(folder), tokens())
