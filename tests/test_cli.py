"""The command line in this process: results, one-line errors, interruption."""

from __future__ import annotations

import inspect
import json

import jsonschema
import pytest
from tiny_model import byte_tokenizer, save_tiny_model
from transformers import BertConfig, BertModel
from typer.testing import CliRunner

from spikeplug import cli
from spikeplug.evaluation import Settings, schema
from spikeplug.measurement.loading import first_line

SMALL = ("--context", "16,64", "--tokens", "128", "--choices", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("tiny")))


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def assert_refused(result, message):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("spikeplug: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_run_with_everything_chosen(folder, tmp_path):
    text, numerics, path = tmp_path / "text", tmp_path / "config.toml", tmp_path / "out.json"
    text.write_text("".join(f"line {i}: {i * i}\n" for i in range(100)), encoding="utf-8")
    numerics.write_text("bits = 12\n")
    chosen = (
        "--text",
        text,
        "--preset",
        numerics,
        "--operators",
        "silu, attention",
        "--exclude",
        r"\.0\.",
        "--seed",
        -3,
    )
    result = run("eval", folder, *SMALL, *chosen, "--dtype", "bfloat16", "--json", path)
    assert result.exit_code == 0, result.output
    values = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(values, schema(), jsonschema.Draft202012Validator)
    assert values["numerics"]["bits"] == 12
    assert values["model"]["dtype"] == "bfloat16"
    assert values["arguments"]["operators"] == ["silu", "attention"]
    assert values["text"]["characters"] == len(text.read_text(encoding="utf-8"))
    replaced = [entry["path"] for entry in values["conversion"]["entries"] if entry["action"] == "replaced"]
    assert replaced == ["model.layers.1.self_attn", "model.layers.1.mlp.act_fn"]


def test_defaults_are_those_of_the_library():
    parameters = inspect.signature(cli.evaluate_command).parameters
    settings = Settings()
    assert parameters["tokens"].default == settings.tokens
    assert parameters["choices"].default == settings.choices
    assert parameters["seed"].default == settings.seed
    assert parameters["operators"].default == "all"
    assert settings.operators is None
    assert parameters["context"].default == ",".join(map(str, settings.contexts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "nonsense"], "unknown preset 'nonsense'"),
        (["--operators", "gelux"], "unknown operator 'gelux'"),
        (["--operators", ""], "unknown operator ''"),
        (["--exclude", "("], "not a regular expression"),
        (["--exclude", "nowhere"], "finds none"),
        (["--context", "0"], "context is 0"),
        (["--context", "-512"], "context is -512"),
        (["--context", "1"], "context is 1"),
        (["--context", "many"], "context is 'many'"),
        (["--context", ""], "context is ''"),
        (["--context", "16,"], "context is '16,'"),
        (["--context", "1.5"], "context is '1.5'"),
        (["--context", "16,16"], "given twice"),
        (["--context", "257", "--tokens", "257"], "above the model's 256 positions"),
        (["--context", "64", "--tokens", "10"], "tokens is 10, fewer than one window of 64"),
        (["--context", "9" * 5000], "context is"),
        (["--tokens", "0"], "tokens is 0"),
        (["--tokens", "-1"], "tokens is -1"),
        (["--tokens", "x"], "--tokens"),
        (["--choices", "-1"], "choices is -1"),
        (["--choices", "x"], "--choices"),
        (["--choices", "1000000000"], "multiple-choice items need"),
        (["--threads", "0"], "--threads"),
        (["--seed", "x"], "--seed"),
        (["--dtype", "int8"], "no dtype 'int8'"),
        (["--text", "/no/such/text"], "cannot read /no/such/text"),
        (["--tasks", "/no/such/task"], "cannot read /no/such/task"),
        (["--json", "/"], "cannot write /"),
        (["--no-such-option"], "No such option"),
        (["one more"], "one more"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_arguments(folder, arguments, message):
    small = () if "--context" in arguments else SMALL
    assert_refused(run("eval", folder, *small, *arguments), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"bits": 99}', "bits is 99"), ("{", "neither valid JSON"), ('{"bitz": 8}', "bitz")],
)
def test_bad_config_files(folder, tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    assert_refused(run("eval", folder, *SMALL, "--preset", path), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "not UTF-8 text"), (b"short", "the text has 5 tokens"), (b"", "has 0 tokens")],
)
def test_bad_texts(folder, tmp_path, content, message):
    path = tmp_path / "text"
    path.write_bytes(content)
    assert_refused(run("eval", folder, *SMALL, "--text", path), message)


def test_a_bad_line_of_a_task(folder, tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text('{"query": "a", "choices": ["b", "c"], "label": 0}\n{"query"\n')
    assert_refused(run("eval", folder, *SMALL, "--tasks", path), "task.jsonl, line 2: not valid JSON")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("", "no file or folder"),
        ("/no/such/model", "no file or folder"),
        ("no/such/model.gguf", "no file or folder"),
        ("owner/not-in-the-cache", "check the name and the connection"),
    ],
)
def test_models_that_are_not_there(model, message):
    assert_refused(run("eval", model), message)


def test_a_damaged_model(tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\3\0\0\0" + bytes(50))
    assert_refused(run("eval", path), "of cut.gguf: the file is damaged")


def test_an_unwritable_result_is_refused_before_the_model_is_loaded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("spikeplug.cli.evaluate.load_exact", lambda *arguments: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("")
    assert_refused(run("eval", folder, "--json", tmp_path / "file" / "out.json"), "cannot write")


@pytest.mark.parametrize("choices", [0, 3])
def test_items_can_be_left_out(folder, tmp_path, choices):
    path = tmp_path / "out.json"
    result = run("eval", folder, *SMALL, "--choices", choices, "--json", path)
    assert result.exit_code == 0, result.output
    values = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(values, schema(), jsonschema.Draft202012Validator)
    assert len(values["choices"]) == (choices > 0)
    assert ("Multiple choice" in result.stdout) == (choices > 0)


def test_a_model_without_a_language_head_says_what_it_is(tmp_path):
    config = BertConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert_refused(run("eval", tmp_path, *SMALL), "is a BertModel, which does not predict the next token")


def test_an_output_that_is_an_input_is_refused(folder, tmp_path):
    text = tmp_path / "text"
    text.write_text("words " * 100)
    assert_refused(run("eval", folder, *SMALL, "--text", text, "--json", text), "--json would overwrite")
    task = tmp_path / "mine.jsonl"
    task.write_text('{"query": "a", "choices": ["b", "c"], "label": 0}')
    assert_refused(run("eval", folder, *SMALL, "--tasks", task, "--json", task), "which --tasks reads")


def test_results_are_written_though_nothing_can_be_printed(folder, tmp_path, monkeypatch):
    def fail(self, *parts, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spikeplug.cli.output._Console.print", fail)
    result = run("eval", folder, *SMALL, "--json", tmp_path / "out.json")
    assert result.exit_code == 2
    assert "cannot write to the standard output: No space left on device" in result.stderr
    assert json.loads((tmp_path / "out.json").read_text())["perplexity"]


def test_messages_of_many_lines_become_one(folder, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("first\nsecond")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fail)
    assert_refused(run("eval", folder), "OSError: first")
    assert first_line(OSError("")) == "OSError"


def test_bugs_keep_their_traceback(folder, monkeypatch):
    monkeypatch.setattr("spikeplug.evaluation.evaluate", lambda *arguments, **options: 1 / 0)
    result = run("eval", folder, *SMALL)
    assert isinstance(result.exception, ZeroDivisionError)


def test_interruption_ends_with_one_line_and_130(folder, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikeplug.evaluation.evaluate", interrupt)
    result = run("eval", folder, *SMALL)
    assert result.exit_code == 130
    assert result.stderr == "spikeplug: interrupted\n"


def test_commands_are_listed_and_the_version_shown():
    assert "eval" in run().stdout
    assert run("--version").stdout.startswith("spikeplug")
    assert_refused(run("no-such-command"), "no-such-command")
