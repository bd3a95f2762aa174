"""What an evaluation found: frozen records, and the one function that turns them into JSON values.

Units: seconds are wall clock, percentages lie in [0, 100] (a change may be negative), KL divergences are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol


class ConversionReport(Protocol):
    """What is used of the report of `spikeplug.convert`."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class TextFacts:
    """Which text was read: the reference text differs from one Python version to the next."""

    characters: int
    tokens: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PerplexityResult:
    """Both models on the same windows of one length. A prediction is made at every position but a window's last.

    perplexity = exp(mean negative log-likelihood over all predictions);
    agreement  = share of the predictions with the same most likely token;
    KL         = sum_v p_v (log p_v - log q_v), p the exact and q the converted distribution of one prediction.
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

    The results' seconds are added up over the pieces of work, whichever of the processes did them; `seconds` is the
    wall clock of the whole run.
    """

    text: TextFacts
    perplexity: tuple[PerplexityResult, ...]
    choices: tuple[ChoiceResult, ...]
    conversion: ConversionReport
    saturations: Mapping[str, int]
    seconds: float
    processes: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what is not a finite number becomes null (JSON knows no NaN)."""
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


def finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: such a figure is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
