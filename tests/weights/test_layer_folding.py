"""Test what is done to one layer's weights, against the float64 formulas of norm and layer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from spikeplug.weights import folding
from spikeplug.weights.folding import LayerChange, as_rows, from_rows, layout_of
from spikeplug.weights.rotation import Rotation, rotate_online


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


WEIGHT, BIAS, X = random(8, 12), random(8), random(5, 12)


def run(change: LayerChange, x: Tensor, bias: Tensor | None = BIAS) -> Tensor:
    changed = change.bias(WEIGHT, bias)
    return x @ change.weight(WEIGHT).T + (0 if changed is None else changed)


def test_a_gain_and_a_bias_of_the_norm_before() -> None:
    gain, shift = random(12) + 2, random(12) - 1
    expected = (X * gain + shift) @ WEIGHT.T
    torch.testing.assert_close(run(LayerChange(gain=gain, shift=shift), X), expected + BIAS)
    torch.testing.assert_close(run(LayerChange(gain=gain, shift=shift), X, None), expected)


def test_everything_at_once() -> None:
    turn_in, turn_out, gain = Rotation(12, seed=1), Rotation(8, seed=2), random(12)
    change = LayerChange(gain=gain, turn_in=turn_in, online=4, centred=True, turn_out=turn_out)
    exact = (X * gain) @ WEIGHT.T + BIAS
    expected = turn_out.apply(exact - exact.mean(-1, keepdim=True))
    torch.testing.assert_close(run(change, rotate_online(turn_in.apply(X), 4)), expected)


def test_centred_outputs_have_the_mean_zero() -> None:
    assert float(run(LayerChange(centred=True), X).mean(-1).abs().max()) < 1e-14


def test_no_bias_stays_none() -> None:
    change = LayerChange(gain=random(12), centred=True, turn_out=Rotation(8))
    assert change.bias(WEIGHT, None) is None


@pytest.mark.parametrize(
    ("module", "outputs", "inputs"),
    [
        (nn.Linear(3, 5), 5, 3),
        (Conv1D(5, 3), 5, 3),
        (nn.Embedding(7, 5), 5, 7),
        (nn.Conv2d(3, 5, (2, 4)), 5, 24),
        (nn.Conv1d(3, 5, 2), 5, 6),
    ],
    ids=lambda value: type(value).__name__,
)
def test_weights_become_matrices_and_come_back(module: nn.Module, outputs: int, inputs: int) -> None:
    weight = module.get_parameter("weight")
    rows = as_rows(weight, layout_of(module))
    assert rows.shape == (outputs, inputs)
    assert torch.equal(from_rows(rows, weight, layout_of(module)), weight)


def test_a_bare_parameter_has_its_channels_last() -> None:
    tokens = random(2, 3, 5)
    assert as_rows(tokens, layout_of(None)).shape == (5, 6)
    assert torch.equal(from_rows(as_rows(tokens, "columns"), tokens, "columns"), tokens)


CHANGES = {
    "inputs": LayerChange(gain=random(12), turn_in=Rotation(12, seed=1), online=4),
    "outputs": LayerChange(centred=True, turn_out=Rotation(8, seed=2)),
    "both": LayerChange(gain=random(12), online=4, centred=True, turn_out=Rotation(8, seed=2)),
    "neither": LayerChange(shift=random(12)),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("part", [1, 30, 64])
def test_a_weight_is_changed_in_parts(name: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is small, gives the same numbers, and the result lies in memory as the weight does."""
    change, narrow = CHANGES[name], WEIGHT.float()
    expected = change.weight(narrow)
    sizes = []
    for method in ("_input", "_output"):
        own = getattr(LayerChange, method)
        monkeypatch.setattr(LayerChange, method, lambda self, x, own=own: sizes.append(x.numel()) or own(self, x))
    monkeypatch.setattr(folding, "_PART", part)
    for weight in (narrow, narrow.T.contiguous().T):
        changed = change.weight(weight, torch.float32)
        assert changed.stride() == weight.stride()
        torch.testing.assert_close(changed, expected.float(), rtol=1e-6, atol=1e-6)
    assert max(sizes, default=0) <= max(part, 12)
    assert bool(sizes) == (name != "neither")
