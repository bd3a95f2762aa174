"""Measure pipelines' recipes on sentence embeddings: `python benchmarks/sentences.py [--write]`.

all-MiniLM-L6-v2, a BERT, with ST-BIF neurons as SpikeZIP-TF has them. The task: of many sentences, find the second
half that belongs to a first half, by the cosine of their embeddings. Each recipe with spikeplug's nonlinearities is
tested against the same recipe with exact ones, item by item.

--write puts the table into docs/recipes.md.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import packaged_models
import pages
import torch
from recipes import machine
from rich.console import Console
from torch import Tensor, nn

import spikeplug
from spikeplug.harness.paired import Paired, paired_mean
from spikeplug.conversion.recipes import spikezip

SENTENCES = 3000
#: Sentences that calibrate, and that no item holds.
CALIBRATING = 64
RECIPES: dict[str, dict[str, Any]] = {
    "32 levels, least squares": {"range": "least squares"},
    "32 levels": {},
    "64 levels": {"levels": 64},
    "256 levels": {"levels": 256},
    "32 levels, a threshold per channel": {"channels": True},
    "256 levels, a threshold per channel": {"levels": 256, "channels": True},
}
_CONSOLE = Console()


def halves() -> tuple[list[str], list[str]]:
    """Return the first and the second halves, by words, of sentences in a mixed order."""
    texts = packaged_models.sentences(SENTENCES)
    words = [texts[place].split() for place in torch.randperm(len(texts), generator=torch.Generator().manual_seed(0))]
    return [" ".join(w[: len(w) // 2]) for w in words], [" ".join(w[len(w) // 2 :]) for w in words]


def similarities(model: nn.Module, tokenizer: Any, first: list[str], second: list[str]) -> Tensor:
    """Return the cosines of all first halves with all second halves, float64 (items, items)."""
    a, b = (packaged_models.embeddings(model, tokenizer, texts).double() for texts in (first, second))
    return a @ b.T


def ranks(cosines: Tensor) -> Tensor:
    """Return for each first half how many second halves are at least as near to it as its own; 1 is best."""
    return (cosines >= cosines.diagonal()[:, None]).sum(1)


def found(ranks: Tensor) -> list[float]:
    """Return 1 for each item whose own half is the nearest, else 0."""
    return (ranks == 1).double().tolist()


def tables(presets: tuple[str, ...]) -> Iterator[str]:
    """Yield the table each time that it has one row more."""
    model, tokenizer = packaged_models.minilm()
    first, second = halves()
    calibration = tokenizer(first[:CALIBRATING] + second[:CALIBRATING], padding=True, return_tensors="pt")
    first, second = first[CALIBRATING:], second[CALIBRATING:]

    def run(preset: str | None, recipe: dict[str, Any] | None) -> Tensor:
        coded = copy.deepcopy(model)
        if recipe is not None:
            pipeline = spikezip(nonlinearities="spiking" if preset else "exact", **recipe)
            spikeplug.convert(coded, preset or "default", recipe=pipeline, calibration=calibration)
        return ranks(similarities(coded, tokenizer, first, second))

    exact = run(None, None)
    rows = ["| recipe | nonlinearities | found | against exact ones | p | mean 1 / rank | against exact ones | p |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|---:|")
    rows.append(f"| float model | exact | {_mean(found(exact))} | | | {_mean((1 / exact).tolist())} | | |")
    for name, recipe in RECIPES.items():
        coded = run(None, recipe)
        rows.append(f"| {name} | exact | {_mean(found(coded))} | | | {_mean((1 / coded).tolist())} | | |")
        for preset in presets:
            spiking = run(preset, recipe)
            cells = [
                cell
                for metric in (found, _reciprocal)
                for cell in (_mean(metric(spiking)), *_against(paired_mean(metric(coded), metric(spiking))))
            ]
            rows.append(f"| {name} | `{preset}` | {' | '.join(cells)} |")
        _CONSOLE.print(*rows[-1 - len(presets) :], sep="\n")
        yield (
            f"all-MiniLM-L6-v2, {len(first):,} sentences of Python's manual, calibrated on {CALIBRATING} others; after ±, "
            f"standard errors. {machine()}\n\n" + "\n".join(rows)
        )


def _reciprocal(ranks: Tensor) -> list[float]:
    return (1 / ranks).tolist()


def _mean(values: list[float]) -> str:
    return f"{100 * sum(values) / len(values):.2f} %"


def _against(paired: Paired) -> tuple[str, str]:
    return (
        f"{100 * paired.difference:+.2f} ± {100 * (paired.difference_error or 0):.2f} %",
        f"{paired.p:.2g} ({paired.test})",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="paper,default,narrow", help="presets of the nonlinearities")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for text in tables(tuple(arguments.presets.split(","))):
        if arguments.write:
            pages.write("docs/recipes.md", "sentences", text)


if __name__ == "__main__":
    main()
