"""Regenerate the golden vectors: `python tests/golden/make.py`. They pin every output bit of every operator.

Inputs are integers made by a linear congruential generator, so that no library's random stream is part of them. Pinned
are the integers of the first operators' cores, and the float32 bit patterns of every operator in the registry.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeplug.coding import Coded
from spikeplug.library import OPERATORS
from spikeplug.numerics import NUMERICS_VERSION, Numerics
from spikeplug.operators.attention import attention_ratio, attention_sums
from spikeplug.operators.gates import SILU, gated_integers
from spikeplug.operators.ratio import signed
from spikeplug.operators.rms_norm import rms_norm_integers
from spikeplug.operators.scores import Scores
from spikeplug.operators.softmax import softmax_integers
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Closed

FILE = Path(__file__).with_name("vectors.json")


def stream(seed: int, count: int, bits: int) -> Tensor:
    """`count` signed integers of at most `bits` bits, of a 64-bit linear congruential generator (Knuth's MMIX)."""
    values, state = [], seed
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) % (1 << 64)
        values.append((state >> 33) % (2 << bits) - (1 << bits))
    return torch.tensor(values, dtype=torch.int32)


def vectors() -> dict[str, Any]:
    """Every operator's integer answer, for both configs."""
    expected: dict[str, Any] = {"numerics_version": NUMERICS_VERSION}
    on = Closed()
    for name, numerics in (("default", Numerics()), ("paper", PRESETS["paper"].numerics)):
        scores = Scores(stream(1, 60, 15).view(3, 20), None, None)
        exponent = torch.tensor([[-18], [-20], [3]], dtype=torch.int32)
        code = Coded(stream(2, 60, 21).view(3, 20), exponent, None)
        inputs = stream(3, 60, 16).view(3, 20)
        exponents = signed(inputs.abs(), code.mantissa) if numerics.exponential == "shift" else inputs
        answers = {
            "softmax": softmax_integers(scores, numerics, on),
            "silu": gated_integers(code, exponents, SILU, numerics, on),
            "rms_norm": rms_norm_integers(code.mantissa, stream(4, 3, 20).abs().view(3, 1), numerics, on),
        }
        if numerics.divide_last:
            value = Coded(stream(5, 80, 15).view(20, 4), stream(6, 20, 3).view(20, 1), None)
            answers["attention"] = attention_ratio(attention_sums(scores, value, numerics, on), 20, numerics, on)
        expected[name] = {
            operator: {"quotient": quotient.tolist(), "exponent": exponent.tolist()}
            for operator, (quotient, exponent) in answers.items()
        }
        expected[f"{name}, bit patterns"] = operator_vectors(numerics)
    return expected


# Arguments of every operator in the registry: floats that are integers over a power of two. Queries have one channel
# that is not zero, so that query·key is one product, whatever order a platform sums in.
def _real(seed: int, *shape: int, bits: int = 12, scale: int = 8) -> Tensor:
    return stream(seed, math.prod(shape), bits).view(shape).to(torch.float32) / (1 << scale)


_X = _real(11, 3, 20)
_POSITIVE = _X.abs() + 0.25
_CHANNEL = torch.tensor([0, 0, 0, 1, 0, 0, 0, 0])
_HEADS = (
    _real(12, 1, 4, 5, 8, bits=4, scale=3) * _CHANNEL,
    _real(13, 1, 2, 7, 8, bits=4, scale=3),
    _real(14, 1, 2, 7, 6),
)
_BIAS, _SINKS = _real(15, 5, 7, bits=6, scale=4), _real(16, 4, bits=6, scale=4)
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "softmax": (_X, -1),
    "log_softmax": (_X, -1),
    "attention": (*_HEADS, _BIAS, _SINKS, 0.25, 8.0),
    "attention_weights": (*_HEADS[:2], _BIAS, None, 0.25, None),
    "gelu": (_X, "none"),
    "softplus": (_X, 1.0, 20.0),
    "rms_norm": (_X, 1e-5),
    "layer_norm": (_X, 1e-5),
    "vector_norm": (_X, -1, False),
    "divide": (_X, _POSITIVE),
    **dict.fromkeys(("silu", "sigmoid", "tanh", "mish", "relu_squared", "cos", "sin", "exp", "square"), (_X,)),
    **dict.fromkeys(("log", "sqrt", "rsqrt", "reciprocal"), (_POSITIVE,)),
}


def operator_vectors(numerics: Numerics) -> dict[str, list[int]]:
    """The bit patterns of every operator's answer in float32; the operators of the registry, no more and no less."""
    assert set(ARGUMENTS) == set(OPERATORS)
    return {
        name: OPERATORS[name](*arguments, numerics=numerics).view(torch.int32).flatten().tolist()
        for name, arguments in ARGUMENTS.items()
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors()) + "\n", encoding="utf-8")
