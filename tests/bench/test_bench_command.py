"""`spikeplug bench`: tables, files, exit codes, one-line errors."""

from __future__ import annotations

import csv
import json

import jsonschema
import pytest
from kernels.cases import WrongKernel
from tiny_model import save_tiny_model
from typer.testing import CliRunner

from spikeplug import cli, kernels
from spikeplug.bench import COLUMNS, bench_schema
from spikeplug.bench.export import MACHINE


def run(*arguments):
    return CliRunner().invoke(cli.app, ["bench", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_a_quick_run_with_files(folder, tmp_path):
    sheet, path, page = tmp_path / "new" / "out.csv", tmp_path / "out.json", tmp_path / "out.html"
    result = run(folder, "--quick", "--runs", 2, "--csv", sheet, "--json", path, "--html", page)
    assert result.exit_code == 0, result.output
    for part in ("Operators", "With the simulation", "decoder layer", "prefill", "decode", "tokens/s", "Total time"):
        assert part.lower() in result.stdout.lower()
    assert "\x1b" not in result.output
    values = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(values, bench_schema(), jsonschema.Draft202012Validator)
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*COLUMNS, *MACHINE)
    assert len(rows) == len(values["rows"])
    assert float(rows[0]["times_exact"]) == values["rows"][0]["times_exact"]
    assert {row["equal"] for row in rows} == {"True"}
    of_models = {(row["name"], row["shape"], row["arm"]) for row in rows if row["section"] == "model"}
    assert {("prefill", "8 tokens", "simulated"), ("prefill", "32 tokens", "kernel")} <= of_models
    assert ("decode", "after 32 tokens", "exact") in of_models
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "spikeplug bench" in text
    assert "Plotly" in text


def test_chosen_arms_and_sections(folder, tmp_path):
    path = tmp_path / "out.json"
    result = run(folder, "--quick", "--runs", 1, "--arms", "closed", "--sections", "layer,model", "--json", path)
    assert result.exit_code == 0, result.output
    assert "kernel/copy" not in result.stdout
    values = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(values, bench_schema(), jsonschema.Draft202012Validator)
    assert values["arguments"]["arms"] == ["kernel", "exact", "closed"]
    assert values["arguments"]["sections"] == ["layer", "model"]
    assert {row["arm"] for row in values["rows"]} == {"kernel", "exact", "closed"}
    assert {row["section"] for row in values["rows"]} == {"layer", "model"}


@pytest.mark.parametrize(("option", "measured"), [([], True), (["--no-memory"], False), (["--quick"], False)], ids=str)
def test_memory_is_measured_unless_it_is_not_wanted(option, measured, monkeypatch):
    found = []
    monkeypatch.setattr("spikeplug.bench.measure", lambda settings, *_: found.append(settings) or [])
    assert run("--no-model", *option).exit_code == 0
    assert [settings.memory for settings in found] == [measured]
    assert found[0].sections == ("operators", "simulated", "growth")


def test_a_wrong_kernel_is_refused_with_code_1(tmp_path, monkeypatch):
    monkeypatch.setitem(kernels.loaded("cpu"), "gelu", WrongKernel())
    sheet = tmp_path / "out.csv"
    result = run("--quick", "--no-model", "--operators", "gelu", "--runs", 1, "--csv", sheet)
    assert result.exit_code == 1
    assert "NOT EQUAL" in result.stdout
    assert "not equal to the closed form" in result.stderr
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert row["equal"] == "False"
        assert row["seconds"] == row["times_exact"] == row["times_copy"] == row["rounds"] == ""


def test_a_model_with_a_wrong_kernel_has_no_figure(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(kernels.loaded("cpu"), "silu", WrongKernel())
    path = tmp_path / "out.json"
    result = run(folder, "--quick", "--operators", "softmax", "--runs", 1, "--json", path)
    assert result.exit_code == 1
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    of_model = [row for row in rows if row["section"] in ("layer", "model")]
    assert [(row["equal"], row["seconds"]) for row in of_model] == [(False, None)]
    assert all(row["equal"] for row in rows if row["section"] == "operators")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--operators", "sofmax"], "no operator 'sofmax'"),
        (["--operators", ""], "no operator ''"),
        (["--operators", "silu,silu"], "each operator once"),
        (["/no/such/model"], "no file or folder"),
        (
            ["--arms", "fast"],
            "no arm 'fast' to measure; choose out of kernel, exact, copy, published",
        ),
        (["--arms", "copy,copy"], "each arm once"),
        (["--sections", "layers"], "no section 'layers' to measure; choose out of operators, simulated, growth, layer"),
        (["--sections", "growth", "--operators", "silu"], "nothing to measure of silu in these sections: growth"),
        (["--sections", "layer", "--no-model"], "in these sections: none"),
        (["model", "--no-model"], "exclude each other"),
        (["model", "--sections", "growth"], "exclude each other"),
        (["--runs", "0"], "--runs"),
        (["--threads", "0"], "--threads"),
        (["--csv", "/"], "give another --csv path"),
        (["--json", "/"], "give another --json path"),
        (["--html", "/proc/x/page.html"], "give another --html path"),
        (["--no-such-option"], "No such option"),
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
    assert "bench" in CliRunner().invoke(cli.app).stdout
    assert "--no-model" in run("--help").stdout
