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
    not the conversion. The model is exact again after every call, whatever happens.
    """

    def __init__(
        self, model: PreTrainedModel, numerics: Numerics, operators: Sequence[str] | None, exclude: str | None
    ) -> None:
        self.model = model
        self._numerics, self._operators, self._exclude = numerics, operators, exclude
        self._converted_first = False

    def converted(self) -> AbstractContextManager[Report]:
        """Return a context manager: the model is converted within its block, which gets the conversion report."""
        return converted(self.model, self._numerics, self._operators, self._exclude)

    def both(self, work: Callable[[], T]) -> Pair[T]:
        """Call `work` twice, with the model exact and with it converted, and return both results and times.

        work   a function without arguments that uses the attribute `model`

        Which of the two calls is first alternates from one use of this method to the next.
        """
        converted_first, self._converted_first = self._converted_first, not self._converted_first
        if converted_first:
            with self.converted():
                spiking, spiking_seconds = self._timed(work)
            exact, exact_seconds = self._timed(work)
        else:
            exact, exact_seconds = self._timed(work)
            with self.converted():
                spiking, spiking_seconds = self._timed(work)
        return Pair(exact, spiking, exact_seconds, spiking_seconds)

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        start = time.perf_counter()
        with torch.inference_mode():
            result = work()
            if self.model.device.type != "cpu":
                torch.accelerator.synchronize(self.model.device)
        return result, time.perf_counter() - start
