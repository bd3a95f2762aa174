"""Speed: operators, a layer and a whole model beside torch's exact ops and a plain copy, as ratios, none without its
contract kept in the same run."""

from spikeplug.bench.cases import OPERATORS, chosen
from spikeplug.bench.export import bench_csv, bench_schema, make_bench_record
from spikeplug.bench.page import bench_page
from spikeplug.bench.results import COLUMNS, Row, failures
from spikeplug.bench.run import Settings, Subject, run
from spikeplug.bench.table import tables

__all__ = [
    "COLUMNS",
    "OPERATORS",
    "Row",
    "Settings",
    "Subject",
    "bench_csv",
    "bench_page",
    "bench_schema",
    "chosen",
    "failures",
    "make_bench_record",
    "run",
    "tables",
]
