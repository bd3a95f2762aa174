"""What an evaluation found, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table

from spikeplug.evaluation.results import ChoiceResult, Evaluation, PerplexityResult


def tables(evaluation: Evaluation) -> list[RenderableType]:
    """Perplexity, multiple choice, conversion and saturations, in the order to show them."""
    return [
        perplexity_table(evaluation.perplexity, evaluation.processes),
        choice_table(evaluation.choices),
        conversion_table(evaluation.conversion.to_dict()),
        saturation_table(evaluation.saturations),
    ]


def perplexity_table(results: Sequence[PerplexityResult], processes: int = 1) -> Table:
    """A column for each context length. Times of several processes are added up, and said to be."""
    summed, each = ("", "") if processes == 1 else (f", sum of {processes} processes", ", per process")
    table = _table("Perplexity")
    table.add_column("")
    for result in results:
        table.add_column(f"context {result.context}", justify="right")
    rows = {
        "windows": [f"{result.windows}" for result in results],
        "perplexity, exact": [f"{result.exact_perplexity:.4f}" for result in results],
        "perplexity, converted": [f"{result.converted_perplexity:.4f}" for result in results],
        "change": [f"{result.change_percent:+.3f} %" for result in results],
        "next-token agreement": [f"{result.agreement_percent:.2f} %" for result in results],
        "KL, mean (nats)": [f"{result.mean_kl:.3g}" for result in results],
        "KL, maximum (nats)": [f"{result.max_kl:.3g}" for result in results],
        f"time, exact{summed}": [f"{result.exact_seconds:.1f} s" for result in results],
        f"time, converted{summed}": [f"{result.converted_seconds:.1f} s" for result in results],
        f"time ratio{each}": [f"{result.time_ratio:.2f}" for result in results],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def choice_table(results: Sequence[ChoiceResult]) -> Table:
    """A row for each task."""
    table = _table("Multiple choice")
    table.add_column("task")
    for name in ("items", "exact", "converted", "same pick", "time ratio"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            result.task,
            f"{result.items}",
            f"{result.exact_percent:.1f} ± {result.exact_standard_error:.1f} %",
            f"{result.converted_percent:.1f} ± {result.converted_standard_error:.1f} %",
            f"{result.agreement_percent:.1f} %",
            f"{result.time_ratio:.2f}",
        )
    return table


def conversion_table(report: Mapping[str, Any]) -> Table:
    """A row for each kind of operator: what was replaced, what was left and why. The JSON has every place by name."""
    table = _table("Conversion")
    table.add_column("operator")
    table.add_column("replaced", justify="right")
    table.add_column("left", justify="right")
    table.add_column("why left")
    for operator, count in report["counts"].items():
        reasons = (entry["reason"] for entry in report["entries"] if entry["operator"] == operator and entry["reason"])
        table.add_row(operator, f"{count['replaced']}", f"{count['left']}", "; ".join(dict.fromkeys(reasons)))
    return table


def saturation_table(saturations: Mapping[str, int]) -> Table:
    """A row for each kind of clamp that happened."""
    table = _table("Saturations")
    table.add_column("what was clamped")
    table.add_column("values", justify="right")
    for event, count in saturations.items():
        table.add_row(event, f"{count:,}")
    if not saturations:
        table.add_row("nothing", "0")
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
