"""Weights in int4 groups: folders hold them packed and give the same integers, whichever way they were made."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from safetensors.torch import load_file, save_file
from tiny_models import DUPLICATES, logits, tiny_model, tokens, unchanged
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from architectures import ARCHITECTURES

from spikeplug.conversion import SpikingConfig, convert, revert
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.whole.coded import CodedPlug
from spikeplug.conversion.whole.recipe import WEIGHT_GROUP, Whole
from spikeplug.errors import SpikeplugError
from spikeplug.weights.packing import pack, packed_width

INT4 = Whole.of_bits(weight_bits=4)
LAYER = "model.layers.0.mlp.down_proj.weight"


def integers(model: Any) -> dict[str, Tensor]:
    """Return the state of a whole model's coded layers, by path."""
    coded = [path for path, module in model.named_modules() if isinstance(plug_of(module), CodedPlug)]
    return {name: value for name, value in model.state_dict().items() if name.rpartition(".")[0] in coded}


def same(a: Any, b: Any) -> bool:
    first, second = integers(a), integers(b)
    return bool(first) and first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.fixture(scope="module")
def made() -> PreTrainedModel:
    """A model that was calibrated; 48 inputs of its down projections have three factors."""
    model = tiny_model(num_hidden_layers=1)
    convert(model, recipe=INT4, calibration=tokens())
    return model


@pytest.fixture
def folder(made: PreTrainedModel, tmp_path: Path) -> Path:
    made.save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


def test_a_model_runs_int8_that_are_made_of_groups(made: PreTrainedModel) -> None:
    weights = {name: value for name, value in integers(made).items() if name.endswith("weight")}
    assert len(weights) == 9  # seven layers of a block, the embedding and the head
    for name, value in weights.items():
        assert value.dtype == torch.int8
        pack(value, WEIGHT_GROUP, name)  # refuses what is not


def test_a_folder_holds_half_bytes_and_gives_the_same_integers(made: PreTrainedModel, folder: Path) -> None:
    held = load_file(folder / "model.safetensors")
    assert held[LAYER].dtype == torch.uint8
    assert held[LAYER].shape == (32, packed_width(48, WEIGHT_GROUP))
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert same(loaded, made)
    assert torch.equal(logits(loaded, tokens()), logits(made, tokens()))
    with pytest.raises(SpikeplugError, match="load the original model again"):
        revert(loaded)


def test_a_loaded_model_is_saved_packed_again_and_in_shards(
    made: PreTrainedModel, folder: Path, tmp_path: Path
) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert same(AutoModelForCausalLM.from_pretrained(tmp_path / "shards"), made)


@pytest.mark.parametrize("duplicate", DUPLICATES)
def test_copies_are_saved_packed_too(made: PreTrainedModel, tmp_path: Path, duplicate: Callable[..., Any]) -> None:
    duplicate(made).save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")[LAYER].dtype == torch.uint8
    assert same(AutoModelForCausalLM.from_pretrained(tmp_path), made)


def test_it_is_reverted_and_then_saved_as_it_was(tmp_path: Path) -> None:
    model = tiny_model(num_hidden_layers=1)
    check = unchanged(model)
    convert(model, recipe=INT4, calibration=False)
    revert(model)
    check()
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")[LAYER].dtype == torch.float32


def test_it_may_be_freed_and_may_go_on_after_an_interruption(made: PreTrainedModel, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    given: dict[str, Any] = {"recipe": INT4, "calibration": tokens(), "unfinished": tmp_path / "layers"}
    model = tiny_model(num_hidden_layers=1)
    with pytest.raises(KeyboardInterrupt):
        convert(model, **given, progress=stop)
    with pytest.raises(SpikeplugError, match="is of another model, recipe or calibration"):
        convert(copy.deepcopy(model), **(given | {"recipe": "whole"}))
    convert(model, **given, keep=False)
    assert same(model, made)
    model.save_pretrained(tmp_path / "whole")
    assert same(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), made)


def test_a_float_folder_is_converted_while_it_is_loaded(tmp_path: Path) -> None:
    tiny_model(num_hidden_layers=1).save_pretrained(tmp_path / "float")
    config = SpikingConfig(recipe=INT4)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "float", quantization_config=config)
    model.save_pretrained(tmp_path / "whole")
    assert load_file(tmp_path / "whole" / "model.safetensors")[LAYER].dtype == torch.uint8
    assert same(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"), model)


@pytest.mark.parametrize("name", ["GPT-2", "Falcon", "BERT", "T5", "Whisper", "ViT", "Mamba", "Mixtral", "wav2vec 2.0"])
def test_every_kind_of_layer_is_packed(name: str, tmp_path: Path) -> None:
    """Layers whose weight is transposed, convolutions and subclasses; sizes that no group divides."""
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    model, inputs = architecture.build(), architecture.inputs()
    convert(model, recipe=INT4, calibration=False)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert same(loaded, model)
    with torch.no_grad():
        outputs = (architecture.output(each.eval()(**inputs)) for each in (loaded, model))
        assert torch.equal(*outputs)


def test_groups_are_more_accurate_than_rows_of_as_many_levels(made: PreTrainedModel) -> None:
    model = tiny_model(num_hidden_layers=1)
    exact = logits(model, tokens())
    convert(model, recipe=Whole(weights=7), calibration=tokens())
    rows = logits(model, tokens())
    assert float((logits(made, tokens()) - exact).norm()) < float((rows - exact).norm())


def changed(folder: Path, name: str, into: Callable[[Tensor], Tensor] | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    value = tensors.pop(name)
    if into is not None:
        tensors[name] = into(value)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("name", "into", "sentence"),
    [
        (LAYER, None, f"the folder has no {LAYER}"),
        (LAYER, lambda x: x[:, :-1].contiguous(), rf"{LAYER} in the folder has the size \(32, 25\), not \(32, 26\)"),
        (LAYER, lambda x: x[:31].contiguous(), r"has the size \(31, 26\)"),
        (LAYER, lambda x: torch.zeros(26, 32, dtype=torch.uint8), r"has the size \(26, 32\)"),
        (LAYER, lambda x: torch.zeros(32, 48, dtype=torch.uint8), f"{LAYER} in the folder is out of range"),
        (LAYER, lambda x: x.to(torch.int16), r"has the size \(32, 26\)"),
        (f"{LAYER}_threshold", lambda x: x[:-1].contiguous(), r"has the size \(31,\), not \(32,\)"),
        (f"{LAYER}_unit", lambda x: x.repeat(2), r"has the size \(2,\), not \(\)"),
    ],
)
def test_a_folder_of_other_sizes_is_refused(folder: Path, name: str, into: Any, sentence: str) -> None:
    changed(folder, name, into)
    with pytest.raises(SpikeplugError, match=sentence):
        AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("group", [1, 8, 32])
def test_a_folder_with_another_group_in_its_config_is_refused(folder: Path, group: int) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["layout"]["recipe"]["weight_group"] = group
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpikeplugError, match="in the folder has the size"):
        AutoModelForCausalLM.from_pretrained(folder)


def test_weights_that_somebody_changed_are_not_saved(made: PreTrainedModel, tmp_path: Path) -> None:
    model = copy.deepcopy(made)
    model.lm_head.weight.data[3, 4] = 127
    with pytest.raises(SpikeplugError, match=r"lm_head\.weight is no longer made of int4 groups"):
        model.save_pretrained(tmp_path)


def test_offloaded_weights_are_not_saved(made: PreTrainedModel, tmp_path: Path) -> None:
    offloaded = cpu_offload(copy.deepcopy(made))
    with pytest.raises(SpikeplugError, match="is offloaded, so it cannot be packed: save the model before"):
        offloaded.save_pretrained(tmp_path)


@pytest.mark.parametrize("wrong", [16, 3, 0, "4", None, 4.5])
def test_other_bits_of_weights_are_refused(wrong: Any) -> None:
    with pytest.raises(SpikeplugError, match=r"weight_bits is .*: choose 8, or 4"):
        Whole.of_bits(9, wrong)


def test_bits_of_weights_change_nothing_else() -> None:
    for bits in range(4, 10):
        assert Whole.of_bits(bits, 8) == Whole.of_bits(bits)
        assert Whole.of_bits(bits, 4) == Whole(**{**vars(Whole.of_bits(bits)), "weight_group": WEIGHT_GROUP})
    for wrong in (-1, 1.5, True):
        with pytest.raises(SpikeplugError, match="weight_group"):
            Whole(weight_group=wrong)  # type: ignore[arg-type]
