"""Temporal-difference operators: found by their code, evaluated once on request; sequences are checked before a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from pipelines.doubles import FoldedDifference, SignedIF, TemporalDifference, reset, softmax
from torch import Tensor, nn

from spikeplug.conversion import audit, convert, revert
from spikeplug.conversion.sequences import is_temporal_difference
from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS

STEPS = 5


class Net(nn.Module):
    """Run two operators and a linear one on sequences [T, B, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.time_steps = STEPS
        self.softmax = TemporalDifference(softmax)
        self.linear = FoldedDifference(nn.Linear(6, 6))
        self.silu = TemporalDifference(F.silu)

    def forward(self, x: Tensor) -> Tensor:
        return self.silu(self.linear(self.softmax(x)))


def sequence(batch: int = 3, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(STEPS, batch, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_they_are_found_by_their_code() -> None:
    assert is_temporal_difference(TemporalDifference(softmax))
    assert not is_temporal_difference(SignedIF(torch.ones(6), 4))
    assert not is_temporal_difference(nn.GELU())


def test_once_is_the_function_of_the_sum_and_then_nothing() -> None:
    model = nn.Sequential(TemporalDifference(softmax)).double()
    x = sequence(dtype=torch.float64)
    convert(model, sum_once=True)
    output = model(x)
    assert model[0].evaluated == 1
    assert output.shape == x.shape
    assert bool((output[1:] == 0).all())
    bound = RECORDS["softmax"].bound(x.sum(0), numerics=Numerics())
    assert bool(((output[0] - softmax(x.sum(0))).abs() <= bound + 1e-12).all())
    one = nn.Softmax(-1)
    convert(one)
    assert torch.equal(output[0], one(x.sum(0, keepdim=True))[0])


def test_once_or_at_each_step_the_sums_agree() -> None:
    torch.manual_seed(0)
    model, x = Net().double(), sequence(dtype=torch.float64)
    exact = model(x).sum(0)
    totals = []
    for sum_once in (False, True):
        reset(model)
        convert(model, sum_once=sum_once, strict=True)
        with torch.no_grad(), audit(model) as found:
            totals.append(model(x).sum(0))
        assert found.entries == ()
        assert {module.evaluated for module in model.children()} == {1 if sum_once else STEPS}
        revert(model)
    reset(model)
    assert torch.equal(model(x).sum(0), exact)
    # The first operator's sums differ by rounding, and so does what the last one makes of them.
    assert torch.allclose(totals[0], totals[1], atol=1e-4)
    assert torch.allclose(totals[1], exact, atol=1e-3)


def test_gradients_flow_through_the_first_step() -> None:
    model, x = Net(), sequence().requires_grad_()
    convert(model, sum_once=True)
    (grad,) = torch.autograd.grad(model(x).sum(0).square().sum(), x)
    assert bool(grad.any())
    assert all(torch.equal(step, grad[0]) for step in grad)


def test_excluded_operators_stay_as_they_are() -> None:
    model, x = Net(), sequence()
    convert(model, sum_once=True, exclude="silu")
    model(x)
    assert (model.softmax.evaluated, model.silu.evaluated) == (1, STEPS)


def set_modes(model: Net, *modes: str) -> None:
    for module, mode in zip(model.children(), modes, strict=True):
        module.step_mode = mode


def stale(model: Net) -> None:
    model(sequence())


@pytest.mark.parametrize("sum_once", [False, True])
@pytest.mark.parametrize(
    ("prepare", "x", "message"),
    [
        (lambda model: set_modes(model, "m", "s", "m"), sequence(), "set one mode for all of the model"),
        (stale, sequence(), "still holds the state of the sequence before: reset it before each sequence"),
        (lambda model: None, sequence().transpose(0, 1), "5 time steps in dimension 1: give sequences of shape"),
    ],
)
def test_bad_sequences(prepare: Any, x: Tensor, message: str, sum_once: bool) -> None:
    model = Net()
    convert(model, sum_once=sum_once)
    prepare(model)
    with pytest.raises(SpikeplugError, match=message) as caught:
        model(x)
    assert "\n" not in str(caught.value)
    reset(model)
    set_modes(model, "m", "m", "m")
    assert model(sequence()).shape == sequence().shape


@pytest.mark.parametrize("way", ["sum once", "says so itself"])
def test_single_steps_where_sequences_are_needed(way: str) -> None:
    model = Net()
    if way == "says so itself":
        model.online_inference = False
    convert(model, sum_once=way == "sum once")
    set_modes(model, "s", "s", "s")
    with pytest.raises(SpikeplugError, match="takes whole sequences, but is in step mode 's': set step mode 'm'"):
        model(sequence())


class Unfolded(TemporalDifference):
    """Unfold time in a way that fits one step, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = softmax(x.cumsum(dim=0)).reshape(x.shape[0], -1, x.shape[-1])
        return torch.diff(y, dim=0, prepend=torch.zeros_like(y[:1]))


def test_time_that_cannot_be_followed() -> None:
    model, x = nn.Sequential(Unfolded(softmax)), sequence(batch=STEPS)
    assert model(x).shape == x.shape
    convert(model, sum_once=True)
    with pytest.raises(SpikeplugError, match="cannot follow how a module keeps time between cumsum and diff") as caught:
        model(x)
    assert "\n" not in str(caught.value)


def test_sum_once_needs_an_operator_over_time() -> None:
    model = nn.Sequential(nn.Softmax(-1))
    with pytest.raises(SpikeplugError, match="accumulates over time and takes differences: leave sum_once out"):
        convert(model, sum_once=True)
    assert convert(model).replaced


def test_sum_once_needs_the_recipe_of_operators() -> None:
    with pytest.raises(SpikeplugError, match='sum_once goes with recipe="operators"'):
        convert(Net(), recipe="whole", calibration=False, sum_once=True)


def test_a_batch_as_large_as_the_time_is_no_mistake() -> None:
    model = Net()
    convert(model)
    assert model(sequence(batch=STEPS)).shape == (STEPS, STEPS, 6)


class Quantiser(nn.Module):
    """Round to a scale: what a neuron settles at, but no neuron."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(x / 0.25 + 0.5).clamp(-4, 3) * 0.25


def test_a_quantiser_that_the_recipe_did_not_find() -> None:
    model = nn.Sequential(TemporalDifference(softmax), Quantiser())
    with pytest.raises(SpikeplugError, match=r"'1' \(Quantiser\) rounds each step .* is no neuron") as caught:
        convert(model)
    assert "\n" not in str(caught.value)
    assert convert(model, exclude=r"^1$").replaced
    assert convert(nn.Sequential(nn.Softmax(-1), Quantiser())).replaced
