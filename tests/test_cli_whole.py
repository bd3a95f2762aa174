"""`spikeplug eval` and `lm-eval` with the recipe whole, and on a folder that was saved whole."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from safetensors.torch import load_file
from tiny_model import byte_tokenizer, save_tiny_model, tiny_model
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from spikeplug import cli
from spikeplug.conversion.whole.recipe import WEIGHT_GROUP
from spikeplug.evaluation import schema

SMALL = ("--context", "16", "--tokens", "64", "--choices", "2")
WHOLE = ("--recipe", "whole", "--calibration-tokens", "32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    path = folder.parent / "whole"
    assert run("convert", folder, path, *WHOLE, "--preset", "narrow").exit_code == 0
    return path


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def record_of(tmp_path: Path, *arguments: object):
    path = tmp_path / "record.json"
    result = run("eval", *arguments, *SMALL, "--json", path)
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(record, schema(), jsonschema.Draft202012Validator)
    return record, result.stdout


def figures(record):
    rows = [*record["perplexity"], *record["choices"]]
    return [
        {name: value for name, value in row.items() if "seconds" not in name and "ratio" not in name} for row in rows
    ]


def test_a_folder_is_the_recipe_that_wrote_it(folder: Path, whole: Path, tmp_path: Path) -> None:
    made, shown = record_of(tmp_path, folder, *WHOLE, "--preset", "narrow")
    saved, also = record_of(tmp_path, whole, "--exact", folder)
    assert figures(made) == figures(saved)
    assert made["numerics"] == saved["numerics"]
    assert made["conversion"]["counts"] == saved["conversion"]["counts"]
    assert made["arguments"]["recipe"] == saved["arguments"]["recipe"] == "whole"
    assert (made["arguments"]["bits"], saved["arguments"]["bits"]) == (9, None)
    assert (made["arguments"]["weight_bits"], saved["arguments"]["weight_bits"]) == (8, None)
    assert "recipe whole, 9 bits, weights 8 bits" in " ".join(shown.split())  # a long path wraps the line
    assert "recipe whole" in also
    assert "Peak memory" in shown


def test_a_folder_of_int4_groups_is_the_recipe_that_wrote_it(folder: Path, tmp_path: Path) -> None:
    int4 = (*WHOLE, "--weight-bits", "4")
    assert run("convert", folder, tmp_path / "whole", *int4).exit_code == 0
    assert load_file(tmp_path / "whole" / "model.safetensors")["lm_head.weight"].dtype == torch.uint8
    made, _ = record_of(tmp_path, folder, *int4)
    saved, _ = record_of(tmp_path, tmp_path / "whole", "--exact", folder)
    int8, _ = record_of(tmp_path, folder, *WHOLE)
    assert figures(made) == figures(saved) != figures(int8)
    assert made["arguments"]["weight_bits"] == 4


def test_the_recipe_operators_is_named_too(folder: Path, tmp_path: Path) -> None:
    record, shown = record_of(tmp_path, folder)
    assert (record["arguments"]["recipe"], record["arguments"]["bits"]) == ("operators", None)
    assert "recipe operators" in shown


def test_refusals(folder: Path, whole: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ([whole], "without float weights: add --exact with the float model"),
        ([whole, "--exact", folder, "--recipe", "whole"], "so --recipe has no effect"),
        ([whole, "--exact", "/no/such"], "no file or folder"),
        ([whole, "--exact", whole], "cannot be reverted"),
        ([folder, "--exact", folder], "has float weights of its own: leave --exact out"),
        ([folder, "--recipe", "x"], "unknown recipe"),
        ([folder, "--recipe", "whole", "--bits", "1"], "bits is 1"),
        ([folder, "--bits", "8"], "add --recipe whole"),
        ([folder, "--weight-bits", "4"], "add --recipe whole"),
        ([folder, "--recipe", "whole", "--weight-bits", "6"], "weight bits are 6: choose 8 or 4"),
        ([folder, "--recipe", "whole", "--operators", "silu"], "a whole model replaces all"),
        ([folder, "--recipe", "whole", "--dtype", "float16"], "give --dtype float32"),
    ):
        result = run("eval", *arguments, *SMALL)
        assert result.exit_code == 2, (arguments, result.output)
        assert result.stdout == ""
        assert message in result.stderr, arguments
    config = LlamaConfig(**{**tiny_model().config.to_dict(), "num_hidden_layers": 1})
    LlamaForCausalLM(config).save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    result = run("eval", whole, "--exact", tmp_path / "other", *SMALL)
    assert "is not the model" in result.stderr
    assert "its num_hidden_layers is 1, not 2" in result.stderr


def test_other_commands_say_what_a_whole_folder_lacks(whole: Path) -> None:
    for command in ("audit", "bench"):
        result = run(command, whole)
        assert result.exit_code == 2, result.output
        assert "cannot be reverted" in result.stderr


def test_generate_and_report_take_the_bits_of_weights(folder: Path, tmp_path: Path) -> None:
    int4 = (*WHOLE, "--weight-bits", "4")
    path = tmp_path / "generated.json"
    result = run("generate", "abc", "--model", folder, *int4, "--tokens", "2", "--json", path)
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text(encoding="utf-8"))["arguments"]["weight_bits"] == 4
    out = tmp_path / "report"
    small = ("--context", "16", "--tokens", "32", "--studies", "location", "--quick")
    result = run("report", folder, *int4, *small, "--out", out)
    assert result.exit_code == 0, result.output
    header = json.loads((out / "header.json").read_text(encoding="utf-8"))
    assert header["arguments"]["recipe"]["levels"]["weight_group"] == WEIGHT_GROUP
