"""Activation functions, elementwise: encode, run the integers of gates.py and curves.py, decode.

All take and give any floating dtype, of x's shape. The elements of a vector along the last dimension share one
power-of-two scale (shift_scaling). NaN gives NaN and an infinity what torch gives (nothing is computed from them: the
finite elements beside are unharmed). events: count into it, simulating neuron by neuron, with the same result.
Errors: SpikeplugError for a tensor that is not floating.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from spikeplug.coding import as_real, decode
from spikeplug.errors import SpikeplugError
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import arriving
from spikeplug.operators.curves import (
    mish_integers,
    relu_squared_integers,
    softplus_integers,
    tanh_fraction_bits,
    tanh_integers,
)
from spikeplug.operators.gates import (
    SIGMOID,
    SILU,
    Gate,
    encode_amplitude,
    encode_distance,
    encode_exponent,
    gated_integers,
    gelu_gate,
    sigmoid_integers,
)
from spikeplug.operators.rows import by_rows
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic
from spikeplug.saturation import record


@torch.no_grad()
def silu(x: Tensor, numerics: Numerics | None = None, *, events: Events | None = None) -> Tensor:
    """x·σ(x). -inf gives NaN, as torch's does."""
    return _gated(SILU, x, numerics, events)


@torch.no_grad()
def gelu(
    x: Tensor, approximate: str = "none", *, numerics: Numerics | None = None, events: Events | None = None
) -> Tensor:
    """x·Φ(x); "tanh": x·(1 + tanh(sqrt(2/π)·(x + 0.044715·x³)))/2; "quick": x·σ(1.702·x). -inf gives NaN.

    Errors: SpikeplugError for any other `approximate`.
    """
    return _gated(gelu_gate(approximate), x, numerics, events)


@torch.no_grad()
def sigmoid(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """σ(x) = 1/(1 + exp(-x))."""

    def rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
        return decode(*sigmoid_integers(encode_exponent(x, SIGMOID, numerics), numerics, on), x.dtype)

    return _elementwise("sigmoid", rows, x, numerics, events, ends=(0.0, 1.0))


@torch.no_grad()
def tanh(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """tanh(x), odd to the bit; its exponent is 16 times finer than the other activations' (see README.md)."""

    def rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
        distance = encode_distance(x, 2.0, tanh_fraction_bits(numerics), numerics)
        return decode(*tanh_integers(x < 0, distance, numerics, on), x.dtype)

    return _elementwise("tanh", rows, x, numerics, events, ends=(-1.0, 1.0))


@torch.no_grad()
def softplus(
    x: Tensor,
    beta: float = 1.0,
    threshold: float = 20.0,
    *,
    numerics: Numerics | None = None,
    events: Events | None = None,
) -> Tensor:
    """ln(1 + exp(beta·x))/beta; x itself (rounded to the output's scale) where beta·x > threshold.

    max(x, 0) and ln(1 + exp(-|beta·x|))/beta are two spike trains, each with a scale of its own, summed when decoded.
    Errors: SpikeplugError for a beta that is no number above 0, a threshold that is none of at least 0.
    """
    if not _is_number(beta) or not 0 < beta < math.inf:
        raise SpikeplugError(f"softplus got beta={beta!r}; give a number above 0.")
    if not _is_number(threshold) or threshold < 0:
        raise SpikeplugError(f"softplus got threshold={threshold!r}; give a number of at least 0.")

    def rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
        code = encode_amplitude(x, "softplus", numerics)
        linear = x * beta > threshold
        distance = encode_distance(x.masked_fill(linear, 0.0), beta, numerics.fraction_bits, numerics)
        positive, octaves = softplus_integers(code, distance, linear, numerics, on)
        return decode(*positive, x.dtype) + decode(*octaves, x.dtype) * (math.log(2) / beta)

    return _elementwise("softplus", rows, x, numerics, events, ends=(0.0, math.inf))


@torch.no_grad()
def mish(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """x·tanh(ln(1 + exp(x))). -inf gives NaN, as torch's does."""

    def rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
        distance = encode_distance(x, 1.0, numerics.fraction_bits, numerics)
        return decode(*mish_integers(encode_amplitude(x, "mish", numerics), distance, numerics, on), x.dtype)

    return _elementwise("mish", rows, x, numerics, events, ends=(math.nan, math.inf))


@torch.no_grad()
def relu_squared(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """max(x, 0)², the positive part gated by itself."""

    def rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
        return decode(*relu_squared_integers(encode_amplitude(x, "relu_squared", numerics), numerics, on), x.dtype)

    return _elementwise("relu_squared", rows, x, numerics, events, ends=(0.0, math.inf))


def _gated(gate: Gate, x: Tensor, numerics: Numerics | None, events: Events | None) -> Tensor:
    def rows(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
        code, exponent_input = encode_amplitude(x, gate.name, numerics), encode_exponent(x, gate, numerics)
        return decode(*gated_integers(code, exponent_input, gate, numerics, on), x.dtype)

    return _elementwise(gate.name, rows, x, numerics, events, ends=(math.nan, math.inf))


def _elementwise(
    name: str,
    rows: Callable[[Tensor, Numerics, Arithmetic], Tensor],
    x: Tensor,
    numerics: Numerics | None,
    events: Events | None,
    ends: tuple[float, float],
) -> Tensor:
    """`rows` over blocks of finite float32 or float64 vectors; x's shape and dtype. ends: for x = -inf and +inf."""
    numerics = as_numerics(numerics)
    as_real(x, name)
    if x.numel() == 0:
        return torch.empty_like(x)
    on = arithmetic(numerics, events)

    def block(part: Tensor) -> Tensor:
        real = as_real(part, name)
        # The sum of finite numbers may overflow, but one number that is not finite always shows in it.
        if bool(torch.isfinite(real.sum())):
            return rows(arriving(real, numerics), numerics, on)
        nonfinite = ~torch.isfinite(real)
        record("input: not finite", nonfinite)
        output = rows(arriving(real.masked_fill(nonfinite, 0.0), numerics), numerics, on)
        output = output.masked_fill(real == -math.inf, ends[0]).masked_fill(real == math.inf, ends[1])
        return output.masked_fill(torch.isnan(real), math.nan)

    return by_rows(block, x.reshape(1) if x.dim() == 0 else x).reshape(x.shape)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
