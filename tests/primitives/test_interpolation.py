"""Contract: simulate = closed on every input of every table in use; against reals, the bound proven in the README."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from adversarial import integers
from primitives.cases import scope
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.operators.gates.gate import CURVE_END, curve_table
from spikeplug.operators.gates.gelu import GATES
from spikeplug.primitives.exponential import ShiftExponential
from spikeplug.primitives.interpolation import Interpolation, interpolate, simulate

LOG2E = math.log2(math.e)


class Table(NamedTuple):
    """A table in use: its function, the fraction bits of input and output, and max |f''|."""

    spec: Interpolation
    function: Callable[[float], float]
    input_bits: int
    output_bits: int
    bend: float


def curve(form: str, unit: float, fraction_bits: int) -> Table:
    gate = GATES[form]
    assert gate.curve is not None
    function = gate.curve
    spec = curve_table(gate, unit, fraction_bits)
    return Table(spec, lambda x: unit * function(x), fraction_bits, fraction_bits, 4.0 * unit / LOG2E)


def fraction(
    function: Callable[[float], float], bend: float, segments: int, input_bits: int, output_bits: int
) -> Table:
    spec = Interpolation.of(function, end=1.0, segments=segments, input_bits=input_bits, output_bits=output_bits)
    return Table(spec, function, input_bits, output_bits, bend)


def falling(x: float) -> float:
    return 2.0**-x


def logarithm(x: float) -> float:
    return math.log2(1 + x)


def quarter_wave(x: float) -> float:
    return math.sin(math.pi / 2 * x)


TABLES = {
    "2^-f": fraction(falling, math.log(2) ** 2, 32, 12, 22),
    "2^-f of tanh": fraction(falling, math.log(2) ** 2, 256, 16, 22),
    "2^-f, one segment": fraction(falling, math.log(2) ** 2, 1, 12, 22),
    "2^-f, no rest": fraction(falling, math.log(2) ** 2, 64, 6, 24),
    "gelu": curve("none", LOG2E, 12),
    "gelu, 16 bits": curve("none", LOG2E, 16),
    "gelu, odd": curve("none", LOG2E, 9),
    "gelu in nats": curve("none", 1.0, 12),
    "gelu tanh": curve("tanh", LOG2E, 12),
    "gelu tanh, 4 bits": curve("tanh", LOG2E, 4),
    "log2(1 + f)": fraction(logarithm, LOG2E, 256, 22, 22),
    "log2(1 + f), 8 bits": fraction(logarithm, LOG2E, 16, 14, 14),
    "quarter wave": fraction(quarter_wave, (math.pi / 2) ** 2, 256, 20, 22),
}
each = pytest.mark.parametrize("name", TABLES)


def every_input(spec: Interpolation) -> Tensor:
    """All inputs up to 2^16 of them; else both sides of every knot, 20,000 spread over the domain, and edges."""
    if spec.domain <= 1 << 16:
        return torch.arange(spec.domain + 1)
    knots = (torch.arange(spec.segments + 1) << spec.rest_bits).repeat(5, 1) + torch.arange(-2, 3)[:, None]
    spread = torch.linspace(0, spec.domain, 20_000, dtype=torch.float64).to(torch.int64)
    chosen = torch.cat([knots.flatten(), spread, integers(3000, spec.domain.bit_length())])
    return chosen[(chosen >= 0) & (chosen <= spec.domain)].unique()


@each
def test_simulated_equals_closed(name: str) -> None:
    spec, events = TABLES[name].spec, Events()
    x = every_input(spec)
    closed = interpolate(x, spec)
    chunks = x.split(max(1, (1 << 21) // spec.segments))
    simulated = torch.cat([simulate.interpolate(part, spec, scope(events)) for part in chunks])
    assert simulated.dtype == closed.dtype
    assert torch.equal(simulated, closed)
    assert events.table_reads == 2 * len(x)
    assert int(x[-1]) == spec.domain, "the domain's end is an input"
    assert int(closed[-1]) == spec.knots[-1]


@each
def test_bound_in_lsb(name: str) -> None:
    spec, function, input_bits, output_bits, bend = TABLES[name]
    x = every_input(spec)
    exact = torch.tensor([function(i * 2.0**-input_bits) * 2.0**output_bits for i in x.tolist()], dtype=torch.float64)
    chord = 2.0**output_bits * 4.0 ** (spec.rest_bits - input_bits) * bend / 8
    error = (interpolate(x, spec).double() - exact).abs()
    assert float(error.max()) < chord + 1.5
    on_knots = x & ((1 << spec.rest_bits) - 1) == 0
    assert float(error[on_knots].max()) <= 0.5, "knots are rounded to nearest"


@each
def test_monotone_as_the_knots_are(name: str) -> None:
    spec = TABLES[name].spec
    steps = interpolate(every_input(spec), spec).diff()
    assert bool((steps <= 0).all() if spec.knots[0] > spec.knots[-1] else (steps >= 0).all())


def test_tables_of_gelu_are_no_coarser_than_their_input() -> None:
    """Chords miss the exponent by at most the input's own half step, 2^-(F+1) octaves, whatever F."""
    for fraction_bits in range(4, 17):
        for form in ("none", "tanh"):
            spec = (
                TABLES["gelu"].spec
                if fraction_bits == 12 and form == "none"
                else curve(form, LOG2E, fraction_bits).spec
            )
            assert spec.domain == CURVE_END << fraction_bits
            assert 4.0 ** (spec.rest_bits - fraction_bits) * 4 / 8 <= 2.0 ** -(fraction_bits + 1)
            assert spec.knots[0] == 0


def test_whole_tables_and_gathered_knots_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Interpolation((5, -90, 7, 7, 1 << 40, 3), 8)
    x = torch.arange(spec.domain + 1)
    whole = interpolate(x, spec)
    assert whole.dtype == torch.int64, "a knot does not fit int32"
    monkeypatch.setattr("spikeplug.primitives.interpolation.closed._WHOLE", 0)
    assert torch.equal(interpolate(x, spec), whole)
    assert torch.equal(simulate.interpolate(x, spec, scope()), whole)


def test_by_hand() -> None:
    spec = Interpolation((0, 10, -3), 2)
    assert interpolate(torch.arange(9), spec).tolist() == [0, 2, 5, 7, 10, 7, 4, 1, -3], "rounded towards the left knot"
    assert interpolate(torch.arange(9, dtype=torch.int32), spec).dtype == torch.int32
    assert interpolate(torch.zeros(0, 3, dtype=torch.int32), spec).shape == (0, 3)
    assert simulate.interpolate(torch.zeros(0, 3, dtype=torch.int32), spec, scope()).shape == (0, 3)
    assert interpolate(torch.tensor(8), spec).shape == ()


@pytest.mark.parametrize(
    ("knots", "rest_bits", "words"),
    [
        ((1,), 3, "two knots"),
        ((), 3, "two knots"),
        ((0, 1), -1, "rest_bits"),
        ((0, 1), 31, "rest_bits"),
        ((0,) * 6, 30, "domain"),
        ((0, 1 << 58), 8, "60 bits"),
        ((-(1 << 58), 1), 8, "60 bits"),
    ],
)
def test_impossible_specs_are_refused(knots: tuple[int, ...], rest_bits: int, words: str) -> None:
    with pytest.raises(SpikeplugError, match=words) as caught:
        Interpolation(knots, rest_bits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("end", "segments", "input_bits"), [(1.0, 3, 12), (1.0, 8, 2), (3.0, 2, 12), (0.3, 4, 12)])
def test_segments_that_are_no_power_of_two_wide_are_refused(end: float, segments: int, input_bits: int) -> None:
    with pytest.raises(SpikeplugError, match="power of two"):
        Interpolation.of(lambda x: x, end=end, segments=segments, input_bits=input_bits, output_bits=8)


def test_sizes() -> None:
    spec = ShiftExponential(12, 32, 22).table
    assert (spec.segments, spec.rest_bits, spec.domain) == (32, 7, 4096)
    assert spec.table_bytes == 33 * 24 / 8
