"""Simulate a whole model and count its events: `python benchmarks/simulation.py [TOKENS] [--write]`.

SmolLM2-135M-Instruct, everything replaced, default preset: one forward pass of TOKENS tokens (128) in closed form, one
neuron by neuron and time step by time step, and one that predicts the events of that. Prints seconds, memory and the
events by operator. --write puts them into docs/simulation.md, as `make simulation` does. Exits with 1 if the passes do
not give equal logits, or the prediction other events.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pages
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

import spikeplug
from spikeplug.english import english_text
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.record import environment
from spikeplug.measurement.text import cut_windows, encode

_PATIENCE = 2.0  # seconds without a sign of life


def main(tokens: int, write: bool) -> int:
    """Measure, print and write; return 0 if all passes gave the same logits, and the last two the same events."""
    console = Console()
    model, tokenizer = load(find_source(None))
    ids = cut_windows(encode(tokenizer, english_text()), tokens, tokens)
    spikeplug.convert(model, strict=True)
    closed, closed_seconds = timed(model, ids)
    before = memory("VmRSS", restart=True)
    with spikeplug.simulate(model) as simulation, layers_shown(model, console):
        simulated, seconds = timed(model, ids)
    peak = memory("VmHWM")
    with spikeplug.count(model) as counted:
        predicted, predicting = timed(model, ids)
    equal = torch.equal(closed, simulated) and torch.equal(closed, predicted)
    equal = equal and counted.to_dict() == simulation.to_dict()

    machine = environment()
    table = Table("measure", title=f"SmolLM2-135M, {tokens} tokens, everything replaced, default preset")
    table.add_column("value", justify="right")
    table.add_row("seconds, simulated", f"{seconds:.1f}")
    table.add_row("seconds, predicted", f"{predicting:.1f}")
    table.add_row("seconds, closed", f"{closed_seconds:.1f}")
    if peak:
        table.add_row("peak memory of the process, MiB", f"{peak:,.0f}, {peak - before:,.0f} above the model")
    table.add_row("neuron updates a second", f"{simulation.total.membrane_updates / seconds:.1e}")
    table.add_row("equal to closed, and to the prediction", "yes" if equal else "NO")
    console.print(table, simulation.table())
    console.print(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}")
    if write and equal:
        pages.write(
            "docs/simulation.md", "simulation", text(simulation.operators, tokens, seconds, predicting, machine)
        )
    return 0 if equal else 1


def text(
    operators: dict[str, spikeplug.Events], tokens: int, seconds: float, predicting: float, machine: dict[str, Any]
) -> str:
    """Return a sentence and a Markdown table with a row per operator."""
    total = sum(operators.values(), spikeplug.Events())
    counts = list(total.totals())
    lines = [
        f"SmolLM2-135M-Instruct on {tokens} tokens, everything replaced, default preset: "
        f"{total.membrane_updates / 1e9:.2f} billion membrane updates and {total.spikes / 1e6:.0f} million spikes in "
        f"{len(total.populations)} populations, {seconds:.1f} seconds, logits equal to the closed form's; the same "
        f"counts predicted in {predicting:.1f} seconds ({machine['cpu']}, {machine['threads']} threads, torch "
        f"{machine['torch']}; `make simulation`).",
        "",
        f"| | {' | '.join(counts)} |".replace("_", " "),
        "|---|" + "---:|" * len(counts),
    ]
    for name, events in (*operators.items(), ("all", total)):
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in events.totals().values())} |")
    return "\n".join(lines)


@torch.inference_mode()
def timed(model: nn.Module, ids: Tensor) -> tuple[Tensor, float]:
    """Return the logits and the seconds of one forward pass."""
    start = time.perf_counter()
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits, time.perf_counter() - start


@contextmanager
def layers_shown(model: nn.Module, console: Console) -> Iterator[None]:
    """Show a bar of the decoder layers that are done, once the block takes longer than two seconds."""
    layers = model.get_submodule("model.layers")
    start = time.perf_counter()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("simulating", total=len(layers), visible=False)
        handles = [
            layer.register_forward_hook(
                lambda *_: bar.update(task, advance=1, visible=time.perf_counter() - start > _PATIENCE)
            )
            for layer in layers
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def memory(kind: str, restart: bool = False) -> float:
    """Return the MiB resident now (VmRSS) or at most (VmHWM), from here on if restarted; 0 except on Linux."""
    try:
        if restart:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0.0  # only Linux has it
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Simulate a whole model and count its events.")
    parser.add_argument("tokens", type=int, nargs="?", default=128)
    parser.add_argument("--write", action="store_true", help="write docs/simulation.md")
    given = parser.parse_args()
    sys.exit(main(given.tokens, given.write))
