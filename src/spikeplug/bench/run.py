"""Run: measure one case after the other, and check the contract of each before its timing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch

from spikeplug.bench import contract, estimates, memory
from spikeplug.bench.arms import Arm, arms
from spikeplug.bench.cases import ALWAYS, BASES, Case, wanted
from spikeplug.bench.model import Pair, Work
from spikeplug.bench.results import Row, broken, figures
from spikeplug.bench.settings import Settings
from spikeplug.bench.timing import interleaved
from spikeplug.progress import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_Run = Callable[[list[Row]], list[Row]]
#: What all arms of a case have in common, as Row.case.
_Key = tuple[str, str, str, str, str]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Subject:
    """Hold a model to measure, and the token ids (1, tokens) it reads.

    name    its name in the rows
    given   the model as on the command line, to load it again in the processes that measure memory
    """

    model: PreTrainedModel
    ids: Tensor
    name: str
    given: str | None


@dataclass(frozen=True)
class _Step:
    """Describe one step of the run.

    stage     its name, for the progress bar
    seconds   an estimate of its time
    run       takes all rows so far; returns them with those of this step added, or with more figures
    """

    stage: str
    seconds: float
    run: _Run

    @property
    def weight(self) -> int:
        """Return the estimated time in whole seconds, at least 1, for the progress bar."""
        return max(1, round(self.seconds))


def measure(settings: Settings, subject: Subject | None = None, progress: Progress | None = None) -> list[Row]:
    """Measure operators, and a model if there is one; return the rows.

    Errors: SpikeplugError for a model that cannot be converted.
    """
    tell = progress or silent
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
    """Return a step's function that fills in the peak memory (peak_mib) of one arm.

    of   the cases to measure, by the key that rows share
    ask  measures a list of them, returns MiB
    Rows without figures are left as they are.
    """

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
    """Check and time one case; return a row per arm, or one row without figures if an integer arm is wrong."""
    return _rows(_head_of_case(case), arms(case, settings.arms), settings)


@torch.inference_mode()
def _of_work(work: Work, pair: Pair, subject: Subject, settings: Settings) -> list[Row]:
    """Time some work of a model; return a row per arm. Return none if the outputs of the model were wrong.

    That failure has a row of its own.
    """
    if not pair.kept:
        return []
    found = work.make(work.length, wanted(work.names, settings.arms))
    return _rows(_head_of_work(work, subject), found, settings, work.tokens)


def _rows(head: Row, found: dict[str, Arm], settings: Settings, tokens: int | None = None) -> list[Row]:
    """Check the arms against the closed form, if it is among them, then time them; return a row per timed arm."""
    if "closed" in found and not contract.kept(found):
        return [broken(head)]
    timed = {name: arm for name, arm in found.items() if name in settings.timed}
    least = min(3, settings.rounds)
    timing = interleaved(
        timed, settings.rounds, bases=BASES, budget=settings.budget, others=settings.others, least=least
    )
    return figures(head, timing, tokens)
