"""Norms over vectors of 2^18 elements and more: summed in parts, within the same bound, simulated alike."""

from __future__ import annotations

import pytest
import torch

from spikeplug import functional
from spikeplug.errors import SpikeplugError
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS
from spikeplug.operators.norms.length import LONGEST, length_places
from spikeplug.presets import PRESETS

NORMS = [name for name, record in RECORDS.items() if record.family == "norm"]


def outliers(dimension: int) -> torch.Tensor:
    """Return a vector (1, d), float64, with a long tail, a large mean and one element 400 times the median."""
    generator = torch.Generator().manual_seed(dimension)
    x = torch.randn(1, dimension, generator=generator, dtype=torch.float64).exp_().sub_(0.5)
    x[0, 5] = -400.0
    return x


@pytest.mark.parametrize("dimension", [(1 << 18) - 1, 1 << 18, (1 << 20) + 3])
@pytest.mark.parametrize("name", NORMS)
def test_the_bound_holds(name: str, dimension: int) -> None:
    record, x = RECORDS[name], outliers(dimension)
    found, exact = OPERATORS[name](x, *record.settings), record.exact(x, *record.settings)
    bound = record.bound(x, numerics=Numerics()).view(exact.shape)
    assert bool(((found - exact).abs() <= bound).all())
    # The proven bound grows with the length; what is really lost does not.
    assert float((found - exact).abs().max() / exact.abs().max()) < 2e-5


def test_a_constant_vector_and_one_element() -> None:
    ones = torch.ones(1, 1 << 19)
    assert torch.equal(functional.layer_norm(ones), torch.zeros_like(ones))
    assert torch.allclose(functional.rms_norm(ones), ones, rtol=1e-4)
    spike = torch.zeros(1, 1 << 19)
    spike[0, -1] = 3.0
    assert torch.allclose(functional.vector_norm(spike), torch.tensor([3.0]), rtol=1e-4)


@pytest.mark.parametrize("name", NORMS)
def test_simulated_equals_closed(name: str) -> None:
    x, settings = outliers((1 << 18) + 1).float(), RECORDS[name].settings
    numerics = Numerics(bits=6, working_bits=22)
    assert torch.equal(
        OPERATORS[name](x, *settings, numerics=numerics),
        OPERATORS[name](x, *settings, numerics=numerics, events=Events()),
    )


def test_widths() -> None:
    assert length_places((1 << 18) - 1, Numerics(), "rms_norm") == (31, 0)
    assert length_places(1 << 18, Numerics(), "rms_norm") == (31, 1)
    assert length_places(1 << 18, Numerics(working_bits=21), "rms_norm") == (31, 0)


def test_too_long_is_refused() -> None:
    with pytest.raises(SpikeplugError, match="at most"):
        length_places(LONGEST + 1, Numerics(), "rms_norm")
    with pytest.raises(SpikeplugError, match="norm='root'"):
        length_places(1 << 26, PRESETS["paper"].numerics, "rms_norm")
