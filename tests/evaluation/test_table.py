"""The tables stay readable where there is no terminal."""

from __future__ import annotations

import io
import math

from rich.console import Console

from spikeplug.evaluation.results import ChoiceResult, PerplexityResult
from spikeplug.evaluation.table import choice_table, conversion_table, perplexity_table
from spikeplug.measurement.table import saturation_table

PERPLEXITY = PerplexityResult(
    context=2048,
    windows=2,
    predictions=4094,
    exact_perplexity=12.0,
    converted_perplexity=23.456,
    change_percent=95.4667,
    agreement_percent=99.123,
    mean_kl=1.234e-7,
    max_kl=math.nan,
    exact_seconds=10.0,
    converted_seconds=25.0,
    time_ratio=2.5,
)
CHOICE = ChoiceResult(
    task="continuation",
    items=32,
    exact_percent=93.75,
    converted_percent=90.625,
    exact_standard_error=4.3,
    converted_standard_error=5.2,
    agreement_percent=96.9,
    exact_seconds=1.0,
    converted_seconds=3.0,
    time_ratio=3.0,
)


def text(table, width=80):
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def test_perplexity():
    shown = text(perplexity_table([PERPLEXITY, PERPLEXITY, PERPLEXITY]))
    for part in ("context 2048", "12.0000", "23.4560", "+95.467 %", "99.12 %", "1.23e-07", "nan", "25.0 s", "2.50"):
        assert shown.count(part) == 3, part


def test_choices():
    shown = text(choice_table([CHOICE]))
    for part in ("continuation", "32", "93.8 ± 4.3 %", "90.6 ± 5.2 %", "96.9 %", "3.00"):
        assert part in shown


def test_conversion():
    entry = {"operator": "softmax", "reason": "excluded"}
    report = {
        "counts": {"softmax": {"replaced": 28, "left": 2}, "silu": {"replaced": 30, "left": 0}},
        "entries": [entry, entry, {"operator": "silu", "reason": ""}],
    }
    lines = text(conversion_table(report)).splitlines()
    assert any(line.split() == ["softmax", "28", "2", "excluded"] for line in lines)
    assert any(line.split() == ["silu", "30", "0"] for line in lines)


def test_saturations():
    assert "1,234,567" in text(saturation_table({"silu: exponent above H": 1234567}))
    assert "nothing" in text(saturation_table({}))
