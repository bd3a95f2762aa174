"""What an evaluation found, and the JSON record of it (`eval.schema.json`).

Units: seconds are wall clock, percentages lie in [0, 100] (a change may be negative), KL divergences are in nats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from spikeplug.measurement.record import finite, origin, read_schema
from spikeplug.numerics import Numerics

#: Raised by every change that a reader of the file could notice.
SCHEMA_VERSION = 3


class ConversionReport(Protocol):
    """The part of the report of `spikeplug.convert` that is used here."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """Which text was read. The reference text differs between Python versions."""

    characters: int
    tokens: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PerplexityResult:
    """Both models on the same windows of one length. Every position of a window but the last makes a prediction.

    perplexity = exp(mean negative log-likelihood over all predictions)
    agreement  = share of the predictions with the same most likely token
    KL         = Σ_v p_v (log p_v - log q_v), p the exact and q the converted distribution of one prediction
    """

    context: int
    windows: int
    predictions: int
    exact_perplexity: float
    converted_perplexity: float
    change_percent: float
    agreement_percent: float
    mean_kl: float
    max_kl: float
    exact_seconds: float
    converted_seconds: float
    time_ratio: float


@dataclass(frozen=True, kw_only=True)
class ChoiceResult:
    """Both models on the same multiple-choice items. Standard error of an accuracy p: 100 sqrt(p (1 - p) / items)."""

    task: str
    items: int
    exact_percent: float
    converted_percent: float
    exact_standard_error: float
    converted_standard_error: float
    agreement_percent: float
    exact_seconds: float
    converted_seconds: float
    time_ratio: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything one run of `evaluate` found.

    The seconds of the results are added up over the pieces of work, in whichever process they ran. `seconds` is the
    wall clock of the whole run. `saturations` are those of this run alone.
    """

    text: TextFacts
    perplexity: tuple[PerplexityResult, ...]
    choices: tuple[ChoiceResult, ...]
    conversion: ConversionReport
    saturations: Mapping[str, int]
    seconds: float
    processes: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; what is not a finite number is None."""
        values = {
            "text": asdict(self.text),
            "perplexity": [asdict(result) for result in self.perplexity],
            "choices": [asdict(result) for result in self.choices],
            "conversion": self.conversion.to_dict(),
            "saturations": dict(self.saturations),
            "seconds": self.seconds,
            "processes": self.processes,
        }
        return {name: finite(value) for name, value in values.items()}


def make_record(
    evaluation: Evaluation, numerics: Numerics, arguments: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of the JSON file, as `eval.schema.json` describes them."""
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": dict(arguments),
        "numerics": numerics.to_dict(),
        "model": dict(model),
        **evaluation.to_dict(),
    }


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file."""
    return read_schema("spikeplug.evaluation", "eval.schema.json")
