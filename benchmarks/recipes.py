"""Measure the recipes of other pipelines on SmolLM2: `python benchmarks/recipes.py [--write]`.

Each recipe with exact nonlinearities against the float model; then with spikeplug's, against itself with exact ones.
All models of a row read each window of text in turns. Thresholds are calibrated on the first half of the embedded text,
and all is measured on its second half.

--write puts the table into docs/recipes.md, row by row, as `make recipes` does.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import time
from collections.abc import Iterator
from statistics import median
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
from spikeplug.report.comparison import perplexity_change, standard_error

CONTEXT = 512
#: Windows that calibrate, and tokens on which spikes are counted.
CALIBRATING, COUNTED = 4, 16
#: Populations of the recipes' neurons.
NEURONS = ("neuron/spikes", "gif/spikes")
RECIPES: dict[str, Any] = {
    "las, 16 steps": lambda **how: recipes.las(**how),
    "spikellm, 8 bits, 10 % of channels 9": lambda **how: recipes.spikellm(bits=8, **how),
    "spikellm, 4 bits, 10 % of channels 5": lambda **how: recipes.spikellm(**how),
    "phase, 8 steps, a threshold per channel": lambda **how: recipes.phase(channels=True, **how),
    "phase, 8 steps": lambda **how: recipes.phase(**how),
    "spikezip, 1,024 levels, a threshold per channel": lambda **how: recipes.spikezip(1024, channels=True, **how),
    "spikezip, 256 levels, a threshold per channel": lambda **how: recipes.spikezip(256, channels=True, **how),
    "spikezip, 256 levels": lambda **how: recipes.spikezip(256, **how),
    "fas, 128 steps, signed": lambda **how: recipes.fas(steps=128, signed=True, **how),
}
_CONSOLE = Console()


class Figures:
    """Gather what one model predicts of the text, window by window: for each prediction, two numbers in nats.

    loss        minus the logarithm of the probability of the token that follows
    divergence  from the float model's distribution
    seconds     of each window
    """

    def __init__(self) -> None:
        self.loss, self.divergence, self.seconds = torch.zeros(0), torch.zeros(0), []

    def add(self, window: Tensor, found: Tensor, exact: Tensor, seconds: float) -> None:
        """Add a window (tokens,), with the log-probabilities (tokens - 1, vocabulary) of this and the float model."""
        divergence = (exact.exp() * (exact - found)).sum(-1)
        self.loss = torch.cat([self.loss, -found.gather(-1, window[1:, None])[:, 0]])
        self.divergence = torch.cat([self.divergence, divergence])
        self.seconds.append(seconds)

    def perplexity(self, before: Figures) -> str:
        """Return the change of perplexity from another model, with its standard error."""
        change, error = perplexity_change((self.loss - before.loss).double())
        return f"{_digits(change, 3):+,g} ± {_digits(error, 2):,g} %"

    def divergence_beyond(self, before: Figures) -> str:
        """Return how much further the model is from the float model than another, with the standard error."""
        difference = (self.divergence - before.divergence).double()
        return f"{float(difference.mean()):+.2g} ± {standard_error(difference):.1g}"


def _digits(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def run(model: nn.Module, window: Tensor) -> tuple[Tensor, float]:
    """Return the log-probabilities of the next token, (tokens - 1, vocabulary), and the seconds of the model's pass."""
    start = time.perf_counter()
    with torch.inference_mode():
        logits = model(window[None], use_cache=False).logits
    return logits[0, :-1].log_softmax(-1), time.perf_counter() - start


def spikes_per_token(model: nn.Module, ids: Tensor) -> float:
    """Return how many spikes the neurons of the recipe send for a token, predicted."""
    with torch.inference_mode(), spikeplug.count(model) as counted:
        model(ids[None], use_cache=False)
    return sum(counted.populations[name].spikes for name in NEURONS if name in counted.populations) / len(ids)


def measured(arms: dict[str, nn.Module], windows: Tensor) -> dict[str, Figures]:
    """Return the figures of each model; the first is the float model."""
    figures = {name: Figures() for name in arms}
    for window in windows:
        found = {name: run(model, window) for name, model in arms.items()}
        exact = next(iter(found.values()))[0]
        for name, (logarithms, seconds) in found.items():
            figures[name].add(window, logarithms, exact, seconds)
    return figures


def tables(tokens: int, presets: tuple[str, ...], only: str) -> Iterator[str]:
    """Yield the table, with the rows of one recipe more each time."""
    model, tokenizer = load(find_source(None))
    model.set_attn_implementation("sdpa")
    ids = encode(tokenizer, english_text())
    windows = cut_windows(ids[len(ids) // 2 :], CONTEXT, tokens)
    calibration = {"input_ids": cut_windows(ids, CONTEXT, CALIBRATING * CONTEXT), "use_cache": False}
    titles = ["nonlinearities", "T", "spikes per token", "time", "perplexity", "KL", "perplexity on top", "KL on top"]
    rows = [f"| recipe | {' | '.join(titles)} |", f"|---|---|{'---:|' * (len(titles) - 1)}"]
    for name, make in RECIPES.items():
        if not re.search(only, name):
            continue
        arms = {"float": model, "exact": copy.deepcopy(model)} | {preset: copy.deepcopy(model) for preset in presets}
        recipe = make(nonlinearities="exact")
        spikeplug.convert(arms["exact"], recipe=recipe, calibration=calibration)
        for preset in presets:
            spikeplug.convert(arms[preset], preset, recipe=make(), calibration=calibration)
        steps = max(neuron_of(step.neuron).steps for step in recipe.steps)
        figures = measured(arms, windows)
        exact, coded = figures["float"], figures["exact"]
        first = len(rows)
        for arm in ("exact", *presets):
            own = figures[arm]
            rows.append(
                f"| {name} | {arm if arm == 'exact' else f'`{arm}`'} | {steps} "
                f"| {spikes_per_token(arms[arm], windows[0, :COUNTED]) / 1e6:.2f} M "
                f"| {median(own.seconds) / median(exact.seconds):.1f} "
                f"| {own.perplexity(exact)} | {float(own.divergence.double().mean()):.2g} "
                + ("| | |" if arm == "exact" else f"| {own.perplexity(coded)} | {own.divergence_beyond(coded)} |")
            )
        _CONSOLE.print(*rows[first:], sep="\n", soft_wrap=True)
        yield (
            f"SmolLM2-135M, {windows.numel():,} tokens of the embedded text's second half, context {CONTEXT}; "
            f"calibrated on {CALIBRATING * CONTEXT:,} tokens of the first half. {machine()}\n\n" + "\n".join(rows)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--presets", default="paper,default", help="presets of the nonlinearities")
    parser.add_argument("--only", default="", help="rows whose name holds this regular expression")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for text in tables(arguments.tokens, tuple(arguments.presets.split(",")), arguments.only):
        if arguments.write:
            pages.write("docs/recipes.md", "recipes", text)


if __name__ == "__main__":
    main()
