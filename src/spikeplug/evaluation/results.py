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
SCHEMA_VERSION = 5


class ConversionReport(Protocol):
    """Anything that tells as a dict what `spikeplug.convert` replaced and left, like the report it returns."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """Length and SHA-256 (of the UTF-8 bytes) of the text that was read. The default text differs by Python version."""

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
    """Both models on the same multiple-choice items of one task.

    exact_percent, converted_percent   accuracy; its standard error is 100 sqrt(a (1 - a) / items), a = accuracy / 100
    agreement_percent                  share of the items for which both models pick the same choice
    time_ratio                         converted_seconds / exact_seconds
    """

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

    The seconds within `perplexity` and `choices` are sums over all processes. `seconds` is the wall clock of the whole
    run. `saturations`: kind of saturation -> number of values clamped in this run. `processes`: their number.
    `peak_memory`: largest memory of this process so far, in bytes; None where nothing says it.
    """

    text: TextFacts
    perplexity: tuple[PerplexityResult, ...]
    choices: tuple[ChoiceResult, ...]
    conversion: ConversionReport
    saturations: Mapping[str, int]
    seconds: float
    processes: int = 1
    peak_memory: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as values JSON can hold: results become dicts, NaN and infinities None."""
        values = {
            "text": asdict(self.text),
            "perplexity": [asdict(result) for result in self.perplexity],
            "choices": [asdict(result) for result in self.choices],
            "conversion": self.conversion.to_dict(),
            "saturations": dict(self.saturations),
            "seconds": self.seconds,
            "processes": self.processes,
            "peak_memory": self.peak_memory,
        }
        return {name: finite(value) for name, value in values.items()}


def make_record(
    evaluation: Evaluation, numerics: Numerics, arguments: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an evaluation as the values of its JSON file, with date, commit, machine and numerics.

    arguments   name -> value of the command line's arguments
    model       facts about the model: name, type, parameters, dtype
    """
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": dict(arguments),
        "numerics": numerics.to_dict(),
        "model": dict(model),
        **evaluation.to_dict(),
    }


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the file that `spikeplug eval --json` writes."""
    return read_schema("spikeplug.evaluation", "eval.schema.json")
