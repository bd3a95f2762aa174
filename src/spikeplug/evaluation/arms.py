"""Two arms, one model: the same work exact and converted, one right after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from spikeplug import conversion
from spikeplug.evaluation.results import ConversionReport
from spikeplug.numerics import Numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


@dataclass(frozen=True)
class Pair(Generic[T]):
    """What both arms made of the same work, and the wall-clock seconds of each."""

    exact: T
    converted: T
    exact_seconds: float
    converted_seconds: float


class Arms:
    """Runs a piece of work on the exact and on the converted model, taking turns in who goes first.

    Taking turns keeps caches, clocks and neighbours on the machine from favouring one arm. Only the work is timed, not
    the conversion. The model is exact again after every call, whatever happens.
    """

    def __init__(
        self, model: PreTrainedModel, numerics: Numerics, operators: Sequence[str] | None, exclude: str | None
    ) -> None:
        self.model = model
        self._config, self._operators, self._exclude = numerics, operators, exclude
        self._converted_first = False

    @contextmanager
    def converted(self) -> Iterator[ConversionReport]:
        """The model with spiking operators inside, exact outside."""
        report = conversion.convert(self.model, self._config, operators=self._operators, exclude=self._exclude)
        try:
            yield report
        finally:
            conversion.revert(self.model)

    def both(self, work: Callable[[], T]) -> Pair[T]:
        """Do `work` in each arm."""
        converted_first, self._converted_first = self._converted_first, not self._converted_first
        if converted_first:
            with self.converted():
                converted, converted_seconds = self._timed(work)
            exact, exact_seconds = self._timed(work)
        else:
            exact, exact_seconds = self._timed(work)
            with self.converted():
                converted, converted_seconds = self._timed(work)
        return Pair(exact, converted, exact_seconds, converted_seconds)

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        start = time.perf_counter()
        with torch.inference_mode():
            result = work()
            if self.model.device.type != "cpu":
                torch.accelerator.synchronize(self.model.device)
        return result, time.perf_counter() - start
