"""Exact and converted side by side: loading, perplexity, multiple choice, and the JSON record of a run."""

from spikeplug.evaluation.items import Question, read_questions
from spikeplug.evaluation.loading import find_source, load
from spikeplug.evaluation.processes import Processes, joined
from spikeplug.evaluation.record import make_record, schema, write_record
from spikeplug.evaluation.results import ChoiceResult, Evaluation, PerplexityResult
from spikeplug.evaluation.run import Settings, evaluate
from spikeplug.evaluation.text import default_text, read_text

__all__ = [
    "ChoiceResult",
    "Evaluation",
    "PerplexityResult",
    "Processes",
    "Question",
    "Settings",
    "default_text",
    "evaluate",
    "find_source",
    "joined",
    "load",
    "make_record",
    "read_questions",
    "read_text",
    "schema",
    "write_record",
]
