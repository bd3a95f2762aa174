"""Measures against hand values, and the LSB they are counted in."""

from __future__ import annotations

import math

import pytest
import torch

from spikeplug.evidence.measures import kl, measure
from spikeplug.evidence.subjects import SUBJECTS, last_place
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS
from spikeplug.presets import PRESETS

PAPER = PRESETS["paper"].numerics


def real(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_measures_by_hand() -> None:
    exact, approximate = real(1.0, -2.0, 4.0, 0.0), real(1.5, -2.0, 3.0, 0.25)
    found = measure(approximate, exact, torch.tensor(0.125))
    assert found.count == 4
    assert found.max_error == 1.0
    assert found.mean_error == (0.5 + 0 + 1 + 0.25) / 4
    assert found.mse == (0.25 + 0 + 1 + 0.0625) / 4
    assert found.bias == (0.5 - 1 + 0.25) / 4
    assert found.max_relative == 1 / 4
    assert found.mean_relative == 1.75 / 7
    assert found.max_lsb == 8
    assert found.mean_lsb == 1.75 / 4 * 8
    assert found.mean_kl is found.max_kl is found.lost is None


def test_the_relative_error_is_that_of_each_vectors_largest() -> None:
    exact, approximate = (
        torch.tensor([[1.0, 10.0], [100.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[2.0, 10.0], [101.0, 0.0], [9.0, 0.0]]),
    )
    assert measure(approximate, exact).max_relative == pytest.approx(0.1)


def test_what_is_not_finite_is_left_out() -> None:
    found = measure(real(1.0, 5.0, 3.0), real(1.0, math.inf, math.nan))
    assert (found.count, found.max_error) == (1, 0.0)


def test_kl_by_hand() -> None:
    p, q = real(0.5, 0.5), real(0.75, 0.25)
    hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(kl(p, q, torch.tensor(1e-9))) == pytest.approx(hand)
    assert float(kl(p, 2 * q, torch.tensor(1e-9))) == pytest.approx(hand), "q is made to sum to 1"
    assert float(kl(p, p, torch.tensor(1e-9))) == 0
    lost = float(kl(p, real(1.0, 0.0), torch.tensor(0.25)))
    assert lost == pytest.approx(0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)), "a zero counts as the floor"
    assert float(kl(real(1.0, 0.0), real(0.9, 0.1), torch.tensor(1e-9))) == 0, "only where p > 0"


def test_probability_that_is_lost() -> None:
    found = measure(real(0.5, 0.5, 0.0), real(0.4, 0.35, 0.25), torch.tensor(0.125), distribution=True)
    assert found.lost == 0.25
    assert found.mean_kl == found.max_kl > 0


def test_last_places() -> None:
    ours, exact = Numerics(), torch.tensor([[0.3, 1.0], [1.1, -3.0], [0.0, 0.0]], dtype=torch.float64)

    def lsb(name: str, numerics: Numerics = ours) -> torch.Tensor:
        return last_place(SUBJECTS[name], exact, numerics)

    assert lsb("softmax")[:2].tolist() == [[2.0**-16], [4 * 2.0**-16]]
    assert lsb("softmax", PAPER).item() == 2.0**-8
    assert lsb("exp", PAPER)[0].tolist() == [2.0**-9, 2.0**-8]
    assert lsb("cos").item() == 2.0**-16
    assert lsb("log_softmax").item() == pytest.approx(2.0**-16 * math.log(2))
    assert lsb("log_softmax", PAPER).item() == 2.0**-8
    assert lsb("log", PAPER).item() == pytest.approx(2.0**-8 * math.log(2))
    narrow = Numerics(scale_block=1)
    assert lsb("silu", narrow)[1].tolist() == [2.0 * 2.0**-16, 4 * 2.0**-16], "a block of channels has its own"
    assert lsb("softmax", narrow)[1].tolist() == [4 * 2.0**-16], "keys have one"


def test_every_operator_of_the_library_is_measured() -> None:
    assert list(SUBJECTS) == list(RECORDS)
