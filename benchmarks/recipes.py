"""Measure the recipes of other pipelines on SmolLM2: `python benchmarks/recipes.py [--write]`.

Each recipe with exact nonlinearities against the float model; then with spikeplug's, against itself with exact ones.
Thresholds are calibrated on the first half of the embedded text, and all is measured on its second half.

--write puts the table into docs/recipes.md, row by row, as `make recipes` does.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pages
import torch
from rich.console import Console
from torch import Tensor, nn
from whole import machine

import spikeplug
from spikeplug import recipes
from spikeplug.english import english_text
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import cut_windows, encode
from spikeplug.operators.linear.neuron import neuron_of

CONTEXT = 512
#: Tokens that calibrate, and those on which spikes are counted.
CALIBRATING, COUNTED = 256, 16
#: Populations of the recipes' neurons.
NEURONS = ("neuron/spikes", "gif/spikes")
RECIPES: dict[str, Any] = {
    "phase, 8 steps, a threshold per channel": lambda **how: recipes.phase(channels=True, **how),
    "spikellm, 8 bits, 10 % of channels 9": lambda **how: recipes.spikellm(bits=8, **how),
    "las, 16 steps": lambda **how: recipes.las(**how),
    "spikezip, 256 levels, a threshold per channel": lambda **how: recipes.spikezip(levels=256, channels=True, **how),
    "phase, 8 steps": lambda **how: recipes.phase(**how),
    "spikezip, 256 levels": lambda **how: recipes.spikezip(levels=256, **how),
    "spikellm, 4 bits, 10 % of channels 5": lambda **how: recipes.spikellm(**how),
    "fas, 32 steps, signed": lambda **how: recipes.fas(steps=32, signed=True, **how),
}
_CONSOLE = Console()


def log_probabilities(model: nn.Module, windows: Tensor) -> Tensor:
    """Return the logarithms of the probabilities of the next token, (windows, tokens - 1, vocabulary)."""
    with torch.inference_mode():
        return torch.stack([model(window[None]).logits[0, :-1].log_softmax(-1) for window in windows])


def change(before: Tensor, after: Tensor, windows: Tensor) -> str:
    """Return the change of perplexity from one model to another, with its standard error, as text."""
    chosen = windows[:, 1:, None]
    difference = (before.gather(-1, chosen) - after.gather(-1, chosen)).flatten().double()
    mean, error = difference.mean(), difference.std() / len(difference) ** 0.5
    return f"{100 * float(mean.expm1()):+.3g} ± {100 * float(mean.exp() * error):.2g} %"


def spikes_per_token(model: nn.Module, ids: Tensor) -> float:
    """Return how many spikes the neurons of the recipe send for a token, predicted."""
    with torch.inference_mode(), spikeplug.count(model) as counted:
        model(ids[None])
    return sum(counted.populations[name].spikes for name in NEURONS if name in counted.populations) / len(ids)


def tables(tokens: int, presets: tuple[str, ...]) -> Iterator[str]:
    """Yield the table, a row per recipe, each time that it has one row more."""
    model, tokenizer = load(find_source(None))
    model.set_attn_implementation("sdpa")
    ids = encode(tokenizer, english_text())
    half = len(ids) // 2
    calibration, windows = torch.tensor(ids[:CALIBRATING])[None], cut_windows(ids[half:], CONTEXT, tokens)
    exact = log_probabilities(model, windows)
    titles = ["T", "spikes per token", "perplexity", "KL", *(f"`{preset}`, on top" for preset in presets)]
    rows = [f"| recipe | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    for name, make in RECIPES.items():
        recipe = make(nonlinearities="exact")
        steps = max(neuron_of(step.neuron).steps for step in recipe.steps)
        spikeplug.convert(model, recipe=recipe, calibration=calibration)
        coded = log_probabilities(model, windows)
        spikes = spikes_per_token(model, windows[0, :COUNTED])
        spikeplug.revert(model)
        cells = [f"{steps}", f"{spikes / 1e6:.2f} M", change(exact, coded, windows), f"{divergence(exact, coded):.2g}"]
        for preset in presets:
            spikeplug.convert(model, preset, recipe=make(), calibration=calibration)
            cells.append(change(coded, log_probabilities(model, windows), windows))
            spikeplug.revert(model)
        rows.append(f"| {name} | {' | '.join(cells)} |")
        _CONSOLE.print(rows[-1])
        yield (
            f"SmolLM2-135M, {windows.numel():,} tokens of the embedded text's second half, context {CONTEXT}; "
            f"calibrated on {CALIBRATING} tokens of the first half. {machine()}\n\n" + "\n".join(rows)
        )


def divergence(exact: Tensor, found: Tensor) -> float:
    """Return the mean divergence of a model from the exact one, in nats per token."""
    return float((exact.exp() * (exact - found)).sum(-1).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--presets", default="default", help="presets of the nonlinearities")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for text in tables(arguments.tokens, tuple(arguments.presets.split(","))):
        if arguments.write:
            pages.write("docs/recipes.md", "recipes", text)


if __name__ == "__main__":
    main()
