"""A realisation changes which neurons compute, and so what is counted; it never changes an output bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from operators.inputs import same
from operators.samples import SAMPLES, samples

from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Simulated
from spikeplug.primitives.divide import DivideSpec
from spikeplug.realisation import Realisation

#: Narrow, so that ordered norms can be simulated.
NARROW = Numerics(bits=4, working_bits=8)
REALISATIONS = {
    "restoring": Realisation(),
    "ordered division": Realisation(division="ordered"),
    "ordered division, counted": Realisation(division="ordered", code="count", steps=4),
    "ordered norm": Realisation(norm="ordered"),
    "ordered": Realisation(division="ordered", norm="ordered", code="population"),
}


def counted(name: str, numerics: Numerics, realisation: Realisation | None) -> Iterator[Events]:
    for given in samples(name, few=True):
        events = Events(realisation)
        result = OPERATORS[name](*given, numerics=numerics, events=events)
        assert same(result, OPERATORS[name](*given, numerics=numerics))
        yield events


@pytest.mark.parametrize("name", SAMPLES)
def test_outputs_are_equal_and_events_differ(name: str) -> None:
    events = {which: list(counted(name, NARROW, realisation)) for which, realisation in REALISATIONS.items()}
    totals = {which: [found.totals() for found in each] for which, each in events.items()}
    plain = totals["restoring"]
    # What has a division, a square or a root can be realised in another way.
    verbs = {population.split("/")[-1] for found in events["restoring"] for population in found.populations}
    divides, squares = "divide" in verbs, not verbs.isdisjoint({"squares", "root"})
    assert (totals["ordered division"] != plain) == divides
    assert (totals["ordered division, counted"] != totals["ordered division"]) == divides
    assert (totals["ordered norm"] != plain) == squares
    assert (totals["ordered"] != plain) == (divides or squares)


@pytest.mark.parametrize("name", ["softmax", "rms_norm", "gelu", "attention"])
def test_the_published_numerics_by_restoring_neurons(name: str) -> None:
    paper = PRESETS["paper"]
    published, restoring = (
        [events.totals() for events in counted(name, paper.numerics, realisation)]
        for realisation in (None, Realisation())
    )
    assert published != restoring
    assert published == [events.totals() for events in counted(name, paper.numerics, paper.realisation)], (
        "without a realisation, that of the preset with these numerics"
    )


def test_an_ordered_norm_that_is_too_wide_is_refused_in_one_sentence() -> None:
    with pytest.raises(SpikeplugError, match="use norm='restoring', or fewer working_bits") as caught:
        OPERATORS["square"](torch.ones(2), events=Events(Realisation(norm="ordered")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["phase", "population"])
def test_other_codes_bring_the_operands_in_one_step(code: str) -> None:
    """Of the ordered group; the count code brings them in T steps, and one more is the go spike."""
    totals = []
    for realisation in (
        Realisation(division="ordered", code=code),
        Realisation(division="ordered", code="count", steps=8),
    ):  # type: ignore[arg-type]
        events = Events(realisation)
        on = Simulated(NARROW, "test", events)
        assert on.divide(torch.tensor([11]), torch.tensor([16]), DivideSpec(4, 5, 4, limit=16)).item() == 11
        totals.append(events.steps)
    assert totals == [2, 9]
