"""Architectures of the conformance table, made whole: the report names what the audit finds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from architectures import ARCHITECTURES
from examine import examine_whole

from spikeplug.conversion import convert

#: What stays float, by architecture.
LEFT: dict[str, set[str]] = {
    "Llama 3": set(),
    "Falcon": set(),
    "Bloom": set(),
    "BERT": set(),
    "T5": set(),
    "Whisper": set(),
    "ViT": set(),
    "CLIP": set(),
    "torch.nn.Transformer": set(),
    "Mamba": {"convolution"},
    "Mixtral": {"_grouped_mm", "cumsum", "histc"},
    "wav2vec 2.0": {"matmul", "_weight_norm_interface"},
    "Swin": {"mean"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_the_report_names_what_stays_float(name: str) -> None:
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    found = examine_whole(architecture)
    assert {place.rpartition(": ")[2] for place in found.left} == LEFT[name]
    assert {place.rpartition(": ")[0] for place in found.left} == {
        place.rpartition(": ")[0] for place in found.executed
    }
    assert found.error < 0.3
    assert found.reverted
    assert found.generation is None or found.generation.cached_alike


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
@pytest.mark.parametrize(
    "name", ["Llama 3", "Gemma 3 (text)", "BERT", "Whisper", "GPT-2", "T5", "ViT", "Falcon", "Bloom"]
)
def test_a_compiled_model_gives_the_same_bits(name: str) -> None:
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    model, inputs = architecture.build(), architecture.inputs()
    convert(model, recipe="whole", calibration=inputs)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = architecture.output(model(**inputs))
        compiled = torch.compile(model, backend="eager")
        assert torch.equal(architecture.output(compiled(**inputs)), expected)
