"""Spikes at the inputs of linear layers, counted from the codes: equal to the digits of levels computed apart."""

from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_model
from torch import Tensor, nn

import spikeplug
from spikeplug.conversion.plug import plug_of
from spikeplug.conversion.whole.coded import CodedPlug
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.conversion.whole.spikes import counting_spikes
from spikeplug.operators.linear.linear import seen
from spikeplug.primitives.arithmetic import Closed

pytestmark = pytest.mark.slow
IDS = torch.arange(2, 26)[None]


def digits(x: Tensor, levels: int) -> int:
    """Return the digits 1 of the levels of x (rows, channels): the numbers that a layer computes with, over their step.

    The largest magnitude of a row tells its step up to a factor, which is found by trying all largest levels.
    """
    numbers = seen(x, levels, 0, 0, Closed(spikeplug.Numerics(), "linear")).double()
    total = 0
    for row in numbers:
        for top in range(levels, 0, -1):
            counts = row.abs() / row.abs().max() * top
            if torch.allclose(counts, counts.round(), atol=1e-4):
                best = counts.round()
                total += sum(bin(int(count)).count("1") for count in best)
                break
    return total


def test_counts_are_the_digits_of_the_levels() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(16, 8, bias=False), nn.SiLU())
    x = torch.randn(5, 16)
    spikeplug.convert(layer, recipe=Whole(inputs=31, block=0), calibration={"input": x})
    with counting_spikes(layer) as counts, torch.no_grad():
        layer(x)
    assert counts["0"].levels == x.numel()
    assert counts["0"].spikes == digits(x, 31)


def test_a_count_code_sends_the_levels_themselves() -> None:
    """Whole numbers up to the number of levels are levels of step 1."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(16, 8, bias=False), nn.SiLU())
    x = torch.randint(-31, 32, (5, 16)).float()
    x[:, 0] = 31
    spikeplug.convert(layer, recipe=Whole(inputs=31, block=0), calibration={"input": x})
    plug = plug_of(layer[0])
    assert isinstance(plug, CodedPlug)
    plug.rotation = 0
    with counting_spikes(layer) as counts, torch.no_grad():
        layer(x)
    assert counts["0"].magnitude == int(x.abs().sum())
    assert counts["0"].spikes == sum(bin(int(level)).count("1") for level in x.abs().flatten())


def test_a_token_sends_the_same_alone_and_with_others() -> None:
    model = tiny_model()
    spikeplug.convert(model, recipe="whole", calibration=IDS)
    with counting_spikes(model) as together, torch.no_grad():
        expected = model(IDS, use_cache=False).logits
    with counting_spikes(model) as apart, torch.no_grad():
        first = model(IDS[:, :9], use_cache=True)
        logits = [first.logits]
        cache = first.past_key_values
        for token in range(9, IDS.shape[1]):
            logits.append(model(IDS[:, token : token + 1], past_key_values=cache, use_cache=True).logits)
    assert torch.equal(torch.cat(logits, 1), expected)
    assert apart == together
    assert "model.embed_tokens" not in together
    assert set(together) == {path for path, part in model.named_modules() if isinstance(part, nn.Linear)}
    with torch.no_grad():
        model(IDS)
    assert apart == together  # nothing is counted after the block


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_what_sends_nothing(value: float) -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(16, 8), nn.SiLU())
    spikeplug.convert(layer, recipe="whole", calibration={"input": torch.randn(4, 16)})
    with counting_spikes(layer) as counts:
        layer(torch.full((3, 16), value))
    assert counts["0"].spikes == 0


def test_a_model_with_float_layers_counts_none() -> None:
    model = tiny_model()
    spikeplug.convert(model)
    with counting_spikes(model) as counts:
        model(IDS)
    assert counts == {}
