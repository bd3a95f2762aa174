"""Contract: the race, the ordered population and the threshold equal a maximum, a bit length and >=, on every input."""

from __future__ import annotations

import pytest
import torch
from adversarial import all_pairs, edges, integers
from primitives.cases import WIDEST, scope, signed
from watching import Watching

from spikeplug.neurons import Events, lif
from spikeplug.primitives import compare
from spikeplug.primitives.compare import simulate


def test_maximum_of_all_pairs_of_6_bits_and_a_sign() -> None:
    a, b = all_pairs(7)
    pairs = torch.stack([a, b], -1) - 64
    assert torch.equal(simulate.maximum(pairs, 6, scope()), compare.maximum(pairs))


def test_maximum_of_all_triples_of_4_bits() -> None:
    values = torch.arange(-8, 9)
    triples = torch.cartesian_prod(values, values, values)
    assert torch.equal(simulate.maximum(triples, 3, scope()), triples.amax(-1, keepdim=True)), "±2^bits included"


@pytest.mark.parametrize("racers", [1, 2, 3, 577])
@pytest.mark.parametrize("bits", [22, 29, 30, 31, WIDEST])
def test_maximum_of_wide_rows(racers: int, bits: int) -> None:
    x = signed(40 * racers, bits, seed=racers).view(40, racers)
    most = (1 << bits) - (bits == WIDEST)  # 2^bits itself is in range
    x[0], x[1], x[2, :-1] = most, -most, x[2, -1]  # nothing but ties
    events = Watching()
    assert torch.equal(simulate.maximum(x, bits, scope(events)), compare.maximum(x))
    events.check()
    assert (racers == 1) == (events.spikes == 0), "alone in the race"


def test_a_row_longer_than_a_block_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    x, whole, cut = signed(900, 20).view(3, 3, 100), Events(), Events()
    expected = simulate.maximum(x, 20, scope(whole))
    monkeypatch.setattr(lif, "_BLOCK", 7)
    assert torch.equal(simulate.maximum(x, 20, scope(cut)), expected)
    assert cut.populations == whole.populations


def test_leading_one_of_all_16_bit_inputs() -> None:
    x = torch.arange(1 << 16)
    expected = torch.tensor([value.bit_length() for value in range(1 << 16)])
    assert torch.equal(compare.leading_one(x), expected)
    assert torch.equal(simulate.leading_one(x, 16, scope()), expected)


def test_leading_one_of_wide_inputs() -> None:
    x = torch.cat([torch.tensor(edges(WIDEST)), integers(4000, WIDEST)])
    events = Watching()
    assert torch.equal(simulate.leading_one(x, WIDEST, scope(events)), compare.leading_one(x))
    events.check()
    assert simulate.leading_one(x.to(torch.int32) & 1, 1, scope()).dtype == torch.int64


def test_reaches_of_all_pairs_of_6_bits_and_a_sign() -> None:
    a, b = all_pairs(7)
    a, b = a - 64, b - 64
    assert torch.equal(simulate.reaches(a, b, 6, scope()), a >= b)
    for threshold in (-64, -1, 0, 1, 64):
        assert torch.equal(simulate.reaches(a, threshold, 6, scope()), a >= threshold)


def test_reaches_beside_the_widest_thresholds() -> None:
    x, most = signed(2000, WIDEST), (1 << WIDEST) - 1
    for threshold in (most, -most, 0):
        for each in (x, torch.full_like(x, threshold), torch.full_like(x, threshold) - int(threshold > 0)):
            assert torch.equal(simulate.reaches(each, threshold, WIDEST, scope()), compare.reaches(each, threshold))
