"""Test a SpikingConfig the Hugging Face way: in from_pretrained and in config.json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import save_tiny_gguf
from tiny_models import logits, relative_error, tiny_model, tokens
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from spikeplug import SpikingConfig as PublicConfig
from spikeplug.conversion import SpikingConfig, convert, revert
from spikeplug.errors import SpikeplugError
from spikeplug.presets import PRESETS

PAPER = {"numerics": "paper", "operators": ("attention", "silu"), "exclude": r"layers\.0\.mlp"}
OFFLOADED = {
    "model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk",
    "model.norm": "disk", "lm_head": "cpu",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Save an exact model, and return its folder."""
    tiny_model("qwen3").save_pretrained(tmp_path / "exact")
    return tmp_path / "exact"


def load(folder: Path, **settings: Any) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, **settings)


def saved_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("settings", [{}, PAPER], ids=["default", "some operators of the paper"])
def test_loading_converts_as_convert_does_and_revert_undoes_it(folder: Path, settings: dict[str, Any]) -> None:
    model, twin, ids = load(folder, quantization_config=PublicConfig(**settings)), tiny_model("qwen3"), tokens()
    exact = logits(twin, ids)
    wanted = SpikingConfig(**settings)
    convert(twin, wanted.numerics, operators=wanted.operators, exclude=wanted.exclude)
    assert torch.equal(logits(model, ids), logits(twin, ids))
    assert model.config._attn_implementation == "spiking"
    assert list(model.state_dict()) == list(twin.state_dict())
    revert(model)
    assert torch.equal(logits(model, ids), exact)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("route", ["from_pretrained", "convert"])
def test_saving_and_loading_gives_the_same_bits(folder: Path, tmp_path: Path, route: str) -> None:
    model = load(folder, **({"quantization_config": SpikingConfig(**PAPER)} if route == "from_pretrained" else {}))
    if route == "convert":
        convert(model, PRESETS["paper"].numerics, operators=PAPER["operators"], exclude=PAPER["exclude"])
    expected = logits(model, tokens())
    for name in ("once", "twice"):
        model.save_pretrained(tmp_path / name)
        written = saved_config(tmp_path / name)
        assert SpikingConfig(**written["quantization_config"]) == model.config.quantization_config
        assert not [key for key in written if "attn_implementation" in key]
        model = load(tmp_path / name)
        assert torch.equal(logits(model, tokens()), expected)
    revert(model)
    model.save_pretrained(tmp_path / "reverted")
    assert "quantization_config" not in saved_config(tmp_path / "reverted")
    exact = load(tmp_path / "reverted")
    assert torch.equal(logits(exact, tokens()), logits(model, tokens()))
    assert exact.config._attn_implementation == "sdpa"


def test_the_weights_are_ordinary_ones(folder: Path) -> None:
    """transformers' checks for quantised weights do not refuse them."""
    model = load(folder, quantization_config=SpikingConfig())
    assert model.half().dtype == torch.float16
    assert model.float().dtype == torch.float32
    assert not model.is_quantized
    assert model.hf_quantizer.is_serializable()
    assert model.hf_quantizer.is_trainable
    assert model.hf_quantizer.is_compileable


@pytest.mark.slow
def test_without_spikeplug_transformers_loads_the_exact_model_and_with_it_the_spiking_one(tmp_path: Path) -> None:
    model = tiny_model(num_hidden_layers=1)
    exact = logits(model, tokens())
    convert(model)
    model.save_pretrained(tmp_path)
    torch.save((tokens(), exact, logits(model, tokens())), tmp_path / "expected.pt")
    program = """
import sys, torch
{}
from transformers import AutoModelForCausalLM
ids, exact, spiking = torch.load(sys.argv[1] + "/expected.pt")
torch.set_num_threads(1)
with torch.inference_mode():
    found = AutoModelForCausalLM.from_pretrained(sys.argv[1])(ids).logits
print(torch.equal(found, exact), torch.equal(found, spiking))
"""
    cases = {"": "True False", "import spikeplug": "False True"}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program.format(line), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in cases
    ]
    for run, (line, expected) in zip(runs, cases.items(), strict=True):
        output, errors = run.communicate()
        assert output.strip() == expected, errors
        assert ("Unknown quantization type, got spiking" in errors) == (line == "")


def test_parts_are_converted_again_as_they_were(tmp_path: Path) -> None:
    model = tiny_model("qwen3")
    convert(model.model, exclude=r"^layers\.0\.")
    expected, hidden = logits(model, tokens()), model.model(tokens()).last_hidden_state
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert torch.equal(logits(loaded, tokens()), expected)
    assert revert(loaded) == ()  # whatever is converted below the model
    assert torch.equal(logits(loaded, tokens()), logits(tiny_model("qwen3"), tokens()))
    body = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(body(tokens()).last_hidden_state, hidden)


def test_an_exclude_that_no_config_may_hold_is_saved_as_the_paths_it_finds(tmp_path: Path) -> None:
    model = tiny_model()
    convert(model, exclude=r"layers\.(?!1\.)")
    model.save_pretrained(tmp_path)
    assert saved_config(tmp_path)["quantization_config"]["exclude"].startswith(
        r"^(?:model\.layers\.0|model\.layers\.0\."
    )
    assert torch.equal(logits(load(tmp_path), tokens()), logits(model, tokens()))


@pytest.mark.parametrize("route", ["from_pretrained", "convert"])
@pytest.mark.parametrize("device_map", ["cpu", "auto", OFFLOADED], ids=["cpu", "auto", "disk"])
def test_device_maps_and_offloading(folder: Path, tmp_path: Path, route: str, device_map: Any) -> None:
    settings = {"device_map": device_map, "offload_folder": str(tmp_path / "offload")}
    if route == "from_pretrained":
        model = load(folder, quantization_config=SpikingConfig(), **settings)
    else:
        model = load(folder, **settings)
        convert(model)
    whole = tiny_model("qwen3")
    exact = logits(whole, tokens())
    convert(whole)
    assert torch.equal(logits(model, tokens()), logits(whole, tokens()))
    assert (model.model.norm.weight.device.type == "meta") == (device_map is OFFLOADED)
    revert(model)
    assert torch.equal(logits(model, tokens()), exact)


def test_a_model_spiking_already_keeps_its_own_numerics(folder: Path, tmp_path: Path) -> None:
    model = load(folder, quantization_config=SpikingConfig())
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="The `quantization_config` from the model will be used"):
        again = load(tmp_path, quantization_config=SpikingConfig("paper"))
    assert torch.equal(logits(again, tokens()), logits(model, tokens()))


def test_one_quantizer_a_model(tmp_path: Path) -> None:
    file = save_tiny_gguf(tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="GGUF"):
        AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, quantization_config=SpikingConfig())
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name)
    theirs = getattr(model.config, "quantization_config", None)
    convert(model)
    if theirs is not None:
        assert model.config.quantization_config is theirs
        revert(model)
        assert model.config.quantization_config is theirs
        model.hf_quantizer.remove_quantization_config(model)
        convert(model)
    model.save_pretrained(tmp_path / "spiking")
    assert torch.equal(logits(load(tmp_path / "spiking"), tokens()), logits(model, tokens()))


@pytest.mark.parametrize("fields", [{"numerics": {"bits": 999}}, {"surprise": 1}, {"exclude": "(a+)+$"}])
def test_a_folder_of_unknown_origin_is_refused_whole(folder: Path, fields: dict[str, Any]) -> None:
    written = saved_config(folder) | {"quantization_config": {"quant_method": "spiking", **fields}}
    (folder / "config.json").write_text(json.dumps(written))
    with pytest.raises(SpikeplugError):
        load(folder)


def test_close_to_the_exact_model(folder: Path) -> None:
    exact = logits(load(folder), tokens())
    assert (
        0
        < relative_error(logits(load(folder, quantization_config={"quant_method": "spiking"}), tokens()), exact)
        < 2e-3
    )
