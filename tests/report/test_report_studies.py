"""The rows of each study are what they say."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import jsonschema
import pytest
import torch
from tiny_model import tiny_model
from tiny_report import run_tiny

import spikeplug
from spikeplug import Events, Numerics, Realisation, functional
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.layers import find_layers
from spikeplug.presets import PRESETS
from spikeplug.report import STUDIES, make_record, schema
from spikeplug.report.comparison import Change, Comparison
from spikeplug.report.recorder import Recorder
from spikeplug.report.sections import effort, sweeps
from spikeplug.report.settings import Settings


@pytest.fixture
def comparison():
    return Comparison(tiny_model(), torch.arange(32).view(2, 16), Settings(context=16, tokens=32, quick=True))


def of(files, study):
    return {row["key"]: row["values"] for row in files.rows if row["study"] == study}


def test_the_record_fits_its_schema(finished):
    record = make_record(finished.header, finished.rows)
    jsonschema.validate(record, schema(), jsonschema.Draft202012Validator)
    assert list(record["studies"]) == list(STUDIES)


def test_no_row_is_written_twice(finished):
    keys = [(row["study"], row["key"]) for row in finished.rows]
    assert len(keys) == len(set(keys))


def test_nothing_converted_is_no_error_at_all(finished):
    nothing = of(finished, "ablation")["share/0"]
    assert nothing["layers"] == []
    assert nothing["change_percent"] == nothing["mean_kl"] == nothing["max_kl"] == 0
    assert nothing["agreement_percent"] == 100
    assert nothing["exact_perplexity"] == nothing["converted_perplexity"]


def test_before_the_first_layer_there_is_no_error(finished):
    for arm in ("chosen", "published"):
        depths = of(finished, "propagation")[f"residual/{arm}"]["depths"]
        assert [point["depth"] for point in depths] == [0, 1, 2]
        assert depths[0]["relative_error"] == depths[0]["cosine_distance"] == 0
        assert 0 < depths[1]["relative_error"] < 0.5


def test_hooks_measure_in_floating_point(comparison):
    """Inside a converted model, whatever torch function a hook called would be spiking too."""
    exact, converted = (comparison.residual_stream(change) for change in (None, Change(Numerics())))
    assert torch.equal(exact[0], converted[0])
    error = (converted[2].double() - exact[2].double()).norm() / exact[2].double().norm()
    assert 0 < error < 1e-3


def test_our_default_is_better_than_the_published_recipe_everywhere(finished):
    rows = of(finished, "propagation")
    for kind, pick in (
        ("residual", lambda values: values["depths"][-1]["relative_error"]),
        ("attention", lambda values: sum(map(sum, values["kl"]))),
        ("position", lambda values: values["mean_kl"]),
    ):
        assert pick(rows[f"{kind}/chosen"]) < pick(rows[f"{kind}/published"]) / 10


def test_attention_is_compared_head_by_head(finished):
    rows = of(finished, "propagation")["attention/chosen"]
    assert [len(row) for row in rows["kl"]] == [4, 4]
    assert all(0 <= value < 1e-3 for row in rows["variation"] for value in row)


def test_buckets_hold_every_position_once(finished):
    buckets = of(finished, "propagation")["position/chosen"]["buckets"]
    assert [(b["from"], b["to"]) for b in buckets] == [(1, 1), (2, 3), (4, 7), (8, 15)]


def test_ablation_has_each_operator_each_layer_and_all(finished):
    keys = list(of(finished, "ablation"))
    operators = [key.split("/")[1] for key in keys if key.startswith("operator/")]
    assert operators == ["attention", "cos", "rms_norm", "silu", "sin", "all"]
    assert [key for key in keys if key.startswith("layer/")] == ["layer/1", "layer/2"]
    assert [key for key in keys if key.startswith("share/")] == [f"share/{share}" for share in (0, 25, 50, 75, 100)]


def test_one_layer_alone_converts_one_layer():
    model, numerics = tiny_model(), Numerics()
    layers = find_layers(model)
    assert layers.path == "model.layers"
    report = spikeplug.convert(model, numerics, exclude=layers.all_but([1]))
    assert {re.match(r"model\.layers\.\d", entry.path)[0] for entry in report.replaced} == {"model.layers.1"}
    assert len(report.replaced) == 4


def test_layers_are_spread_over_the_depth():
    layers = find_layers(tiny_model())
    object.__setattr__(layers, "modules", (torch.nn.Identity(),) * 30)
    assert layers.spread(30) == tuple(range(30))
    assert layers.spread(3) == (4, 14, 24)
    assert layers.spread(0) == ()


def test_a_model_without_layers_is_refused():
    with pytest.raises(SpikeplugError, match="no list of layers"):
        find_layers(torch.nn.Linear(2, 2))


def test_figures_agree_with_the_evaluation(comparison):
    from tiny_model import byte_tokenizer

    from spikeplug.evaluation import Settings as Evaluated
    from spikeplug.evaluation import evaluate

    text = "".join(f"line {i}: {i * i}\n" for i in range(20))
    found = evaluate(tiny_model(), byte_tokenizer(), Evaluated(contexts=(16,), tokens=32, choices=1, text=text))
    windows = torch.tensor(byte_tokenizer()(text)["input_ids"][:32]).view(2, 16)
    mine = Comparison(tiny_model(), windows, Settings(context=16, tokens=32)).figures(Change(Numerics()))
    for name in (
        "exact_perplexity",
        "converted_perplexity",
        "change_percent",
        "mean_kl",
        "max_kl",
        "agreement_percent",
    ):
        assert mine[name] == pytest.approx(getattr(found.perplexity[0], name), rel=1e-6, abs=1e-9), name


def test_sweeps_cover_every_parameter(finished):
    rows = of(finished, "sweeps")
    parameters = {values["parameter"] for key, values in rows.items() if key != "numerics"}
    piecewise = {"softmax_half_range", "piecewise_segments", "half_range"}
    assert parameters == {"bits", "working_bits", "segments", "fraction_bits", "iterations"} | piecewise
    assert rows["bits/4"]["mean_kl"] > rows["bits/8"]["mean_kl"] > rows["bits/16"]["mean_kl"]
    assert rows["bits/4"]["updates_per_token"] < rows["bits/16"]["updates_per_token"]
    assert set(rows["numerics"]["by_operator"]) == {"attention", "cos", "rms_norm", "silu", "sin"}


@pytest.mark.parametrize("numerics", [Numerics(), PRESETS["paper"].numerics, Numerics(bits=4)])
@pytest.mark.parametrize("quick", [True, False])
def test_every_point_of_a_sweep_is_valid(comparison, numerics, quick):
    comparison.numerics = numerics
    object.__setattr__(comparison.settings, "quick", quick)
    points = list(sweeps.points(comparison))
    assert len({point.key for point in points}) == len(points) >= 24
    assert sweeps.steps(comparison) == len(points) + 1


def test_the_cost_is_what_a_simulation_counts(comparison):
    """Rows of a tiny model are small enough to simulate whole."""
    from spikeplug.library import OPERATORS
    from spikeplug.report.capture import calls
    from spikeplug.report.cost import updates_per_token

    found, numerics, expected = calls(comparison, 8), Numerics(bits=8), Counter()
    for realisation in (Realisation(), Realisation(code="count", steps=512, division="ordered")):
        possible = replace(realisation, steps=256) if realisation.steps else realisation  # T is at most 2^n
        expected.clear()
        for call in found:
            events = Events(possible)
            OPERATORS[call.operator](*call.arguments, numerics=numerics, events=events)
            expected[call.operator] += round(call.rows * events.membrane_updates)
        cost = updates_per_token(found, numerics, realisation)
        assert cost == {"updates_per_token": expected.total(), "by_operator": dict(expected)}


def test_one_row_stands_for_all(comparison):
    """But in attention: of a whole window in one call, neurons of hidden keys are updated, too."""
    from spikeplug.report.capture import calls
    from spikeplug.report.cost import updates_per_token

    cost = updates_per_token(calls(comparison, 8), comparison.numerics, comparison.realisation)["by_operator"]
    with comparison.converted(Change(comparison.numerics)), spikeplug.count(comparison.model) as counted:
        comparison.model(input_ids=comparison.windows[:1], use_cache=False)
    for name, events in counted.operators.items():
        assert cost[name] == pytest.approx(events.membrane_updates / 16, rel=0.01) or name == "attention"


def test_ordered_groups_of_any_size_have_a_cost(comparison):
    """2^22 neurons per quotient are too many to simulate."""
    from spikeplug.report.capture import calls
    from spikeplug.report.cost import updates_per_token

    kinds, ordered = calls(comparison, 8), Realisation(division="ordered")
    costs = [updates_per_token(kinds, Numerics(bits=n, working_bits=24), ordered)["updates_per_token"] for n in (8, 20)]
    assert costs[1] > 1000 * costs[0]


def test_the_realisation_sets_the_cost_and_not_the_figures(tmp_path):
    """A file or a setting may choose other neurons for the same bits."""
    ours = run_tiny(tmp_path / "ours", numerics=Numerics(bits=6), studies=("sweeps",))
    ordered = Realisation(code="count", steps=64, division="ordered")
    theirs = run_tiny(tmp_path / "theirs", numerics=Numerics(bits=6), realisation=ordered, studies=("sweeps",))
    assert theirs.header["arguments"]["realisation"] == ordered.to_dict()
    for one, other in zip(ours.rows, theirs.rows, strict=True):
        assert one["values"]["mean_kl"] == other["values"]["mean_kl"]
        assert one["values"]["updates_per_token"] < other["values"]["updates_per_token"]
    with pytest.raises(SpikeplugError, match="another realisation"):
        run_tiny(tmp_path / "ours", numerics=Numerics(bits=6), realisation=ordered, studies=("sweeps",))


def test_channels_share_the_error(finished):
    rows = of(finished, "location")
    assert [len(row) for row in rows["heads"]["relative_error"]] == [4, 4]
    last = rows["channels"]["depths"][-1]
    shares = [channel["share"] for channel in last["by_error"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1
    assert len(rows["channels"]["energy"]) == 32
    assert rows["channels"]["depths"][0]["by_error"][0]["share"] == 0


def population(name, kind="threshold"):
    return SimpleNamespace(name=name, kind=kind, width=7)


def test_a_recorder_keeps_each_population_step_by_step():
    recorder = Recorder()
    for step in range(3):
        membrane = torch.arange(6).view(2, 3) + 10 * step
        recorder(population("softmax/divide"), membrane, membrane % 2 == 0)
        recorder(population("softmax/sum", "accumulator"), membrane[:, :1], None)
    recorder(population("softmax/divide"), torch.arange(4), torch.arange(4) > 2)  # of another shape: another raster
    divide, total, again = (raster.to_dict() for raster in recorder.rasters)
    assert (divide["name"], divide["kind"], divide["width"]) == ("softmax/divide", "threshold", 7)
    assert (divide["groups"], divide["size"], divide["steps"]) == (2, 3, 3)
    assert divide["spikes"] == [[step, neuron] for step in range(3) for neuron in (0, 2, 4)]
    assert divide["traced"] == [1, 4]
    assert divide["membranes"] == [[1, 11, 21], [4, 14, 24]]
    assert (total["kind"], total["groups"], total["size"], total["spikes"]) == ("accumulator", 2, 1, [])
    assert (again["name"], again["spikes"], again["membranes"]) == ("softmax/divide", [[0, 3]], [[0], [1], [2], [3]])


def test_of_large_populations_evenly_spaced_neurons_are_kept():
    recorder = Recorder()
    recorder(population("x"), torch.zeros(100, 1000), torch.ones(100, 1000, dtype=torch.bool))
    recorder(population("y"), torch.tensor(5), torch.tensor(True))
    large, one = (raster.to_dict() for raster in recorder.rasters)
    assert len(large["spikes"]) == 12 * 64
    assert [0, 0] in large["spikes"]
    assert [0, 99_999] in large["spikes"]
    assert len(large["membranes"]) == 6
    assert (one["groups"], one["size"], one["spikes"], one["membranes"]) == (1, 1, [[0, 0]], [[5]])


def test_an_observed_simulation_gives_the_same_bits_and_counts():
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    recorder = Recorder()
    plain, observed = Events(), Events(observer=recorder)
    assert torch.equal(functional.silu(x, events=plain), functional.silu(x, events=observed))
    names = ("spikes", "synops", "membrane_updates", "compares", "steps", "table_reads")
    assert [getattr(plain, name) for name in names] == [getattr(observed, name) for name in names]
    updates = sum(raster.size * raster.groups * len(raster.membranes) for raster in recorder.rasters)
    assert updates == plain.membrane_updates
    assert {"threshold", "accumulator"} <= {raster.kind for raster in recorder.rasters}


def test_rasters_show_every_operator(finished):
    values = of(finished, "rasters")["operators"]
    assert set(values["operators"]) == {"attention", "cos", "rms_norm", "silu", "sin"}
    for found in values["operators"].values():
        assert found["populations"]
        for population in found["populations"]:
            neurons = population["groups"] * population["size"]
            assert all(0 <= s < population["steps"] and 0 <= n < neurons for s, n in population["spikes"])
            assert all(len(trace) == population["steps"] for trace in population["membranes"])


def test_the_search_finds_the_smallest_of_a_known_landscape():
    def enough(numerics):
        return numerics.bits >= 7 and numerics.working_bits >= 12 and numerics.segments >= 8

    found = effort.search(Numerics(), enough)
    assert (found.bits, found.working_bits, found.segments) == (7, 12, 8)
    # The run's own numerics are too small: the search starts from wider ones.
    small = Numerics(bits=4, working_bits=8, segments=2)
    assert effort.search(small, enough) == Numerics(bits=7, working_bits=12, segments=8)
    assert effort.search(Numerics(), lambda numerics: False) is None


def test_effort_meets_its_targets(finished):
    rows = of(finished, "effort")
    for key, values in rows.items():
        if key.startswith("target/") and values["met"]:
            assert abs(values["change_percent"]) + values["standard_error_percent"] <= values["target_percent"]
            assert rows[f"try/{values['bits']},{values['working_bits']},{values['segments']}"]
    bits = [rows[f"target/{target}"].get("bits", 99) for target in ("1", "0.5", "0.1")]
    assert bits == sorted(bits)


def test_the_published_recipe_has_a_report_too(tmp_path):
    studies = ("propagation", "location", "rasters")
    files = run_tiny(tmp_path / "run", numerics=PRESETS["paper"].numerics, studies=studies, token=3)
    assert [row["key"] for row in files.rows] == [
        *(f"{kind}/chosen" for kind in ("residual", "attention", "position")),
        *("heads", "channels", "operators"),
    ]


def test_a_model_of_another_family(tmp_path):
    """No rotary tables, no gate, other names, and an attention that hands out no probabilities when converted."""
    from tiny_model import byte_tokenizer
    from tiny_report import FACTS, SETTINGS
    from transformers import GPT2Config, GPT2LMHeadModel

    from spikeplug.report import render, run

    numerics = GPT2Config(
        vocab_size=256, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=None, eos_token_id=None
    )
    model = GPT2LMHeadModel(numerics).eval()
    settings = Settings(**SETTINGS, studies=("propagation", "location", "rasters"))
    files = run(model, byte_tokenizer(), settings, tmp_path / "run", FACTS)
    assert [len(row) for row in of(files, "propagation")["attention/chosen"]["kl"]] == [4, 4]
    assert set(of(files, "rasters")["operators"]["operators"]) == {"attention", "gelu", "layer_norm"}
    assert render(files.header, files.rows)
