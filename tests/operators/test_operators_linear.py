"""Linear operators: simulated equals closed, bounds hold on exhaustive and adversarial inputs, no order matters."""

from __future__ import annotations

import itertools
import math
import sys
from fractions import Fraction
from typing import Any

import pytest
import torch
from operators.inputs import same, vectors
from operators.test_widths import Checked
from torch import Tensor
from watching import Watching, thresholds_fit  # noqa: F401

from spikeplug.errors import SpikeplugError
from spikeplug.kernels import closed_forms
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import LINEAR
from spikeplug.operators.linear.neuron import as_threshold, neuron_of
from spikeplug.realisation import Realisation
from spikeplug.saturation import counting

NUMERICS = [Numerics(), Numerics(bits=8, working_bits=14), Numerics(bits=4, working_bits=8)]
numerics_of = pytest.mark.parametrize("numerics", NUMERICS, ids=lambda numerics: f"{numerics.bits} bits")
KINDS = ("st_bif -16 15", "st_bif 0 31", "qcfs 160", "few_spikes 16", "phase 2 2 2 2 2 2 2 2", "phase 1.5 1.5 1.5 1.5")
SETTINGS = [(127, 0, 0), (1, 0, 0), (16, 0, 4), (127, 4, 0), (200, 4, 16)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(outputs: int, inputs: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight with extremes, thresholds with extremes, and their unit."""
    g = generator(seed)
    weight = torch.randint(-128, 128, (outputs, inputs), generator=g).to(torch.int8)
    weight[0], weight[-1, ::2] = -128, 127
    threshold = torch.randint(1, 1 << 16, (outputs,), generator=g, dtype=torch.int32)
    threshold[0] = (1 << 16) - 1
    return weight, threshold, torch.tensor(-22, dtype=torch.int32)


def calls(name: str, x: Tensor) -> list[tuple[Any, ...]]:
    """Return arguments of a linear operator with x, float32 (rows, 16), as the first."""
    if name == "linear":
        weight, threshold, unit = layer(5, x.shape[-1])
        bias = torch.tensor([0.0, 1.0, -3e-3, 40.0, -0.7])
        return [(x, weight, threshold, unit, given, *setting) for setting in SETTINGS for given in (None, bias)]
    if name == "quantise":
        return [(x, *setting) for setting in ((127, 0, 0), (1, 0, 0), (16, 4, 0), (127, 5, 0), (127, 0, 16))]
    if name == "neuron":
        unit, channels = torch.tensor(-9, dtype=torch.int32), torch.arange(1, 1 + x.shape[-1], dtype=torch.int32)
        units = unit - torch.arange(x.shape[-1], dtype=torch.int32) % 3
        return [
            (x, *pair, kind) for kind in KINDS for pair in ((channels, unit), (channels[4], unit), (channels[4], units))
        ]
    if name == "gif":
        mask = torch.arange(x.shape[-1]) % 5 == 1
        return [(x, mask, 4, 1), (x, mask, 1, 0), (x, ~mask, 2, 3), (x, mask & False, 8, 2), (x, mask | True, 3, 1)]
    if name == "rotary":
        positions, frequency = torch.tensor([[0.0, 1, 2, 3], [77, 1000, 65535, 2**24 - 1]]), 10.0 ** -torch.arange(5)
        return [(positions, frequency, quarters) for quarters in range(4)]
    if name == "matmul":
        return [(x, x.flip(0).T), (x.view(-1, 2, 16), x[:2].view(1, 16, 2))]
    if name == "sum":
        return [(x, -1), (x, 0)]
    return [(x, x.flip(0)), (x, x[0]), (x, x[:, :1]), (x, torch.tensor(0.3))]


@pytest.mark.usefixtures("thresholds_fit")
@numerics_of
@pytest.mark.parametrize("name", LINEAR)
def test_simulated_equals_closed(name: str, numerics: Numerics) -> None:
    """Every step is a verb with a population of its own, named after the operator, whose membranes fit their width."""
    x = torch.cat([vectors(kind, (4, 16)) for kind in ("plain", "outlier", "zero", "tiny", "mixed", "not finite")])
    for given in calls(name, x):
        events = Watching()
        simulated = OPERATORS[name](*given, numerics=numerics, events=events)
        events.check()
        assert same(simulated, OPERATORS[name](*given, numerics=numerics))
        assert events.spikes > 0
        assert all(population.startswith(f"{name}/") for population in events.populations)


@numerics_of
@pytest.mark.parametrize("name", LINEAR)
def test_operands_keep_within_their_bits(name: str, numerics: Numerics) -> None:
    on: Any = Checked(numerics, name)
    for kind in ("plain", "outlier", "zero", "tiny", "mixed", "not finite"):
        for given in calls(name, vectors(kind, (4, 16))):
            LINEAR[name].spiking(*given, on=on)
            LINEAR[name].spiking(*(x.double() if is_real(x) else x for x in given), on=on)
    for given in calls(name, torch.full((4, 16), 1 - 2.0**-25, dtype=torch.float64)):  # its code of 24 bits is 2^24
        LINEAR[name].spiking(*given, on=on)


SCHEDULES = ("bits", "signed_digits", "count", "rate")
REALISATIONS = [Realisation(norm="ordered"), Realisation(code="count", steps=4)]
REALISATIONS += [Realisation(schedule=schedule) for schedule in SCHEDULES]  # type: ignore[arg-type]


@pytest.mark.parametrize("realisation", REALISATIONS, ids=str)
@pytest.mark.parametrize("name", LINEAR)
def test_no_realisation_changes_a_result(name: str, realisation: Realisation) -> None:
    """Codes and schedules of spikes change the events alone."""
    for given in calls(name, vectors("plain", (2, 16))):
        assert same(OPERATORS[name](*given, events=Events(realisation)), OPERATORS[name](*given))


def test_schedules_send_their_spikes() -> None:
    """Signed digits take fewer spikes than bits, which take fewer than a spike per unit; the sums are the same."""
    g = torch.Generator().manual_seed(5)
    x, weight = torch.randn(6, 64, generator=g), torch.randint(-127, 128, (8, 64), generator=g, dtype=torch.int8)
    threshold, unit = torch.full((8,), 999, dtype=torch.int32), torch.tensor(-20, dtype=torch.int32)
    spikes, steps = {}, {}
    for schedule in SCHEDULES:
        events = Events(Realisation(schedule=schedule))  # type: ignore[arg-type]
        OPERATORS["linear"](x, weight, threshold, unit, None, 127, 0, 0, events=events)
        spikes[schedule] = events.populations["linear/membrane/operand"].spikes
        steps[schedule] = events.populations["linear/membrane"].steps
    assert spikes["signed_digits"] < spikes["bits"] < spikes["count"] == spikes["rate"]
    assert steps == {"bits": 8, "signed_digits": 9, "count": 16, "rate": 256}


def test_all_small_vectors() -> None:
    """Every vector of three elements in quarters, by every row of weights of -2, 0 and 1, in few levels."""
    values = torch.tensor([-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0])
    x = torch.tensor(list(itertools.product(values.tolist(), repeat=3)))
    weight = torch.tensor(list(itertools.product((-2, 0, 1), repeat=3)), dtype=torch.int8)
    threshold = torch.arange(1, 1 + len(weight), dtype=torch.int32)
    for levels, block in ((1, 0), (2, 0), (3, 2), (127, 0)):
        given = (x, weight, threshold, torch.tensor(-4, dtype=torch.int32), None, levels, block, 0)
        closed = OPERATORS["linear"](*given)
        assert torch.equal(OPERATORS["linear"](*given, events=Events()), closed)
        error = (closed.double() - LINEAR["linear"].exact(*given).double()).abs()
        assert bool((error <= LINEAR["linear"].bound(*(in_double(given)), numerics=Numerics())).all())


def is_real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def in_double(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.double() if is_real(x) else x for x in given)


def adversarial(rows: int, width: int) -> Tensor:
    """Return rows that lie at, just below and just above halves of a step, beside one large element."""
    g = generator(1)
    halves = torch.randint(-254, 255, (rows, width), generator=g) / 254
    x = halves * (1 + torch.randint(-1, 2, (rows, width), generator=g) * 2.0**-22)
    x[:, 0] = 1.0
    x[::3] *= 2.0 ** torch.randint(-20, 20, (len(x[::3]), 1), generator=g)
    x[1::3, 1:] *= 1e-3
    return x


@numerics_of
@pytest.mark.parametrize("name", LINEAR)
def test_bounds(name: str, numerics: Numerics) -> None:
    record = LINEAR[name]
    for x in (adversarial(60, 16), vectors("plain", (30, 16)), vectors("outlier", (30, 16))):
        for given in calls(name, x):
            # A step of a block may be rounded up, so that blocks have the vector's bound at most.
            spiking, wide = OPERATORS[name](*given, numerics=numerics).double(), in_double(given)
            exact = record.exact(*wide)
            bound = record.bound(*wide, numerics=numerics)
            assert bound.shape == exact.shape
            assert bool(((spiking - exact).abs() <= bound).all()), given[1:]


def test_no_order_of_channels_matters() -> None:
    """Channels of x and columns of the weight in another order: the same output, closed and simulated."""
    x, (weight, threshold, unit) = vectors("outlier", (6, 24)), layer(9, 24)
    for seed in range(5):
        order = torch.randperm(24, generator=generator(seed))
        for levels in (1, 16, 127, 300):
            whole = OPERATORS["linear"](x, weight, threshold, unit, None, levels)
            given = (x[:, order], weight[:, order], threshold, unit, None, levels)
            assert torch.equal(OPERATORS["linear"](*given), whole)
    assert torch.equal(OPERATORS["linear"](*given, events=Events()), whole)


def test_no_order_of_whole_blocks_matters() -> None:
    x, (weight, threshold, unit) = vectors("outlier", (6, 24)), layer(9, 24)
    order = torch.arange(24).view(6, 4)[torch.randperm(6, generator=generator())].flatten()
    whole = OPERATORS["linear"](x, weight, threshold, unit, None, 127, 4)
    assert torch.equal(OPERATORS["linear"](x[:, order], weight[:, order], threshold, unit, None, 127, 4), whole)


def test_rows_of_a_weight_are_scaled_together() -> None:
    """Rows of a weight in another order: the outputs in that order."""
    x, (weight, threshold, unit) = vectors("plain", (6, 24)), layer(9, 24)
    order = torch.randperm(9, generator=generator())
    whole = OPERATORS["linear"](x, weight, threshold, unit)
    assert torch.equal(OPERATORS["linear"](x, weight[order], threshold[order], unit), whole[:, order])


@pytest.mark.parametrize("name", ["add", "multiply"])
def test_operands_may_change_places(name: str) -> None:
    for kind in ("plain", "mixed", "outlier", "not finite"):
        a, b = vectors(kind, (6, 20)), vectors("plain", (6, 20)).flip(0)
        assert same(OPERATORS[name](a, b), OPERATORS[name](b, a))


def code_of(x: Fraction, bits: int) -> float:
    """Return x rounded to `bits` significant bits, halves away from 0."""
    if x == 0:
        return 0.0
    size, exponent = abs(x), x.numerator.bit_length() - x.denominator.bit_length() - bits
    exponent += size >= Fraction(2) ** (exponent + bits)
    rounded = math.floor(size / Fraction(2) ** exponent + Fraction(1, 2)) * Fraction(2) ** exponent
    return math.copysign(float(rounded), x)


def scattered(*shape: int, seed: int) -> Tensor:
    """Return float32 numbers of a few bits or of 24, over 80 octaves, some of them 0."""
    g = generator(seed)
    few = torch.randint(-5, 6, shape, generator=g).float()
    x = torch.where(torch.rand(shape, generator=g) < 0.5, few, torch.randn(shape, generator=g))
    return x * 2.0 ** torch.randint(-40, 40 if seed % 2 else -38, shape, generator=g)


def exact_sums(a: Tensor, b: Tensor, bits: int) -> Tensor:
    rows, columns = ([[Fraction(x) for x in vector] for vector in part.tolist()] for part in (a, b.mT))
    return torch.tensor(
        [[code_of(sum(map(Fraction.__mul__, row, column), Fraction()), bits) for column in columns] for row in rows]
    )


@numerics_of
def test_a_matrix_product_is_the_exact_sum_rounded_once(numerics: Numerics) -> None:
    for seed in range(12):
        a, b = scattered(4, 6, seed=seed), scattered(6, 5, seed=seed + 1)
        a[:, 1], b[1] = -a[:, 0], b[0] * (1 + 2.0**-22)  # cancels but for the last digits
        expected = exact_sums(a, b, numerics.bits)
        with closed_forms():
            assert torch.equal(OPERATORS["matmul"](a, b, numerics=numerics), expected)
        assert torch.equal(OPERATORS["matmul"](a, b, numerics=numerics), expected)


def test_a_matrix_product_of_halves() -> None:
    """Sums at a half of the last bit, and 80 octaves beside it: a digit far below decides, with its sign."""
    n = 16
    for most in ((1 << n) + 1, -(1 << n) - 1, (1 << n) + 3):
        for least in (2.0**-40, -(2.0**-40), 0.0, 2.0**-60):
            a, b = torch.tensor([[float(most), least]]), torch.tensor([[1.0, 2.0**50], [2.0**-20, least]])
            expected = exact_sums(a, b, n)
            with closed_forms():
                assert torch.equal(OPERATORS["matmul"](a, b), expected)
            assert torch.equal(OPERATORS["matmul"](a, b), expected)


@numerics_of
def test_sums_and_products_of_float32_are_rounded_once(numerics: Numerics) -> None:
    """A sum's smaller operand has 24 guard bits below the larger one's unit."""
    for seed in range(6):
        a, b = scattered(300, seed=seed), scattered(300, seed=seed + 1)
        b[:100] = -a[:100] * (1 + 2.0**-22)
        with closed_forms():
            total, product = (OPERATORS[name](a, b, numerics=numerics) for name in ("add", "multiply"))
        pairs = [(Fraction(x), Fraction(y)) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        assert torch.equal(product, torch.tensor([code_of(x * y, numerics.bits) for x, y in pairs]))
        for found, (x, y) in zip(total.tolist(), pairs, strict=True):
            guard = Fraction(2) ** -46 * max(abs(x), abs(y))
            ends = [code_of(x + y + off, numerics.bits) for off in (-guard, guard)]
            assert ends[0] <= found <= ends[1]


def in_all_forms(name: str, *given: Tensor) -> Tensor:
    """Return an operator's result by its kernel, in closed form and simulated, one after the other."""
    with closed_forms():
        closed = OPERATORS[name](*given)
    return torch.stack([OPERATORS[name](*given), closed, OPERATORS[name](*given, events=Events())])


@pytest.mark.parametrize("name", ["add", "multiply"])
def test_no_other_element_changes_a_sum_or_product(name: str) -> None:
    for seed in range(4):
        a, b = scattered(6, 8, seed=seed), scattered(6, 8, seed=seed + 1)
        others = (torch.cat([x[:, :5], x[:, 5:].flip(0) * 1e9], 1) for x in (a, b))
        assert torch.equal(in_all_forms(name, a, b)[..., :5], in_all_forms(name, *others)[..., :5])


def test_no_other_key_changes_a_matrix_product() -> None:
    """Scores: no other column; weighted values: no row that meets weights of 0. So attention may be written out."""
    for seed in range(4):
        queries, keys = scattered(6, 8, seed=seed), scattered(8, 9, seed=seed + 1)
        others = torch.cat([keys[:, :5], keys[:, 5:].flip(0) * 1e9], 1)
        assert torch.equal(
            in_all_forms("matmul", queries, keys)[..., :5], in_all_forms("matmul", queries, others)[..., :5]
        )
        weights = queries * (torch.arange(8) < 5)
        others = torch.cat([keys[:5], keys[5:].flip(0) * 1e9])
        assert torch.equal(in_all_forms("matmul", weights, keys), in_all_forms("matmul", weights, others))


def test_no_block_of_rows_changes_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = scattered(2, 1, 9, 12, seed=1), scattered(3, 12, 7, seed=2)
    whole, counted = OPERATORS["matmul"](a, b), Events()
    assert torch.equal(OPERATORS["matmul"](a, b, events=counted), whole)
    for block in (1, 1500):
        monkeypatch.setattr(sys.modules["spikeplug.operators.linear.matmul"], "BLOCK", block)
        events = Events()
        assert torch.equal(OPERATORS["matmul"](a, b, events=events), whole)
        assert (events.spikes, events.synops, events.membrane_updates) == (
            counted.spikes,
            counted.synops,
            counted.membrane_updates,
        )


def test_a_vector_is_read_with_24_bits_below_its_largest_element() -> None:
    """What lies below them is cut off, towards 0; nothing else is lost."""
    x = torch.tensor([[1.0, 2.0**-23, 2.0**-24, -(2.0**-24), -(1.9 * 2.0**-23), 0.0]])
    read = torch.tensor([[1.0, 2.0**-23, 0.0, 0.0, -(2.0**-23), 0.0]])
    weight, threshold, unit = layer(7, 6)
    for levels in (127, 1 << 15):
        assert torch.equal(OPERATORS["quantise"](x, levels), OPERATORS["quantise"](read, levels))
        assert torch.equal(*(OPERATORS["linear"](each, weight, threshold, unit, None, levels) for each in (x, read)))
    assert torch.equal(OPERATORS["sum"](x), OPERATORS["sum"](read))
    assert float(OPERATORS["sum"](x, numerics=Numerics(bits=20))) == 1.0


def test_what_is_coded_stays() -> None:
    x = vectors("outlier", (9, 32))
    for levels, block in ((127, 0), (16, 8), (1, 0)):
        coded = OPERATORS["quantise"](x, levels, block)
        assert torch.equal(OPERATORS["quantise"](coded, levels, block), coded)
    total = OPERATORS["add"](x, torch.zeros(32))
    assert torch.equal(OPERATORS["add"](total, torch.zeros(32)), total)


def test_nonfinite_elements() -> None:
    a = torch.tensor([[math.inf, 1.0, math.nan, -math.inf], [1.0, 2.0, 3.0, 4.0]])
    assert same(OPERATORS["add"](a, -a)[0], torch.tensor([math.nan, 0.0, math.nan, math.nan]))
    assert bool(torch.isfinite(OPERATORS["multiply"](a, a)[1]).all())
    weight, threshold, unit = layer(3, 4)
    assert OPERATORS["linear"](a, weight, threshold, unit).isnan().all(-1).tolist() == [True, False]


def test_a_neurons_levels_are_fixed() -> None:
    """What is coded stays; NaN stays, infinities and what lies beyond the last level saturate there and are counted."""
    unit, threshold = torch.tensor(-9, dtype=torch.int32), torch.tensor(100, dtype=torch.int32)
    step = 100 / 512
    for kind in ("st_bif -16 15", "qcfs 15"):
        x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, 15.4 * step, 15.6 * step, 100.0, -7.1 * step])
        with counting() as counts:
            coded = OPERATORS["neuron"](x, threshold, unit, kind)
        low = neuron_of(kind).lowest
        assert same(coded, torch.tensor([math.nan, 15, low, 0, 15, 15, 15, -7]) * step)
        assert counts.to_dict() == {"neuron: beyond the last level": 4}
        assert same(OPERATORS["neuron"](coded, threshold, unit, kind), coded)


def test_thresholds_as_integers() -> None:
    """Each fills its bits, so that it is off by at most 2^(1-bits) of itself."""
    for kind in KINDS:
        bits = neuron_of(kind).threshold_bits
        for scale in (1e-30, 1.0, 3e20):
            given = torch.tensor([1.0, 0.7, 0.001, 1e-9]).double() * scale
            integers, unit = as_threshold(given, kind)
            assert integers.dtype == unit.dtype == torch.int32
            assert (1 << (bits - 1)) <= int(integers.min()) <= int(integers.max()) < 1 << bits
            error = (torch.ldexp(integers.double(), unit) - given).abs()
            assert bool((error <= given * 2.0 ** (1 - bits)).all())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("", "unknown neuron ''"),
        ("lif 3", "unknown neuron 'lif 3'"),
        ("qcfs", "unknown neuron 'qcfs'"),
        ("qcfs many", "unknown neuron"),
        ("qcfs 2000000", "counts up to 2,000,000: choose at most 1,048,576"),
        ("few_spikes 40", "counts up to 1,099,511,627,775"),
        ("phase inf", "counts up to inf"),
        ("st_bif 1 5", "at most 0"),
        ("phase 2 1", "above 1"),
    ],
)
def test_unknown_neurons_are_refused(kind: str, words: str) -> None:
    x, one = torch.zeros(3), torch.tensor(1, dtype=torch.int32)
    with pytest.raises(SpikeplugError, match=words):
        OPERATORS["neuron"](x, one, one, kind)


def test_thresholds_that_do_not_fit_are_refused() -> None:
    x, one = torch.ones(2, 3), torch.tensor(1, dtype=torch.int32)
    for threshold, unit, kind, words in (
        (torch.tensor([1, 2], dtype=torch.int32), one, "qcfs 3", r"\(2,\) for an input of"),
        (torch.tensor(1.0), one, "qcfs 3", "thresholds of torch.float32"),
        (one * 0, one, "qcfs 3", "threshold must lie in"),
        (one, one, "if 3", "no population for negative numbers"),
    ):
        with pytest.raises(SpikeplugError, match=words):
            OPERATORS["neuron"](-4 * x, threshold, unit, kind)


def test_gif_neurons_have_the_range_of_their_vector() -> None:
    """A constant vector is exact, a vector of whole steps too; no order of channels matters."""
    salient = torch.tensor([False, True, False])
    for value in (0.0, 1.5, -3.25):
        x = torch.full((2, 3), value)
        assert torch.equal(OPERATORS["gif"](x, salient), x)
    x = torch.tensor([[0.0, 15.0, 7.0], [-5.0, 10.0, 3.0]])
    assert torch.equal(OPERATORS["gif"](x, salient, 4, 0), x)
    x, mask = vectors("outlier", (6, 24)), torch.arange(24) % 3 == 0
    order = torch.randperm(24, generator=generator())
    assert torch.equal(OPERATORS["gif"](x[:, order], mask[order]), OPERATORS["gif"](x, mask)[:, order])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((torch.ones(3, dtype=torch.bool), 0, 1), "code_bits=0 and extra_bits=1: choose"),
        ((torch.ones(3, dtype=torch.bool), 8, 3), "together at most 10"),
        ((torch.ones(3), 4, 1), r"a mask of torch.float32 \(3,\)"),
        ((torch.ones(2, dtype=torch.bool), 4, 1), r"\(2,\) for an input of \(2, 3\)"),
    ],
)
def test_gif_neurons_refuse_what_does_not_fit(given: tuple[Any, ...], words: str) -> None:
    with pytest.raises(SpikeplugError, match=words):
        OPERATORS["gif"](torch.ones(2, 3), *given)
