"""Logarithms: the leading one is the whole octaves, a table of log2(1 + f) the rest."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from spikeplug.coding import decode
from spikeplug.fixedpoint import bit_length, constant, shift
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.elements import by_elements, encode_elements
from spikeplug.operators.ratio import signed
from spikeplug.operators.scaling import fixed_step
from spikeplug.primitives.arithmetic import Arithmetic
from spikeplug.primitives.interpolation import Interpolation


def logarithm_integers(x: Tensor, exponent: Tensor | int, octave: float, numerics: Numerics, on: Arithmetic) -> Tensor:
    """octave·log2(x·2^exponent) with P = working_bits fraction bits, of integers 1 <= x < 2^60; int64.

    octave: what a factor of two counts, 1 (octaves) or ln 2 (nats). x is cut to P bits behind its leading one. Error in
    LSB of 2^-P, with S = 2^ceil(n/2) segments and k whole octaves in the result: octave·(2^P/(8·S²) + 1)/ln 2 + 3/2,
    and k/2 more in nats. In octaves, powers of two are exact.
    """
    width = numerics.working_bits
    whole = bit_length(x) - 1
    fraction = shift(x, width - whole) - (1 << width)
    return (whole + exponent) * constant(octave, width) + on.interpolate(fraction, _table(octave, numerics.bits, width))


@lru_cache
def _table(octave: float, bits: int, width: int) -> Interpolation:
    # The chords' error, 1/(8·S²·ln 2), is 0.18 LSB of n bits at S = 2^(n/2).
    segments = 1 << (bits + 1) // 2
    return Interpolation.of(
        lambda f: octave * math.log2(1 + f), end=1.0, segments=segments, input_bits=width, output_bits=width
    )


def log2_integers(mantissa: Tensor, exponent: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    """log2(mantissa·2^exponent) with n = numerics.bits fraction bits, mantissa >= 0 (0 is taken for 1); int64."""
    value = logarithm_integers(mantissa.to(torch.int64).clamp(min=1), exponent, 1.0, numerics, on)
    return signed(fixed_step(value.abs(), numerics.working_bits, numerics), value)


@torch.no_grad()
def log(x: Tensor, *, numerics: Numerics | None = None, events: Events | None = None) -> Tensor:
    """Natural logarithm, elementwise, by spiking integers; same shape and dtype as x (any floating dtype).

    Octaves with n fraction bits (a logarithm is an exponent: its precision is absolute), times ln 2 at decoding.
    Powers of two are exact. No published form: the paper numerics floors to its n = 8 fraction bits.
    0 gives -inf, a negative number and NaN give NaN, +inf gives +inf, as torch's does.
    events: count into it, simulating neuron by neuron. Errors: SpikeplugError for a non-floating tensor.
    """
    return by_elements("log", _log, x, numerics, events)


def _log(x: Tensor, numerics: Numerics, on: Arithmetic) -> Tensor:
    code = encode_elements(x, numerics)
    octaves = log2_integers(code.mantissa.abs(), code.exponent, numerics, on)
    output = decode(octaves, torch.full_like(code.exponent, -numerics.bits), x.dtype) * math.log(2)
    output = output.masked_fill(x == 0, -math.inf).masked_fill((x < 0) | torch.isnan(x), math.nan)
    return output.masked_fill(x == math.inf, math.inf)
