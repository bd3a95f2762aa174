"""Define what a run of the benchmark is asked for. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from spikeplug.bench.cases import ALWAYS, ARMS, OF_MODELS, SECTIONS, Case, cases
from spikeplug.errors import SpikeplugError


@dataclass(frozen=True)
class Settings:
    """Choose what a run of the benchmark measures.

    operators  names of cases.OPERATORS
    quick      True: few and small shapes
    rounds     number of rounds; a round runs every arm once, except slow ones
    memory     True: measure peak memory too, in a process per arm
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
        """Return the operators and shapes to measure, in order."""
        return cases(self.operators, self.quick, self.sections)

    @property
    def of_models(self) -> tuple[str, ...]:
        """Return the sections that need a model."""
        return tuple(section for section in self.sections if section in OF_MODELS)

    @property
    def timed(self) -> tuple[str, ...]:
        """Return the names of the arms that are timed, in order. Others may run only to check the outputs."""
        return tuple(arm for arm in ARMS if arm in (*self.arms, *ALWAYS))

    @property
    def budget(self) -> float:
        """Return the seconds that kernel, exact or copy may take in all rounds.

        If one of them takes more, there are fewer rounds.
        """
        return 1.0 if self.quick else 10.0

    @property
    def others(self) -> float:
        """Return the seconds that any other arm may take in all rounds; if it takes more, it runs in fewer rounds."""
        return 0.4 * self.budget
