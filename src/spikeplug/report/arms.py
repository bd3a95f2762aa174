"""Run changes of a model: convert it around each measurement, or switch the sites of a whole spiking model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from spikeplug.conversion.sites import Site, coding
from spikeplug.conversion.whole.plan import unrounded
from spikeplug.conversion.whole.recipe import Whole
from spikeplug.conversion.whole.retuned import retuned
from spikeplug.measurement.comparing import converted, evaluation_mode
from spikeplug.measurement.layers import find_layers
from spikeplug.measurement.recipes import saved_levels, saved_numerics
from spikeplug.numerics import Numerics
from spikeplug.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Change:
    """Describe a spiking form of the model. What a field leaves out computes the exact function.

    numerics   the numerics of the spiking operators
    levels     levels of inputs, keys and values of a whole model; None: its own
    operators  names of the operators that are coded; None: all
    layers     indices of the layers that are coded, without the modules outside of them; None: everything
    coded      sites that are coded; None: all
    exact      sites that are not
    """

    numerics: Numerics
    levels: Whole | None = None
    operators: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    coded: frozenset[Site] | None = None
    exact: frozenset[Site] = frozenset()

    @property
    def chooses_sites(self) -> bool:
        """Return whether it says by sites what is coded."""
        return self.coded is not None or bool(self.exact)

    def codes(self, site: Site) -> bool:
        """Return whether the site is coded, by `coded` and `exact`."""
        return (self.coded is None or site in self.coded) and site not in self.exact


class OperatorsArm:
    """Convert the exact model around each measurement: operators and layers that a change leaves out stay as they are.

    layers     of the model that runs
    reference  the change under which the model that runs is exact; None: the exact model itself
    """

    levels: Whole | None = None
    reference: Change | None = None

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.layers = model, find_layers(model)

    @contextmanager
    def converted(self, change: Change) -> Iterator[PreTrainedModel]:
        """Yield the model that runs under the change; it is exact again afterwards."""
        exclude = None if change.layers is None else self.layers.all_but(change.layers)
        with converted(self.model, change.numerics, change.operators, exclude):
            if not change.chooses_sites:
                yield self.model
                return
            with coding(self.model, lambda site, _: change.codes(site)):
                yield self.model


class WholeArm:
    """Run a whole spiking model, which was made once, and give the exact results at the sites a change leaves out.

    Its reference is itself with nothing coded: what a rotated residual stream is compared with has to be rotated, too.
    The exact model is used for its weights.
    """

    def __init__(self, model: PreTrainedModel, spiking: PreTrainedModel, progress: Progress = silent) -> None:
        self.exact, self.spiking, self._progress = model, spiking, progress
        self.layers = find_layers(spiking)
        self.levels, self._numerics = saved_levels(spiking), saved_numerics(spiking)
        self.reference = Change(self._numerics, coded=frozenset())

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        return unrounded(self.exact, self.spiking, progress=self._progress)

    @contextmanager
    def converted(self, change: Change) -> Iterator[PreTrainedModel]:
        """Yield the model that runs under the change; it is as before afterwards."""
        with evaluation_mode(self.spiking), retuned(self.spiking, change.numerics, change.levels or self.levels):
            if not change.chooses_sites and change.operators is None and change.layers is None:
                yield self.spiking
                return
            chosen = None if change.layers is None else [f"{self.layers.path}.{index}." for index in change.layers]

            def is_coded(site: Site, path: str) -> bool:
                return (
                    change.codes(site)
                    and (change.operators is None or site.operator in change.operators)
                    and (chosen is None or f"{path}.".startswith(tuple(chosen)))
                )

            with coding(self.spiking, is_coded, self._weights):
                yield self.spiking
