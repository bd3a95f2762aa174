"""A report on whole models: every study right for them, and the error budget by site."""

from __future__ import annotations

import json

import jsonschema
import pytest
import torch
from tiny_model import byte_tokenizer, tiny_model
from tiny_report import FACTS, SETTINGS, WHOLE, run_tiny
from typer.testing import CliRunner

import spikeplug
from spikeplug import Events, Numerics, Whole, cli, library
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.layers import find_layers
from spikeplug.measurement.recipes import Recipe, spiking_copy
from spikeplug.measurement.section import Plot, Table
from spikeplug.report import STUDIES, Settings, make_record, render, run, runner, schema, sections_of
from spikeplug.report.arms import Change
from spikeplug.report.capture import Call, calls
from spikeplug.report.comparison import Comparison
from spikeplug.report.cost import updates_per_token
from spikeplug.report.sections import budget, sweeps

OPERATORS = ["embedding", "rotary", "rms_norm", "linear", "multiply", "add", "quantise", "attention", "silu"]


@pytest.fixture(scope="module")
def comparison():
    model = tiny_model()
    spiking, _ = spiking_copy(model, byte_tokenizer(), WHOLE, Numerics())
    settings = Settings(**SETTINGS, recipe=WHOLE)
    return Comparison(model, torch.arange(32, 64).view(2, 16), settings, spiking)


def of(files, study):
    return {row["key"]: row["values"] for row in files.rows if row["study"] == study}


def test_every_study_is_measured_and_drawn(finished_whole):
    record = make_record(finished_whole.header, finished_whole.rows)
    jsonschema.validate(record, schema(), jsonschema.Draft202012Validator)
    assert list(record["studies"]) == list(STUDIES)
    assert record["arguments"]["recipe"] == {
        "name": "whole",
        "levels": {
            **{"inputs": 256, "weights": 127, "weight_group": 0, "cache": 127},
            **{"block": 32, "rotated_block": 0, "rotate": True},
        },
        "calibration": {"text": None, "tokens": 64},
        "saved": False,
    }
    assert record["operators"] == OPERATORS
    sections = sections_of(finished_whole.header, finished_whole.rows)
    for section in sections:
        assert any(isinstance(part, Plot) for part in section.parts), section.name
        assert any(isinstance(part, Table) for part in section.parts), section.name
    page = render(finished_whole.header, finished_whole.rows)
    assert "recipe whole, 256 levels of inputs, 127 of keys and values" in page
    for count in (1, 8, 9, 10, 40):
        assert "Settings, versions, machine" in render(finished_whole.header, finished_whole.rows[:count])


def test_nothing_coded_is_the_exact_model_and_everything_the_whole_one(finished_whole):
    rows, others = of(finished_whole, "budget"), of(finished_whole, "propagation")["position/chosen"]
    assert 0 < rows["nothing"]["mean_kl"] < 1e-10
    assert rows["everything"] == {name: others[name] for name in rows["everything"]}
    assert rows["everything"]["mean_kl"] > 1e-4
    assert rows["everything"] == of(finished_whole, "ablation")["operator/all"]


def test_each_site_is_coded_alone_and_left_out(finished_whole, comparison):
    rows = of(finished_whole, "budget")
    names = [group.name for group in budget.groups(comparison)]
    assert list(rows) == [
        "nothing",
        "everything",
        *(f"alone/{name}" for name in names),
        *(f"without/{name}" for name in names),
    ]
    together = [name for name in names if name.endswith(budget.EVERYWHERE)]
    assert together == [
        f"{kind}, everywhere"
        for kind in ("rms_norm", "linear input", "linear weight", "linear output", "multiply", "add")
    ]
    for name in names:
        alone, without = rows[f"alone/{name}"], rows[f"without/{name}"]
        assert f"{alone['what']}, {alone['where']}" == name
        assert alone["mean_kl"] > 0
        assert 0 < alone["standard_error_kl"] < alone["mean_kl"]
        saved = rows["everything"]["mean_kl"] - without["mean_kl"]
        assert without["saved_kl"] == pytest.approx(saved, rel=1e-9, abs=1e-15)
    # What has few levels costs more than what has 17 bits, a thousand times.
    coarse = ("linear input", "linear weight", "embedding weight", "quantise key", "quantise value")
    costs = {name: rows[f"alone/{name}"]["mean_kl"] for name in names}
    least = min(cost for name, cost in costs.items() if name.startswith(coarse))
    assert least > 100 * max(cost for name, cost in costs.items() if not name.startswith(coarse))


def test_the_sites_of_a_kind_are_measured_together(comparison):
    weights = next(g for g in budget.groups(comparison) if g.name == "linear weight, everywhere")
    parts = [g for g in comparison.groups if g.what == "linear weight"]
    assert weights.sites == frozenset().union(*(group.sites for group in parts))
    alone = [comparison.figures(Change(Numerics(), coded=group.sites))["mean_kl"] for group in parts]
    together = comparison.figures(Change(Numerics(), coded=weights.sites))["mean_kl"]
    assert max(alone) < together < 3 * sum(alone)


def test_standard_errors_are_those_of_the_predictions(comparison):
    change = Change(Numerics(), exact=comparison.groups[0].sites)
    found = comparison.predictions(change)
    figures = comparison.figures(change)
    assert figures["standard_error_kl"] == pytest.approx(float(found.kl.std() / found.kl.numel() ** 0.5))
    rise = found.converted - found.exact
    assert figures["standard_error_percent"] == pytest.approx(
        100 * float(rise.mean().exp() * rise.std() / rise.numel() ** 0.5)
    )


def test_figures_agree_with_the_evaluation():
    from spikeplug.evaluation import Settings as Evaluated
    from spikeplug.evaluation import evaluate

    model, tokenizer = tiny_model(), byte_tokenizer()
    text = "".join(f"line {i}: {i * i}\n" for i in range(20))
    settings = Evaluated(contexts=(16,), tokens=32, choices=0, text=text, recipe=WHOLE)
    (found,) = evaluate(model, tokenizer, settings).perplexity
    windows = torch.tensor(tokenizer(text)["input_ids"][:32]).view(2, 16)
    spiking, _ = spiking_copy(model, tokenizer, WHOLE, Numerics())
    mine = Comparison(model, windows, Settings(context=16, tokens=32, recipe=WHOLE), spiking)
    figures = mine.figures(Change(Numerics()))
    for name in ("exact_perplexity", "converted_perplexity", "change_percent", "mean_kl", "agreement_percent"):
        assert figures[name] == pytest.approx(getattr(found, name), rel=1e-6, abs=1e-9), name


def test_the_residual_stream_is_compared_in_its_own_basis(comparison):
    """The rotated one has the lengths of the model's own, and other channels."""
    reference, coded = (comparison.residual_stream(change) for change in (None, Change(Numerics())))
    with find_layers(comparison.model).recorded() as own, torch.inference_mode():
        comparison.model(input_ids=comparison.windows[:1])
    for x, y, z in zip(own, reference, coded, strict=True):
        torch.testing.assert_close(x.norm(dim=-1), y.norm(dim=-1), rtol=1e-5, atol=1e-6)
        assert (x - y).norm() > 0.5 * x.norm()
        assert 0 < (z - y).norm() < 0.1 * y.norm()


def test_the_published_recipe_is_not_beside_a_whole_model(finished_whole):
    assert list(of(finished_whole, "propagation")) == ["residual/chosen", "attention/chosen", "position/chosen"]
    residual, attention = (
        of(finished_whole, "propagation")["residual/chosen"],
        of(finished_whole, "propagation")["attention/chosen"],
    )
    assert residual["depths"][0]["relative_error"] > 0  # the table of embeddings is coded
    assert [len(row) for row in attention["kl"]] == [4, 4]
    assert all(0 < value < 0.1 for row in attention["variation"] for value in row)
    lead = sections_of(finished_whole.header, finished_whole.rows)[0].lead
    assert "basis to which the weights were rotated" in lead


def test_parts_of_a_whole_model(finished_whole):
    rows = of(finished_whole, "ablation")
    assert [key.split("/")[1] for key in rows if key.startswith("operator/")] == [*OPERATORS, "all"]
    assert rows["share/0"]["mean_kl"] == 0
    assert rows["operator/linear"]["mean_kl"] > 100 * rows["operator/silu"]["mean_kl"]
    parts = [rows[f"layer/{number}"]["mean_kl"] for number in (1, 2)]
    assert min(parts) > 0
    assert max(parts) < rows["share/100"]["mean_kl"] < rows["operator/all"]["mean_kl"]


def test_one_layer_alone_leaves_the_stream_before_it_exact(comparison):
    reference, second = (comparison.residual_stream(c) for c in (None, Change(Numerics(), layers=(1,))))
    assert torch.equal(reference[0], second[0])
    assert torch.equal(reference[1], second[1])
    assert not torch.equal(reference[2], second[2])


def test_sweeps_change_levels_and_numerics(finished_whole):
    rows = of(finished_whole, "sweeps")
    parameters = {values["parameter"] for key, values in rows.items() if key != "numerics"}
    assert parameters == {"inputs", "cache", "bits", "working_bits", "segments", "fraction_bits"}
    for parameter in ("inputs", "cache"):
        few, more, most = (rows[f"{parameter}/{value}"] for value in (7, 31, {"inputs": 256, "cache": 127}[parameter]))
        assert few["mean_kl"] > more["mean_kl"] > most["mean_kl"]
        assert few["updates_per_token"] < most["updates_per_token"]
        assert most["mean_kl"] == rows["numerics"]["mean_kl"]
        assert few["changed"] == {parameter: 7}
    assert set(rows["numerics"]["by_operator"]) == set(OPERATORS) - {"embedding"}
    assert rows["bits/6"]["mean_kl"] > rows["numerics"]["mean_kl"]


@pytest.mark.parametrize("quick", [True, False])
def test_every_point_of_a_sweep_is_valid(comparison, quick, monkeypatch):
    monkeypatch.setattr(sweeps, "start", lambda _: Change(Numerics(), Whole.of_bits(5)))
    object.__setattr__(comparison.settings, "quick", quick)
    points = list(sweeps.points(comparison))
    object.__setattr__(comparison.settings, "quick", True)
    assert len({point.key for point in points}) == len(points) >= 18
    assert max(p.value for p in points if p.parameter == "inputs") == 15


def test_the_model_of_cost_is_what_a_simulation_counts(comparison):
    found = updates_per_token(calls(comparison, 8), comparison.numerics, comparison.realisation)["by_operator"]
    with torch.inference_mode(), spikeplug.simulate(comparison.arm.spiking) as simulation:
        comparison.arm.spiking(input_ids=comparison.windows[:1], use_cache=False)
    assert found.keys() == simulation.operators.keys()
    for name, events in simulation.operators.items():
        if name != "attention":  # its simulation has the masked keys, too
            assert found[name] == pytest.approx(events.membrane_updates / 16, rel=0.05), name


def test_attention_that_is_written_out_has_rows_too():
    """GPT-J multiplies matrices; its whole form has no operator `attention`."""
    from transformers import GPTJConfig, GPTJForCausalLM

    torch.manual_seed(0)
    config = GPTJConfig(vocab_size=256, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, n_positions=64)
    model = GPTJForCausalLM(config).eval()
    spiking, _ = spiking_copy(model, byte_tokenizer(), WHOLE, Numerics())
    settings = Settings(context=16, tokens=16, recipe=WHOLE)
    comparison = Comparison(model, torch.arange(32, 48).view(1, 16), settings, spiking)
    kinds = calls(comparison, 8)
    products = {(call.available, call.outputs): call.rows for call in kinds if call.operator == "matmul"}
    assert products == {(8, 16): 8.0, (16, 8): 8.0}  # scores and values: two layers of four heads
    found = updates_per_token(kinds, comparison.numerics, comparison.realisation)["by_operator"]
    simulated = 0
    for call in kinds:
        if call.operator == "matmul":  # a row alone, as with a cache: its matrix is encoded for it
            events = Events(comparison.realisation)
            library.OPERATORS["matmul"](*call.arguments, numerics=comparison.numerics, events=events)
            simulated += round(call.rows * events.membrane_updates)
    assert found["matmul"] == simulated > 0


def test_rasters_show_every_operator(finished_whole):
    operators = of(finished_whole, "rasters")["operators"]["operators"]
    assert set(operators) == set(OPERATORS) - {"embedding"}
    membrane = next(p for p in operators["linear"]["populations"] if p["name"] == "linear/membrane")
    assert membrane["groups"] * membrane["size"] == 12  # of 32 outputs


def test_a_row_is_cut_between_blocks():
    x, weight = torch.zeros(1, 64), torch.zeros(5, 64, dtype=torch.int8)
    how = (torch.ones(5, dtype=torch.int32), torch.zeros((), dtype=torch.int32), None, 127)
    for (block, rotation), width, kept in (((0, 0), 12, 12), ((8, 0), 12, 16), ((8, 12), 12, 24), ((0, 64), 12, 64)):
        call = Call("linear", (x, weight, *how, block, rotation), 1)
        assert call.elements(width) == kept
        assert [t.shape for t in call.cut(width, 3)[:3]] == [(1, kept), (3, kept), (3,)]
        assert call.cut(width)[1].shape == (5, kept)


def test_a_model_of_another_family(tmp_path):
    """Transposed weights with biases, no gate, no rotary tables, other names."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3, bos_token_id=None, eos_token_id=None)).eval()
    studies = ("propagation", "budget", "location", "rasters")
    settings = Settings(**SETTINGS, recipe=WHOLE, studies=studies)
    files = run(model, byte_tokenizer(), settings, tmp_path / "run", FACTS)
    rows = of(files, "budget")
    assert rows["nothing"]["mean_kl"] < 1e-10
    assert rows["alone/linear weight, transformer.h.*.mlp.c_fc"]["mean_kl"] > 1e-6
    assert {"alone/embedding weight, transformer.wte", "alone/embedding weight, transformer.wpe"} <= rows.keys()
    assert len(of(files, "propagation")["residual/chosen"]["depths"]) == 3
    assert render(files.header, files.rows)


def test_effort_searches_levels(finished_whole):
    rows = of(finished_whole, "effort")
    tries = [values for key, values in rows.items() if key.startswith("try/")]
    assert tries[0]["parameters"] == {"inputs": 256, "cache": 127, "bits": 16}
    for key, values in rows.items():
        if key.startswith("target/") and values["met"]:
            assert rows[f"try/{','.join(map(str, values['parameters'].values()))}"]
            assert {"inputs", "cache"} <= values["levels"].keys()


def test_the_model_stays_as_it_was(tmp_path):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(model, byte_tokenizer(), Settings(**SETTINGS, recipe=WHOLE, studies=("location",)), tmp_path / "run", FACTS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    spikeplug.convert(model)  # it is not converted


def test_the_recipe_operators_has_a_budget_too(tmp_path):
    rows = of(run_tiny(tmp_path / "run", studies=("budget",)), "budget")
    alone = [values["what"] for key, values in rows.items() if key.startswith("alone/")]
    assert alone == ["cos", "sin", "rms_norm", "attention", "rms_norm", "silu", "rms_norm", "rms_norm"]
    assert rows["nothing"]["mean_kl"] < rows["everything"]["mean_kl"] / 10


def test_another_recipe_is_refused_before_anything_is_converted(finished_whole, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "spiking_copy", lambda *a, **k: pytest.fail("the model was converted"))
    with pytest.raises(SpikeplugError, match=r"another recipe \(levels .*31"):
        run_tiny(finished_whole.path, recipe=Recipe(name="whole", bits=6, tokens=64))
    with pytest.raises(SpikeplugError, match=r"another recipe \(calibration .*32"):
        run_tiny(finished_whole.path, recipe=Recipe(name="whole", tokens=32))


SMALL = ("--quick", "--context", "16", "--tokens", "32", "--studies", "budget")


def command(*arguments):
    return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def whole_folder(tiny_folder):
    path = tiny_folder.parent / "whole"
    arguments = ["convert", tiny_folder, path, "--recipe", "whole", "--bits", "7", "--calibration-tokens", "64"]
    assert CliRunner().invoke(cli.app, list(map(str, arguments))).exit_code == 0
    return path


def test_a_folder_is_the_recipe_that_wrote_it(tiny_folder, whole_folder, tmp_path):
    records = []
    for name, arguments in (
        ("made", (tiny_folder, "--recipe", "whole", "--bits", "7", "--calibration-tokens", "64")),
        ("saved", (whole_folder, "--exact", tiny_folder)),
    ):
        path = tmp_path / f"{name}.json"
        result = command(*arguments, *SMALL, "--out", tmp_path / name, "--json", path)
        assert result.exit_code == 0, result.output
        assert "Error budget by kind" in result.stdout
        assert "Error budget by site" in result.stdout
        assert "linear weight, mlp.down_proj" in result.stdout
        records.append(json.loads(path.read_text(encoding="utf-8")))
        jsonschema.validate(records[-1], schema(), jsonschema.Draft202012Validator)
    made, saved = ([(row["key"], row["values"]) for row in record["studies"]["budget"]] for record in records)
    assert made == saved
    recipes = [record["arguments"]["recipe"] for record in records]
    assert recipes[0]["levels"] == recipes[1]["levels"]
    assert [recipe["saved"] for recipe in recipes] == [False, True]
    assert records[0]["arguments"]["numerics"] == records[1]["arguments"]["numerics"]


def test_refusals(tiny_folder, whole_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ((whole_folder,), "without float weights: add --exact with the float model"),
        ((whole_folder, "--exact", tiny_folder, "--recipe", "whole", "--bits", "7"), "so --recipe has no effect"),
        ((whole_folder, "--exact", tiny_folder, "--preset", "narrow"), "so --preset has no effect"),
        ((tiny_folder, "--exact", tiny_folder), "has float weights of its own: leave --exact out"),
        ((tiny_folder, "--bits", "7"), "add --recipe whole"),
        ((tiny_folder, "--recipe", "whole", "--dtype", "bfloat16"), "give --dtype float32"),
        ((tiny_folder, "--recipe", "half"), "unknown recipe"),
        ((tiny_folder, "--recipe", "whole", "--calibration", "/nowhere"), "/nowhere"),
        (("--from", "there", "--recipe", "whole"), "--from measures nothing, so --recipe has no effect"),
        (("--from", "there", "--exact", "model"), "--from measures nothing, so --exact has no effect"),
    ):
        result = command(*arguments, *(() if "--from" in arguments else SMALL))
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.stderr, (arguments, result.stderr)
        assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other"
    tiny_model(seed=1).save_pretrained(other)
    byte_tokenizer().save_pretrained(other)
    result = command(whole_folder, "--exact", other, *SMALL)
    assert result.exit_code == 2
    assert "do not stand for its weight in the exact model" in result.stderr
