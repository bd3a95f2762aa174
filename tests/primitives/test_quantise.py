"""Contract: the closed form = the neurons step by step = the published equations, on every small input; predicted
events = simulated ones. The equations stand here as the publications write them, over rational numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from counting import cases, same_events
from hypothesis import given, settings
from hypothesis import strategies as st
from primitives.cases import scope
from torch import Tensor
from watching import Watching, thresholds_fit  # noqa: F401

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.primitives.arithmetic import Counted, Simulated
from spikeplug.primitives.quantise import QuantiseSpec, few_spikes, gif, phase, qcfs, quantise, simulate, st_bif

HALF = Fraction(1, 2)
BITS = 6
ALL = torch.arange(1 - (1 << BITS), 1 << BITS)
THRESHOLDS = range(1, 16)


def st_bif_equation(x: int, threshold: int, low: int, high: int, steps: int) -> int:
    """SpikeZIP-TF: x arrives in the first step."""
    q, a = HALF, 0
    for t in range(steps):
        q += Fraction(x, threshold) if t == 0 else 0
        spike = 1 if q >= 1 and a < high else -1 if q < 0 and a > low else 0
        q, a = q - spike, a + spike
    return a


def qcfs_equation(x: int, step: int, steps: int) -> int:
    """SpikingJelly: two integrate-and-fire neurons with a constant current."""
    sums = []
    for sign in (1, -1):
        v, n, current = Fraction(0), 0, Fraction(max(sign * x, 0), steps)
        for _ in range(steps):
            v += current
            spike = v + Fraction(step, 2) - step >= 0
            v, n = v - step * spike, n + spike
        sums.append(n)
    return sums[0] - sums[1]


def fas_equation(x: int, step: int, steps: int) -> int:
    """FAS: the membrane starts at half the threshold, and x arrives in every step; the threshold is T levels."""
    threshold = steps * step
    membrane, n = Fraction(threshold, 2), 0
    for _ in range(steps):
        membrane += x
        spike = membrane >= threshold
        membrane, n = membrane - threshold * spike, n + spike
    return n


def gif_equation(x: int, step: int, most: int, steps: int) -> int:
    """SpikeLLM: a code is sent in spikes of at most `most`; what is left after all steps is lost."""
    v = (Fraction(x, step) + HALF).__floor__()
    sent = 0
    for _ in range(steps):
        s = min(v, most)
        v, sent = v - s, sent + s
    return sent


def few_spikes_equation(x: int, unit: int, steps: int) -> int:
    """LAS: h_k = v_max / 2^k; v_max is 2^T units."""
    v, v_max, total = Fraction(abs(x)), unit << steps, Fraction(0)
    for k in range(1, steps + 1):
        h = Fraction(v_max, 2**k)
        z = v > h
        v, total = v - h * z, total + h * z
    return int(total / unit) * (1 if x >= 0 else -1)


def phase_equation(x: int, tau: Fraction, bases: tuple[int, ...]) -> Fraction:
    """SpikingLLM: thresholds τ·B^-t; the membrane starts at half the smallest."""
    return greedy_equation(x, [tau / base**t for t, base in enumerate(bases, 1)])


def greedy_equation(x: int, thresholds: list[Fraction]) -> Fraction:
    v, total = abs(x) + min(thresholds) / 2, Fraction(0)
    for threshold in thresholds:
        z = v > threshold
        v, total = v - threshold * z, total + threshold * z
    return total * (1 if x >= 0 else -1)


def both_ways(x: Tensor, threshold: Tensor | int, spec: QuantiseSpec) -> Tensor:
    """Return the settled sums, which are those of the neurons, of every dtype; their widths hold and their events are
    as predicted."""
    expected = quantise(x, threshold, spec)
    for dtype in (torch.int32, torch.int64):
        watching, simulated, counted = Watching(), Events(), Events(predicted=True)
        for on in (Simulated(events=watching), Simulated(events=simulated), Counted(events=counted)):
            found = on.quantise(x.to(dtype), threshold, spec)
            assert found.dtype == torch.int64
            assert torch.equal(found, expected)
        same_events(counted, simulated)
        assert watching.populations == simulated.populations
        watching.check()
    return expected


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize(("low", "high"), [(-8, 7), (0, 15), (-1, 1), (-16, 16)])
def test_st_bif(low: int, high: int) -> None:
    steps = max(high, -low)
    for threshold in THRESHOLDS:
        found = both_ways(ALL, threshold, st_bif(BITS, 4, low, high))
        assert found.tolist() == [st_bif_equation(x, threshold, low, high, steps) for x in ALL.tolist()]
        settled = [(Fraction(x, threshold) + HALF).__floor__() for x in ALL.tolist()]
        assert found.tolist() == [min(max(value, low), high) for value in settled]


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 13])
def test_signed_qcfs(steps: int) -> None:
    for step in THRESHOLDS:
        found = both_ways(ALL, step, qcfs(BITS, 4, steps))
        assert found.tolist() == [qcfs_equation(x, step, steps) for x in ALL.tolist()]


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("steps", [1, 2, 3, 8, 13])
def test_integrate_and_fire_after_qcfs(steps: int) -> None:
    """And the activation that FAS trains with: θ·clamp(floor(xL/θ + 1/2)/L, 0, 1), in levels of θ/L."""
    x = ALL[ALL >= 0]
    for step in THRESHOLDS:
        found = both_ways(x, step, qcfs(BITS, 4, steps, signed=False))
        assert found.tolist() == [fas_equation(value, step, steps) for value in x.tolist()]
        levels = [(Fraction(value * steps, steps * step) + HALF).__floor__() for value in x.tolist()]
        assert found.tolist() == [min(level, steps) for level in levels]


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize(("code_bits", "extra_bits"), [(1, 0), (2, 1), (4, 0), (4, 1), (1, 2)])
def test_gif(code_bits: int, extra_bits: int) -> None:
    """Every code of a salient channel, of code_bits + extra_bits bits, arrives whole; the published one lost some."""
    x, levels, steps = ALL[ALL >= 0], 1 << code_bits, 1 << extra_bits
    spec, largest = gif(BITS, 4, code_bits, extra_bits), (1 << (code_bits + extra_bits)) - 1
    for step in THRESHOLDS:
        found = both_ways(x, step, spec)
        assert found.tolist() == [gif_equation(value, step, levels, steps) for value in x.tolist()]
    codes = torch.arange(largest + 1)
    sent = quantise(codes, 1, spec)
    assert torch.equal(sent, codes)
    published = [gif_equation(code, 1, levels - 1, steps) for code in codes.tolist()]
    assert max(published) == min(largest, steps * (levels - 1))


def test_the_tail_that_the_published_gif_loses() -> None:
    assert gif_equation(31, 1, 15, 2) == 30
    assert quantise(torch.tensor([31]), 1, gif(BITS, 4, 4, 1)).item() == 31


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_few_spikes(steps: int) -> None:
    for unit in THRESHOLDS:
        found = both_ways(ALL, unit, few_spikes(BITS, 4, steps))
        assert found.tolist() == [few_spikes_equation(x, unit, steps) for x in ALL.tolist()]
        digits = [min(max(-(-abs(x) // unit) - 1, 0), 2**steps - 1) * (1 if x >= 0 else -1) for x in ALL.tolist()]
        assert found.tolist() == digits


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize(("bases", "fraction_bits"), [((2,) * 5, 5), ((4,) * 3, 6), ((2, 2, 2, 4, 2), 8)])
def test_phase_with_whole_thresholds(bases: tuple[int, ...], fraction_bits: int) -> None:
    spec = phase(BITS, 4, bases, fraction_bits)
    for unit in (1, 2, 3, 7):
        found = both_ways(ALL, unit, spec)
        tau = Fraction(unit << fraction_bits)
        assert found.tolist() == [phase_equation(x, tau, bases) / unit for x in ALL.tolist()]


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("bases", [(1.5,) * 8, (1.7, 1.7, 1.4, 1.4, 1.2), (1.2, 1.9, 1.3, 1.9)])
def test_phase_with_rounded_thresholds(bases: tuple[float, ...]) -> None:
    """Equal to the equation with thresholds that are rounded as the spec says."""
    spec = phase(17, 3, bases, 10)
    x = torch.cat([ALL, ALL * 61, ALL * 509])
    for t, (base, weight) in enumerate(zip(bases, spec.weights, strict=True), 1):
        assert abs(weight - 1024 / base**t) <= 0.5 + 1e-9
    for unit in (1, 3, 7):
        found = both_ways(x, unit, spec)
        thresholds = [Fraction(unit * weight) for weight in spec.weights]
        assert found.tolist() == [greedy_equation(value, thresholds) / unit for value in x.tolist()]


NEURONS: dict[str, QuantiseSpec] = {
    "st_bif": st_bif(BITS, 4, -8, 7),
    "qcfs": qcfs(BITS, 4, 5),
    "qcfs, one population": qcfs(BITS, 4, 5, signed=False),
    "gif": gif(BITS, 4, 2, 1),
    "few_spikes": few_spikes(BITS, 4, 4),
    "phase": phase(BITS, 4, (2.0,) * 4, 4),
}


@pytest.mark.parametrize("name", NEURONS)
def test_idle_is_silent(name: str) -> None:
    events = Events()
    assert not simulate.quantise(torch.zeros(7, dtype=torch.int64), 5, NEURONS[name], scope(events)).any()
    assert (events.spikes, events.driven_updates) == (0, 0)


@pytest.mark.parametrize("name", NEURONS)
def test_thresholds_per_channel_and_per_vector(name: str) -> None:
    spec = NEURONS[name]
    x = ALL[ALL >= 0].view(8, 8) if spec.lowest == 0 else ALL[:120].view(8, 15)
    channel, vector = torch.arange(1, 1 + x.shape[1]).clamp(max=15), torch.arange(1, 9)[:, None]
    for threshold in (channel, vector):
        each = threshold.expand(x.shape)
        one_by_one = [quantise(a[None], int(b), spec) for a, b in zip(x.flatten(), each.flatten(), strict=True)]
        assert torch.equal(both_ways(x, threshold, spec).flatten(), torch.cat(one_by_one))


@pytest.mark.parametrize("name", NEURONS)
def test_the_bound_against_real_numbers(name: str) -> None:
    """|x - θ·q| <= θ/2 within range if the neuron rounds, else 0 <= |x| - θ·|q| <= θ; saturated at the ends."""
    spec = NEURONS[name]
    x = ALL if spec.lowest < 0 else ALL[ALL >= 0]
    for threshold in THRESHOLDS:
        q = quantise(x, threshold, spec)
        inside = (x >= threshold * spec.lowest) & (x <= threshold * spec.highest)
        error = (x - threshold * q)[inside]
        if spec.rounds:
            assert bool((2 * error.abs() <= threshold).all())
        else:
            short = error * x[inside].sign()
            assert bool((short >= 0).all())
            assert bool((short <= threshold).all())
        assert bool((q[x > threshold * spec.highest] == spec.highest).all())
        assert bool((q[x < threshold * spec.lowest] == spec.lowest).all())


@given(st.data())
@settings(max_examples=cases(100), deadline=None)
def test_complete_weights_leave_at_most_half_the_smallest(data: st.DataObject) -> None:
    """If no weight exceeds what the later steps can send and the smallest weight, no number in range is far off."""
    levels = data.draw(st.integers(1, 3))
    weights = [data.draw(st.integers(1, 3))]
    for _ in range(data.draw(st.integers(0, 4))):
        weights.insert(0, data.draw(st.integers(weights[-1], levels * sum(weights) + weights[-1])))
    spec = QuantiseSpec(bits=9, threshold_bits=3, weights=tuple(weights), levels=levels)
    threshold = data.draw(st.integers(1, 7))
    most = min(threshold * spec.highest, 511)
    x = torch.arange(-most, most + 1)
    error = (x - threshold * quantise(x, threshold, spec)).abs()
    assert bool((2 * error <= threshold * min(weights)).all())


@st.composite
def specs(draw: Any) -> QuantiseSpec:
    bits, threshold_bits, levels = draw(st.integers(1, 12)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rounds, strict, signed = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    kind = draw(st.sampled_from(["bounds", "paced", "weights"]))
    spec = QuantiseSpec(bits=bits, threshold_bits=threshold_bits, weights=(1,), rounds=rounds, strict=strict)
    if kind == "bounds":
        low, high = -draw(st.integers(0, 9)), draw(st.integers(1, 9))
        steps = max(high, -low) + draw(st.integers(0, 3))
        return replace(spec, weights=(1,) * steps, bounds=(low, high))
    if kind == "paced":
        weights = (draw(st.integers(1, 3)),) * draw(st.integers(1, 9))
        return replace(spec, weights=weights, levels=levels, signed=signed, paced=True)
    weights = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=7)))
    return replace(spec, weights=weights, levels=levels, signed=signed)


@pytest.mark.usefixtures("thresholds_fit")
def test_any_neuron() -> None:
    @given(specs(), st.integers(0, 10**6))
    @settings(max_examples=cases(100), deadline=None)
    def run(spec: QuantiseSpec, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        most = (1 << spec.bits) - 1
        x = torch.randint(-most, most + 1, (4, 6), generator=generator)
        if spec.lowest == 0 and not spec.bounds:
            x = x.abs()
        x[0, 0], x[1] = most, 0
        threshold = torch.randint(1, 1 << spec.threshold_bits, (6,), generator=generator)
        both_ways(x, threshold, spec)

    run()


@given(st.data())
@settings(max_examples=cases(100), deadline=None)
def test_settling_does_not_depend_on_how_the_input_arrives(data: st.DataObject) -> None:
    """In parts of both signs; the steps said to be left are enough, and one fewer is not."""
    low, high = -data.draw(st.integers(0, 6)), data.draw(st.integers(1, 6))
    spec, threshold = st_bif(BITS, 4, low, high), data.draw(st.integers(1, 15))
    parts = [data.draw(st.integers(-63, 63))]
    for _ in range(data.draw(st.integers(0, 5))):
        so_far = sum(parts)
        parts.append(data.draw(st.integers(-63, 63)) - so_far)
    train = torch.tensor(parts)[:, None]
    spikes, left = simulate.settle(train, threshold, spec, scope())
    settled = quantise(train.sum(0), threshold, spec)
    assert torch.equal((settled - spikes.sum(0)).abs(), left)
    for more in {0, max(0, int(left) - 1), int(left), int(left) + 2}:
        spikes, still = simulate.settle(torch.cat([train, train.new_zeros(more, 1)]), threshold, spec, scope())
        assert torch.equal(still, (left - more).clamp(min=0))
        assert bool((spikes.sum(0) == settled).all()) == (more >= int(left))


@pytest.mark.usefixtures("thresholds_fit")
def test_widths_hold_while_the_input_changes_its_mind() -> None:
    spec, most = st_bif(BITS, 4, -8, 8), 63
    for threshold in (1, 15):
        events = Watching()
        train = torch.tensor([most, *[0] * 9, -2 * most, *[0] * 20, 2 * most])[:, None]
        simulate.settle(train, threshold, spec, scope(events))
        events.check()


def test_counts_by_hand() -> None:
    """7 and -2 with θ = 2: ST-BIF sends 4 and -1 (halves up); two QCFS populations with T = 5 send 4 and -1."""
    x, events = torch.tensor([7, -2, 0]), Events()
    assert simulate.quantise(x, 2, st_bif(4, 2, -5, 5), scope(events)).tolist() == [4, -1, 0]
    neuron, total = events.populations["test"], events.populations["test/total"]
    assert (neuron.neurons, neuron.spikes, neuron.membrane_updates, neuron.driven_updates) == (3, 5, 15, 2)
    assert (neuron.compares, neuron.steps, total.membrane_updates, total.driven_updates) == (30, 5, 15, 5)
    events = Events()
    assert simulate.quantise(x, 2, qcfs(4, 2, 5), scope(events)).tolist() == [4, -1, 0]
    neuron, total = events.populations["test"], events.populations["test/total"]
    assert (neuron.neurons, neuron.spikes, neuron.membrane_updates, neuron.driven_updates) == (6, 5, 30, 10)
    assert (neuron.compares, neuron.steps, total.membrane_updates, total.driven_updates) == (30, 5, 15, 5)
    # One population of 4 neurons per element, 2 steps: 7 is sent as 4 and 3.
    events = Events()
    assert simulate.quantise(torch.tensor([7]), 1, gif(4, 2, 2, 1), scope(events)).tolist() == [7]
    neuron, total = events.populations["test"], events.populations["test/total"]
    assert (neuron.neurons, neuron.spikes, neuron.membrane_updates, neuron.driven_updates) == (4, 7, 8, 4)
    assert (neuron.compares, neuron.steps, total.membrane_updates, total.driven_updates) == (8, 2, 2, 2)


WAYS: list[Callable[..., Tensor]] = [
    quantise,
    lambda *operands: simulate.quantise(*operands, scope()),
    lambda *operands: Counted(events=Events(predicted=True)).quantise(*operands),
]


@pytest.mark.parametrize("way", WAYS)
def test_bad_operands_are_refused_in_every_way(way: Callable[..., Tensor]) -> None:
    one, spec = torch.tensor([1]), NEURONS["st_bif"]
    for x, threshold, words in (
        (one.double(), 1, "input must be an int16, int32 or int64 tensor"),
        (one, torch.tensor([1.0]), "threshold must be an int16"),
        (one << BITS, 1, r"must lie in \(-2\^6, 2\^6\)"),
        (-one << BITS, 1, r"must lie in \(-2\^6, 2\^6\)"),
        (one, 0, r"must lie in \[1, 2\^4\)"),
        (one, 16, r"must lie in \[1, 2\^4\)"),
    ):
        with pytest.raises(SpikeplugError, match=words):
            way(x, threshold, spec)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["qcfs, one population", "gif"])
def test_a_negative_input_needs_a_population(name: str, way: Callable[..., Tensor]) -> None:
    """What rounds to 0 is none."""
    spec = NEURONS[name]
    assert way(torch.tensor([-2, -3]), 6, spec).tolist() == [0, 0]
    with pytest.raises(SpikeplugError, match="no population for negative numbers, and its input reaches -4: use one"):
        way(torch.tensor([5, -4]), 6, spec)
    with pytest.raises(SpikeplugError, match="no population for negative numbers"):
        way(torch.tensor([-1]), 6, replace(spec, rounds=False))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: st_bif(BITS, 4, -16, 15, steps=8), "8 time steps are too few .* to settle: use at least 16"),
        (lambda: st_bif(BITS, 4, 1, 5), "the first must be at most 0"),
        (lambda: st_bif(BITS, 4, -5, 0), "the second at least 1"),
        (lambda: replace(NEURONS["st_bif"], levels=2), "at most one per time step"),
        (lambda: replace(NEURONS["phase"], paced=True), "the same weight in all time steps"),
        (lambda: qcfs(BITS, 4, 0), "one integer from 1 on per time step"),
        (lambda: qcfs(0, 4, 4), "bits is 0"),
        (lambda: phase(BITS, 4, (2.0, 0.5), 4), "bases above 1"),
        (lambda: phase(BITS, 4, (2.0,) * 9, 4), "one integer from 1 on"),
        (lambda: few_spikes(40, 40, 30), "needs membranes of 71 bits, more than 64"),
    ],
)
def test_impossible_specs_are_refused(make: Callable[[], QuantiseSpec], words: str) -> None:
    with pytest.raises(SpikeplugError, match=words):
        make()


def test_only_a_neuron_that_takes_back_spikes_settles_on_changing_inputs() -> None:
    with pytest.raises(SpikeplugError, match="use st_bif"):
        simulate.settle(torch.zeros(3, 1, dtype=torch.int64), 1, NEURONS["qcfs"], scope())
    with pytest.raises(SpikeplugError, match="no time step"):
        simulate.settle(torch.zeros(0, 1, dtype=torch.int64), 1, NEURONS["st_bif"], scope())


def test_empty_inputs() -> None:
    nothing = torch.zeros(0, 3, dtype=torch.int64)
    for spec in NEURONS.values():
        for way in WAYS:
            assert way(nothing, 1, spec).shape == (0, 3)
