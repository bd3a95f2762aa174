"""What can be asked of a study, and what one found: frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spikeplug.errors import SpikeplugError
from spikeplug.evidence.distributions import DISTRIBUTIONS
from spikeplug.evidence.facts import Facts
from spikeplug.evidence.measures import Measures
from spikeplug.evidence.published import Figure
from spikeplug.evidence.search import Worst
from spikeplug.evidence.subjects import SUBJECTS
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics
from spikeplug.realisation import Realisation

PRIMITIVES = "primitives"
#: CORDIC's tree is built for up to 2^14 elements.
LARGEST_DIMENSION = 8192


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure. Errors: SpikeplugError for a value out of its domain.

    operators      names of the library, or "primitives"; all by default
    dimensions     lengths of the vectors, 1 to 8192
    distributions  of `distributions.DISTRIBUTIONS`
    elements       of every measurement, about
    bounds         search for the worst error, too
    candidates, steps   of the hill climbing
    grid           codes tried at most, evenly spread, of an operator of one number
    tokens         of the text read to record activations
    """

    numerics: Numerics = field(default_factory=Numerics)
    realisation: Realisation | None = None  # of the events in the facts; None: that of the numerics' preset
    operators: tuple[str, ...] = (*SUBJECTS, PRIMITIVES)
    dimensions: tuple[int, ...] = (8, 64, 256, 1024, 8192)
    distributions: tuple[str, ...] = DISTRIBUTIONS
    elements: int = 1 << 16
    bounds: bool = False
    candidates: int = 96
    steps: int = 120
    grid: int = 600_000
    tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        as_numerics(self.numerics)
        for name, given, known in (
            ("operator", self.operators, (*SUBJECTS, PRIMITIVES)),
            ("distribution", self.distributions, DISTRIBUTIONS),
        ):
            for value in given:
                if value not in known:
                    raise SpikeplugError(f"no {name} {value!r}; choose of {', '.join(known)}.")
            if not given or len(set(given)) < len(given):
                raise SpikeplugError(f"name each {name} once, and at least one.")
        for dimension in self.dimensions:
            if not 1 <= dimension <= LARGEST_DIMENSION:
                raise SpikeplugError(f"a dimension is {dimension}; it must lie between 1 and {LARGEST_DIMENSION}.")
        if not self.dimensions or len(set(self.dimensions)) < len(self.dimensions):
            raise SpikeplugError("name each dimension once, and at least one.")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement. method: "spiking" or a baseline's name; distribution: of the inputs ("integers" of a
    primitive, whose errors are in its own units); dimension: None where it does not matter."""

    name: str
    method: str
    dimension: int | None
    distribution: str
    measures: Measures


@dataclass(frozen=True, kw_only=True)
class BoundRow:
    """A bound beside the worst that was found. source: "ours", "published", or "published, of the largest": the same
    relative to the vector's largest element. Units: the output's (primitives: LSB)."""

    name: str
    source: str
    dimension: int | None
    worst: Worst

    @property
    def holds(self) -> bool:
        return self.worst.ratio <= 1


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything one run found. saturations: of the measurements, not of the search."""

    rows: tuple[Row, ...]
    facts: tuple[Facts, ...]
    figures: tuple[Figure, ...]
    bounds: tuple[BoundRow, ...]
    saturations: Mapping[str, int]
    seconds: float
