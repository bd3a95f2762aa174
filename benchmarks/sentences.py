"""Measure pipelines' recipes on sentence embeddings: `python benchmarks/sentences.py [--write]`.

all-MiniLM-L6-v2, a BERT, with ST-BIF neurons as SpikeZIP-TF has them. The task: tell the topic of a passage of
Python's manual, by the nearest mean embedding of other passages of a topic. Each recipe with spikeplug's nonlinearities
is tested against the same recipe with exact ones, passage by passage.

--write puts the table into docs/recipes.md.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pydoc_data.topics

import packaged_models
import pages
import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from torch import Tensor
from whole import machine

import spikeplug
from spikeplug.conversion.recipes import spikezip
from spikeplug.harness.paired import Paired, paired_mean

#: Words of a passage, and passages that a topic has at least.
WORDS, LEAST = 24, 4
#: Passages that calibrate: every so many, of those whose topic is known.
CALIBRATING = 32
RECIPES: dict[str, dict[str, Any]] = {
    "32 levels, least squares": {"range": "least squares"},
    "32 levels": {},
    "64 levels": {"levels": 64},
    "256 levels": {"levels": 256},
    "32 levels, a threshold per channel": {"channels": True},
    "256 levels, a threshold per channel": {"levels": 256, "channels": True},
}
_CONSOLE = Console()


def passages() -> tuple[list[str], Tensor]:
    """Return passages of WORDS words of Python's manual, and the number of the topic of each; two and more a topic."""
    texts, topics = [], []
    for topic, text in enumerate(map(str, pydoc_data.topics.topics.values())):
        words = text.split()
        parts = dict.fromkeys(" ".join(words[first : first + WORDS]) for first in range(0, len(words), WORDS))
        if len(parts) >= LEAST:
            texts += parts
            topics += [topic] * len(parts)
    return texts, torch.tensor(topics).unique(return_inverse=True)[1]


def ranks(embeddings: Tensor, topics: Tensor) -> Tensor:
    """Return the place of its own topic for each odd passage, by the cosine with the means of even passages; 1 is best.

    embeddings: float64 (passages, channels)
    """
    known, asked = embeddings[::2], embeddings[1::2]
    labels, wanted = topics[::2], topics[1::2]
    means = torch.stack([known[labels == topic].mean(0) for topic in labels.unique()])
    cosines = asked @ F.normalize(means, dim=-1).T
    return (cosines >= cosines.gather(1, wanted[:, None])).sum(1)


def right(ranks: Tensor) -> list[float]:
    """Return 1 for each passage whose own topic is the nearest, else 0."""
    return (ranks == 1).double().tolist()


def tables(presets: tuple[str, ...], only: str) -> Iterator[str]:
    """Yield the table, with the rows of one recipe more each time."""
    model, tokenizer = packaged_models.minilm()
    texts, topics = passages()
    few = texts[:: 2 * CALIBRATING]
    calibration = tokenizer(few, padding=True, return_tensors="pt")

    def run(preset: str | None, recipe: dict[str, Any] | None) -> Tensor:
        coded = copy.deepcopy(model)
        if recipe is not None:
            pipeline = spikezip(nonlinearities="spiking" if preset else "exact", **recipe)
            spikeplug.convert(coded, preset or "default", recipe=pipeline, calibration=calibration)
        return ranks(packaged_models.embeddings(coded, tokenizer, texts).double(), topics)

    exact = run(None, None)
    rows = ["| recipe | nonlinearities | right | against exact ones | p | mean 1 / rank | against exact ones | p |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|---:|")
    rows.append(f"| float model | exact | {_mean(right(exact))} | | | {_mean((1 / exact).tolist())} | | |")
    for name, recipe in RECIPES.items():
        if not re.search(only, name):
            continue
        coded = run(None, recipe)
        rows.append(f"| {name} | exact | {_mean(right(coded))} | | | {_mean((1 / coded).tolist())} | | |")
        for preset in presets:
            spiking = run(preset, recipe)
            cells = [
                cell
                for metric in (right, _reciprocal)
                for cell in (_mean(metric(spiking)), *_against(paired_mean(metric(coded), metric(spiking))))
            ]
            rows.append(f"| {name} | `{preset}` | {' | '.join(cells)} |")
        _CONSOLE.print(*rows[-1 - len(presets) :], sep="\n", soft_wrap=True)
        yield (
            f"all-MiniLM-L6-v2: {len(exact):,} passages of {WORDS} words, {int(topics.max()) + 1} topics; calibrated "
            f"on {len(few)} others; after ±, standard errors. {machine()}\n\n" + "\n".join(rows)
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
    parser.add_argument("--only", default="", help="rows whose name holds this regular expression")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for text in tables(tuple(arguments.presets.split(",")), arguments.only):
        if arguments.write:
            pages.write("docs/recipes.md", "sentences", text)


if __name__ == "__main__":
    main()
