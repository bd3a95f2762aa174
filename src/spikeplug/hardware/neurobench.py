"""Let NeuroBench's harness report the events of a spiking model, per sample, under the names of its own metrics.

    from neurobench.benchmarks import Benchmark
    from spikeplug.hardware.neurobench import Footprint, MembraneUpdates, SpikingModel, SynapticOperations

    benchmark = Benchmark(SpikingModel(model), batches, [], [], [[Footprint], [SynapticOperations, MembraneUpdates]])
    benchmark.run()

NeuroBench's own metrics look at the modules of a model, where our operators are not seen: they score a spiking model as
if nothing had changed. These read what `spikeplug.count` predicts, which equals a simulation.

Needs NeuroBench 2.3. Errors: SpikeplugError if it is not installed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spikeplug.conversion.simulation import count, is_spiking
from spikeplug.conversion.whole.coded import THRESHOLD
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.operators.linear.linear import THRESHOLD_BITS
from spikeplug.realisation import Realisation

#: The command that installs what is needed. NeuroBench's dependencies for its data sets, torchaudio and tonic, would
#: bring another torch; neither is used here.
INSTALL = "pip install --no-deps neurobench snntorch"

try:
    from neurobench.metrics.abstract import AccumulatedMetric, StaticMetric
    from neurobench.models import NeuroBenchModel
except ImportError as error:
    raise SpikeplugError(f"NeuroBench is not installed ({error}): {INSTALL}") from error


class Unmeasured(BaseException):
    """End a run of NeuroBench because a metric has no value.

    It is no Exception: NeuroBench takes each of those for the value 0.0, or None, and goes on.
    """


class SpikingModel(NeuroBenchModel):  # type: ignore[misc]  # NeuroBench is not annotated
    """Run a converted model for NeuroBench, and count its events batch by batch.

    model        a converted model, or one made of `spikeplug.nn`
    run          (model, batch) -> predictions; None: `model(batch)`, and of its output the logits if it has some
    realisation  which neurons are counted, or the name of a preset; None: those of the preset with the numerics

    Errors: SpikeplugError if the model is not converted, and as `spikeplug.count`.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Callable[[nn.Module, Any], Any] | None = None,
        *,
        realisation: Realisation | str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise SpikeplugError(f"SpikingModel takes a torch module, not a {type(model).__name__}.")
        if not any(is_spiking(module) for module in model.modules()):
            raise SpikeplugError(f"{type(model).__name__} is not converted: call spikeplug.convert(model) first.")
        self.model, self.realisation = model, realisation
        self._run = _logits if run is None else run
        #: The events of the last batch, and its multiply-accumulates that are left in floating point.
        self.events: Events | None = None
        self.macs = 0

    def __call__(self, batch: Any) -> Any:
        """Return the predictions for a batch, and count its events."""
        self.events = None
        with torch.no_grad(), FlopCounterMode(display=False) as flops, count(self.model, self.realisation) as counted:
            predictions = self._run(self.model, batch)
        if not counted.entries:
            raise SpikeplugError("the batch ran no spiking operator: give a `run` that calls the converted model.")
        self.events, self.macs = counted.total, flops.get_total_flops() // 2
        return predictions

    def __net__(self) -> nn.Module:
        """Return the converted model."""
        return self.model


def _logits(model: nn.Module, batch: Any) -> Any:
    output = model(batch)
    return output["logits"] if isinstance(output, dict) and "logits" in output else output


class _PerSample(AccumulatedMetric):  # type: ignore[misc]
    """Add up counts of batches, and divide them by the samples: the first dimension of a batch."""

    def __init__(self) -> None:
        super().__init__(requires_hooks=False)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._samples = 0
        self._counts: dict[str, int] = {}

    def __call__(self, model: Any, preds: Any, data: Any) -> Any:
        """Add the counts of the batch that the model ran last, and return the value so far. Errors: Unmeasured."""
        try:
            for name, number in self._of(*_last(model)).items():
                self._counts[name] = self._counts.get(name, 0) + number
            self._samples += len(data[0])
            return self.compute()
        except Exception as error:
            raise Unmeasured(f"{type(self).__name__} has no value: {error}") from error

    def compute(self) -> Any:
        """Return the value per sample; 0 before the first batch."""
        return self._value({name: number / max(1, self._samples) for name, number in self._counts.items()})

    @abstractmethod
    def _of(self, events: Events, macs: int) -> dict[str, int]:
        """Return the counts of a batch by name."""

    @abstractmethod
    def _value(self, counts: dict[str, float]) -> Any:
        """Return the metric's value for counts per sample."""


def _last(model: Any) -> tuple[Events, int]:
    if not isinstance(model, SpikingModel):
        raise SpikeplugError(f"it reads a SpikingModel, not a {type(model).__name__}: wrap the model in one.")
    if model.events is None:
        raise SpikeplugError("the model has run no batch: run it first.")
    return model.events, model.macs


class SynapticOperations(_PerSample):
    """Report synaptic operations per sample, in the fields of NeuroBench's metric of this name.

    Effective_ACs    spikes delivered; a graded spike of value k counts k
    Effective_MACs   multiply-accumulates that are left in floating point: 0 for a whole spiking model
    Dense            one delivery by every synapse of every neuron in each of its time steps, and the same MACs. Where
                     calls of a population differ in fan-in, the largest counts for all
    """

    def _of(self, events: Events, macs: int) -> dict[str, int]:
        dense = sum(each.membrane_updates * each.needs.fan_in for each in events.populations.values() if each.needs)
        return {"Effective_MACs": macs, "Effective_ACs": events.synops, "Dense": dense + macs}

    def _value(self, counts: dict[str, float]) -> dict[str, float]:
        return {name: counts.get(name, 0.0) for name in ("Effective_MACs", "Effective_ACs", "Dense")}


class MembraneUpdates(_PerSample):
    """Report membrane updates per sample: one neuron in one time step, driven or idle."""

    def _of(self, events: Events, macs: int) -> dict[str, int]:
        return {"updates": events.membrane_updates}

    def _value(self, counts: dict[str, float]) -> float:
        return counts.get("updates", 0.0)


class DrivenUpdates(_PerSample):
    """Report the membrane updates per sample in whose time step an input arrives."""

    def _of(self, events: Events, macs: int) -> dict[str, int]:
        return {"updates": events.driven_updates}

    def _value(self, counts: dict[str, float]) -> float:
        return counts.get("updates", 0.0)


class ActivationSparsity(_PerSample):
    """Report in which part of all time steps of all neurons with a firing threshold no spike is sent."""

    def _of(self, events: Events, macs: int) -> dict[str, int]:
        firing = [each for each in events.populations.values() if each.kind == "threshold"]
        return {
            "spikes": sum(each.spikes for each in firing),
            "steps": sum(each.membrane_updates for each in firing),
        }

    def _value(self, counts: dict[str, float]) -> float:
        steps = counts.get("steps", 0.0)
        return 1 - counts["spikes"] / steps if steps else 0.0


class Footprint(StaticMetric):  # type: ignore[misc]
    """Report the bytes of parameters and buffers in the bits that they have: a threshold of int8 rows has 16."""

    def __call__(self, model: Any) -> float:
        """Return the bytes. Errors: Unmeasured if the model is no SpikingModel."""
        if not isinstance(model, SpikingModel):
            raise Unmeasured(f"Footprint reads a SpikingModel, not a {type(model).__name__}: wrap the model in one.")
        net = model.__net__()
        return sum(_bits(name, tensor) for name, tensor in (*net.named_parameters(), *net.named_buffers())) / 8


def _bits(name: str, tensor: Tensor) -> int:
    threshold = name.rpartition(".")[2] == THRESHOLD
    return tensor.numel() * (THRESHOLD_BITS if threshold else 8 * tensor.element_size())
