"""Elementwise powers: exp, square, sqrt, rsqrt; and the norm of a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.coding import as_real, decode, encode, encode_fixed
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.blocks import arriving
from spikeplug.operators.elements import by_elements, encode_elements
from spikeplug.operators.quotients import quotient_integers
from spikeplug.operators.rms_norm import length_integers
from spikeplug.operators.rows import along, by_rows
from spikeplug.operators.scaling import normalise
from spikeplug.operators.scores import natural_unit, piecewise_exponential, shift_exponential
from spikeplug.presets import as_numerics
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic
from spikeplug.primitives.norm import RootSpec
from spikeplug.saturation import record

#: Exponents beyond 2^12 octaves are 0 or infinite in every dtype.
_OCTAVE_BITS = 12


def exponential_integers(exponent_input: Tensor, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): exp(x) is q·2^exponent, q of n bits, int64; exponent_input: int32 (..., 1), F fraction bits.

    shift      x in octaves: 2^x = 2^-f · 2^k with k = ceil(x) and 0 <= f < 1
    piecewise  x in nats, exp on [-H, H], H = softmax_half_range
    """
    if numerics.exponential == "shift":
        below = -exponent_input
        value = on.mantissa(below, shift_exponential(numerics)).to(torch.int64)
        octaves = -(below >> numerics.fraction_bits)
    else:
        spec = piecewise_exponential(numerics.softmax_half_range, numerics)
        record("exp: exponent beyond H", (exponent_input < spec.knots[0]) | (exponent_input > spec.knots[-1]))
        value = on.piecewise(exponent_input, spec)
        octaves = torch.zeros_like(value)
    quotient, exponent = normalise(value, numerics.bits)
    return quotient, exponent + octaves - numerics.working_bits


@torch.no_grad()
def exp(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """exp(x), elementwise, by spiking integers; same shape and dtype as x (any floating dtype).

    n significant bits with every numerics: relative error at most δ (operators/README.md) + 2^-n. The published PWL form
    saturates outside [-H, H], H = softmax_half_range: exp(H) above, 0 below, counted.
    NaN gives NaN, +inf gives +inf, -inf gives 0; whatever exceeds the dtype gives inf, as torch's does.
    events: count into it, simulating neuron by neuron. Errors: SpikeplugError for a non-floating tensor.
    """
    return by_elements("exp", _exp, x, numerics, events)


def _exp(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    bound = 1 << (_OCTAVE_BITS + numerics.fraction_bits)
    nonfinite = ~torch.isfinite(x)
    record("input: not finite", nonfinite)
    # float64: the product with log2(e) must not lose what the input step keeps.
    finite = arriving(x.masked_fill(nonfinite, 0.0), numerics)
    octaves = finite.to(torch.float64) * natural_unit(numerics)
    fixed = encode_fixed(octaves, numerics.fraction_bits, -bound, bound)
    output = decode(*exponential_integers(fixed, numerics, on), x.dtype)
    return torch.where(nonfinite, torch.where(x == -math.inf, 0.0, x), output)


def root_integers(mantissa: Tensor, exponent: Tensor, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(r, exponent): sqrt(mantissa·2^exponent) is r·2^exponent, low by less than one LSB; int64, P or P + 1 bits.

    mantissa >= 0 of at most P bits, `encode_elements`' own. It is shifted until its exponent is even.
    """
    width = numerics.working_bits
    places = width + 1 + ((exponent + width + 1) & 1)
    root = on.root(mantissa.to(torch.int64) << places, RootSpec(width + 1))
    return root, (exponent - places) >> 1


@torch.no_grad()
def sqrt(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """sqrt(x), elementwise, by spiking integers; same shape and dtype as x (any floating dtype).

    n significant bits with every numerics, relative error at most 2^-n + 2^(3-P). The root neuron is used with
    norm = "cordic" too, which has no root of a number.
    A negative number and NaN give NaN, +inf gives +inf. events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for a non-floating tensor.
    """
    return by_elements("sqrt", _sqrt, x, numerics, events)


def _sqrt(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    code = encode_elements(x, numerics)
    root, exponent = root_integers(code.mantissa.abs(), code.exponent, numerics, on)
    quotient, places = normalise(root, numerics.bits)
    output = decode(quotient, exponent + places, x.dtype)
    return output.masked_fill(x == math.inf, math.inf).masked_fill((x < 0) | torch.isnan(x), math.nan)


@torch.no_grad()
def rsqrt(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """1 / sqrt(x), elementwise, by spiking integers; as `sqrt`. 0 gives inf (-0 gives -inf), inf gives 0."""
    return by_elements("rsqrt", _rsqrt, x, numerics, events)


def _rsqrt(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    code = encode_elements(x, numerics)
    root, exponent = root_integers(code.mantissa.abs(), code.exponent, numerics, on)
    output = decode(*quotient_integers(torch.ones_like(root), root, -exponent, numerics, on), x.dtype)
    output = torch.where(x == 0, torch.copysign(torch.full_like(x, math.inf), x), output)
    return output.masked_fill(x == math.inf, 0.0).masked_fill((x < 0) | torch.isnan(x), math.nan)


def square_integers(mantissa: Tensor, exponent: Tensor, numerics: Numerics, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): (mantissa·2^exponent)² is q·2^exponent, q of n bits; int64. mantissa: (..., 1)."""
    quotient, places = normalise(on.square_sum(mantissa, numerics.working_bits), numerics.bits)
    return quotient, 2 * exponent + places


@torch.no_grad()
def square(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """x², elementwise, by spiking integers; same shape and dtype as x (any floating dtype).

    n significant bits with every numerics, relative error at most 2^-n + 2^(3-P). Infinities give +inf, NaN gives NaN.
    events: count into it, simulating neuron by neuron. Errors: SpikeplugError for a non-floating tensor.
    """
    return by_elements("square", _square, x, numerics, events)


def _square(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    code = encode_elements(x, numerics)
    output = decode(*square_integers(code.mantissa, code.exponent, numerics, on), x.dtype)
    return output if code.nonfinite is None else torch.where(code.nonfinite, x.abs(), output)


@torch.no_grad()
def vector_norm(
    x: Tensor,
    dim: int = -1,
    keepdim: bool = False,
    *,
    numerics: Numerics | None = None,
    events: Events | None = None,
) -> Tensor:
    """sqrt(Σ x²) along `dim`, by spiking integers; x's shape without `dim` (or with 1 there), x's dtype.

    n significant bits with every numerics. The vector shares one power-of-two scale; squares and root, or CORDIC tree, by
    numerics.norm. Right where x² overflows its dtype. A vector with NaN gives NaN, else one with an infinity +inf.
    events: count into it, simulating neuron by neuron.
    Errors: SpikeplugError for a non-floating tensor, a dim that x does not have, vectors too long for working_bits.
    """
    numerics = as_numerics(numerics)
    as_real(x, "vector_norm")
    rows = along(dim, x, "vector_norm")
    if x.numel() == 0:
        output = x.new_zeros((*rows.shape[:-1], 1))
    else:
        on = arithmetic(numerics, events)
        output = by_rows(lambda block: _vector_norm(as_real(block, "vector_norm"), numerics, on), rows)
    return output.movedim(-1, dim) if keepdim and x.dim() else output.squeeze(-1)


def _vector_norm(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    code = encode(arriving(x, numerics), numerics.working_bits)
    length, _ = length_integers(code.mantissa, None, numerics, on, "vector_norm")
    quotient, places = normalise(length, numerics.bits)
    output = decode(quotient, code.exponent + places, x.dtype)
    if code.nonfinite is None:
        return output
    output = output.masked_fill(code.nonfinite.any(-1, keepdim=True), math.inf)
    return output.masked_fill(torch.isnan(x).any(-1, keepdim=True), math.nan)
