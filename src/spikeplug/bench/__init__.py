"""Speed: operators, a layer and a whole model beside torch's exact ops and a plain copy, as ratios, none without its
contract kept in the same run.

What is here is imported when asked for: the processes that measure memory load no more than an operator needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikeplug.bench.cases import ARMS, OF_MODELS, OPERATORS, SECTIONS, chosen
    from spikeplug.bench.export import bench_csv, bench_schema, make_bench_record
    from spikeplug.bench.page import bench_page
    from spikeplug.bench.results import COLUMNS, Row, failures
    from spikeplug.bench.run import Settings, Subject, measure
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

_FILES = {
    "cases": ("ARMS", "OF_MODELS", "OPERATORS", "SECTIONS", "chosen"),
    "export": ("bench_csv", "bench_schema", "make_bench_record"),
    "page": ("bench_page",),
    "results": ("COLUMNS", "Row", "failures"),
    "run": ("Settings", "Subject", "measure"),
    "table": ("tables",),
}


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f"spikeplug.bench.{file}"), name)
    raise AttributeError(f"module 'spikeplug.bench' has no attribute {name!r}")
