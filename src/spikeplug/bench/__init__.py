"""Measure speed: operators, a layer and a whole model compared with torch's exact ops and a plain copy, as ratios.

A timing is reported only if the output equals the closed form bit for bit in the same run.

Names are imported when they are first used: the processes that measure memory load no more than an operator needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikeplug.lazy import names_of

if TYPE_CHECKING:
    from spikeplug.bench.cases import ARMS, OF_MODELS, OPERATORS, SECTIONS, chosen
    from spikeplug.bench.export import bench_csv, bench_schema, make_bench_record
    from spikeplug.bench.page import bench_page
    from spikeplug.bench.results import COLUMNS, Row, failures
    from spikeplug.bench.run import Subject, measure
    from spikeplug.bench.settings import Settings
    from spikeplug.bench.table import tables

__all__ = [
    "ARMS",
    "COLUMNS",
    "OF_MODELS",
    "OPERATORS",
    "SECTIONS",
    "Row",
    "Settings",
    "Subject",
    "bench_csv",
    "bench_page",
    "bench_schema",
    "chosen",
    "failures",
    "make_bench_record",
    "measure",
    "tables",
]

__getattr__ = names_of(
    __name__,
    {
        "cases": ("ARMS", "OF_MODELS", "OPERATORS", "SECTIONS", "chosen"),
        "export": ("bench_csv", "bench_schema", "make_bench_record"),
        "page": ("bench_page",),
        "results": ("COLUMNS", "Row", "failures"),
        "run": ("Subject", "measure"),
        "settings": ("Settings",),
        "table": ("tables",),
    },
)
