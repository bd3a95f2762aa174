"""A run: everything that is measured, one after the other, with the contract of each before its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from spikeplug.bench import contract, estimates, memory
from spikeplug.bench.arms import Arm, arms
from spikeplug.bench.cases import ALWAYS, ARMS, BASES, OF_MODELS, SECTIONS, Case, cases, wanted
from spikeplug.bench.model import Pair, Work
from spikeplug.bench.results import Row, broken, figures
from spikeplug.bench.timing import interleaved
from spikeplug.errors import SpikeplugError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

#: Told the stage, and how much of all the work is done, in a unit of its own.
Progress = Callable[[str, int, int], None]
_Run = Callable[[list[Row]], list[Row]]
#: What all arms of a case have in common, as Row.case.
_Key = tuple[str, str, str, str, str]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Settings:
    """What a run measures.

    operators  of cases.OPERATORS
    quick      few and small shapes, few rounds
    rounds     of interleaved runs; slow arms run in fewer
    memory     whether peak memory is measured too: a process for each arm
    arms       of cases.ARMS: which are timed; the kernel and the exact one are always
    sections   of cases.SECTIONS

    Errors: SpikeplugError for no rounds, or where nothing is left to measure.
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
        """What is measured of operators."""
        return cases(self.operators, self.quick, self.sections)

    @property
    def of_models(self) -> tuple[str, ...]:
        """The sections that need a model."""
        return tuple(section for section in self.sections if section in OF_MODELS)

    @property
    def timed(self) -> tuple[str, ...]:
        """The arms that are timed, in order; the contract runs others too."""
        return tuple(arm for arm in ARMS if arm in (*self.arms, *ALWAYS))

    @property
    def budget(self) -> float:
        """Seconds a base may take in all rounds; if one takes more, there are fewer."""
        return 1.0 if self.quick else 10.0

    @property
    def others(self) -> float:
        """Seconds an arm that is no base may take in all rounds before it runs in fewer."""
        return 0.4 * self.budget


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and the token ids (1, N) it reads. given: as the command line got it, to load it again
    where memory is measured."""

    model: PreTrainedModel
    ids: Tensor
    name: str
    given: str | None


@dataclass(frozen=True)
class _Step:
    """stage: what is told of it. seconds: how long it takes, roughly. run: of the rows so far, those after it."""

    stage: str
    seconds: float
    run: _Run

    @property
    def weight(self) -> int:
        """Whole seconds, for the progress bar."""
        return max(1, round(self.seconds))


def measure(settings: Settings, subject: Subject | None = None, progress: Progress | None = None) -> list[Row]:
    """Measure operators, and a model if there is one.

    Errors: SpikeplugError for a model that cannot be converted.
    """
    tell = progress or (lambda stage, done, total: None)
    steps = [*_of_operators(settings)]
    if subject is not None and settings.of_models:
        steps += _of_model(Pair(subject.model, subject.ids, settings.quick), subject, settings)
    rows: list[Row] = []
    total, done = sum(step.weight for step in steps), 0
    for step in steps:
        tell(step.stage, done, total)
        rows = step.run(rows)
        done += step.weight
    tell("done", total, total)
    return rows


def _of_operators(settings: Settings) -> Iterator[_Step]:
    for case in settings.cases:
        seconds = estimates.of_case(case, settings)
        yield _Step(f"{case.operator} {case.shown}", seconds, _adding(partial(measured, case, settings)))
    for arm in settings.timed if settings.memory else ():
        there = [case for case in settings.cases if case.section == "operators" and arm in case.arms]
        if there:
            ask = partial(memory.peaks, arm=arm, threads=torch.get_num_threads())
            run = _weighing(arm, {_head_of_case(case).case: case for case in there}, ask)
            yield _Step(f"peak memory, {arm}", estimates.of_peaks(there, arm), run)


def _of_model(pair: Pair, subject: Subject, settings: Settings) -> Iterator[_Step]:
    broken_row = broken(Row("model", "prefill and decode", subject.name, "short prompt", "", None, "", True))
    yield _Step("contract", 1.0, _adding(lambda: [] if pair.kept else [broken_row]))
    works = pair.work(settings.of_models)
    for work in works:
        run = _adding(partial(_of_work, work, pair, subject, settings))
        yield _Step(f"{work.name}, {work.shape}", estimates.of_work(work, pair, settings), run)
    prefills = {_head_of_work(work, subject).case: work.length for work in works if work.name == "prefill"}
    for arm in ALWAYS if settings.memory and prefills else ():
        ask = partial(memory.model_peaks, subject.given, arm=arm, threads=torch.get_num_threads())
        seconds = estimates.of_model_peaks(prefills.values(), arm, pair)
        yield _Step(f"peak memory of prefills, {arm}", seconds, _weighing(arm, prefills, ask))


def _adding(found: Callable[[], list[Row]]) -> _Run:
    return lambda rows: rows + found()


def _weighing(arm: str, of: Mapping[_Key, _Item], ask: Callable[[list[_Item]], list[float | None]]) -> _Run:
    """Fill in the arm's peak memory in the cases `of`, where it has other figures."""

    def run(rows: list[Row]) -> list[Row]:
        there = [row.case for row in rows if row.arm == arm and row.equal and row.case in of]
        peaks = dict(zip(there, ask([of[case] for case in there]), strict=True))
        return [replace(row, peak_mib=peaks[row.case]) if row.arm == arm and row.case in peaks else row for row in rows]

    return run


def _head_of_case(case: Case) -> Row:
    return Row(case.section, case.operator, case.model, case.shown, case.axis, case.size, "", True)


def _head_of_work(work: Work, subject: Subject) -> Row:
    return Row(work.section, work.name, subject.name, work.shape, "", None, "", True)


@torch.inference_mode()
def measured(case: Case, settings: Settings) -> list[Row]:
    """The rows of one case; one without figures if its contract is not kept."""
    return _rows(_head_of_case(case), arms(case, settings.arms), settings)


@torch.inference_mode()
def _of_work(work: Work, pair: Pair, subject: Subject, settings: Settings) -> list[Row]:
    """None of a model whose contract is not kept: that has a row of its own."""
    if not pair.kept:
        return []
    found = work.make(work.length, wanted(work.names, settings.arms))
    return _rows(_head_of_work(work, subject), found, settings, work.tokens)


def _rows(head: Row, found: dict[str, Arm], settings: Settings, tokens: int | None = None) -> list[Row]:
    """Where there is a closed form the contract comes first, whether that is timed or not."""
    if "closed" in found and not contract.kept(found):
        return [broken(head)]
    timed = {name: arm for name, arm in found.items() if name in settings.timed}
    least = min(3, settings.rounds)
    timing = interleaved(
        timed, settings.rounds, bases=BASES, budget=settings.budget, others=settings.others, least=least
    )
    return figures(head, timing, tokens)
