"""Evaluate a language model exact and converted, side by side, and audit what any model runs in floating point.

Names are imported when they are first used, so that a command line can check its arguments before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikeplug.lazy import names_of

if TYPE_CHECKING:
    from spikeplug.evaluation.inspection import Inspection, inspect_model
    from spikeplug.evaluation.results import (
        ChoiceResult,
        Evaluation,
        PerplexityResult,
        TextFacts,
        make_record,
        schema,
    )
    from spikeplug.evaluation.run import evaluate
    from spikeplug.evaluation.settings import Settings

__all__ = [
    "ChoiceResult",
    "Evaluation",
    "Inspection",
    "PerplexityResult",
    "Settings",
    "TextFacts",
    "evaluate",
    "inspect_model",
    "make_record",
    "schema",
]

__getattr__ = names_of(
    __name__,
    {
        "inspection": ("Inspection", "inspect_model"),
        "results": ("ChoiceResult", "Evaluation", "PerplexityResult", "TextFacts", "make_record", "schema"),
        "run": ("evaluate",),
        "settings": ("Settings",),
    },
)
