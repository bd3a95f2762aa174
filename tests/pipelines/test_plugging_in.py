"""docs/pipelines.md: our operators in models with each pipeline's tensors; neurons stay, differences stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from pipelines.doubles import (
    Difference,
    ExpectationCompensation,
    FASBlock,
    LASBlock,
    PhaseBlock,
    SpikeLLMBlock,
    SpikeZIPAttention,
    reset,
    softmax,
)
from torch import Tensor, nn

from spikeplug.conversion import audit, convert, revert
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS

STEPS = 24


@dataclass(frozen=True)
class Pipeline:
    """A model, how it is run, and what of it computes an operator.

    build    makes the model
    run      (model, x [B, S, H]) -> outputs, one per step or one in all
    watched  module path -> the operator that it computes
    over     the operator computes a function of the `sum` or the `mean` of all its calls, or of `each` call
    exclude  what the user excludes
    """

    build: Callable[[], nn.Module]
    run: Callable[[nn.Module, Tensor], Tensor]
    watched: dict[str, str]
    over: str = "each"
    exclude: str | None = None


def stepped(model: nn.Module, x: Tensor) -> Tensor:
    """Run a call per step; all of the input arrives in the first."""
    return torch.stack([model(x if step == 0 else torch.zeros_like(x)) for step in range(STEPS)])


def repeated(model: nn.Module, x: Tensor) -> Tensor:
    """Run a call per step; the input is the same in each."""
    return torch.stack([model(x) for _ in range(STEPS)])


def folded(model: nn.Module, x: Tensor) -> Tensor:
    """Run one call with time folded into the batch."""
    return model(x.repeat(STEPS, 1, 1)).view(STEPS, *x.shape)


def once(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


class ECMTBlock(nn.Module):
    """Compensate the expectation at a norm and a softmax: a call per step, the value is the mean over steps."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norm = ExpectationCompensation(nn.LayerNorm(width, elementwise_affine=False))
        self.softmax = ExpectationCompensation(softmax)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.norm(x))


PIPELINES = {
    "SpikeZIP-TF": Pipeline(SpikeZIPAttention, stepped, {"norm": "layer_norm", "softmax": "softmax"}, "sum"),
    "SpikeLLM": Pipeline(SpikeLLMBlock, once, {"norm": "rms_norm"}, exclude=r"code_"),
    "FAS": Pipeline(lambda: FASBlock(STEPS), folded, {"norm": "layer_norm"}),
    "LAS": Pipeline(LASBlock, once, {"norm": "layer_norm"}),
    "SpikingLLM": Pipeline(PhaseBlock, once, {"norm": "rms_norm"}),
    "ECMT": Pipeline(ECMTBlock, repeated, {"norm": "layer_norm", "softmax": "softmax"}, "mean"),
}
each_pipeline = pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)


def made(pipeline: Pipeline) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return pipeline.build().double().eval(), torch.randn(2, 5, 8, dtype=torch.float64)


def run(pipeline: Pipeline, model: nn.Module, x: Tensor) -> Tensor:
    reset(model)
    with torch.no_grad():
        return pipeline.run(model, x)


@each_pipeline
def test_nothing_is_left_but_what_is_excluded(pipeline: Pipeline) -> None:
    model, x = made(pipeline)
    before = run(pipeline, model, x)
    reset(model)
    with torch.no_grad(), audit(model) as found:
        pipeline.run(model, x)
    assert found.entries, "the double computes in floats before"
    report = convert(model, exclude=pipeline.exclude, strict=True)
    assert all(entry.reason.startswith("excluded") for entry in report.leftovers)
    reset(model)
    with torch.no_grad(), audit(model) as found:
        pipeline.run(model, x)
    assert {entry.path for entry in found.entries} <= {entry.path for entry in report.leftovers}
    revert(model)
    assert torch.equal(run(pipeline, model, x), before)


@each_pipeline
def test_operators_are_within_their_bounds(pipeline: Pipeline) -> None:
    """The inputs are those of the converted run, whose neurons see our results."""
    model, x = made(pipeline)
    convert(model, exclude=pipeline.exclude)
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in pipeline.watched}
    for path, seen in calls.items():
        model.get_submodule(path).register_forward_hook(
            lambda _module, given, output, seen=seen: seen.append((given[0].clone(), output.clone()))
        )
    run(pipeline, model, x)
    for path, operator in pipeline.watched.items():
        record = RECORDS[operator]
        given, outputs = (torch.stack(values) for values in zip(*calls[path], strict=True))
        assert len(given) == (1 if pipeline.over == "each" else STEPS)
        if pipeline.over != "each":
            total = getattr(given, pipeline.over)(0)
            outputs = getattr(outputs, pipeline.over)(0)
        else:
            total, outputs = given[0], outputs[0]
        settings = {"softmax": (-1,), "layer_norm": (1e-5,), "rms_norm": (1e-6,)}[operator]
        error = (outputs - record.exact(total, *settings)).abs()
        assert bool((error <= record.bound(total, numerics=Numerics()) + 1e-12).all())
        assert bool(error.any()), "an exact operator would pass"


@each_pipeline
def test_neurons_see_no_operator(pipeline: Pipeline) -> None:
    """Fed with the inputs of the converted run, the neurons of a copy give the same spikes, bit for bit."""
    model, x = made(pipeline)
    reset(model)
    exact = copy.deepcopy(model)
    report = convert(model, exclude=pipeline.exclude)
    neurons = [entry.path for entry in report.left if entry.operator == "neuron"]
    calls: list[tuple[str, Tensor, Tensor]] = []
    for path in neurons:
        model.get_submodule(path).register_forward_hook(
            lambda _module, given, output, path=path: calls.append((path, given[0].clone(), output.clone()))
        )
    run(pipeline, model, x)
    assert {path for path, *_ in calls} == set(neurons)
    assert bool(neurons) == (pipeline.build not in (SpikeLLMBlock, ECMTBlock))
    for path, given, output in calls:
        assert torch.equal(exact.get_submodule(path)(given), output)


def test_differences_add_up_to_the_function_of_the_sum() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Difference(softmax)).double()
    convert(model)
    x = torch.randn(STEPS, 2, 3, 4, 4, dtype=torch.float64)  # [T, B, h, N, N]
    total = torch.stack([model(step) for step in x]).sum(0)
    bound = RECORDS["softmax"].bound(x.sum(0), numerics=Numerics())
    assert bool(((total - softmax(x.sum(0))).abs() <= bound + 1e-12).all())


def test_a_function_of_each_step_is_another() -> None:
    """What a user of differences loses who leaves them out: f is not linear."""
    x = torch.randn(STEPS, 4, dtype=torch.float64)
    assert not torch.allclose(softmax(x).sum(0), softmax(x.sum(0)))
