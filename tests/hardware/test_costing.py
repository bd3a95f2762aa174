"""A costing as a whole: the model is as before, records fit their schema, and `spikeplug energy` shows it."""

from __future__ import annotations

import json

import jsonschema
import pytest
import torch
from tiny_model import tiny_model
from typer.testing import CliRunner

from spikeplug import SpikeplugError, cli
from spikeplug.hardware.costing import Settings, measure, schema
from spikeplug.measurement.recipes import Recipe

IDS = list(b"What a token costs depends on what is counted and on who says the price.")
WHOLE = Recipe(name="whole", calibrated=False)


def run(*arguments: object):
    return CliRunner().invoke(cli.app, ["energy", *map(str, arguments)])


def test_a_costing_leaves_the_model_as_before() -> None:
    model, seen = tiny_model(), []
    ids = torch.tensor([IDS[:8]])
    with torch.inference_mode():
        before = model(ids).logits
        found = measure(model, None, IDS, Settings(contexts=(1, 8)), lambda *step: seen.append(step))
        assert torch.equal(model(ids).logits, before)
    assert [token.context for token in found.tokens] == [1, 8]
    assert {cost.arm for cost in found.costs} == {"ours", "paper", "off-chip"}
    assert not found.per_value
    assert not found.lines
    assert {stage.split(",")[0] for stage, _, _ in seen} == {"converting", "counting ours", "counting paper"}
    assert all(0 <= done <= total for _, done, total in seen)


def test_a_whole_model_has_all_its_parts_at_every_context() -> None:
    found = measure(tiny_model(), None, IDS, Settings(recipe=WHOLE, contexts=(8, 2), tables=("digital45",)))
    assert [token.context for token in found.tokens] == [2, 8]
    assert {cost.arm for cost in found.costs} == {"ours", "off-chip", "int8", "qnn", "float32"}
    assert {one.levels for one in found.per_value} == {4, 16, 64, 128, 256}
    ours = {cost.context: cost.low for cost in found.costs if cost.arm == "ours"}
    assert ours[2] < ours[8] == found.energies[0].total
    assert any("memory traffic is" in text for text in found.verdicts)


def test_bad_settings_are_refused() -> None:
    for values, message in (
        ({"contexts": (0,)}, "context is 0; it must be 1 token or more"),
        ({"contexts": ()}, "context is empty"),
        ({"contexts": (2, 2)}, "a context is given twice"),
        ({"hops": -1}, "hops is -1"),
        ({"arms": ("int8",)}, "cannot be compared with nonlinear operators alone"),
        ({"tables": ("akida",)}, "there is no table akida"),
        ({"recipe": "holy"}, "unknown recipe 'holy'"),
    ):
        with pytest.raises(SpikeplugError, match=message):
            Settings(**values)
    with pytest.raises(SpikeplugError, match="the text has 72 tokens, fewer than the context of 100"):
        measure(tiny_model(), None, IDS, Settings(contexts=(100,)))
    with pytest.raises(SpikeplugError, match="the context of 1000 is above the model's 256 positions"):
        measure(tiny_model(), None, IDS, Settings(contexts=(1000,)))


def test_the_command_shows_and_writes(folder, tmp_path) -> None:
    path, page = tmp_path / "new" / "out.json", tmp_path / "out.html"
    result = run(
        folder, "--context", "1,8", "--table", "loihi1-davies", "--table", "darwin3", "--json", path, "--html", page
    )
    assert result.exit_code == 0, result.output
    for part in (
        "Loihi 1, regressed",
        "Counted in one token",
        "Energy by operator",
        "darwin3 (in part)",
        "No total by",
    ):
        assert part in result.stdout
    record = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.validate(record, schema(), jsonschema.Draft202012Validator)
    assert [one["table"]["name"] for one in record["energies"]] == ["loihi1-davies", "loihi1-sanafe", "darwin3"]
    assert record["arguments"]["context"] == [1, 8]
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert "spikeplug energy" in text
    assert "Davies et al." in text


def test_the_command_takes_the_recipe_whole_and_a_table_of_ones_own(folder, tmp_path) -> None:
    table = tmp_path / "mine.toml"
    heads = dict.fromkeys(("title", "chip", "technology", "voltage", "citation"), '"mine"')
    text = "\n".join(f"{name} = {value}" for name, value in heads.items())
    text += '\nevidence = "silicon"\nscope = "all-in"\n[prices]\nsynops = 2\n'
    table.write_text(text, encoding="utf-8")
    path = tmp_path / "out.json"
    how = ("--recipe", "whole", "--calibration", "none", "--context", "4", "--table", table, "--table", "digital45")
    result = run(folder, *how, "--arms", "int8", "--json", path)
    assert result.exit_code == 0, result.output
    assert "Break-even with int8" in result.stdout
    assert "cannot be compared by mine" in " ".join(result.stdout.split())
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["energies"][0]["total"] == 2 * record["tokens"][0]["synops"]
    whole = tmp_path / "whole"
    convert = CliRunner().invoke(
        cli.app, ["convert", str(folder), str(whole), "--recipe", "whole", "--calibration", "none"]
    )
    assert convert.exit_code == 0, convert.output
    saved = tmp_path / "saved.json"
    result = run(whole, "--context", "4", "--table", table, "--table", "digital45", "--arms", "int8", "--json", saved)
    assert result.exit_code == 0, result.output
    again = json.loads(saved.read_text(encoding="utf-8"))
    assert again["costs"] == record["costs"]
    table.write_text(text.replace("= 2", "= -2"), encoding="utf-8")
    result = run(folder, "--table", table)
    assert result.exit_code == 2
    assert "prices.synops is -2 in" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", "loihi2"), "there is no table loihi2: no price of an event of Loihi 2 is published"),
        (("--table", "nope"), "unknown table 'nope'"),
        (("--recipe", "holy"), "unknown recipe 'holy'"),
        (("--arms", "int8"), "give --recipe whole"),
        (("--arms", "paper,abacus"), "unknown arm 'abacus'"),
        (("--context", "many"), "context is 'many'; give whole numbers"),
        (("--context", "0"), "context is 0; it must be 1 token or more"),
        (("--operators", "gelu,nonsense"), "nonsense"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(folder, tmp_path, arguments, message) -> None:
    path = tmp_path / "out.json"
    result = run(folder, *arguments, "--json", path)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("spikeplug: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not path.exists()


def test_an_unknown_model_is_refused(tmp_path) -> None:
    result = run(tmp_path / "nothing")
    assert result.exit_code == 2
    assert "nothing" in result.stderr


def test_a_model_whose_layers_stay_exact_has_no_spikes_per_value() -> None:
    settings = Settings(recipe=WHOLE, exclude="proj|lm_head", contexts=(2,), tables=("odin",))
    found = measure(tiny_model(), None, IDS, settings)
    assert not found.per_value
    assert found.energies[0].total > 0


def test_a_model_without_a_chosen_operator_is_refused(folder) -> None:
    result = run(folder, "--operators", "gelu", "--context", "1")
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
