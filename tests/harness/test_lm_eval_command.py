"""`spikeplug lm-eval`: lm-eval's own run, comparisons, and what is refused."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import jsonschema
import pytest
import torch
from typer.testing import CliRunner

from spikeplug import cli
from spikeplug.errors import SpikeplugError
from spikeplug.harness.compare import comparison_schema

TASKS = "spikeplug_series,spikeplug_texts,spikeplug_complete"


def run(*arguments):
    return CliRunner().invoke(cli.app, ["lm-eval", *map(str, arguments)])


def assert_refused(result, message):
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("spikeplug: ")
    assert message in result.stderr.splitlines()[-1]


def test_a_comparison(folder, examples, tmp_path):
    path = tmp_path / "results" / "out.json"
    given = ("--include_path", examples, "--tasks", TASKS, "--limit", 6, "--batch_size", 4, "--compare", "--json", path)
    model_args = f"pretrained={folder},preset=paper,exclude='layers.0.mlp'"
    result = run(
        *given, "--model", "hf", "--model_args", model_args, "--output_path", tmp_path / "own", "--log_samples"
    )
    assert result.exit_code == 0, (result.output, result.exception)
    for part in ("spikeplug_series", "acc_norm", "word_perplexity", "exact_match, strip", "Saturations", "Time exact"):
        assert part in result.stdout
    values = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(values, comparison_schema(), jsonschema.Draft202012Validator)
    assert values["arguments"][:2] == ["--include_path", str(examples)]
    assert values["numerics"]["exponential"] == "piecewise"
    assert values["tasks"]["spikeplug_series"] == {"version": "1.0", "fewshot": 0, "items": 6, "items_in_all": 42}
    left = {
        entry["path"] for entry in values["conversion"]["entries"] if entry["operator"] == "silu" and entry["reason"]
    }
    assert left == {"model.layers.0.mlp.act_fn"}
    rows = {(row["name"], row["metric"]): row for row in values["rows"]}
    assert rows["spikeplug_series", "acc"]["test"] == "McNemar"
    assert rows["spikeplug_texts", "word_perplexity"]["test"] == "t"
    assert rows["spikeplug_texts", "word_perplexity"]["changed"] == 6
    # lm-eval's own files, of both runs, say the same.
    for arm in ("exact", "spiking"):
        (own,) = (tmp_path / "own" / arm).rglob("results_*.json")
        found = json.loads(own.read_text(encoding="utf-8"))
        assert found["results"]["spikeplug_series"]["acc,none"] == rows["spikeplug_series", "acc"][arm]
        assert (found["config"]["spikeplug"] is None) == (arm == "exact")
        assert len([*(tmp_path / "own" / arm).rglob("samples_*.jsonl")]) == 3


def test_lm_evals_own_run(folder, examples, tmp_path, monkeypatch):
    given = ("--include_path", examples, "--tasks", "spikeplug_series", "--limit", 4, "--output_path", tmp_path)
    result = run("run", *given, "--model_args", f"pretrained={folder}", "operators=attention+silu", "dtype=float32")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "|spikeplug_series|" in result.stdout
    (own,) = tmp_path.rglob("results_*.json")
    written = json.loads(own.read_text(encoding="utf-8"))["config"]
    assert written["model"] == "spiking"
    assert written["spikeplug"]["operators"] == ["attention", "silu"]
    assert written["spikeplug"]["replaced"]["silu"] == 2
    assert written["spikeplug"]["replaced"].get("rms_norm", 0) == 0


def test_the_model_class(folder):
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model
    from lm_eval.models.huggingface import HFLM

    import spikeplug

    lm = get_model("spiking")(str(folder), device="cpu")
    plain = HFLM(str(folder), device="cpu")
    requests = [Instance("loglikelihood", {}, ("one, two,", " three"), 0)]
    expected = plain.loglikelihood(requests, disable_tqdm=True)
    spiking = lm.loglikelihood(requests, disable_tqdm=True)
    assert spiking != expected
    with lm.exact():
        assert lm.loglikelihood(requests, disable_tqdm=True) == expected
        assert lm.get_model_info()["spikeplug"] is None
    assert lm.loglikelihood(requests, disable_tqdm=True) == spiking
    spikeplug.convert(plain.model)
    assert plain.loglikelihood(requests, disable_tqdm=True) == spiking
    assert lm.get_model_info()["spikeplug"]["replaced"]["attention"] == 2


def test_a_model_object_and_a_gguf_file(tmp_path):
    from tiny_model import byte_tokenizer, save_tiny_gguf, tiny_model

    from spikeplug.harness.model import SpikingLM

    model = tiny_model()
    lm = SpikingLM(model, tokenizer=byte_tokenizer(), operators=["silu"])
    assert lm.model is model
    assert lm.report.counts["silu"]["replaced"] == 2
    lm = SpikingLM(str(save_tiny_gguf(tmp_path / "tiny.gguf")), device="cpu")
    assert lm.model.dtype == torch.float32


def test_answers_of_one_model_are_not_cached_for_the_other(folder, examples, tmp_path):
    given = ("--include_path", examples, "--tasks", "spikeplug_texts", "--compare", "--use_cache", tmp_path / "answers")
    for _ in range(2):
        path = tmp_path / "out.json"
        result = run(*given, "--model_args", f"pretrained={folder}", "--json", path)
        assert result.exit_code == 0, (result.output, result.exception)
        assert {row["changed"] for row in json.loads(path.read_text(encoding="utf-8"))["rows"]} == {6}


def test_a_configuration_file(folder, examples, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: hf\nmodel_args:\n  pretrained: {folder}\n  preset: paper\ntasks: [spikeplug_series]\n"
        f"include_path: {examples}\nlimit: 2\n"
    )
    result = run("--config", path)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "|spikeplug_series|" in result.stdout


def test_help_is_lm_evals_and_ours():
    result = run("--help")
    assert result.exit_code == 0
    for part in ("--num_fewshot", "--compare", "preset=default|narrow|paper|FILE", "glue-like", "winogrande"):
        assert part in result.stdout


def test_help_imports_neither_torch_nor_datasets():
    code = (
        "import sys; from spikeplug.cli import app\n"
        "try: app(['lm-eval', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no tasks: give --tasks"),
        (("--bogus",), "unrecognized arguments: --bogus"),
        (("--tasks", "x", "--limit", "many"), "argument --limit/-L: invalid float value"),
        (("--tasks", "x", "--model", "vllm"), "model 'vllm' cannot be made spiking"),
        (("--tasks", "x", "--model_args", "foo"), "expected `key=value`"),
        (("--tasks", "x", "--model_args", "{"), "Invalid JSON"),
        (("--tasks", "x", "--model_args", "preset=nope"), "unknown preset 'nope'"),
        (("--tasks", "x", "--model_args", "operators=silu+gelux"), "unknown operator 'gelux'"),
        (("--tasks", "x", "--model_args", "operators=7"), "operators is 7"),
        (("--tasks", "x", "--model_args", "exclude=("), "not a regular expression"),
        (("--tasks", "x", "--include_path", "/no/such"), "no folder '/no/such'"),
        (("--tasks", "x", "--config", "/no/such"), "Config file not found"),
        (("--tasks", "x", "--json", "x.json"), "--json goes with --compare"),
        (("--tasks", "x", "--compare", "--predict_only"), "--predict_only does not go with --compare"),
        (("--tasks", "x", "--compare", "--json", "/"), "cannot write /"),
        (("--tasks", "x", "--log_samples"), "Specify --output_path"),
        (("--tasks", "nonsense"), "no task nonsense"),
        (("--tasks", "nonsense", "--compare"), "no task nonsense"),
        (("--tasks", "spikeplug_series", "--model_args", "pretrained=/no/such"), "cannot load the model /no/such"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_what_is_refused(folder, examples, arguments, message):
    given = list(arguments)
    if "--include_path" not in given:
        given += ["--include_path", examples]
    if not any("=" in str(value) for value in given) and "foo" not in given and "{" not in given:
        given += ["--model_args", f"pretrained={folder}"]
    assert_refused(run(*given), message)


@pytest.mark.parametrize("compare", [(), ("--compare",)])
def test_a_task_without_network(folder, examples, tmp_path, compare):
    (tmp_path / "remote.yaml").write_text(
        "task: remote\ndataset_path: nobody/not-in-the-cache\noutput_type: multiple_choice\ntest_split: test\n"
        'doc_to_text: "{{a}}"\ndoc_to_target: b\ndoc_to_choice: ["x", "y"]\n'
    )
    result = run("--include_path", tmp_path, "--tasks", "remote", "--model_args", f"pretrained={folder}", *compare)
    assert_refused(result, "cannot get the data of a task: Couldn't reach 'nobody/not-in-the-cache'")


def test_bugs_keep_their_traceback(folder, examples, monkeypatch):
    monkeypatch.setattr("lm_eval.simple_evaluate", lambda **options: 1 / 0)
    result = run("--include_path", examples, "--tasks", "spikeplug_series", "--model_args", f"pretrained={folder}")
    assert isinstance(result.exception, ZeroDivisionError)


def test_without_lm_eval(monkeypatch):
    import spikeplug.harness

    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    with pytest.raises(SpikeplugError, match=r"lm-eval is not installed.*pip install 'spikeplug\[lm-eval\]'"):
        importlib.reload(spikeplug.harness)


def test_only_the_first_process_prints(monkeypatch):
    from spikeplug.measurement.processes import is_first_process

    assert is_first_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_first_process()
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()


def test_the_recipe_whole_and_a_folder_that_it_wrote(folder, examples, tmp_path):
    """One converts a copy once, the other is compared with its original; both find the same."""
    whole, rows = tmp_path / "whole", []
    chosen = ("--recipe", "whole", "--bits", "6", "--calibration-tokens", "32")
    made = CliRunner().invoke(cli.app, ["convert", str(folder), str(whole), *chosen])
    assert made.exit_code == 0, made.output
    given = ("--include_path", examples, "--tasks", "spikeplug_series", "--limit", 4, "--compare", "--json")
    for number, model_args in enumerate(
        (f"pretrained={folder},recipe=whole,bits=6,calibration_tokens=32", f"pretrained={whole},exact={folder}")
    ):
        path = tmp_path / f"{number}.json"
        result = run(*given, path, "--model_args", model_args)
        assert result.exit_code == 0, (result.output, result.exception)
        values = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.validate(values, comparison_schema(), jsonschema.Draft202012Validator)
        assert values["conversion"]["counts"]["matmul"]["replaced"] == 17
        rows.append(values["rows"])
    assert rows[0] == rows[1]
    assert_refused(run(*given[:-1], "--model_args", f"pretrained={whole}"), "leave --compare out, or add exact=")
    assert_refused(run(*given[:-1], "--model_args", f"pretrained={folder},exact={folder}"), "leave exact=")


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ("recipe=half", "unknown recipe 'half'"),
        ("recipe=whole,bits=10", "bits is 10"),
        ("recipe=whole,bits=many", "bits is 'many'"),
        ("bits=8", "add --recipe whole"),
        ("recipe=whole,dtype=float16", "float32"),
        ("recipe=whole,operators=silu", "a whole model replaces all"),
    ],
)
def test_recipes_that_are_refused(examples, model_args, message):
    result = run("--include_path", examples, "--tasks", "spikeplug_series", "--model_args", model_args)
    assert_refused(result, message)
