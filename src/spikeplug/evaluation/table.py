"""The results of an evaluation as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from spikeplug.evaluation.results import ChoiceResult, Evaluation, PerplexityResult
from spikeplug.measurement.table import saturation_table, titled


def tables(evaluation: Evaluation) -> list[RenderableType]:
    """Return the tables of an evaluation in display order: perplexity, choices (if any), conversion, saturation."""
    return [
        perplexity_table(evaluation.perplexity, evaluation.processes),
        *([choice_table(evaluation.choices)] if evaluation.choices else []),
        conversion_table(evaluation.conversion.to_dict()),
        *evaluation.conversion.to_dict().get("notes", []),
        saturation_table(evaluation.saturations),
    ]


def perplexity_table(results: Sequence[PerplexityResult], processes: int = 1) -> Table:
    """Return a table with a column per context length. Its rows say if times are sums over several processes."""
    summed, each = ("", "") if processes == 1 else (f", sum of {processes} processes", ", per process")
    table = titled("Perplexity", "", numbers=[f"context {result.context}" for result in results])
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
    """Return a table with a row per multiple-choice task: items, both accuracies ± standard error, agreement, time."""
    columns = ("items", "exact", "converted", "same pick", "time ratio")
    table = titled("Multiple choice", "task", numbers=columns)
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
    """Return a table with a row per operator: how many uses were replaced, how many were left, and why.

    report   `to_dict()` of a conversion report, with "counts" and "entries"
    """
    table = titled("Conversion", "operator", numbers=("replaced", "left"))
    table.add_column("why left")
    for operator, count in report["counts"].items():
        reasons = (entry["reason"] for entry in report["entries"] if entry["operator"] == operator and entry["reason"])
        table.add_row(operator, f"{count['replaced']}", f"{count['left']}", "; ".join(dict.fromkeys(reasons)))
    return table
