"""Event counts are pinned: how a simulation is computed may change, what it counts may not.

The counts of every verb on the inputs of the contract (tests/golden/populations.json), and that they depend neither on
how the neurons are cut into blocks, nor on the width they are computed in, nor on whether somebody watches.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adversarial import edge_pairs, integers
from golden import make_populations
from primitives.cases import CASES, WIDEST, scope, signed
from torch import Tensor
from watching import Watching

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events, Scope, lif, population_step
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Simulated
from spikeplug.primitives.compare import simulate as compare
from spikeplug.primitives.divide import DivideSpec, divide
from spikeplug.primitives.divide.simulate import ordered_group, restoring_neuron
from spikeplug.primitives.norm import simulate as norm
from spikeplug.primitives.product import simulate as product
from spikeplug.primitives.relay import simulate as relay

GOLDEN: dict[str, dict[str, int]] = json.loads(make_populations.FILE.read_text(encoding="utf-8"))["verbs"]


@pytest.mark.parametrize("verb", CASES)
def test_counts_are_pinned(verb: str) -> None:
    assert make_populations.verb_counts(verb) == GOLDEN[verb]


def test_the_published_group_is_pinned() -> None:
    counts = make_populations.verb_counts("divide", PRESETS["paper"].realisation)
    assert counts == GOLDEN["divide, by the published group"]


@pytest.mark.parametrize("verb", CASES)
def test_counts_do_not_depend_on_blocks(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, answer = Events(), CASES[verb](Simulated())
    CASES[verb](Simulated(events=whole))
    for block in (7, 100):
        monkeypatch.setattr(lif, "_BLOCK", block)
        events = Events()
        assert torch.equal(CASES[verb](Simulated(events=events)), answer)
        assert events.populations == whole.populations


@pytest.mark.parametrize("verb", CASES)
def test_who_watches_sees_every_update_and_changes_no_count(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lif, "_BLOCK", 7)  # and sees whole populations
    watching, plain = Watching(), Events()
    CASES[verb](Simulated(events=watching))
    CASES[verb](Simulated(events=plain))
    assert watching.totals() == GOLDEN[verb]
    assert watching.populations == plain.populations
    watching.check()
    for name, population in watching.populations.items():
        seen = [spikes for place, _, spikes in watching.seen if place == name]
        assert population.kind != "threshold" or sum(seen) == population.spikes, name
        assert all(neurons <= population.neurons for place, neurons, _ in watching.seen if place == name), name


def test_counts_add_up_over_calls() -> None:
    events, once = Events(), Events()
    CASES["add"](Simulated(events=once))
    for _ in range(2):
        CASES["add"](Simulated(events=events))
    assert events.totals() == {name: 2 * count for name, count in once.totals().items()}
    assert (once + once).totals() == events.totals()
    assert [p.neurons for p in events.populations.values()] == [p.neurons for p in once.populations.values()]


@pytest.mark.parametrize(("bits", "fraction_bits"), [((31, 30), 0), ((31, 30), 17), ((32, 30), 4), ((30, 31), 17)])
@pytest.mark.parametrize("limit", [None, 5, (1 << 30) - 1, 1 << 30, (1 << 32) - 1])
def test_the_restoring_neuron_beside_the_limits_of_32_bits(
    bits: tuple[int, int], fraction_bits: int, limit: int | None
) -> None:
    a, b = edge_pairs(4000, *bits)
    spec = DivideSpec(*bits, fraction_bits, limit)
    # Beside small denominators the quotient needs 64 bits, beside large ones 32 hold everything.
    for denominator in (b, b | (1 << (bits[1] - 1))):
        narrow, wide = Events(), Events()
        quotient = restoring_neuron(a, denominator, spec, scope(narrow))
        assert torch.equal(quotient, divide(a, denominator, spec))
        # A numerator said to have 32 bits is divided in 64; its leading zeros send no spike.
        wider = DivideSpec(max(bits[0], 32), bits[1], fraction_bits, limit)
        restoring_neuron(a, denominator, wider, scope(wide))
        assert narrow.spikes == wide.spikes


@pytest.mark.parametrize("value_bits", [14, 15, 16, 17, 40])
@pytest.mark.parametrize("sign", [1, -1])
def test_gating_beside_the_limits_of_32_bits(value_bits: int, sign: int) -> None:
    a, b = edge_pairs(4000, 16, value_bits)
    a[0], b[0] = (1 << 16) - 1, (1 << value_bits) - 1
    events = Events()
    assert torch.equal(product.gate(a, sign * b, 16, scope(events)), sign * a * b)
    assert events.spikes == ones(a)


def ones(x: Tensor) -> int:
    return sum(abs(value).bit_count() for value in x.flatten().tolist())


def test_a_population_step_is_one_step_of_every_neuron() -> None:
    current, thresholds = integers(300, 10).view(30, 10), [1, 5, 77, 1000]
    events, watching = Events(), Watching()
    for each in (events, watching):
        each.population("test", "threshold", 11, 1200)
    fired = population_step(current, thresholds, scope(events))
    assert torch.equal(fired, (current.unsqueeze(-1) >= torch.tensor(thresholds)).sum(-1))
    assert torch.equal(fired, population_step(current, thresholds, scope(watching)))
    spikes = int(fired.sum())
    expected = {"spikes": spikes, "synops": spikes, "membrane_updates": 1200, "compares": 1200}
    expected["driven_updates"] = 4 * int((current != 0).sum())
    assert events.totals() == watching.totals() == {**expected, "steps": 0, "table_reads": 0}
    assert watching.seen == [("test", 1200, spikes)]


POPULATIONS: dict[str, Callable[[Tensor, Scope], Tensor]] = {
    "squares": lambda x, scope: norm.square_population(x, 40, scope),
    "roots": lambda x, scope: norm.root_population(x * x, 40, scope),
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_counts_of_the_one_shot_norms(name: str) -> None:
    events = Events()
    POPULATIONS[name](torch.arange(41), scope(events))
    assert tuple(events.totals().values()) == (820, 820, 1640, 1600, 1640, 1, 0)  # 0 drives no neuron


def either(a: Tensor, b: Tensor) -> int:
    """Return the steps, summed over pairs of elements, in which at least one of both sends a spike."""
    pairs = zip(*(x.flatten().tolist() for x in torch.broadcast_tensors(a, b)), strict=True)
    return sum((abs(x) | abs(y)).bit_count() for x, y in pairs)


A, B = signed(300, 20), signed(300, 20, seed=1)
ON, OFF = int((B > 0).sum()), int((B <= 0).sum())
#: (run, spikes, synops, membrane updates, driven ones, compares, steps), counted by hand from the READMEs.
BY_HAND: dict[str, tuple[Callable[[Scope], Any], tuple[int, int, int, int, int, int]]] = {
    "add": (lambda s: relay.add(A, B, 20, s), (ones(A) + ones(B), ones(A) + ones(B), 20 * 300, either(A, B), 0, 20)),
    "add a constant": (lambda s: relay.add(A, 77, 20, s), (ones(A), ones(A), 20 * 300, ones(A), 0, 20)),
    "add, broadcast": (
        lambda s: relay.add(A[:, None], B[:2], 20, s),
        (ones(A) + ones(B[:2]), 2 * ones(A) + 300 * ones(B[:2]), 20 * 600, either(A[:, None], B[:2]), 0, 20),
    ),
    "scale": (lambda s: relay.scale(A, -37, 20, s), (ones(A), ones(A), 20 * 300, ones(A), 0, 20)),
    "scale by 0": (lambda s: relay.scale(A, 0, 20, s), (ones(A), ones(A), 20 * 300, ones(A), 0, 20)),
    "select": (
        lambda s: relay.select(B > 0, A, B, 20, s),
        (ON + ones(A) + ones(B), 2 * ON + ones(A) + ones(B), 20 * 300, either(A, B), 0, 20),
    ),
    "select constants": (lambda s: relay.select(B > 0, 3, 5, 20, s), (ON, 2 * ON, 0, 0, 0, 0)),
    "magnitude": (lambda s: relay.magnitude(A, 20, s), (ones(A), ones(A), 20 * 300, ones(A), 0, 20)),
    "signed": (
        lambda s: relay.signed(A.abs(), B, 20, s),
        (ones(A) + int((B < 0).sum()), ones(A) + int((B < 0).sum()), 20 * 300, ones(A), 0, 20),
    ),
    "shift": (lambda s: relay.shift(A.abs(), B % 9 - 4, 20, 6, s), (ones(A), ones(A), 26 * 300, ones(A), 0, 26)),
    "round_half": (lambda s: relay.round_half(A, 20, s), (0, 0, 2 * 300, 0, 0, 2)),
    "clamp": (
        lambda s: relay.clamp(A, -9, 50, 20, s),
        (
            (spikes := int((A <= -9).sum() + (A.clamp(min=-9) >= 50).sum())),
            spikes,
            600,
            600 - 2 * int((A == 0).sum()),
            600,
            2,
        ),
    ),
    "reaches": (
        lambda s: compare.reaches(A, B, 20, s),
        ((reached := int((A >= B).sum())), reached, 300, 300 - int((A == 0).sum()), 300, 1),
    ),
    "leading_one": (
        lambda s: compare.leading_one(A.abs(), 20, s),
        (
            (position := sum(abs(x).bit_length() for x in A.tolist())),
            position,
            20 * 300,
            20 * (300 - int((A == 0).sum())),
            20 * 300,
            1,
        ),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_by_hand(name: str) -> None:
    run, expected = BY_HAND[name]
    events = Events()
    run(scope(events))
    assert tuple(events.totals().values()) == (*expected, 0)


def test_counts_of_a_race() -> None:
    """Two racers 101b and 011b, biased by 2^3: 4 + 1 steps; the second loses in the third step."""
    events = Events()
    assert compare.maximum(torch.tensor([5, 3]), 3, scope(events)).tolist() == [5]
    race, winner, readout = (events.populations[name] for name in ("test/race", "test/winner", "test"))
    # Trains of 13 = 01101b and 11 = 01011b: both fire once, then only the first does, twice.
    assert (race.spikes, race.membrane_updates, race.driven_updates, race.compares) == (2 + 2, 10, 3 + 3, 10)
    assert (winner.spikes, winner.synops, winner.membrane_updates, winner.driven_updates) == (3, 3 * 3, 5, 3)
    assert (readout.membrane_updates, readout.driven_updates, readout.idle_updates, readout.steps) == (5, 3, 2, 5)


def test_a_width_beyond_64_bits_is_refused() -> None:
    one = torch.ones(1, dtype=torch.int64)
    with pytest.raises(SpikeplugError, match="membranes of 66 bits, more than the 64 that can be simulated"):
        ordered_group(one, one, DivideSpec(4, 60, 4, limit=16), scope())
    assert WIDEST + 2 == 64
