"""Event counts are pinned: how a simulation is computed may change, what it counts may not.

The counts of every verb on the inputs of the contract, and that they depend neither on how the neurons are cut into
blocks, nor on the width they are computed in, nor on whether somebody watches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, field

import pytest
import torch
from adversarial import edge_pairs, integers
from test_contract import CASES
from torch import Tensor

from spikeplug import neurons
from spikeplug.neurons import Events, population_step
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Simulated
from spikeplug.primitives.divide import DivideSpec, divide
from spikeplug.primitives.divide.simulate import restoring_neuron
from spikeplug.primitives.norm import simulate as norm
from spikeplug.primitives.product import simulate as product

#: spikes, synops, membrane updates, compares, steps, table reads; counted by materialising every code and population.
GOLDEN = {
    "divide": (23222, 23222, 144000, 72000, 24, 0),
    "interpolate": (18385, 18385, 48000, 12000, 10, 8000),
    "mantissa": (55019, 55019, 156000, 124000, 9, 8000),
    "decay": (0, 0, 128000, 0, 32, 0),
    "piecewise": (158297, 158297, 312000, 260000, 14, 16000),
    "square_sum": (13599, 16599, 51060, 0, 18, 0),
    "root": (68148, 68148, 176000, 88000, 22, 0),
    "cordic": (13840, 68240, 74880, 24960, 54, 0),
    "gate": (12611, 12611, 48000, 0, 16, 0),
    "accumulate": (12611, 12611, 960, 0, 16, 0),
    "dot": (12611, 756660, 61200, 0, 17, 0),
    "signed_dot": (15121, 907260, 57600, 0, 16, 0),
}
ORDERED_GROUP = (23671897, 5961389482, 25344000, 768000, 33, 0)


@dataclass
class Watching(Events):
    """Hears every step."""

    seen: list[tuple[int, int]] = field(default_factory=list)

    def observe(self, membrane: Tensor, spikes: Tensor | None = None) -> None:
        assert spikes is None or spikes.dtype == torch.bool
        self.seen.append((membrane.numel(), 0 if spikes is None else int(spikes.sum())))


def counts(events: Events) -> tuple[int, ...]:
    return tuple(getattr(events, name) for name in Events.__dataclass_fields__)


def test_every_verb_has_its_counts() -> None:
    assert GOLDEN.keys() == CASES.keys()


@pytest.mark.parametrize("verb", CASES)
def test_counts_are_pinned(verb: str) -> None:
    for numerics, golden in ((Numerics(), GOLDEN[verb]), (PRESETS["paper"].numerics, GOLDEN[verb])):
        on = Simulated(numerics)
        CASES[verb](on)
        grouped = verb == "divide" and numerics.division == "ordered"
        assert astuple(on.events) == (ORDERED_GROUP if grouped else golden)


@pytest.mark.parametrize("verb", CASES)
def test_counts_do_not_depend_on_blocks(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurons, "_BLOCK", 7)
    on = Simulated(Numerics())
    cut = CASES[verb](on)
    assert astuple(on.events) == GOLDEN[verb]
    assert torch.equal(cut, CASES[verb](Simulated(Numerics())))


@pytest.mark.parametrize("verb", CASES)
def test_who_watches_sees_every_update_and_changes_no_count(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neurons, "_BLOCK", 7)  # and sees whole populations
    events = Watching()
    CASES[verb](Simulated(Numerics(), events))
    assert counts(events) == GOLDEN[verb]
    assert sum(size for size, _ in events.seen) == events.membrane_updates


@pytest.mark.parametrize(("bits", "fraction_bits"), [((31, 30), 0), ((31, 30), 17), ((32, 30), 4), ((30, 31), 17)])
def test_the_restoring_neuron_beside_the_limits_of_32_bits(bits: tuple[int, int], fraction_bits: int) -> None:
    a, b = edge_pairs(4000, *bits)
    spec = DivideSpec(*bits, fraction_bits)
    # Beside small denominators the quotient needs 64 bits, beside large ones 32 hold everything.
    for denominator in (b, b | (1 << (bits[1] - 1))):
        narrow, wide = Events(), Events()
        quotient = restoring_neuron(a, denominator, spec, narrow)
        assert torch.equal(quotient, divide(a, denominator, spec))
        # A numerator said to have 32 bits is divided in 64; its leading zeros send no spike.
        restoring_neuron(a, denominator, DivideSpec(max(bits[0], 32), bits[1], fraction_bits), wide)
        assert narrow.spikes == wide.spikes


@pytest.mark.parametrize("value_bits", [14, 15, 16, 17, 40])
@pytest.mark.parametrize("sign", [1, -1])
def test_gating_beside_the_limits_of_32_bits(value_bits: int, sign: int) -> None:
    a, b = edge_pairs(4000, 16, value_bits)
    a[0], b[0] = (1 << 16) - 1, (1 << value_bits) - 1
    events = Events()
    assert torch.equal(product.gate(a, sign * b, 16, events), sign * a * b)
    assert events.spikes == sum(x.bit_count() for x in a.tolist())


def test_a_population_step_is_one_step_of_every_neuron() -> None:
    current, thresholds = integers(300, 10).view(30, 10), [1, 5, 77, 1000]
    events, watching = Events(), Watching()
    fired = population_step(current, thresholds, events)
    assert torch.equal(fired, (current.unsqueeze(-1) >= torch.tensor(thresholds)).sum(-1))
    assert torch.equal(fired, population_step(current, thresholds, watching))
    assert astuple(events) == counts(watching) == (int(fired.sum()),) * 2 + (1200, 1200, 0, 0)
    assert watching.seen == [(1200, int(fired.sum()))]


POPULATIONS: dict[str, Callable[[Tensor, Events], Tensor]] = {
    "squares": lambda x, events: norm.square_population(x, 40, events),
    "roots": lambda x, events: norm.root_population(x * x, 40, events),
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_counts_of_the_one_shot_norms(name: str) -> None:
    events = Events()
    POPULATIONS[name](torch.arange(41), events)
    assert astuple(events) == (820, 820, 1640, 1640, 1, 0)
