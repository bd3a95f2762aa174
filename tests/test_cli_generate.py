"""`spikeplug generate`: both continuations, where they differ, spikes per token, and refusals in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_model import byte_tokenizer, save_tiny_model, tiny_model
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import spikeplug
from spikeplug import cli
from spikeplug.cli import generate

PROMPT = "import this"
WHOLE = ("--recipe", "whole", "--calibration-tokens", "64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    path = folder.parent / "whole"
    assert run("convert", folder, path, *WHOLE).exit_code == 0
    return path


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def record_of(tmp_path: Path, *arguments: object):
    path = tmp_path / "record.json"
    result = run("generate", PROMPT, *arguments, "--json", path)
    assert result.exit_code == 0, result.output
    return json.loads(path.read_text(encoding="utf-8")), result.stdout


def generated(model, tokens: int) -> list[int]:
    """What transformers' own generate() adds to the prompt."""
    ids = byte_tokenizer()(PROMPT, return_tensors="pt")["input_ids"]
    return model.generate(ids, max_new_tokens=tokens, do_sample=False)[0, ids.shape[1] :].tolist()


def test_both_columns_are_what_generate_gives(folder: Path, tmp_path: Path) -> None:
    record, shown = record_of(tmp_path, "--model", folder, "--preset", "paper", "--tokens", 24)
    model = tiny_model()
    exact = generated(model, 24)
    spikeplug.convert(model, "paper")
    spiking = generated(model, 24)
    assert record["continuations"]["exact"]["ids"] == exact
    assert record["continuations"]["spiking"]["ids"] == spiking
    first = next((i for i, (a, b) in enumerate(zip(exact, spiking, strict=True)) if a != b), None)
    assert record["agreement"] == {
        "equal": sum(a == b for a, b in zip(exact, spiking, strict=True)),
        "length": 24,
        "first": first,
    }
    assert record["spikes"] is None
    assert f"{record['agreement']['equal']} of 24 tokens are equal" in shown
    assert "Linear layers are float with the recipe operators" in shown
    assert "\x1b" not in shown


def test_a_whole_model_says_what_its_inputs_send(folder: Path, whole: Path, tmp_path: Path) -> None:
    record, shown = record_of(tmp_path, "--model", folder, *WHOLE, "--tokens", 4)
    saved, _ = record_of(tmp_path, "--model", whole, "--tokens", 4)
    assert saved["continuations"]["spiking"]["ids"] == record["continuations"]["spiking"]["ids"]
    assert saved["spikes"] == record["spikes"]
    spikes = record["spikes"]
    assert spikes["tokens"] == len(PROMPT) + 3
    assert len(spikes["layers"]) == 15  # an embedding has no inputs
    assert spikes["spikes"] == sum(layer["spikes"] for layer in spikes["layers"].values())
    assert spikes["layers"]["lm_head"]["inputs"] == spikes["tokens"] * 32
    assert 0 < spikes["per_input"] < 7
    assert f"{spikes['per_token']:,.0f} spikes per token at the inputs of 15 linear layers" in " ".join(shown.split())


def test_a_folder_without_float_weights_runs_alone(whole: Path, tmp_path: Path) -> None:
    record, shown = record_of(tmp_path, "--model", whole, "--tokens", 5)
    assert record["continuations"].keys() == {"spiking"}
    assert record["continuations"]["spiking"]["ids"] == generated(AutoModelForCausalLM.from_pretrained(whole), 5)
    assert record["agreement"] is None
    assert "it has no float weights, so no exact model runs" in " ".join(shown.split())


def test_without_the_exact_model(folder: Path, tmp_path: Path) -> None:
    record, shown = record_of(tmp_path, "--model", folder, "--no-exact", "--tokens", 1)
    assert record["continuations"].keys() == {"spiking"}
    assert record["continuations"]["spiking"]["tokens_per_second"] is None
    assert "exact" not in shown


def test_an_end_token_ends_one_text(folder: Path, tmp_path: Path) -> None:
    model = tiny_model()
    ids = generated(model, 6)
    model.generation_config.eos_token_id = ids[2]
    model.save_pretrained(tmp_path / "ending")
    byte_tokenizer().save_pretrained(tmp_path / "ending")
    record, _ = record_of(tmp_path, "--model", tmp_path / "ending", "--tokens", 6)
    assert record["continuations"]["exact"]["ids"] == ids[: ids.index(ids[2]) + 1]


@pytest.mark.parametrize("width", [24, 120])
def test_a_terminal_shows_columns(folder: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Nothing is cut off, and what a model says moves no cursor."""
    monkeypatch.setattr(generate, "_terminal", lambda: Console(force_terminal=True, width=width, highlight=False))
    monkeypatch.setenv("COLUMNS", str(width))
    result = run("generate", PROMPT, "--model", folder, "--preset", "paper", "--tokens", 16)
    assert result.exit_code == 0, result.output
    assert "exact" in result.stdout
    assert "spiking" in result.stdout


def test_what_differs_is_marked() -> None:
    class Arm:
        def __init__(self, text: str) -> None:
            self.ids = list(text.encode())

    class Tokenizer:
        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            return bytes(ids).decode()

    table = generate._columns(
        {"exact": Arm("red sea"), "spiking": Arm("red \x1b[2J")}, "The ", Tokenizer()
    ).renderables[0]
    exact, spiking = (column._cells[0] for column in table.columns)
    assert exact.plain == "The red sea"
    assert spiking.plain == "The red �[2J"
    assert [exact.plain[span.start : span.end] for span in exact.spans if span.style == generate._DIFFERENT] == ["sea"]


@pytest.mark.parametrize(
    ("prompt", "arguments", "message"),
    [
        ("", [], "the prompt is empty: give some text"),
        ("a", ["--tokens", "0"], "--tokens"),
        ("a", ["--tokens", "256"], "above the model's 256 positions"),
        ("a", ["--recipe", "x"], "unknown recipe 'x'"),
        ("a", ["--recipe", "whole", "--bits", "2"], "bits is 2: choose 4 to 9"),
        ("a", ["--bits", "8"], "add --recipe whole"),
        ("a", ["--recipe", "whole", "--dtype", "bfloat16"], "give --dtype float32"),
        ("a", ["--model", "/no/such/model"], "no file or folder"),
        ("a", ["--operators", "nothing"], "unknown operator"),
    ],
)
def test_refusals(folder: Path, prompt: str, arguments: list[str], message: str) -> None:
    chosen = [] if "--model" in arguments else ["--model", folder]
    result = run("generate", prompt, *chosen, *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exact"], "leave --exact out, or give the float model"),
        (["--recipe", "whole"], "is a whole spiking model already, so --recipe has no effect"),
        (["--exclude", "mlp"], "is a whole spiking model already, so --exclude has no effect"),
        (["--preset", "paper"], "so --preset has no effect"),
    ],
)
def test_what_a_whole_folder_does_not_take(whole: Path, arguments: list[str], message: str) -> None:
    result = run("generate", PROMPT, "--model", whole, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_model_that_yields_nan(tmp_path: Path) -> None:
    model = tiny_model()
    model.lm_head.weight.data[:] = float("nan")
    model.save_pretrained(tmp_path / "damaged")
    byte_tokenizer().save_pretrained(tmp_path / "damaged")
    result = run("generate", PROMPT, "--model", tmp_path / "damaged")
    assert result.exit_code == 2
    assert "the model yields NaN" in result.stderr


def test_a_copy_shares_the_float_weights() -> None:
    from spikeplug.measurement.recipes import Recipe, spiking_copy
    from spikeplug.numerics import Numerics

    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    wanted = Recipe(name="whole", tokens=32)
    copied, report = spiking_copy(model, byte_tokenizer(), wanted, Numerics())
    assert report.counts["matmul"]["replaced"] == 17
    assert copied.lm_head.weight.dtype == torch.int8
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(spikeplug.SpikeplugError, match="freed or never loaded"):
        spikeplug.revert(copied)
    operators, _ = spiking_copy(model, byte_tokenizer(), Recipe(), Numerics())
    assert operators.lm_head.weight is model.lm_head.weight
