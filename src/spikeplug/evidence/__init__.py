"""Measure operators and primitives against float64, compare them with baselines, and search for the worst errors."""

from spikeplug.evidence.baselines import BASELINES
from spikeplug.evidence.record import make_study_record, study_schema
from spikeplug.evidence.results import Settings, Study
from spikeplug.evidence.study import study
from spikeplug.evidence.subjects import SUBJECTS

__all__ = ["BASELINES", "SUBJECTS", "Settings", "Study", "make_study_record", "study", "study_schema"]
