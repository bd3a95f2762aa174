"""Fit: each limit is compared with every population, what is not public is unchecked, and cores are counted by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import save_tiny_model, tiny_model
from torch import nn
from typer.testing import CliRunner

import spikeplug
from spikeplug import cli
from spikeplug.conversion.simulation import Simulation
from spikeplug.errors import SpikeplugError
from spikeplug.hardware.chips import LIMITS, Chip, Limit, chip_names, load_chip
from spikeplug.hardware.fit import Fit, Placed, distinct_magnitudes, fit, fit_all, overview, place_on_cores
from spikeplug.neurons import Events, Needs, Population
from spikeplug.primitives.arithmetic import Counted
from spikeplug.primitives.divide import DivideSpec

GROUP, RESTORING = spikeplug.Realisation(division="ordered"), spikeplug.Realisation()


def chip(**limits: Any) -> Chip:
    return Chip("A", "B", "", {name: Limit(value, "a paper", "document") for name, value in limits.items()})


def of(*populations: Population) -> Events:
    return Events(populations={each.name: each for each in populations}, predicted=True)


def neurons(count: int = 1, width: int = 8, name: str = "a", **needs: Any) -> Population:
    return Population(name, "accumulator", width=width, neurons=count, needs=Needs(**needs))


def division(realisation: spikeplug.Realisation) -> Events:
    events, numbers = Events(realisation, predicted=True), torch.arange(1, 256)
    Counted(spikeplug.Numerics(bits=8), "", events).divide(numbers, numbers.flip(0), DivideSpec(8, 8, 8, 256))
    return events


@pytest.fixture(scope="module")
def whole() -> tuple[nn.Module, Simulation]:
    model = tiny_model()
    spikeplug.convert(model, recipe="whole", calibration=False)
    with torch.inference_mode(), spikeplug.count(model) as counted:
        model(torch.arange(5)[None], use_cache=False)
    return model, counted


@pytest.mark.parametrize(
    ("limit", "value", "need", "beyond"),
    [
        ("weight_bits", 7, {"weight_bits": 8}, 1),
        ("weights", 4, {"weights": 9}, 5),
        ("threshold_bits", 17, {"threshold": "constant", "threshold_bits": 20}, 3),
        ("spike_bits", 1, {"arriving_bits": 5}, 4),
        ("fan_in", 256, {"fan_in": 1000}, 744),
        ("core_memory_bits", 1 << 10, {"fan_in": 500, "weight_bits": 2}, 476),
        ("leak", (0.0, 1.0), {"leak": 2.0}, None),
        ("leak", (1.0, 1.0), {"leak": 0.0}, None),
        ("reset", ("zero",), {"soft_reset": True}, None),
        ("compare", (">",), {"soft_reset": True}, None),
        ("threshold", ("constant",), {"threshold": "moving"}, None),
        ("gates", ("constant",), {"gated": True}, None),
    ],
)
def test_a_limit_that_is_exceeded_says_by_how_much_and_where(
    limit: str, value: Any, need: dict[str, Any], beyond: int | None
) -> None:
    events = of(neurons(name="small"), neurons(name="large", **need))
    verdict = fit(events, chip(**{limit: value}))[limit]
    assert (verdict.verdict, verdict.beyond, verdict.population) == ("exceeds", beyond, "large")
    assert (verdict.exceeding, verdict.names) == (1, ("large",))
    assert (verdict.source, verdict.evidence) == ("a paper", "document")
    assert fit(of(neurons(name="small")), chip(**{limit: value}))[limit].verdict == "fits"
    assert fit(events, chip())[limit].verdict == "unchecked"


def test_the_state_is_the_width_of_the_membrane() -> None:
    verdict = fit(of(neurons(width=25), neurons(width=24, name="b")), chip(state_bits=24))["state_bits"]
    assert (verdict.verdict, verdict.needed, verdict.beyond, verdict.population) == ("exceeds", 25, 1, "a")
    assert (verdict.exceeding, verdict.concerned) == (1, 2)


@given(needs=st.lists(st.integers(1, 40), min_size=1, max_size=6), value=st.integers(1, 40))
def test_a_limit_fits_exactly_if_no_need_is_larger(needs: list[int], value: int) -> None:
    events = of(*(neurons(name=str(i), fan_in=need) for i, need in enumerate(needs)))
    verdict = fit(events, chip(fan_in=value))["fan_in"]
    assert verdict.verdict == ("fits" if max(needs) <= value else "exceeds")
    assert verdict.needed == max(needs)
    assert verdict.exceeding == sum(need > value for need in needs)
    at_least = Chip("A", "B", "", {"fan_in": Limit(value, "a paper", "used", at_least=True)})
    assert fit(events, at_least)["fan_in"].verdict == ("fits" if max(needs) <= value else "unchecked")


def test_no_limit_without_a_number_fits(whole: tuple[nn.Module, Simulation]) -> None:
    model, counted = whole
    nothing = fit(counted, chip(), model=model)
    assert {verdict.verdict for verdict in nothing.verdicts} == {"unchecked"}
    for found in fit_all(counted, chip_names(), model=model):
        for verdict in found.verdicts:
            assert verdict.allowed is not None or verdict.verdict == "unchecked"
            assert verdict.source or verdict.verdict == "unchecked"


def test_every_limit_has_a_verdict() -> None:
    found = fit(of(neurons()), chip())
    assert [verdict.limit for verdict in found.verdicts] == [name for name in LIMITS if name != "neurons_per_core"]


def test_a_restoring_neuron_exceeds_loihi_1_in_leak_comparison_and_reset_and_an_ordered_group_does_not() -> None:
    exceeded = {"leak", "reset", "compare"}
    found = {name: fit(division(r), "loihi1") for name, r in (("one neuron", RESTORING), ("group", GROUP))}
    assert {each.limit for each in found["one neuron"].verdicts if each.verdict == "exceeds"} == exceeded
    group = found["group"]
    assert all(group[name].verdict != "exceeds" for name in (*exceeded, "fan_in"))
    # The operands are handed over in one step, each as one number.
    assert group["spike_bits"].verdict == "exceeds"


def test_an_ordered_group_needs_no_more_weights_than_truenorth_has() -> None:
    found = fit(division(GROUP), "truenorth")
    assert (found["weights"].verdict, found["weights"].needed) == ("fits", 3)
    assert found["leak"].verdict == "fits"
    assert fit(division(RESTORING), "truenorth")["leak"].verdict == "exceeds"


def test_software_neurons_hold_both() -> None:
    for realisation in (RESTORING, GROUP):
        assert not [v for v in fit(division(realisation), "spinnaker2").verdicts if v.verdict == "exceeds"]


def test_linear_layers_of_a_whole_model_are_placed_with_their_weights(whole: tuple[nn.Module, Simulation]) -> None:
    model, counted = whole
    path = "model.layers.0.mlp.gate_proj"
    entry = next(each for each in counted.entries if each.path == path)
    membrane = entry.events.populations["linear/membrane"]
    assert membrane.needs is not None
    weight = model.get_submodule(path).get_parameter("weight")
    assert membrane.needs.fan_in == 2 * weight.shape[1]
    assert membrane.needs.weight_bits == int(weight.to(torch.int64).abs().max()).bit_length()
    assert not membrane.needs.gated
    distinct = max(
        len({abs(int(w)) for w in row} - {0})
        for name, module in model.named_modules()
        if name in {each.path for each in counted.entries if each.operator == "linear"}
        for row in module.get_parameter("weight")
    )
    found = fit(counted, "truenorth", model=model)["weights"]
    assert (found.verdict, found.needed, found.population) == ("exceeds", 2 * distinct, "linear/membrane")


def test_weights_that_no_one_counted_are_unchecked(whole: tuple[nn.Module, Simulation]) -> None:
    model, counted = whole
    enough = chip(weights=300)
    assert fit(counted, enough, model=model)["weights"].verdict == "fits"
    found = fit(counted, enough)["weights"]
    assert found.verdict == "unchecked"
    assert "do not say" in found.note


@given(st.lists(st.lists(st.integers(-128, 127), min_size=3, max_size=3), min_size=1, max_size=5))
def test_distinct_magnitudes(rows: list[list[int]]) -> None:
    expected = max(len({abs(each) for each in row} - {0}) for row in rows)
    assert distinct_magnitudes(torch.tensor(rows, dtype=torch.int8)) == expected


def placed(*populations: Population) -> list[Placed]:
    return [Placed("", each, None) for each in populations]


def test_whole_populations_are_placed_in_order() -> None:
    small = chip(neurons_per_core=100, core_memory_bits=1000)
    one_bit = {"weight_bits": 1}  # 2 bits a neuron, with the sign
    assert place_on_cores(placed(), small) == 0
    assert place_on_cores(placed(neurons(60, **one_bit), neurons(40, **one_bit)), small) == 1
    assert place_on_cores(placed(neurons(60, **one_bit), neurons(41, **one_bit)), small) == 2
    # 60 and 41 take a core each; the second one has room for 59 more.
    assert place_on_cores(placed(neurons(60), neurons(41), neurons(59)), small) == 2
    assert place_on_cores(placed(neurons(250, **one_bit), neurons(50, **one_bit)), small) == 3
    # 100 bits a neuron: 10 neurons a core.
    assert place_on_cores(placed(neurons(25, fan_in=50, weight_bits=1)), small) == 3
    # A neuron of 2,500 bits takes three cores.
    assert place_on_cores(placed(neurons(2, fan_in=1250, weight_bits=1)), small) == 6


@given(
    counts=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 40)), min_size=1, max_size=8),
    most=st.integers(1, 200) | st.none(),
    memory=st.integers(200, 5000) | st.none(),
)
def test_cores_are_at_least_what_neurons_and_memory_ask_for(
    counts: list[tuple[int, int]], most: int | None, memory: int | None
) -> None:
    limits = {"neurons_per_core": most, "core_memory_bits": memory}
    populations = placed(*(neurons(count, fan_in=fan_in) for count, fan_in in counts))
    cores = place_on_cores(populations, chip(**{name: value for name, value in limits.items() if value is not None}))
    if most is None and memory is None:
        assert cores is None
        return
    assert cores is not None
    least = [1]
    if most is not None:
        least.append(math.ceil(sum(count for count, _ in counts) / most))
    if memory is not None:
        least.append(math.ceil(sum(count * 2 * fan_in for count, fan_in in counts) / memory))
    assert max(least) <= cores <= sum(count for count, _ in counts)


def test_cores_are_unchecked_if_a_limit_of_a_core_is_not_public_unless_the_lower_bound_exceeds() -> None:
    events = of(neurons(250, weight_bits=1))
    both = {"neurons_per_core": 100, "core_memory_bits": 10_000}
    assert fit(events, chip(cores=3, **both))["cores"].verdict == "fits"
    assert fit(events, chip(cores=3, neurons_per_core=100))["cores"].verdict == "unchecked"
    found = fit(events, chip(cores=2, neurons_per_core=100))["cores"]
    assert (found.verdict, found.needed, found.beyond) == ("exceeds", 3, 1)
    found = fit(events, chip(cores=2))["cores"]
    assert (found.verdict, found.needed) == ("unchecked", None)


def test_neurons_synapses_and_hops_are_totals() -> None:
    train = Population("a/operand", "input", width=1, neurons=5, spikes=70)
    events = of(neurons(10, fan_in=3), neurons(5, fan_in=4, name="b"), train)
    found = fit(events, chip(neurons=15, synapses=49), hops=2.5)
    assert (found.neurons, found.synapses, found.spikes, found.router_hops) == (15, 50, 70, 175.0)
    assert (found["neurons"].verdict, found["synapses"].verdict, found["synapses"].beyond) == ("fits", "exceeds", 1)


def test_populations_that_do_not_say_what_they_need_keep_limits_from_fitting() -> None:
    silent = Population("b", "threshold", width=4, neurons=3)
    found = fit(of(neurons(), silent), chip(fan_in=9, neurons=9, state_bits=1))
    assert found.silent == 1
    assert {found[name].verdict for name in ("fan_in", "neurons")} == {"unchecked"}
    assert "1 populations do not say" in found["fan_in"].note
    assert found["state_bits"].verdict == "exceeds"


def test_the_record_is_plain_and_the_tables_name_every_limit(whole: tuple[nn.Module, Simulation]) -> None:
    model, counted = whole
    fits = fit_all(counted, chip_names(), model=model)
    for found in fits:
        values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert [each["limit"] for each in values["verdicts"]] == [each.limit for each in found.verdicts]
        assert found.table().row_count == len(found.verdicts)
    assert overview(fits).row_count == len(fits[0].verdicts)
    assert "Loihi 1: 15 limits" in str(fits[chip_names().index("loihi1")])


@pytest.mark.parametrize("hops", [-1, math.nan, math.inf, "2"])
def test_hops_are_a_number(hops: Any) -> None:
    with pytest.raises(SpikeplugError, match="mean hops"):
        fit(of(neurons()), chip(), hops=hops)


def test_what_was_not_counted_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(SpikeplugError, match="not converted"):
        fit(model, "loihi1")  # type: ignore[arg-type]
    spikeplug.convert(model)
    with pytest.raises(SpikeplugError, match="not the model"):
        fit(model, "loihi1")  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="not a dict"):
        fit({}, "loihi1")  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="hold no population"):
        fit(Events(predicted=True), "loihi1")
    simulated = Events()
    spikeplug.functional.softmax(torch.randn(8), events=simulated)
    with pytest.raises(SpikeplugError, match=r"use spikeplug\.count"):
        fit(simulated, "loihi1")
    with pytest.raises(SpikeplugError, match="choose akida"):
        fit(of(neurons()), "loihi3")


def test_a_chip_may_be_given() -> None:
    own = replace(load_chip("loihi1"), name="own")
    assert isinstance(spikeplug.fit(of(neurons()), own), Fit)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["fit", *map(str, arguments)])


@pytest.mark.parametrize("context", [1, 20])
def test_the_command_counts_one_token(folder: Path, tmp_path: Path, context: int) -> None:
    path, page = tmp_path / "fit.json", tmp_path / "fit.html"
    whole = ("--recipe", "whole", "--calibration", "none")
    result = run(folder, "--context", context, *whole, "--hops", 2, "--json", path, "--html", page)
    assert result.exit_code == 0, result.output
    record = json.loads(path.read_text(encoding="utf-8"))
    assert [each["chip"] for each in record["fits"]] == [load_chip(name).name for name in chip_names()]
    found = record["fits"][0]
    assert found["router_hops"] == 2 * found["spikes"] > 0
    assert "Nothing ran on a chip" in result.stdout
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert all(load_chip(name).name in text for name in chip_names())
    # The rows of one token: the output layer has a neuron per token id.
    model = tiny_model()
    spikeplug.convert(model, recipe="whole", calibration=False)
    with torch.inference_mode(), spikeplug.count(model) as counted:
        model(torch.zeros(1, 1, dtype=torch.int64), use_cache=False)
    synapses = fit(counted, "loihi1").synapses
    assert found["synapses"] == synapses if context == 1 else found["synapses"] > synapses


def test_the_command_names_one_chip_with_its_sources(folder: Path) -> None:
    result = run(folder, "--chip", "loihi2", "--context", 4)
    assert result.exit_code == 0, result.output
    assert "Loihi 2 technology brief" in result.stdout
    assert "Linear layers are in floating point" in result.stdout


def test_a_folder_that_was_saved_whole_is_as_it_was_saved(folder: Path) -> None:
    saved = folder.parent / "whole"
    whole = ("--recipe", "whole", "--calibration", "none")
    made = CliRunner().invoke(cli.app, ["convert", str(folder), str(saved), *whole])
    assert made.exit_code == 0, made.output
    found, fresh = run(saved, "--context", 8), run(folder, "--context", 8, *whole)
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[1:] == fresh.stdout.splitlines()[1:]
    refused = run(saved, *whole)
    assert refused.exit_code == 2
    assert "--recipe has no effect" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--chip", "loihi3"), "choose akida, darwin3"),
        (("--context", 0), "--context is 0"),
        (("--context", 500), "above the model's 256 positions"),
        (("--hops", -1), "mean hops"),
    ],
)
def test_bad_arguments_are_one_line(folder: Path, arguments: tuple[object, ...], message: str) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
