"""Score SmolLM2-135M, exact and wholly spiking, by NeuroBench's harness: by its own metrics, and by spikeplug's.

--write puts the table into docs/neurobench.md, as `make neurobench` does.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pages
from neurobench import metrics
from neurobench.benchmarks import Benchmark
from neurobench.models import TorchModel
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spikeplug
from spikeplug.english import english_text
from spikeplug.hardware import neurobench as ours
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.record import environment
from spikeplug.measurement.text import cut_windows, encode

_ROWS = {
    "Footprint": "footprint, bytes",
    "Effective_ACs": "effective ACs",
    "Effective_MACs": "effective MACs",
    "Dense": "dense",
    "MembraneUpdates": "membrane updates",
    "ActivationSparsity": "activation sparsity",
}


class Logits(nn.Module):
    """Return a language model's logits, which NeuroBench's own wrapper passes on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Any) -> Any:
        return self.model(ids).logits


def scores(model: Any, data: Any, of: Any) -> dict[str, float]:
    """Return the results of a run by NeuroBench's names, those of synaptic operations by themselves."""
    static = [of.Footprint]
    workload = [of.SynapticOperations, of.MembraneUpdates, of.ActivationSparsity]
    found = Benchmark(model, data, [], [], [static, workload]).run(quiet=True)
    return {**found.pop("SynapticOperations"), **found}


class Theirs:
    """NeuroBench's metrics under the names of ours."""

    Footprint = metrics.static.Footprint
    SynapticOperations = metrics.workload.SynapticOperations
    MembraneUpdates = metrics.workload.MembraneUpdates
    ActivationSparsity = metrics.workload.ActivationSparsity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    source = find_source(None)
    model, tokenizer = load(source)
    ids = cut_windows(encode(tokenizer, english_text()), arguments.tokens, arguments.samples * arguments.tokens)
    data = DataLoader(TensorDataset(ids, ids.clone()))
    found = {"exact, NeuroBench's metrics": scores(TorchModel(Logits(model)), data, Theirs)}
    spikeplug.convert(model)
    found["operators spiking, NeuroBench's"] = scores(TorchModel(Logits(model)), data, Theirs)
    found["operators spiking, ours"] = scores(ours.SpikingModel(model), data, ours)
    spikeplug.revert(model)
    spikeplug.convert(model, recipe="whole", calibration=False, keep=False)
    found["wholly spiking, ours"] = scores(ours.SpikingModel(model), data, ours)
    lines = [f"| per sample | {' | '.join(found)} |", "|---" + "|---:" * len(found) + "|"]
    for key, title in _ROWS.items():
        cells = (
            f"{column[key]:.4f}" if key == "ActivationSparsity" else f"{column[key]:.4g}" for column in found.values()
        )
        lines.append(f"| {title} | {' | '.join(cells)} |")
    facts = environment()
    text = (
        f"{source.name}, {len(ids)} samples of {arguments.tokens} tokens ({facts['cpu']}, torch {facts['torch']}; "
        "`make neurobench`):\n\n" + "\n".join(lines)
    )
    Console(width=200).print(text, markup=False)
    if arguments.write:
        pages.write("docs/neurobench.md", "neurobench", text)


if __name__ == "__main__":
    main()
