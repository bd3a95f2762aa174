"""NeuroBench's harness reports what a simulation counts, per sample; a metric without a value ends the run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import tiny_model
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikeplug
from spikeplug.errors import SpikeplugError

LENGTH, SAMPLES = 4, 5


def test_without_neurobench_one_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "spikeplug.hardware.neurobench", raising=False)
    monkeypatch.setitem(sys.modules, "neurobench.models", None)
    monkeypatch.setitem(sys.modules, "neurobench.metrics.abstract", None)
    with pytest.raises(SpikeplugError, match=r"NeuroBench is not installed .*: pip install --no-deps neurobench"):
        import spikeplug.hardware.neurobench  # noqa: F401


@pytest.fixture(scope="module")
def ours() -> Any:
    pytest.importorskip("neurobench", reason="pip install --no-deps neurobench snntorch")
    from spikeplug.hardware import neurobench

    return neurobench


@pytest.fixture(scope="module")
def data() -> DataLoader[Any]:
    torch.manual_seed(0)
    ids = torch.randint(0, 256, (SAMPLES, LENGTH))
    return DataLoader(TensorDataset(ids, ids.clone()), batch_size=2)  # the last batch has one sample


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    model = tiny_model()
    spikeplug.convert(model, recipe="whole", calibration=False)
    return model


def scores(ours: Any, model: Any, data: Any, **run: Any) -> dict[str, Any]:
    from neurobench.benchmarks import Benchmark

    of_a_run = [ours.SynapticOperations, ours.MembraneUpdates, ours.DrivenUpdates, ours.ActivationSparsity]
    benchmark = Benchmark(model, data, [], [], [[ours.Footprint], of_a_run])
    found: dict[str, Any] = benchmark.run(quiet=True, **run)
    return found


def test_the_harness_reports_the_events_of_a_simulation_per_sample(
    ours: Any, whole: nn.Module, data: DataLoader[Any], tmp_path: Path
) -> None:
    found = scores(ours, ours.SpikingModel(whole), data)
    with torch.inference_mode(), spikeplug.simulate(whole) as simulation:
        for ids, _ in data:
            whole(ids)
    events = simulation.total
    assert found["SynapticOperations"]["Effective_ACs"] == events.synops / SAMPLES
    assert found["SynapticOperations"]["Effective_MACs"] == 0
    assert found["SynapticOperations"]["Dense"] > found["SynapticOperations"]["Effective_ACs"] > 0
    assert found["MembraneUpdates"] == events.membrane_updates / SAMPLES
    assert found["DrivenUpdates"] == events.driven_updates / SAMPLES
    firing = [each for each in events.populations.values() if each.kind == "threshold"]
    silent = 1 - sum(each.spikes for each in firing) / sum(each.membrane_updates for each in firing)
    assert found["ActivationSparsity"] == pytest.approx(silent, abs=1e-12)
    assert json.loads(json.dumps(found)) == found


def test_a_second_run_starts_anew(ours: Any, whole: nn.Module, data: DataLoader[Any]) -> None:
    from neurobench.benchmarks import Benchmark

    benchmark = Benchmark(ours.SpikingModel(whole), data, [], [], [[], [ours.SynapticOperations]])
    assert benchmark.run(quiet=True) == benchmark.run(quiet=True)


def test_dense_is_every_synapse_in_every_step(ours: Any) -> None:
    model = nn.Sequential(spikeplug.nn.Softmax(-1))
    wrapped = ours.SpikingModel(model)
    wrapped(torch.randn(1, 8))
    found = ours.SynapticOperations()(wrapped, None, (torch.zeros(1, 8), None))
    expected = 0
    for each in wrapped.events.populations.values():
        if each.kind in ("threshold", "accumulator"):
            expected += each.membrane_updates * each.needs.fan_in
    assert found["Dense"] == expected


@pytest.mark.parametrize("operator", ["softmax", "silu", "gelu", "sigmoid", "tanh", "exp", "sqrt", "rsqrt", "log"])
def test_no_more_is_delivered_than_dense(ours: Any, operator: str) -> None:
    events = spikeplug.Events(predicted=True)
    getattr(spikeplug.functional, operator)(torch.rand(3, 64) * 4 + 0.1, events=events)
    dense = sum(each.membrane_updates * each.needs.fan_in for each in events.populations.values() if each.needs)
    assert 0 < events.synops <= dense


def test_what_stays_in_floating_point_is_counted_in_multiply_accumulates(ours: Any, data: DataLoader[Any]) -> None:
    model = tiny_model()
    spikeplug.convert(model)
    wrapped = ours.SpikingModel(model)
    ids = torch.arange(LENGTH)[None]
    wrapped(ids)
    layers = [each for name, each in model.named_modules() if isinstance(each, nn.Linear)]
    assert wrapped.macs == LENGTH * sum(each.weight.numel() for each in layers)
    found = ours.SynapticOperations()(wrapped, None, (ids, None))
    assert found["Effective_MACs"] == wrapped.macs
    assert found["Dense"] >= found["Effective_ACs"] + found["Effective_MACs"]


def test_the_predictions_are_the_model_s(ours: Any, whole: nn.Module) -> None:
    ids = torch.arange(2 * LENGTH).view(2, LENGTH)
    with torch.inference_mode():
        expected = whole(ids).logits
    assert torch.equal(ours.SpikingModel(whole)(ids), expected)
    last = ours.SpikingModel(whole, run=lambda model, ids: model(input_ids=ids).logits[:, -1].argmax(-1))
    assert torch.equal(last(ids), expected[:, -1].argmax(-1))


def test_the_realisation_may_be_chosen(ours: Any) -> None:
    updates = []
    for realisation in (None, "paper"):
        wrapped = ours.SpikingModel(nn.Sequential(spikeplug.nn.Softmax(-1)), realisation=realisation)
        wrapped(torch.ones(1, 8))
        updates.append(wrapped.events.membrane_updates)
    assert updates[0] < updates[1]


def test_the_footprint_is_in_real_bits(ours: Any, whole: nn.Module) -> None:
    bits = 0
    for name, tensor in (*whole.named_parameters(), *whole.named_buffers()):
        each = {torch.int8: 8, torch.int32: 32, torch.float32: 32}[tensor.dtype]
        bits += tensor.numel() * (16 if name.endswith("weight_threshold") else each)
    int8 = sum(tensor.numel() for tensor in whole.parameters() if tensor.dtype == torch.int8)
    found = ours.Footprint()(ours.SpikingModel(whole))
    assert found == bits / 8
    assert int8 < found < 1.5 * int8


@pytest.mark.parametrize("part", ["static", "workload"])
def test_no_refusal_becomes_a_zero(ours: Any, data: DataLoader[Any], part: str) -> None:
    """NeuroBench prints what a metric raises, or not even that, and takes 0.0 or None for its value."""
    from neurobench.benchmarks import Benchmark
    from neurobench.models import TorchModel

    model = TorchModel(nn.Identity())
    metrics: list[list[Any]] = [[ours.Footprint], []] if part == "static" else [[], [ours.MembraneUpdates]]
    with pytest.raises(ours.Unmeasured, match="not a TorchModel"):
        Benchmark(model, data, [], [], metrics).run(quiet=True)


def test_a_metric_that_fails_ends_the_run(
    ours: Any, whole: nn.Module, data: DataLoader[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> dict[str, int]:
        raise ZeroDivisionError("nothing here")

    monkeypatch.setattr(ours.MembraneUpdates, "_of", broken)
    with pytest.raises(ours.Unmeasured, match="MembraneUpdates has no value: nothing here"):
        scores(ours, ours.SpikingModel(whole), data)


def test_models_that_do_not_spike_are_refused(ours: Any, whole: nn.Module) -> None:
    with pytest.raises(SpikeplugError, match="not converted"):
        ours.SpikingModel(nn.Linear(2, 2))
    with pytest.raises(SpikeplugError, match="torch module, not a str"):
        ours.SpikingModel("gpt2")
    idle = ours.SpikingModel(whole, run=lambda model, ids: ids)
    with pytest.raises(SpikeplugError, match="no spiking operator"):
        idle(torch.arange(3)[None])
    with pytest.raises(ours.Unmeasured, match="no batch"):
        ours.MembraneUpdates()(ours.SpikingModel(whole), None, (torch.zeros(1), None))
