"""A run: everything that is measured, one after the other, with the contract of each before its figures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spikeplug.bench import contract, memory
from spikeplug.bench.arms import arms
from spikeplug.bench.cases import Case, cases
from spikeplug.bench.model import Pair, Work
from spikeplug.bench.results import Row, broken, figures
from spikeplug.bench.timing import Timing, interleaved
from spikeplug.errors import SpikeplugError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Told the stage, and how much of all the work is done, in a unit of its own.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """What a run measures.

    operators  of cases.OPERATORS
    quick      few and small shapes, few rounds
    rounds     of interleaved runs; slow arms run in fewer
    memory     whether peak memory is measured too: a process for each arm

    Errors: SpikeplugError for no rounds.
    """

    operators: tuple[str, ...]
    quick: bool = False
    rounds: int = 21
    memory: bool = True

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise SpikeplugError(f"runs is {self.rounds}; give at least 1.")

    @property
    def budget(self) -> float:
        """Seconds an arm may take in all rounds before it runs in fewer."""
        return 1.0 if self.quick else 10.0


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and the token ids (1, N) it reads. given: as the command line got it, to load it again
    where memory is measured."""

    model: PreTrainedModel
    ids: Tensor
    name: str
    given: str | None


def measure(settings: Settings, subject: Subject | None = None, progress: Progress | None = None) -> list[Row]:
    """Measure operators, and a model if there is one.

    Errors: SpikeplugError for a model that cannot be converted.
    """
    tell = progress or (lambda stage, done, total: None)
    planned = cases(settings.operators, settings.quick)
    pair = None if subject is None else Pair(subject.model, subject.ids, settings.quick)
    weights = [_weight(case, settings) for case in planned]
    jobs = [] if pair is None else pair.work()
    # In seconds, roughly, of a full run; of a quick one all are alike.
    each = 1 if settings.quick else 20
    total, done, rows = sum(weights) + each * len(jobs), 0, []
    for case, weight in zip(planned, weights, strict=True):
        tell(f"{case.operator} {case.shown}", done, total)
        rows += measured(case, settings)
        done += weight
    if subject is not None and pair is not None:
        tell(f"{subject.name}, contract", done, total)
        for found in _model_rows(pair, subject, settings):
            rows += found
            done = min(total, done + each)
            tell(f"{subject.name}, layer and whole model", done, total)
    tell("done", total, total)
    return rows


@torch.inference_mode()
def measured(case: Case, settings: Settings) -> list[Row]:
    """The rows of one case; one without figures if its contract is not kept."""
    head = Row(case.section, case.operator, case.model, case.shown, case.axis, case.size, "", True)
    found = arms(case)
    if not contract.kept(found):
        return [broken(head)]
    rows = figures(head, _timed(found, settings))
    if not settings.memory or case.section != "operators":
        return rows
    threads = torch.get_num_threads()
    return [replace(row, peak_mib=_peak(lambda arm=row.arm: memory.peak(case, arm, threads))) for row in rows]  # type: ignore[misc]


@torch.inference_mode()
def _model_rows(pair: Pair, subject: Subject, settings: Settings) -> Iterator[list[Row]]:
    if not pair.kept():
        yield [Row("model", "prefill and decode", subject.name, "short prompt", "", None, "kernel", False)]
        return
    for make in pair.work():
        work = make()
        head = Row(work.section, work.name, subject.name, work.shape, "", None, "", True)
        if "closed" in work.arms and not contract.kept(work.arms):
            yield [broken(head)]
            continue
        rows = figures(head, _timed(work.arms, settings), work.tokens)
        if settings.memory and work.name == "prefill":
            rows = [_with_memory(row, subject, work) for row in rows]
        yield rows


def _with_memory(row: Row, subject: Subject, work: Work) -> Row:
    if row.arm not in ("exact", "kernel"):
        return row
    threads = torch.get_num_threads()
    return replace(row, peak_mib=_peak(lambda: memory.model_peak(subject.given, work.tokens, row.arm, threads)))


def _peak(ask: Callable[[], float | None]) -> float | None:
    """None, with a warning, where the process failed: what was measured before it is not to be lost."""
    try:
        return ask()
    except SpikeplugError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        return None


def _timed(arms: dict[str, Callable[[], Tensor]], settings: Settings) -> Timing:
    return interleaved(arms, settings.rounds, budget=settings.budget, least=min(3, settings.rounds))


def _weight(case: Case, settings: Settings) -> int:
    """Seconds, roughly."""
    seconds = 2.0 + case.elements / 5e6 * (1 if settings.quick else 3)
    processes = 5 * 4.0 if settings.memory and case.section == "operators" else 0.0
    return round(seconds + processes)
