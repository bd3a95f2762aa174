"""Online runs: after settling, the integers of the layerwise model; before, those of the published differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rich.console import Console
from tiny_models import tiny_model, tokens
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

import spikeplug
from spikeplug import SpikeplugError
from spikeplug.conversion import convert
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.recipes import las, spikezip
from spikeplug.conversion.recipes.neurons import NeuronPlug

CALIBRATION, BATCH = tokens(4, 16, seed=5), {"input_ids": tokens(2, 7, seed=6)}


def converted(family: str = "llama", nonlinearities: Any = "exact", levels: int = 8, **request: Any) -> PreTrainedModel:
    model = tiny_model(family)
    recipe = spikezip(levels, nonlinearities=nonlinearities)
    convert(model, recipe=recipe, calibration=CALIBRATION, **request)
    return model


@pytest.mark.parametrize("nonlinearities", ["exact", "spiking"])
@pytest.mark.parametrize("family", ["llama", "bert", "gpt2"])
def test_settled_outputs_are_those_of_the_layerwise_model(family: str, nonlinearities: str) -> None:
    model = converted(family, nonlinearities)
    with torch.no_grad():
        layerwise = model(**BATCH)[0]
    run = spikeplug.online(model)
    outputs = [run(**BATCH)[0]]
    assert run.spikes[0]
    assert not run.settled
    assert not torch.equal(outputs[0], layerwise)
    settled = run.settle(**BATCH)[0]
    assert torch.equal(settled, layerwise)
    assert run.settled
    assert run.settled_after == run.steps - 1 == max(site.settled for site in run.sites)
    assert sum(run.spikes) == sum(site.spikes for site in run.sites)
    # And it stays so.
    assert torch.equal(run(**BATCH)[0], layerwise)
    assert run.spikes[-1] == 0


def test_a_run_is_deterministic_and_leaves_the_model_as_it_was() -> None:
    model = converted()
    with torch.no_grad():
        before = model(**BATCH).logits
    first, second = spikeplug.online(model), spikeplug.online(model)
    for _ in range(6):
        assert torch.equal(first(**BATCH).logits, second(**BATCH).logits)
    with torch.no_grad():
        assert torch.equal(model(**BATCH).logits, before)
    assert first.spikes == second.spikes


def differences(weights: list[Tensor], x: Tensor, theta: list[float], levels: int, steps: int) -> list[Tensor]:
    """Run two linear layers with ReLU between as published, on differences: SpikeZIP's operators, step by step."""
    membranes: list[Any] = [None, None]
    sums: list[Any] = [None, None]

    def neuron(place: int, arriving: Tensor) -> Tensor:
        if membranes[place] is None:
            membranes[place], sums[place] = torch.full_like(arriving, 0.5), torch.zeros_like(arriving)
        membranes[place] = membranes[place] + arriving / theta[place]
        up = (membranes[place] >= 1) & (sums[place] < levels)
        down = (membranes[place] < 0) & (sums[place] > -levels)
        spikes = up.double() - down.double()
        membranes[place], sums[place] = membranes[place] - spikes, sums[place] + spikes
        return theta[place] * spikes

    received, before, outputs, total = torch.zeros_like(x @ weights[0].T), torch.zeros_like(x @ weights[0].T), [], 0
    for step in range(steps):
        received = received + neuron(0, x if step == 0 else torch.zeros_like(x)) @ weights[0].T
        after = received.relu()
        total = total + neuron(1, after - before) @ weights[1].T
        before = after
        outputs.append(torch.as_tensor(total).clone())
    return outputs


def test_every_step_is_that_of_the_published_differences() -> None:
    """On numbers that doubles hold exactly: small integers, and thresholds that are powers of two."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(torch.randint(-3, 4, layer.weight.shape).float())
    x = torch.randint(-40, 41, (3, 6)).float()
    convert(model, recipe=spikezip(17, nonlinearities="exact"), calibration={"input": x})
    theta, levels = [], 8
    for layer in (model[0], model[2]):
        plug = plug_of(layer)
        assert isinstance(plug, NeuronPlug)
        plug.neuron.kind = f"st_bif -{levels} {levels}"
        plug.neuron.thresholds = [(torch.tensor(1 << 3, dtype=torch.int32), torch.tensor(-1, dtype=torch.int32))]
        theta.append(4.0)
    run = spikeplug.online(model)
    weights = [model[0].weight.detach().double(), model[2].weight.detach().double()]
    for wanted in differences(weights, x.double(), theta, levels, 30):
        assert torch.equal(run(x).double(), wanted)
    assert run.settled
    with torch.no_grad():
        assert torch.equal(run(x), model(x))


def test_products_of_sums_are_the_sums_of_published_products() -> None:
    """Σ_t Δ(A·B)(t) = A·B, with Δ(A·B) = A·b + a·B - a·b; a, b the spikes of a step, A and B sums that include them."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(-1, 2, (20, 4, 4), generator=generator) for _ in range(2))
    total, left, right = 0, torch.zeros(4, 4, dtype=torch.int64), torch.zeros(4, 4, dtype=torch.int64)
    for spikes_a, spikes_b in zip(a, b, strict=True):
        left, right = left + spikes_a, right + spikes_b
        total = total + left @ spikes_b + spikes_a @ right - spikes_a @ spikes_b
    assert torch.equal(torch.as_tensor(total), left @ right)


def test_too_few_steps_say_so_and_go_on() -> None:
    model = converted()
    run = spikeplug.online(model)
    with pytest.raises(SpikeplugError, match=r"after 2 time steps [0-9,]+ neurons still move: allow more with steps="):
        run.settle(**BATCH, steps=2)
    assert run.steps == 2
    with torch.no_grad():
        assert torch.equal(run.settle(**BATCH).logits, model(**BATCH).logits)


def test_bad_input() -> None:
    with pytest.raises(SpikeplugError, match="online takes a torch module, not a str"):
        spikeplug.online("model")  # type: ignore[arg-type]
    with pytest.raises(SpikeplugError, match="has no neurons: convert it with a recipe"):
        spikeplug.online(tiny_model("llama"))(**BATCH)
    for recipe, kind in ((las(nonlinearities="exact"), "few_spikes 16"), ("spikellm", "gif")):
        other = tiny_model("llama")
        convert(other, recipe=recipe, calibration=CALIBRATION)
        with pytest.raises(SpikeplugError, match=rf"{kind}.*have no online form.*use the recipe 'spikezip'"):
            spikeplug.online(other)(**BATCH)
    run = spikeplug.online(converted())
    run(**BATCH)
    spikes = list(run.spikes)
    for batch in (
        {"input_ids": tokens(2, 7, seed=8)},
        {"input_ids": tokens(2, 9, seed=6)},
        {**BATCH, "use_cache": False},
    ):
        with pytest.raises(SpikeplugError, match="other inputs than at its first time step"):
            run(**batch)
    assert run.spikes == spikes
    assert run(**BATCH).logits.isfinite().all()


def test_a_cache_that_grows_is_refused_and_nothing_changes() -> None:
    model = converted()
    run, cache = spikeplug.online(model), DynamicCache(config=model.config)
    run(**BATCH, past_key_values=cache)
    with pytest.raises(SpikeplugError, match="give no cache"):
        run(**BATCH, past_key_values=cache)
    assert run.steps == 1


def test_a_module_that_runs_in_some_steps_only_is_refused() -> None:
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.calls = nn.Linear(3, 3), nn.Linear(3, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.second(self.first(x)) if self.calls != 3 else self.first(x)

    model = Sometimes()
    convert(model, recipe=spikezip(8, nonlinearities="exact"), calibration={"x": torch.randn(4, 3)})
    run, x = spikeplug.online(model), torch.randn(2, 3)
    run(x)
    with pytest.raises(SpikeplugError, match="second runs in some time steps only"):
        run(x)
    assert run.steps == 1


def test_what_people_see() -> None:
    run = spikeplug.online(converted(levels=4))
    run.settle(**BATCH)
    assert str(run).startswith(f"{run.steps} time steps, settled after {run.settled_after}; {sum(run.spikes):,} spikes")
    console = Console(width=160)
    with console.capture() as shown:
        console.print(run.table())
    assert "model.layers.0.self_attn.q_proj" in shown.get()
    assert "settled after" in shown.get()
