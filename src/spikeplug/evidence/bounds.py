"""Our proven bounds as functions: |spiking - exact| <= bound(inputs), elementwise, for any numerics. Proofs and formulas:
operators/README.md for the shift exponential and scales of the vector's own; `docs/ops.md` for the published form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from spikeplug.evidence.activation_bounds import gelu, mish, relu_squared, sigmoid, silu, softplus, tanh
from spikeplug.evidence.parts import (
    Falling,
    carried,
    falling_error,
    length_error,
    output_rounding,
    product_error,
    unheard,
    weight_error,
)
from spikeplug.evidence.subjects import EPS, HEAD_DIM
from spikeplug.numerics import Numerics
from spikeplug.operators.scores import carried_fraction_bits

Bound = Callable[..., Tensor]  # (*inputs, numerics) -> the shape of the operator's output


def _within_scores(x: Tensor, bound: Tensor, numerics: Numerics) -> Tensor:
    """Scores of 2^(28-F) and more give up fraction bits: nothing is promised of such a row."""
    return bound.masked_fill(x.abs().amax(-1, keepdim=True) >= 2.0 ** (28 - numerics.fraction_bits), math.inf)


def softmax(x: Tensor, *, numerics: Numerics) -> Tensor:
    """With A_i the error of weight i, e_i its value, S = Σ e: (A_i + p_i·ΣA) / (S - ΣA), then the division's rounding.

    The shift form with scales of its own has the closed form p·(2δ/(1-δ) + (d + 8)·2^(1-P)) + p_max·2^(3-P).
    """
    p = x.softmax(-1)
    top = p.amax(-1, keepdim=True)
    unit, delta = 2.0**-numerics.working_bits, weight_error(numerics, scores=True)
    if numerics.exponential == "shift" and numerics.shift_scaling and numerics.input_bits is None:
        floors = (x.shape[-1] + 8) * 2 * unit
        own = p * (2 * delta / (1 - delta) + floors) + top * 8 * unit
        return _within_scores(x, own + output_rounding(p, numerics, channels=False), numerics)
    distance = x.amax(-1, keepdim=True) - x
    weight = (-distance).exp()
    lost = falling_error(distance, numerics, numerics.softmax_half_range, scores=True).absolute + unheard(
        distance, numerics
    )
    if numerics.exponential == "shift":
        lost = lost + 2 * unit  # its maximum is a whole octave up: a floor costs twice as much of the largest weight
    total, all_lost = weight.sum(-1, keepdim=True), lost.sum(-1, keepdim=True)
    error = (lost + p * all_lost) / (total - all_lost).clamp(min=0)
    scaling = top * 8 * unit if numerics.shift_scaling else 0.0
    return _within_scores(x, error + scaling + output_rounding(p, numerics, channels=False), numerics)


def log_softmax(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Rounding, input steps, the sum's relative error ε/(1-ε), the table of the logarithm."""
    segments, unit = 2.0 ** math.ceil(numerics.bits / 2), 2.0**-numerics.working_bits
    octave = math.log(2) if numerics.exponential == "shift" else 1.0
    step = 2.0**-numerics.bits * (0.5 if numerics.shift_scaling else 1.0)
    distance = x.amax(-1, keepdim=True) - x
    weight, silent = (-distance).exp().sum(-1, keepdim=True), unheard(distance, numerics).sum(-1, keepdim=True)
    if numerics.exponential == "shift":
        total = weight_error(numerics, scores=True) + (x.shape[-1] + 1) * 2 * unit + silent / weight
    else:
        lost = falling_error(distance, numerics, numerics.softmax_half_range, scores=True).absolute
        total = (lost.sum(-1, keepdim=True) + silent) / weight + 2.0 ** -carried_fraction_bits(numerics)
    table = 1 / (8 * segments**2) + 2.0 ** (5 - numerics.working_bits)
    error = octave * (step + 2.0 ** -(carried_fraction_bits(numerics) + 1)) + _shared_ratio(total) + table
    return _within_scores(x, error.expand_as(x), numerics)


def _shared_ratio(total: Tensor) -> Tensor:
    return torch.where(total < 1, total / (1 - total).clamp(min=1e-300), math.inf)


def _coded_scores(query: Tensor, key: Tensor, numerics: Numerics) -> tuple[Tensor, Tensor]:
    """Scores of what the codes of queries and keys carry, which are exact; and e^(2η) - 1: codes move a score by η, and
    so a probability by a factor of at most e^(2η)."""
    moved = torch.expm1(2 * product_error(query, key, HEAD_DIM**-0.5, numerics))
    return carried(query, numerics) @ carried(key, numerics).mT * HEAD_DIM**-0.5, moved


def attention_weights(query: Tensor, key: Tensor, *, numerics: Numerics) -> Tensor:
    """As softmax of the coded scores; and p·(e^(2η) - 1) for what codes move."""
    scores, moved = _coded_scores(query, key, numerics)
    bound: Tensor = softmax(scores, numerics=numerics) + scores.softmax(-1) * moved
    return bound


def attention(query: Tensor, key: Tensor, value: Tensor, *, numerics: Numerics) -> Tensor:
    """Of the coded scores; and Σ p|v|·(e^(2η) - 1) for what codes move."""
    scores, moved = _coded_scores(query, key, numerics)
    bound: Tensor = _attention(scores, value, numerics) + scores.softmax(-1) @ value.abs() * moved
    return bound


def _attention(scores: Tensor, value: Tensor, numerics: Numerics) -> Tensor:
    """Divided last: operators/README.md. Else Σ bound_i·|v_i| and the values' own n bits; sums are float."""
    p, scale = scores.softmax(-1), value.abs().amax(-1, keepdim=True)
    coding = 2.0 ** (1 - numerics.bits)
    if not numerics.divide_last:
        lost = softmax(scores, numerics=numerics)
        bound: Tensor = lost @ value.abs() + (p + lost) @ scale * coding + 1e-12 * (p @ value.abs())
        return bound.nan_to_num(nan=math.inf, posinf=math.inf)
    keys, unit, delta, exact = (
        value.shape[-2],
        2.0**-numerics.working_bits,
        weight_error(numerics, scores=True),
        p @ value,
    )
    # What sends no spike is missing from both sums, a share of `silent` of the weights.
    missing = p.masked_fill(unheard(scores.amax(-1, keepdim=True) - scores, numerics) == 0, 0.0)
    silent = missing.sum(-1, keepdim=True)
    absent = (missing @ value.abs() + silent * exact.abs()) / (1 - silent)
    error: Tensor = p @ value.abs() * (2 * delta / (1 - delta) + (keys + 8) * 2 * unit) + p @ scale * coding
    error = error + 2 * keys * 4 * unit * (p * scale.mT).amax(-1, keepdim=True) + exact.abs() * 8 * unit
    bound = absent + error / (1 - silent) + output_rounding(exact, numerics)
    within = _within_scores(scores, torch.zeros_like(scores[..., :1]), numerics)
    return bound + within


def sine(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Of sin and cos: rounding, chords, phase, knots, and the encoder's float64 product."""
    step, fine = 2.0**-numerics.bits, 2.0**-numerics.working_bits
    table = (math.pi / 2) ** 2 / 8 / 4.0 ** math.ceil(numerics.bits / 2) + 1.5 * fine
    phase = fine if numerics.input_bits is None else 2.0**-numerics.input_bits
    return step * (0.5 if numerics.shift_scaling else 1) + table + math.pi * (phase + fine) + x.abs() * 2.0**-52


def logarithm(x: Tensor, *, numerics: Numerics) -> Tensor:
    lsb = math.log(2) * 2.0**-numerics.bits * (0.5 if numerics.shift_scaling else 1)
    table = 1 / (8 * 4.0 ** math.ceil(numerics.bits / 2)) + 2.0 ** (3 - numerics.working_bits)
    return torch.full_like(x, lsb + table)


def exp(x: Tensor, *, numerics: Numerics) -> Tensor:
    """Relative δ and 2^-n. By chords: `falling_error` inside [-H, H]; beyond, what saturation loses."""
    y, lsb = x.exp(), 2.0**-numerics.bits
    if numerics.exponential == "shift":
        delta = weight_error(numerics)
        return y * (delta + lsb * (1 + delta))
    lost: Falling = falling_error(-x, numerics, numerics.softmax_half_range)
    highest = math.exp(numerics.softmax_half_range)
    error = torch.where(lost.above, (y - highest).abs() + highest * 2.0**-15 + lost.near * lost.absolute, lost.absolute)
    return error + (y + error) * lsb


def _of_exact(function: Callable[..., Tensor]) -> Bound:
    """Relative 2^-n + 2^(3-P)."""

    def bound(*inputs: Tensor, numerics: Numerics) -> Tensor:
        size: Tensor = function(*inputs).abs()
        return size * (2.0**-numerics.bits + 2.0 ** (3 - numerics.working_bits))

    return bound


def vector_norm(x: Tensor, *, numerics: Numerics) -> Tensor:
    length = length_error(x.shape[-1], numerics)
    exact: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return exact * (length + 2.0**-numerics.bits * (1 + length))


def rms_norm(x: Tensor, *, numerics: Numerics) -> Tensor:
    """|y|·ε/(1-ε), the elements' coding, then the output's rounding."""
    dimension = x.shape[-1]
    root = (x.square().sum(-1, keepdim=True) + EPS * dimension).sqrt()
    share = x.abs().amax(-1, keepdim=True).clamp(min=math.sqrt(EPS * dimension)) / root
    return _normed(x * math.sqrt(dimension) / root, share, numerics)


def _normed(exact: Tensor, share: Tensor, numerics: Numerics) -> Tensor:
    """`share`: the vector's (extended) largest element over its norm."""
    dimension = exact.shape[-1]
    length = length_error(dimension, numerics) + 2.0**-16 / math.sqrt(dimension)
    coding = share * math.sqrt(dimension) * 2.0 ** (3 - numerics.working_bits)
    return exact.abs() * length / (1 - length) + coding + output_rounding(exact, numerics)


def layer_norm(x: Tensor, *, numerics: Numerics) -> Tensor:
    """q + B(|y| + q): what coding x loses, then what the root-mean-square core does."""
    dimension = x.shape[-1]
    centred = x - x.mean(-1, keepdim=True)
    norm = (centred.square().sum(-1, keepdim=True) + EPS * dimension).sqrt()
    exact = centred.abs() * math.sqrt(dimension) / norm
    step = (
        x.abs().amax(-1, keepdim=True).clamp(min=math.sqrt(EPS * dimension)) * 2.0 ** (2 - numerics.working_bits) / norm
    )
    rho = math.sqrt(dimension + 1) / 2 * step
    coding = torch.where(rho < 1, (math.sqrt(dimension) * step + exact * rho) / (1 - rho).clamp(min=1e-300), math.inf)
    return coding + _normed(exact + coding, torch.ones_like(norm), numerics)


#: By operator. Every one of the library has one.
BOUNDS: Mapping[str, Bound] = {
    **{
        f.__name__: f for f in (softmax, log_softmax, attention, attention_weights, silu, gelu, sigmoid, tanh, softplus)
    },
    **{f.__name__: f for f in (mish, relu_squared, rms_norm, layer_norm, vector_norm, exp)},
    "cos": sine,
    "sin": sine,
    "log": logarithm,
    **{name: _of_exact(getattr(torch, name)) for name in ("sqrt", "rsqrt", "square", "reciprocal", "divide")},
}
