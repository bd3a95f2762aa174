"""SiLU: x / (1 + exp(-x))."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikeplug.coding import Coded, as_real, decode, encode, encode_fixed
from spikeplug.config import SpikeConfig, as_config
from spikeplug.neurons import Events
from spikeplug.operators.ratio import Ratio, signed
from spikeplug.operators.rows import by_rows
from spikeplug.operators.scores import natural_unit, piecewise_exponential, shift_exponential
from spikeplug.primitives.arithmetic import Arithmetic, arithmetic
from spikeplug.saturation import record

#: Without a scale of its own, an input is a fixed-point number up to 2^10; beyond, it saturates and is counted.
_FIXED_RANGE_BITS = 10


def silu_integers(code: Coded, exponent_input: Tensor, config: SpikeConfig, on: Arithmetic) -> tuple[Tensor, Tensor]:
    """(q, exponent): x·σ(x) is q·2^exponent, x being code.mantissa·2^code.exponent. All in integers, Q(P) inside.

    shift      exponent_input = |x| in octaves, t = 2^-|x|·log2(e): x >= 0 gives |x|/(1 + t), x < 0 gives
               -|x|·t/(1 + t); t <= 1, so nothing overflows however large x is.
    piecewise  exponent_input = x in nats, t = exp(-x) on [-H, H]: x/(1 + t), as published.
    """
    width, one = config.working_bits, 1 << config.working_bits
    amplitude_bits = width if config.shift_scaling else _FIXED_RANGE_BITS + config.fraction_bits + 1
    magnitude, negative = code.mantissa.abs(), code.mantissa < 0
    if config.exponential == "shift":
        mantissa = on.mantissa(exponent_input, shift_exponential(config))
        t = on.decay(mantissa, exponent_input >> config.fraction_bits).to(torch.int64)
        numerator = on.gate(magnitude, torch.where(negative, t, one), amplitude_bits)
        t_bits = width + 1
    else:
        spec = piecewise_exponential(config.half_range, config)
        record("silu: exponent beyond H", (exponent_input < spec.knots[0]) | (exponent_input > spec.knots[-1]))
        t = on.piecewise(-exponent_input, spec)
        numerator = magnitude.to(torch.int64) << width
        t_bits = width + math.ceil(config.half_range / math.log(2)) + 1
    ratio = Ratio("silu", amplitude_bits + width + 1, t_bits + 1, 1 << _FIXED_RANGE_BITS, per_element=True)
    exponent = code.exponent if config.shift_scaling else -config.fraction_bits
    quotient, exponent = ratio(numerator, t + one, exponent, config, on)
    return signed(quotient, code.mantissa), exponent


def _encode(x: Tensor, config: SpikeConfig) -> tuple[Coded, Tensor]:
    """x's amplitude, and x again as the exponent's input (|x|·log2(e) or x, with F fraction bits)."""
    code = encode(x, config.working_bits)
    finite = x if code.nonfinite is None else x.masked_fill(code.nonfinite, 0.0)
    fraction_bits = config.fraction_bits
    bound = 1 << (_FIXED_RANGE_BITS + fraction_bits)
    fixed = encode_fixed(finite, fraction_bits, -bound, bound) if config.exponential == "piecewise" else None
    if not config.shift_scaling:
        mantissa = encode_fixed(finite, fraction_bits, -bound, bound)
        record("silu: input beyond 2^10", mantissa.abs() == bound)
        code = Coded(mantissa, code.exponent, code.nonfinite)
    if fixed is not None:
        return code, fixed
    # Beyond 31 octaves t is 0 for every width.
    return code, encode_fixed(finite.abs() * natural_unit(config), fraction_bits, 0, 31 << fraction_bits)


@torch.no_grad()
def silu(x: Tensor, config: SpikeConfig | None = None, *, events: Events | None = None) -> Tensor:
    """x·σ(x), elementwise, by spiking integers; same shape and dtype as x (any floating dtype).

    Vectors along the last dimension share one power-of-two scale. NaN gives NaN, +inf gives +inf, -inf gives NaN, as
    torch's does; the finite elements beside them are unharmed.
    events: count into it, simulating neuron by neuron. Errors: SpikeplugError for a non-floating tensor.
    """
    config = as_config(config)
    as_real(x, "silu")
    if x.numel() == 0:
        return torch.empty_like(x)
    if x.dim() == 0:
        return silu(x.reshape(1), config, events=events).reshape(())
    on = arithmetic(config, events)
    return by_rows(lambda rows: _silu_rows(as_real(rows, "silu"), config, on), x)


def _silu_rows(x: Tensor, config: SpikeConfig, on: Arithmetic) -> Tensor:
    code, exponent_input = _encode(x, config)
    output = decode(*silu_integers(code, exponent_input, config, on), x.dtype)
    if code.nonfinite is None:
        return output
    return torch.where(code.nonfinite, torch.where(x == math.inf, x, torch.nan), output)
