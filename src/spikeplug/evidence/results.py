"""Define the settings and the results of a study: frozen records."""

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
from spikeplug.numerics import Fields, Numerics
from spikeplug.presets import as_numerics
from spikeplug.realisation import Realisation

PRIMITIVES = "primitives"
#: The CORDIC tree takes up to 2^14 elements.
LARGEST_DIMENSION = 8192


@dataclass(frozen=True, kw_only=True)
class Settings(Fields):
    """Choose what a study measures.

    numerics       Numerics(...) or the name of a preset
    realisation    the neurons that are simulated for the facts; None: those that belong to the numerics
    operators      names of operators of the library, or "primitives"; all by default
    dimensions     lengths of the vectors, 1 to 8192
    distributions  names from `distributions.DISTRIBUTIONS`
    elements       approximate number of elements per measurement
    bounds         True to search for the worst error, too
    candidates     inputs that the search for the worst error (hill climbing) improves side by side
    steps          changes that the search tries on each candidate
    grid           most input codes to try, evenly spread, for an operator of one number
    tokens         tokens of the text from which activations are recorded
    seed           seed of all random numbers

    Errors: SpikeplugError for a value out of its domain.
    """

    numerics: Numerics = field(default_factory=Numerics)
    realisation: Realisation | None = None
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
        object.__setattr__(self, "numerics", as_numerics(self.numerics))
        for name, given, known in (
            ("operator", self.operators, (*SUBJECTS, PRIMITIVES)),
            ("distribution", self.distributions, DISTRIBUTIONS),
        ):
            for value in given:
                if value not in known:
                    raise SpikeplugError(f"unknown {name} {value!r}: choose from {', '.join(known)}.")
            if not given or len(set(given)) < len(given):
                raise SpikeplugError(f"name each {name} once, and at least one.")
        for dimension in self.dimensions:
            if not 1 <= dimension <= LARGEST_DIMENSION:
                raise SpikeplugError(f"a dimension is {dimension}; it must lie between 1 and {LARGEST_DIMENSION}.")
        if not self.dimensions or len(set(self.dimensions)) < len(self.dimensions):
            raise SpikeplugError("name each dimension once, and at least one.")


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold one measurement: the errors of one method on one kind of input.

    name          name of the operator or primitive
    method        "spiking", or the name of a baseline
    dimension     length of the vectors; None where it does not matter
    distribution  kind of input: "gaussian", "activations" or "adversarial"; for a primitive "exhaustive" (all inputs)
                  or "integers" (some of them)
    measures      the errors; for a primitive, its integer errors times its step
    """

    name: str
    method: str
    dimension: int | None
    distribution: str
    measures: Measures


@dataclass(frozen=True, kw_only=True)
class BoundRow:
    """Compare a bound with the worst error that was found.

    name       name of the operator or primitive
    source     "ours" (proven), "published", or "published, of the largest" (all outputs of a vector share the largest)
    dimension  length of the vectors; None where it does not matter
    worst      the worst error, its bound and its inputs; errors in units of the output (primitives: LSB)
    """

    name: str
    source: str
    dimension: int | None
    worst: Worst

    @property
    def holds(self) -> bool:
        """Return True if no error above the bound was found."""
        return self.worst.ratio <= 1


@dataclass(frozen=True, kw_only=True)
class Study:
    """Hold the results of one study.

    rows         errors of operators, baselines and primitives
    facts        neurons, codes and costs of each operator
    figures      published mean errors, measured again
    bounds       bounds and the worst errors found; empty without the search
    saturations  counts of saturated values by name, during the measurements of `rows`; the search does not count
    seconds      duration of the study
    """

    rows: tuple[Row, ...]
    facts: tuple[Facts, ...]
    figures: tuple[Figure, ...]
    bounds: tuple[BoundRow, ...]
    saturations: Mapping[str, int]
    seconds: float
