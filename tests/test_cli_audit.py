"""`spikeplug audit`: models of every kind, the tables, the JSON file, exit codes, one-line errors."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from tiny_model import save_tiny_gguf, save_tiny_model
from typer.testing import CliRunner

from spikeplug import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from architectures import ARCHITECTURES

INPUTS = {
    "BERT": {"input_ids": [1, 16]},
    "T5": {"input_ids": [1, 16], "decoder_input_ids": [1, 8]},
    "ViT": {"pixel_values": [1, 3, 16, 16]},
    "CLIP": {"pixel_values": [1, 3, 16, 16], "input_ids": [1, 16]},
    "LLaVA": {"input_ids": [1, 16]},
    "Whisper": {"input_features": [1, 8, 24], "decoder_input_ids": [1, 8]},
    "wav2vec 2.0": {"input_values": [1, 16000]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


def run(*arguments):
    return CliRunner().invoke(cli.app, ["audit", *map(str, arguments)])


@pytest.mark.parametrize("name", INPUTS)
def test_models_of_every_kind(name, tmp_path):
    (architecture,) = (each for each in ARCHITECTURES if each.name == name)
    architecture.build().save_pretrained(tmp_path / "model")
    result = run(tmp_path / "model", "--tokens", 16, "--strict", "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    assert "After: float nonlinearities executed: none" in result.stdout
    values = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert values["inputs"] == INPUTS[name]
    assert values["exact"]["counts"]
    assert values["converted"] == {"counts": {}, "entries": []}
    assert values["conversion"]["leftovers"] == 0
    assert 0 < values["error"] < 1e-2


def test_tables_and_record(folder, tmp_path):
    path = tmp_path / "results" / "out.json"
    result = run(folder, "--operators", "silu, rms_norm", "--exclude", r"\.0\.", "--preset", "paper", "--json", path)
    assert result.exit_code == 0, result.output
    for part in ("LlamaForCausalLM", "input_ids [1, 64]", "Before", "After", "rms_norm", "not among the operators"):
        assert part in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["schema_version"] == 2
    assert values["arguments"] == {
        "model": folder,
        "preset": "paper",
        "operators": ["silu", "rms_norm"],
        "exclude": r"\.0\.",
        "tokens": 64,
        "strict": False,
    }
    assert values["model"]["class"] == "LlamaForCausalLM"
    assert values["numerics"]["exponential"] == "piecewise"
    assert values["converted"]["counts"]["silu"] == 1
    assert {entry["path"] for entry in values["converted"]["entries"] if entry["op"] == "silu"} == {
        "model.layers.0.mlp.act_fn"
    }


def test_strict_fails_if_anything_is_left(folder):
    assert run(folder, "--strict").exit_code == 0
    assert run(folder, "--operators", "silu").exit_code == 0
    assert run(folder, "--operators", "silu", "--strict").exit_code == 1


def test_a_gguf_file(tmp_path):
    result = run(save_tiny_gguf(tmp_path / "tiny.gguf"), "--strict", "--tokens", 8)
    assert result.exit_code == 0, result.output
    assert "input_ids [1, 8]" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "nonsense"], "unknown preset 'nonsense'"),
        (["--operators", "gelux"], "unknown operator 'gelux'"),
        (["--exclude", "("], "not a regular expression"),
        (["--tokens", "0"], "--tokens"),
        (["--json", "/proc/nowhere/out.json"], "cannot write"),
    ],
)
def test_bad_input_is_refused_in_one_line(folder, arguments, message):
    result = run(folder, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("spikeplug: ")
    assert result.stderr.splitlines()[-1].count("spikeplug: ") == 1
    assert message in result.stderr


def test_a_folder_without_weights(folder, tmp_path):
    shutil.copy(Path(folder) / "config.json", tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "cannot load the model" in result.stderr
