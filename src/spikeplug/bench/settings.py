"""Define what a run of the benchmark is asked for. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from spikeplug.bench.cases import ALWAYS, ARMS, OF_MODELS, SECTIONS, Case, cases
from spikeplug.errors import SpikeplugError


@dataclass(frozen=True)
class Settings:
    """What to measure.

    operators  names of cases.OPERATORS
    quick      few and small shapes, few rounds
    rounds     of interleaved runs; slow arms run in fewer
    memory     whether peak memory is measured too, in a process per arm
    arms       names of cases.ARMS to time; the kernel and the exact arm always are
    sections   names of cases.SECTIONS

    Errors: SpikeplugError for no rounds, or if nothing is left to measure.
    """

    operators: tuple[str, ...]
    quick: bool = False
    rounds: int = 21
    memory: bool = True
    arms: tuple[str, ...] = ARMS
    sections: tuple[str, ...] = SECTIONS

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise SpikeplugError(f"runs is {self.rounds}; give at least 1.")
        if not self.cases and not self.of_models:
            what, where = ", ".join(self.operators), ", ".join(self.sections) or "none"
            raise SpikeplugError(f"nothing to measure of {what} in these sections: {where}; choose others.")

    @property
    def cases(self) -> list[Case]:
        """Return the cases of operators."""
        return cases(self.operators, self.quick, self.sections)

    @property
    def of_models(self) -> tuple[str, ...]:
        """Return the sections that need a model."""
        return tuple(section for section in self.sections if section in OF_MODELS)

    @property
    def timed(self) -> tuple[str, ...]:
        """Return the arms that are timed, in order; the contract runs others too."""
        return tuple(arm for arm in ARMS if arm in (*self.arms, *ALWAYS))

    @property
    def budget(self) -> float:
        """Return the seconds a base may take in all rounds; if one takes more, there are fewer rounds."""
        return 1.0 if self.quick else 10.0

    @property
    def others(self) -> float:
        """Return the seconds any other arm may take in all rounds before it runs in fewer."""
        return 0.4 * self.budget
