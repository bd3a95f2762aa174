"""Models split over two processes by transformers' tensor parallelism: what equals the whole model bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from two_processes import run_worker

from spikeplug import Numerics

CASES = (
    # Heads are whole on either process, and norms see whole vectors: nothing spiking is cut.
    "heads and norms",
    # A fixed step is no vector's scale, so SiLU may be cut anywhere.
    "fixed step",
    # Both halves of each of SiLU's vectors have the same maxima, hence the scale of the whole.
    "same scale in both parts",
    # A cut SiLU has the scale of its part: the one case where bits differ.
    "a scale for each part",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return run_worker("tensor_parallel_worker.py", tmp_path_factory.mktemp("tensor_parallel"))


def silu_bound(x, y, numerics):
    """The bound of operators/README.md, per element; vectors along the last dimension."""
    n, p = numerics.bits, numerics.working_bits
    delta = (
        2.0 ** -(numerics.fraction_bits + 1) * math.log(2)
        + 2 * (math.log(2) / numerics.segments) ** 2 / 8
        + 3 * 2.0**-p
    )
    x_max, y_max = x.abs().amax(-1, keepdim=True), y.abs().amax(-1, keepdim=True)
    return x.abs() * (delta + 2.0 ** (1 - p)) + x_max * 2.0 ** (2 - p) + y_max * 2.0 ** (1 - n)


@pytest.mark.parametrize("case", CASES)
def test_both_processes_hold_the_same_result(found, case):
    for name in ("logits", "hidden", "generated"):
        first, second = (rank[case]["split"][name] for rank in found)
        assert torch.equal(first, second), name


@pytest.mark.parametrize("case", CASES)
def test_the_same_places_are_replaced_as_in_the_whole_model(found, case):
    for rank in found:
        assert rank[case]["split"]["counts"] == rank[case]["whole"]["counts"]
        assert rank[case]["split"]["names"] == rank[case]["whole"]["names"]


@pytest.mark.parametrize("case", CASES[:3])
def test_equal_bit_for_bit_to_the_whole_model(found, case):
    for rank in found:
        for name in ("hidden", "logits", "generated"):
            assert torch.equal(rank[case]["split"][name], rank[case]["whole"][name]), name


@pytest.mark.parametrize("case", CASES[::2])
def test_gradients_of_norms_are_those_of_the_whole_model(found, case):
    for name, expected in found[0][case]["whole"]["gradients"].items():
        first, second = (rank[case]["split"]["gradients"][name] for rank in found)
        assert torch.equal(first, second), name
        # Straight through the spiking operators, gradients are float64 sums, in another order.
        assert (first - expected).abs().max() <= 1e-12 * expected.abs().max(), name


def test_a_cut_silu_has_the_scale_of_its_part(found):
    numerics, different = Numerics(), 0
    for number, rank in enumerate(found):
        whole, split = (rank["a scale for each part"][kind]["activation"] for kind in ("whole", "split"))
        width = split["input"].shape[-1]
        part = slice(number * width, (number + 1) * width)
        assert 2 * width == whole["input"].shape[-1]
        assert torch.equal(split["input"], whole["input"][..., part])
        # Each lies within its own bound of the real value, hence no further than both from the other.
        exact = torch.nn.functional.silu(whole["input"])
        allowed = silu_bound(whole["input"], exact, numerics)[..., part]
        allowed = allowed + silu_bound(split["input"], exact[..., part], numerics)
        assert bool(((split["output"] - whole["output"][..., part]).abs() <= allowed).all())
        different += int((split["output"] != whole["output"][..., part]).sum())
    assert different > 0  # if this fails, docs/distributed.md promises too little
