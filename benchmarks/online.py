"""Draw the anytime curve of online runs: `python benchmarks/online.py [--write] [--html FILE]`.

all-MiniLM-L6-v2 (how near its embeddings are to the exact ones) and SmolLM2-135M (perplexity of one window), each with
the recipe spikezip and spikeplug's nonlinearities, by time step of the whole model.

--write puts the table into docs/recipes.md. Exits with 1 if a settled output is not that of the layerwise model.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import packaged_models
import pages
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from rich.console import Console
from torch import Tensor, nn

import spikeplug
from spikeplug.conversion.recipes import Pipeline, spikezip
from spikeplug.conversion.recipes.online import Online
from spikeplug.english import english_text
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import cut_windows, encode
from spikeplug.progress import shown_on

PAGE = "docs/recipes.md"
#: Windows of SmolLM2 that calibrate.
CALIBRATING = 16
_CONSOLE = Console()
#: (model, unit of the curve, [(step, value)], steps until nothing moved, spikes per neuron, equal to layerwise)
Curve = tuple[str, str, list[tuple[int, float]], int, float, bool]


def minilm(name: str, recipe: Pipeline) -> Curve:
    """Return the cosine with the exact embeddings by time step, the mean of 20 sentences."""
    model, tokenizer = packaged_models.minilm()
    texts = packaged_models.sentences(1000)
    batch = tokenizer(texts[::50], padding=True, return_tensors="pt")
    calibration = tokenizer(texts[1::50], padding=True, return_tensors="pt")
    weight = batch["attention_mask"].unsqueeze(-1)

    def embedding(output: Any) -> Tensor:
        mean = (output.last_hidden_state * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(mean.double(), dim=-1)

    with torch.inference_mode():
        exact = embedding(model(**batch))
    spikeplug.convert(model, recipe=recipe, calibration=calibration)

    def cosine(output: Any) -> float:
        return float((embedding(output) * exact).sum(-1).mean())

    return curve(f"MiniLM, {name}", "mean cosine with the exact embeddings", model, dict(batch), cosine)


def smollm2(name: str, recipe: Pipeline, context: int) -> Curve:
    """Return the perplexity of one window by time step."""
    model, tokenizer = load(find_source(None))
    ids = encode(tokenizer, english_text())
    calibration, (window,) = (
        cut_windows(ids, context, CALIBRATING * context),
        cut_windows(ids[len(ids) // 2 :], context, context),
    )
    batch = {"input_ids": window[None], "use_cache": False}
    spikeplug.convert(model, recipe=recipe, calibration={"input_ids": calibration, "use_cache": False})

    def perplexity(output: Any) -> float:
        return float(torch.nn.functional.cross_entropy(output.logits[0, :-1].double(), window[1:]).exp())

    return curve(f"SmolLM2-135M, {name}", f"perplexity of {context} tokens", model, batch, perplexity)


def curve(name: str, unit: str, model: nn.Module, batch: dict[str, Any], measure: Callable[[Any], float]) -> Curve:
    """Run time steps until nothing moves, and return what `measure` says of the output after each."""
    with torch.inference_mode():
        layerwise = model(**copy.copy(batch))[0]
    run, points, settled = spikeplug.online(model), [], layerwise
    for output in steps(run, batch):
        points.append((run.steps, measure(output)))
        settled = output[0]
        if run.steps % 20 == 1:
            _CONSOLE.print(name, run.steps, f"{points[-1][1]:.4g}", f"{run.spikes[-1]:,} spikes")
    neurons = sum(site.neurons for site in run.sites)
    return name, unit, points, run.settled_after, sum(run.spikes) / neurons, torch.equal(settled, layerwise)


def steps(run: Online, batch: dict[str, Any]) -> Iterator[Any]:
    """Yield the output of each time step until nothing moves."""
    while not run.settled:
        yield run(**batch)


def table(curves: list[Curve]) -> str:
    """Return a table: a row per model, with the steps until it settles and what it says at fractions of them."""
    fractions = (0.25, 0.5, 0.75, 0.9, 1.0)
    head = "| model | measured | settled after | spikes per neuron |" + "".join(f" {f:.0%} |" for f in fractions)
    lines = [head, "|---|---|---:|---:|" + "---:|" * len(fractions)]
    for name, unit, points, settled, spikes, _ in curves:
        values = dict(points)
        cells = [f"{values[max(1, round(f * settled))]:.4g}" for f in fractions]
        lines.append(f"| {name} | {unit} | {settled} steps | {spikes:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def page(curves: list[Curve]) -> go.Figure:
    """Return a figure with a curve per model."""
    figure = make_subplots(rows=1, cols=len(curves), subplot_titles=[name for name, *_ in curves])
    for place, (name, unit, points, settled, _, _) in enumerate(curves, 1):
        x, y = zip(*points, strict=True)
        figure.add_trace(go.Scatter(x=x, y=y, name=name, showlegend=False), row=1, col=place)
        figure.add_vline(x=settled, line_dash="dot", annotation_text="settled", row=1, col=place)
        figure.update_xaxes(title_text="time steps of the whole model", row=1, col=place)
        figure.update_yaxes(title_text=unit, type="log" if "perplexity" in unit else None, row=1, col=place)
    return figure


def main() -> int:
    """Measure, print and, if asked, write the curves; 1 if a settled output differs from the layerwise one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=64, help="tokens of SmolLM2's window")
    parser.add_argument("--html", type=Path, help="file of the curves")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE}")
    chosen = parser.parse_args()
    with shown_on(_CONSOLE):
        curves = [
            minilm("32 levels, least squares", spikezip(32, range="least squares")),
            smollm2("256 levels, a threshold per channel", spikezip(256, channels=True), chosen.context),
            minilm("256 levels", spikezip(256)),
        ]
    equal = all(same for *_, same in curves)
    verdict = "equal in every bit to" if equal else "NOT EQUAL to"
    text = (
        f"{table(curves)}\n\nPercentages are of the steps until nothing moves. Settled outputs are {verdict} those "
        "of the layerwise model."
    )
    _CONSOLE.print(text)
    if chosen.html:
        page(curves).write_html(chosen.html, include_plotlyjs=True)
    if chosen.write:
        pages.write(PAGE, "online", text)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
