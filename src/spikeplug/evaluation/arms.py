"""Run the same work on the exact and on the converted model, one right after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch

from spikeplug.conversion import Report
from spikeplug.measurement.comparing import converted
from spikeplug.numerics import Numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")


@dataclass(frozen=True)
class Pair(Generic[T]):
    """What the exact and the converted model returned for the same work, and the wall-clock seconds of each."""

    exact: T
    converted: T
    exact_seconds: float
    converted_seconds: float


class Arms:
    """Runs a piece of work on the exact and on the converted model; they take turns in which runs first.

    Taking turns keeps caches, clocks and other load on the machine from favouring one of them. Only the work is timed,
    not the conversion.

    spiking   the converted model, where that is a model of its own; None: the model is converted for each piece of
              work, and exact again after it, whatever happens
    """

    def __init__(
        self,
        model: PreTrainedModel,
        numerics: Numerics,
        operators: Sequence[str] | None,
        exclude: str | None,
        spiking: PreTrainedModel | None = None,
    ) -> None:
        self.model, self.spiking = model, spiking
        self._numerics, self._operators, self._exclude = numerics, operators, exclude
        self._converted_first = False

    def converted(self) -> AbstractContextManager[Report]:
        """Return a context manager: the model is converted within its block, which gets the conversion report."""
        return converted(self.model, self._numerics, self._operators, self._exclude)

    def both(self, work: Callable[[PreTrainedModel], T]) -> Pair[T]:
        """Call `work` with the exact model and with the converted one, and return both results and times.

        Which of the two calls is first alternates from one use of this method to the next.
        """
        converted_first, self._converted_first = self._converted_first, not self._converted_first
        if converted_first:
            spiking, spiking_seconds = self._spiking(work)
            exact, exact_seconds = self._timed(work, self.model)
        else:
            exact, exact_seconds = self._timed(work, self.model)
            spiking, spiking_seconds = self._spiking(work)
        return Pair(exact, spiking, exact_seconds, spiking_seconds)

    def _spiking(self, work: Callable[[PreTrainedModel], T]) -> tuple[T, float]:
        if self.spiking is not None:
            return self._timed(work, self.spiking)
        with self.converted():
            return self._timed(work, self.model)

    def _timed(self, work: Callable[[PreTrainedModel], T], model: PreTrainedModel) -> tuple[T, float]:
        start = time.perf_counter()
        with torch.inference_mode():
            result = work(model)
            if model.device.type != "cpu":
                torch.accelerator.synchronize(model.device)
        return result, time.perf_counter() - start
