"""Measure how errors build up through a model, write the rows to a folder, and draw a page of them.

A run that was stopped can be resumed from its folder.
Names are imported when they are first used, so that a command line can check its arguments before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikeplug.lazy import names_of

if TYPE_CHECKING:
    from spikeplug.report.folder import RunFolder, check_folder, read
    from spikeplug.report.page import make_record, render, schema, write_tables
    from spikeplug.report.runner import run
    from spikeplug.report.sections import STUDIES, sections_of
    from spikeplug.report.settings import Settings

__all__ = [
    "STUDIES",
    "RunFolder",
    "Settings",
    "check_folder",
    "make_record",
    "read",
    "render",
    "run",
    "schema",
    "sections_of",
    "write_tables",
]

__getattr__ = names_of(
    __name__,
    {
        "folder": ("RunFolder", "check_folder", "read"),
        "page": ("make_record", "render", "schema", "write_tables"),
        "runner": ("run",),
        "sections": ("STUDIES", "sections_of"),
        "settings": ("Settings",),
    },
)
