"""Contract: each operator, simulated neuron by neuron, gives the very floats of its closed form; and between encoding
and decoding no floating-point tensor is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spikeplug.coding import encode
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators import attention, rms_norm, silu, softmax
from spikeplug.operators.attention import attention_ratio, attention_sums
from spikeplug.operators.gates import SILU, encode_amplitude, encode_exponent, gated_integers
from spikeplug.operators.rms_norm import rms_norm_integers
from spikeplug.operators.scores import encode_scores
from spikeplug.operators.softmax import softmax_integers
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Closed, Simulated

PAPER = PRESETS["paper"].numerics
CONFIGS = {
    "default": Numerics(),
    "narrow, blocks of 4": dataclasses.replace(PRESETS["narrow"].numerics, scale_block=4),
    "paper": PAPER,
    "8 bits": Numerics(bits=8, working_bits=14),
    "ordered": Numerics(bits=4, working_bits=8, division="ordered", code="count", steps=4),
    "cordic, scaled": Numerics(norm="cordic", iterations=12),
    "piecewise, scaled": dataclasses.replace(PAPER, shift_scaling=True),
    "widest, floored": Numerics(bits=20, working_bits=24, fraction_bits=16, divide_last=False, shift_scaling=False),
    "shift, floored": Numerics(divide_last=False, shift_scaling=False, bits=6, working_bits=12),
}
KINDS = ["plain", "huge", "tiny", "outlier", "zero", "mixed", "not finite"]


def vectors(kind: str, shape: tuple[int, ...] = (6, 19)) -> Tensor:
    torch.manual_seed(len(kind))
    x = torch.randn(shape) * 4
    if kind == "huge":
        return x * 1e30
    if kind == "tiny":
        return x * 1e-39
    if kind == "outlier":
        x[..., 3] = 900.0
        return x
    if kind == "zero":
        return torch.zeros(shape)
    if kind == "mixed":
        return x * torch.logspace(-20, 20, shape[-1])
    if kind == "not finite":
        x[0, 0], x[1, 1], x[2, 2], x[3, :] = float("nan"), float("inf"), -float("inf"), -float("inf")
    return x


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(12345.0), b.nan_to_num(12345.0)) and torch.equal(a.isnan(), b.isnan())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("operator", ["softmax", "silu", "rms_norm"])
def test_simulated_equals_closed(operator: str, name: str, kind: str) -> None:
    numerics = CONFIGS[name]
    x = vectors(kind)
    if operator != "softmax" and numerics.division == "ordered" and not numerics.shift_scaling:
        x = x[:4, :1].clamp(-4, 4)  # the published group has a neuron for every output level: keep it small
    run: Callable[[Events | None], Tensor] = {
        "softmax": lambda events: softmax(x, numerics=numerics, events=events),
        "silu": lambda events: silu(x, numerics, events=events),
        "rms_norm": lambda events: rms_norm(x, None, 1e-5, numerics=numerics, events=events),
    }[operator]
    events = Events()
    assert same(run(None), run(events))
    assert events.steps > 0
    assert events.membrane_updates > 0


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_simulated_attention_equals_closed(name: str, masked: bool) -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(2, 4, 5, 8) * 3, torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 6)
    value[0, 0, 2] *= 1e6
    value[1, 1, 3] = 0.0
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2) if masked else None
    if mask is not None:
        mask[3] = False
    options: dict[str, Any] = {"numerics": CONFIGS[name]}
    assert torch.equal(
        attention(query, key, value, mask, **options), attention(query, key, value, mask, events=Events(), **options)
    )


class NoFloat(TorchDispatchMode):
    """Fails on any op that takes or returns a floating or complex tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for leaf in torch.utils._pytree.tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor) and (leaf.dtype.is_floating_point or leaf.dtype.is_complex):
                raise AssertionError(f"{func} touched a {leaf.dtype} tensor")
        return result


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("name", ["default", "paper", "cordic, scaled", "piecewise, scaled"])
def test_no_float_between_encoding_and_decoding(name: str, simulated: bool) -> None:
    numerics = CONFIGS[name]
    x = vectors("plain", (2, 5)).clamp(-2, 2)
    scores, value = encode_scores(x, 1.0, numerics), encode(torch.randn(5, 3), numerics.bits)
    amplitude, exponent_input = encode_amplitude(x, "silu", numerics), encode_exponent(x, SILU, numerics)
    code, extension = encode(x, numerics.working_bits), torch.ones(2, 1, dtype=torch.int32)
    with NoFloat():
        on = Simulated(numerics) if simulated else Closed()
        softmax_integers(scores, numerics, on)
        gated_integers(amplitude, exponent_input, SILU, numerics, on)
        rms_norm_integers(code.mantissa, extension, numerics, on)
        if numerics.divide_last:
            attention_ratio(attention_sums(scores, value, numerics, on), 5, numerics, on)


def test_the_watch_sees_floats() -> None:
    with pytest.raises(AssertionError, match="float32"), NoFloat():
        torch.ones(2) + 1
