"""Baselines at points that can be worked out by hand, and against what their sources say of them."""

from __future__ import annotations

import math

import pytest
import torch

from spikeplug.evidence import baselines as b
from spikeplug.evidence.subjects import SUBJECTS


def real(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_published_exp() -> None:
    knots = torch.arange(65, dtype=torch.float64) * 10 / 64 - 5
    assert torch.allclose(b.published_exp(knots), knots.exp(), rtol=1e-14)
    middle = (knots[:-1] + knots[1:]) / 2
    assert torch.allclose(b.published_exp(middle), (knots[:-1].exp() + knots[1:].exp()) / 2, rtol=1e-13)
    assert b.published_exp(real(-5.01, 6.0)).tolist() == [[0.0, math.exp(5)]]
    x = torch.linspace(-5, 5, 100_001, dtype=torch.float64)
    assert float((b.published_exp(x) / x.exp() - 1).max()) == pytest.approx(3.05e-3, rel=5e-3), "at most about 3.1e-3"


def test_floors() -> None:
    assert b.floored(real(0.999, -0.999, 1 / 256, 0.0039)).tolist() == [[255 / 256, -255 / 256, 1 / 256, 0.0]]


def test_polar_norm() -> None:
    assert float(b.polar_norm(real(3.0, 4.0), 30)) == pytest.approx(5, rel=1e-15)
    assert float(b.polar_norm(real(-7.0))) == 7
    x = torch.randn(50, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    short = 1 - b.polar_norm(x) / x.norm(dim=-1, keepdim=True)
    assert float(short.min()) >= -1e-12
    assert float(short.max()) <= 5 * 2.0**-15
    assert torch.allclose(
        b.published_rms_norm(x, 30), x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt(), rtol=1e-12
    )


def test_pade() -> None:
    x = torch.linspace(-10, 0, 2001, dtype=torch.float64)
    assert float((b.pade_exp(x) / x.exp() - 1).abs().max()) < 1e-3
    assert float(b.pade_exp(real(0.0))) == 1
    assert float(b.pade_silu(real(2.0))) == pytest.approx(2 * (1 + 16 / 21) / 2), "tanh 1 = 16/21"
    assert float(b.pade_silu(real(100.0))) == pytest.approx(100)


def test_plan_sigmoid() -> None:
    sigmoid = b.pwl_silu(real(1.0, 2.375, 5.0, 8.0)) / real(1.0, 2.375, 5.0, 8.0)
    assert sigmoid.tolist() == [[0.75, 0.91796875, 1.0, 1.0]]
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    error = (b.pwl_silu(x) / x - x.sigmoid())[x != 0].abs().max()
    assert float(error) == pytest.approx(0.0189, abs=1e-4), "the published maximum, 1.89 %"


def test_softmaxes_without_exp() -> None:
    assert b.hardmax(real(1.0, 3.0, 3.0)).tolist() == [[0.0, 0.5, 0.5]]
    assert b.sorbet_softmax(real(0.0, -1.0, -1.5)).tolist() == [[0.5, 0.25, 0.125]], "1, 1/2, 1/4 over 2"


def test_norms_without_a_root() -> None:
    assert torch.allclose(b.sorbet_norm(real(3.0, -3.0)), real(0.75, -0.75)), "log2 3 rounds to 2"
    x = torch.cat([torch.full((1, 32), 2.0), torch.full((1, 8), 6.0)], -1).double()
    assert torch.allclose(b.blockwise_rms_norm(x, 32), torch.ones(1, 40).double(), rtol=1e-5)


def test_i_bert() -> None:
    x = torch.linspace(-8, 0, 8001, dtype=torch.float64)
    error = float((b.i_exp(x) - x.exp()).abs().max())
    assert error == pytest.approx(2.13e-3, rel=0.01), "published: 1.9e-3, before the coefficients were rounded"
    x = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    assert float((b.i_gelu(x) - torch.nn.functional.gelu(x)).abs().max()) == pytest.approx(1.8e-2, rel=0.05), (
        "published"
    )
    n = torch.arange(1, 1 << 16, dtype=torch.float64)[:, None]
    roots = torch.tensor([math.isqrt(value) for value in range(1, 1 << 16)]).double()
    assert float((b.i_sqrt(n)[:, 0] - roots).abs().max()) <= 1
    assert torch.equal(b.i_sqrt(n, 8)[:, 0], roots)
    assert b.i_sqrt(torch.zeros(1)).tolist() == [0.0]


def test_quantisers() -> None:
    y = real(3.0, -1.0, 0.0, 2.0)
    assert b.xnor(y).tolist() == [[1.5, -1.5, 0.0, 1.5]]
    assert torch.allclose(b.dorefa(y), y), "multiples of a fifteenth of 3"
    assert float(b.dorefa(real(15.0, 1.4))[0, 1]) == pytest.approx(1.0)


def test_every_baseline_belongs_to_an_operator_of_one_input() -> None:
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for baseline in b.BASELINES:
        assert len(SUBJECTS[baseline.operator].roles) == 1
        y = baseline.approximate(x)
        assert y.shape == x.shape
        assert y.dtype == torch.float64
    assert len({(baseline.name, baseline.operator) for baseline in b.BASELINES}) == len(b.BASELINES)
