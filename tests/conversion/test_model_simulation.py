"""Test a converted model in simulation: the same bits, every operator counted, and nothing outside of the model."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
import torch
from counting import same_events
from rich.console import Console
from tiny_models import logits, tiny_model, tokens
from torch import Tensor, nn
from transformers import PreTrainedModel

import spikeplug
from spikeplug import functional
from spikeplug import nn as spiking
from spikeplug.conversion import Simulation, convert, count, revert, simulate
from spikeplug.conversion.simulation import _short
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import COUNTS, Events
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.realisation import Realisation
from spikeplug.saturation import reset_saturations, saturations


def converted(family: str = "llama", **overrides: object) -> PreTrainedModel:
    model = tiny_model(family, **overrides)
    convert(model)
    return model


def run(model: PreTrainedModel, ids: Tensor) -> Simulation:
    with simulate(model) as simulation:
        logits(model, ids)
    return simulation


def test_outputs_are_those_of_the_closed_form(family: str) -> None:
    model, ids = converted(family), tokens()
    closed = logits(model, ids)
    with simulate(model) as simulation:
        simulated = logits(model, ids)
    assert torch.equal(closed, simulated)
    assert torch.equal(closed, logits(model, ids))
    assert {"attention", "silu", "rms_norm", "cos", "sin"} <= set(simulation.operators)


def test_a_prediction_is_the_simulation(family: str) -> None:
    """Every field of every population of every operator at every path, and the outputs."""
    model, ids = converted(family), tokens()
    closed = logits(model, ids)
    simulation = run(model, ids)
    with count(model) as counted:
        assert torch.equal(logits(model, ids), closed)
    same_entries(counted, simulation)


def same_entries(counted: Simulation, simulation: Simulation) -> None:
    assert [(e.path, e.operator, e.calls) for e in counted.entries] == [
        (e.path, e.operator, e.calls) for e in simulation.entries
    ]
    for one, other in zip(counted.entries, simulation.entries, strict=True):
        same_events(one.events, other.events)
    assert counted.total == simulation.total


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_predicted(preset: str) -> None:
    numerics = replace(PRESETS[preset].numerics, bits=6)  # few neurons where there is one per level
    norm = spiking.RMSNorm(nn.Parameter(torch.ones(4)), numerics=numerics)
    model, x = (
        nn.Sequential(norm, spiking.SiLU(numerics=numerics), spiking.Softmax(numerics=numerics)),
        torch.ones(2, 4),
    )
    with torch.no_grad(), simulate(model, preset) as simulation:
        model(x)
    with torch.no_grad(), count(model, preset) as counted:
        model(x)
    same_entries(counted, simulation)


def test_a_prediction_within_a_simulation_is_made_on_its_own() -> None:
    """Each block runs its own way, and neither changes what the other counts or what saturates."""
    model = nn.Sequential(spiking.SiLU())
    x = torch.tensor([[1.0, -3.0, torch.inf]])
    with simulate(model) as alone:
        model(x)
    reset_saturations()
    with simulate(model) as outer, count(model) as inner, count(model) as again:
        model(x)
    assert sum(saturations().values()) == 1
    assert inner.total == again.total == outer.total == alone.total
    assert all(entry.events.predicted for entry in inner.entries)


def test_every_operator_is_counted_where_it_runs() -> None:
    model = converted()
    simulation = run(model, tokens())
    found = {(entry.path, entry.operator): entry.calls for entry in simulation.entries}
    assert found == {
        ("model.rotary_emb", "cos"): 1,
        ("model.rotary_emb", "sin"): 1,
        ("model.norm", "rms_norm"): 1,
        **{(f"model.layers.{i}.self_attn", "attention"): 1 for i in range(2)},
        **{(f"model.layers.{i}.mlp.act_fn", "silu"): 1 for i in range(2)},
        **{(f"model.layers.{i}.{norm}", "rms_norm"): 1 for i in range(2) for norm in NORMS},
    }
    for sums in (simulation.operators, simulation.modules):
        assert sum(sums.values(), Events()) == simulation.total
    assert all(entry.events.membrane_updates > 0 for entry in simulation.entries)
    assert simulation.modules["model.norm"] == simulation.entries[-1].events


NORMS = ("input_layernorm", "post_attention_layernorm")


def test_populations_are_counted_over_the_whole_model() -> None:
    simulation = run(converted(), tokens(1, 5))
    found, total = simulation.populations, simulation.total
    assert all(name == population.name for name, population in found.items())
    assert {name.split("/")[0] for name in found} == set(simulation.operators)
    assert {"attention/divide", "silu/divide", "rms_norm/root"} <= set(found)
    assert sum(population.spikes for population in found.values()) == total.spikes
    calls = [entry.events.populations["silu/divide"] for entry in simulation.entries if entry.operator == "silu"]
    assert len(calls) == 2
    assert found["silu/divide"].compares == sum(call.compares for call in calls) > 0


def test_events_are_those_of_the_operator_called_with_events() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.SiLU())
    convert(model)
    x = torch.randn(3, 6)
    with simulate(model) as simulation, torch.no_grad():
        output = model(x)
    events = Events()
    assert torch.equal(output, functional.silu(model[0](x).detach(), events=events))
    assert simulation.operators == {"silu": events}


def test_runs_add_up_and_others_are_not_counted() -> None:
    model, other, ids = converted(), converted("qwen2"), tokens(1, 5)
    once = run(model, ids).total
    with simulate(model) as simulation:
        logits(model, ids)
        logits(other, ids)
        functional.softmax(torch.randn(2, 5))
        logits(model, ids)
    logits(model, ids)
    assert simulation.total == once + once


def test_a_part_of_a_model_runs_simulated() -> None:
    model = converted()
    with simulate(model) as simulation:
        model.model.norm(torch.randn(1, 32))
    assert set(simulation.modules) == {"model.norm"}
    with simulate(model.model.norm) as simulation:
        logits(model, tokens())
    assert set(simulation.operators) == {"rms_norm"}


def test_nested_blocks_each_count_their_own() -> None:
    model, ids = converted(), tokens(1, 5)
    once = run(model, ids).total
    with simulate(model) as outer:
        logits(model, ids)
        with simulate(model) as inner:
            logits(model, ids)
    assert inner.total == once
    assert outer.total == once + once


def test_the_realisation_changes_events_and_no_output() -> None:
    numerics = Numerics(bits=6, working_bits=10)  # few neurons where there is one per level
    model, x = nn.Sequential(spiking.SiLU(numerics=numerics), spiking.Softmax(numerics=numerics)), torch.randn(3, 8)
    closed, found = model(x), {}
    for realisation in (None, "default", Realisation(division="ordered"), "paper"):
        with simulate(model, realisation) as simulation:
            assert torch.equal(model(x), closed)
        assert simulation.total.realisation == simulation.realisation
        found[str(realisation)] = simulation.total.spikes, simulation.total.steps
    assert found["None"] == found["default"]
    assert len(set(found.values())) == 3
    with pytest.raises(SpikeplugError, match="unknown preset 'papre'"), simulate(model, "papre"):
        pass


def test_nested_blocks_may_have_realisations_of_their_own() -> None:
    """Each is simulated, and what saturates is counted once."""
    model = nn.Sequential(spiking.SiLU())
    x = torch.tensor([[1.0, -3.0, torch.inf]])
    with simulate(model) as alone:
        model(x)
    with simulate(model, "paper") as paper:
        model(x)
    reset_saturations()
    with simulate(model) as outer, simulate(model, "paper") as inner, simulate(model) as again:
        model(x)
    assert (outer.total, inner.total, again.total) == (alone.total, paper.total, alone.total)
    assert saturations() == {"input: not finite": 1}


def test_an_exception_keeps_what_was_counted_and_ends_the_simulation() -> None:
    model, ids = converted(), tokens(1, 5)
    handle = model.model.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), simulate(model) as simulation:
        logits(model, ids)
    handle.remove()
    assert "model.layers.0.mlp.act_fn" in simulation.modules
    assert "model.layers.1.mlp.act_fn" not in simulation.modules
    before = simulation.total
    logits(model, ids)
    assert simulation.total == before


def test_a_thread_counts_only_its_own_runs() -> None:
    model, ids = converted(), (tokens(1, 5), tokens(1, 9))
    alone = [run(model, x).entries for x in ids]
    closed = [logits(model, x) for x in ids]
    start, found, outputs = threading.Barrier(3), {}, {}

    def simulated(index: int) -> None:
        start.wait()
        with simulate(model) as simulation:
            outputs[index] = logits(model, ids[index])
        found[index] = simulation.entries

    def plain() -> None:
        start.wait()
        outputs[2] = logits(model, ids[0])

    threads = [threading.Thread(target=simulated, args=(i,)) for i in range(2)] + [threading.Thread(target=plain)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[0], found[1]] == alone
    assert all(torch.equal(outputs[i], closed[i % 2]) for i in range(3))


def test_a_thread_started_with_the_context_is_counted() -> None:
    model, ids = converted(), tokens(1, 5)

    async def elsewhere() -> Simulation:
        with simulate(model) as simulation:
            await asyncio.to_thread(logits, model, ids)
        return simulation

    assert asyncio.run(elsewhere()).entries == run(model, ids).entries


def test_generation_is_simulated() -> None:
    model, ids = converted(), tokens(1, 4)
    closed = model.generate(ids, max_new_tokens=3, do_sample=False)
    with simulate(model) as simulation:
        assert torch.equal(model.generate(ids, max_new_tokens=3, do_sample=False), closed)
    assert {entry.calls for entry in simulation.entries if entry.operator == "attention"} == {3}


def test_gradients_are_those_of_the_closed_form() -> None:
    model = converted(num_hidden_layers=1).train()

    def gradient() -> Tensor:
        model.zero_grad()
        model(input_ids=tokens(1, 5)).logits.sum().backward()
        return model.model.embed_tokens.weight.grad.clone()

    closed = gradient()
    with simulate(model) as simulation:
        assert torch.equal(gradient(), closed)
    assert simulation.total.spikes > 0


def test_modules_of_spikeplug_nn_need_no_conversion() -> None:
    model = nn.Sequential(spiking.Softmax(), spiking.SiLU())
    with simulate(model) as simulation:
        model(torch.randn(2, 5))
    assert list(simulation.modules) == ["0", "1"]


def test_what_is_shown() -> None:
    model = converted(num_hidden_layers=1)
    with simulate(model) as simulation:
        pass
    assert str(simulation) == "no spiking operator executed"
    assert simulation.total == Events()
    simulation = run(model, tokens(1, 5))
    assert str(simulation).startswith("7 operators simulated: ")
    shown = Console(width=120)
    with shown.capture() as captured:
        shown.print(simulation.table())
    assert "events of the simulation" in captured.get()
    with count(model) as counted:
        logits(model, tokens(1, 5))
    assert str(counted).startswith("7 operators counted: ")
    assert counted.table().title == "events, predicted"
    assert counted.to_dict() == simulation.to_dict()
    total = next(line for line in captured.get().splitlines() if "total" in line)
    cells = [cell.strip() for cell in total.split("│")[2:-1]]
    assert len(cells) == 1 + len(COUNTS)
    assert (cells[0], cells[1 + COUNTS.index("steps")]) == ("7", f"{simulation.total.steps:,}")
    found = simulation.to_dict()
    assert found["total"]["spikes"] == simulation.total.spikes
    assert sum(entry["calls"] for entry in found["entries"]) == 7


@pytest.mark.parametrize("given", [None, "model", torch.ones(2)])
def test_what_is_no_module_is_refused(given: object) -> None:
    with pytest.raises(SpikeplugError, match="give it a converted model"), simulate(given):  # type: ignore[arg-type]
        pass
    with pytest.raises(SpikeplugError, match="count takes a torch module"), count(given):  # type: ignore[arg-type]
        pass


def test_a_model_that_is_not_converted_is_refused_with_the_remedy() -> None:
    model = tiny_model()
    with pytest.raises(SpikeplugError, match=r"LlamaForCausalLM is not converted: call spikeplug\.convert"):
        spikeplug.simulate(model).__enter__()
    convert(model)
    revert(model)
    with pytest.raises(SpikeplugError, match="not converted"), simulate(model):
        pass


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0"), (99_999, "99,999"), (123_456, "123k"), (999_600, "1.00M"), (1_426_728_230, "1.43G"), (10**20, "100E")],
)
def test_large_counts_are_shown_to_three_digits(count: int, words: str) -> None:
    assert _short(count) == words
