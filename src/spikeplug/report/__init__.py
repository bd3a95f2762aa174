"""How errors build up through a model: studies measured into a folder that can be gone on with, and a page of them."""

from spikeplug.report.export import make_record, schema, write_tables
from spikeplug.report.folder import RunFolder, read
from spikeplug.report.page import plotly, render, render_sections
from spikeplug.report.run import run
from spikeplug.report.sections import sections_of
from spikeplug.report.settings import STUDIES, Settings

__all__ = [
    "STUDIES",
    "RunFolder",
    "Settings",
    "make_record",
    "plotly",
    "read",
    "render",
    "render_sections",
    "run",
    "schema",
    "sections_of",
    "write_tables",
]
