"""An interrupted conversion goes on where it was, and gives the integers of one that was not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import spikeplug
from spikeplug.conversion.whole import rounding

IDS = torch.arange(60).view(2, 30)


@pytest.fixture(scope="module")
def exact() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, vocab_size=100
    )
    return LlamaForCausalLM(config).eval()


def stop_at(place: int) -> Any:
    """Return a progress that interrupts after some layers."""

    def progress(stage: str, done: int, total: int) -> None:
        if done == place:
            raise KeyboardInterrupt

    return progress


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_conversion_goes_on(exact: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, expected, model = tmp_path / "layers", copy.deepcopy(exact), copy.deepcopy(exact)
    spikeplug.convert(expected, recipe="whole", calibration=IDS)
    for place in (4, 9):
        with pytest.raises(KeyboardInterrupt):
            spikeplug.convert(model, recipe="whole", calibration=IDS, unfinished=folder, progress=stop_at(place))
        assert same(model, exact)  # it is as it was
    kept = len(list(folder.glob("*.safetensors")))
    assert kept > 4
    calls = []
    gptq = rounding.gptq
    monkeypatch.setattr(rounding, "gptq", lambda *args, **kwargs: calls.append(1) or gptq(*args, **kwargs))
    spikeplug.convert(model, recipe="whole", calibration=IDS, unfinished=folder)
    assert same(model, expected)
    assert len(calls) == 15 - kept  # seven layers in two blocks, and the head; the embedding has no inputs
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, expected(IDS).logits)


@pytest.mark.parametrize(
    "change",
    [
        {"calibration": IDS + 1},
        {"recipe": spikeplug.Whole(inputs=64)},
        {"numerics": "narrow"},
        {"exclude": "lm_head"},
        {"scale": 1.5},
    ],
    ids=lambda change: next(iter(change)),
)
def test_layers_of_another_conversion_are_not_taken(exact: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    given = {"recipe": "whole", "calibration": IDS, "unfinished": tmp_path / "layers"}
    with pytest.raises(KeyboardInterrupt):
        spikeplug.convert(copy.deepcopy(exact), **given, progress=stop_at(5))
    before = sorted(file.name for file in (tmp_path / "layers").iterdir())
    model, change = copy.deepcopy(exact), dict(change)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] *= change.pop("scale", 1.0)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(spikeplug.SpikeplugError, match="is of another model, recipe or calibration: remove it"):
        spikeplug.convert(model, **(given | change))
    assert sorted(file.name for file in (tmp_path / "layers").iterdir()) == before
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_a_folder_that_holds_something_else_is_refused(exact: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("four years")
    with pytest.raises(spikeplug.SpikeplugError, match="holds something else: remove it, or name another"):
        spikeplug.convert(copy.deepcopy(exact), recipe="whole", calibration=IDS, unfinished=tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "four years"
    with pytest.raises(spikeplug.SpikeplugError, match="cannot be used"):
        spikeplug.convert(copy.deepcopy(exact), recipe="whole", calibration=IDS, unfinished=tmp_path / "thesis.txt")


def test_a_broken_file_is_named(exact: Any, tmp_path: Path) -> None:
    given = {"recipe": "whole", "calibration": IDS, "unfinished": tmp_path / "layers"}
    with pytest.raises(KeyboardInterrupt):
        spikeplug.convert(copy.deepcopy(exact), **given, progress=stop_at(5))
    file = next((tmp_path / "layers").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(spikeplug.SpikeplugError, match=f"cannot be read, {file.name}"):
        spikeplug.convert(copy.deepcopy(exact), **given)


@pytest.mark.parametrize("given", [{}, {"recipe": "whole", "calibration": False}])
def test_only_a_calibrated_whole_conversion_keeps_layers(exact: Any, tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(spikeplug.SpikeplugError, match="unfinished goes with"):
        spikeplug.convert(copy.deepcopy(exact), **given, unfinished=tmp_path / "layers")
    assert not (tmp_path / "layers").exists()
