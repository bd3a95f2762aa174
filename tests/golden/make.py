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

from spikeplug.codes import FIXED_RANGE_BITS, Coded, Scores, fixed
from spikeplug.library import OPERATORS
from spikeplug.numerics import NUMERICS_VERSION, Numerics
from spikeplug.operators import LINEAR, RECORDS
from spikeplug.operators.attention.rows import attention_ratio, attention_sums
from spikeplug.operators.gates.gate import gated_integers
from spikeplug.operators.gates.silu import GATE
from spikeplug.operators.norms.rms_norm import rms_norm_integers
from spikeplug.operators.softmax.softmax import softmax_integers
from spikeplug.presets import PRESETS
from spikeplug.primitives.arithmetic import Closed
from spikeplug.primitives.relay import signed

FILE = Path(__file__).with_name("vectors.json")


def stream(seed: int, count: int, bits: int) -> Tensor:
    """`count` signed integers of at most `bits` bits, of a 64-bit linear congruential generator (Knuth's MMIX)."""
    values, state = [], seed
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) % (1 << 64)
        values.append((state >> 33) % (2 << bits) - (1 << bits))
    return torch.tensor(values, dtype=torch.int32)


def vectors() -> dict[str, Any]:
    """Return every operator's integer answer, for two presets."""
    expected: dict[str, Any] = {"numerics_version": NUMERICS_VERSION}
    for name in ("default", "paper"):
        numerics = PRESETS[name].numerics
        expected[name] = {
            operator: {"quotient": code.mantissa.tolist(), "exponent": code.exponent.tolist()}
            for operator, code in _integers(Closed(numerics)).items()
        }
        expected[f"{name}, bit patterns"] = operator_vectors(numerics)
        expected[f"{name}, linear bit patterns"] = linear_vectors(numerics)
    return expected


def _integers(on: Closed) -> dict[str, Coded]:
    numerics = on.numerics
    scores = Scores(stream(1, 60, 15).view(3, 20), None, None)
    mantissa, inputs = stream(2, 60, 21).view(3, 20), stream(3, 60, 16).view(3, 20)
    if numerics.shift_scaling:
        exponent = torch.tensor([[-18], [-20], [3]], dtype=torch.int32)
        code = Coded(mantissa, exponent, numerics.working_bits, "vector")
    else:
        code = fixed(mantissa, numerics.fraction_bits, FIXED_RANGE_BITS + numerics.fraction_bits + 1)
    opening = signed(inputs.abs(), mantissa) if numerics.exponential == "shift" else inputs
    answers = {
        "softmax": softmax_integers(scores, on),
        "silu": gated_integers(code, opening, GATE, on),
        "rms_norm": rms_norm_integers(mantissa, stream(4, 3, 20).abs().view(3, 1), on),
    }
    if numerics.divide_last:
        value = Coded(stream(5, 80, 15).view(20, 4), stream(6, 20, 3).view(20, 1), numerics.bits - 1, "vector")
        answers["attention"] = attention_ratio(attention_sums(scores, value, on), 20, on)
    return answers


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
#: Of the records' inputs and settings, but for attention, whose mask, softcap and sinks are pinned too.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    name: (*(_POSITIVE if role == "positive" else _X for role in record.inputs), *record.settings)
    for name, record in RECORDS.items()
} | {
    "attention": (*_HEADS, _BIAS, 0.25, 8.0, _SINKS),
    "attention_weights": (*_HEADS[:2], _BIAS, 0.25, None, None),
}
_WEIGHT = stream(17, 120, 7).clamp(-127, 127).view(6, 20).to(torch.int8)
_THRESHOLD, _UNIT = stream(18, 6, 15).abs() + 1, torch.tensor(-18, dtype=torch.int32)
_FREQUENCY = torch.tensor([1.0, 0.25, 0.0078125])
#: Of the linear operators: every setting that runs other lines of theirs.
LINEAR_ARGUMENTS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "linear": (
        (_X, _WEIGHT, _THRESHOLD, _UNIT, None, 127, 0, 0),
        (_X, _WEIGHT, _THRESHOLD, _UNIT, _real(19, 6), 15, 8, 4),
    ),
    "matmul": ((_X, _real(20, 20, 4)),),
    "add": ((_X, _real(21, 3, 20, scale=3)), (_X, _real(22, 20))),
    "multiply": ((_X, _real(21, 3, 20, scale=3)), (_X, _real(22, 20))),
    "sum": ((_X, -1), (_X, 0)),
    "quantise": ((_X, 127, 0, 0), (_X, 15, 8, 4)),
    "neuron": tuple(
        (
            _X,
            _THRESHOLD[0] & 0xFF if "few" in kind else _THRESHOLD[1] & 0xFFF,
            torch.tensor(-10, dtype=torch.int32),
            kind,
        )
        for kind in ("st_bif -16 15", "qcfs 160", "few_spikes 16", "phase 2 2 1.5 1.5 2")
    ),
    "gif": tuple((_X, torch.arange(20) % 3 == 0, *bits) for bits in ((4, 1), (1, 0))),
    "rotary": tuple((stream(23, 12, 20).abs().to(torch.float32), _FREQUENCY, quarters) for quarters in (0, 1)),
}


def operator_vectors(numerics: Numerics) -> dict[str, list[int]]:
    """The bit patterns of every operator's answer in float32; the operators of the registry, no more and no less."""
    return {
        name: OPERATORS[name](*arguments, numerics=numerics).view(torch.int32).flatten().tolist()
        for name, arguments in ARGUMENTS.items()
    }


def linear_vectors(numerics: Numerics) -> dict[str, list[list[int]]]:
    """The bit patterns of every linear operator's answers in float32."""
    return {
        name: [
            OPERATORS[name](*arguments, numerics=numerics).view(torch.int32).flatten().tolist()
            for arguments in LINEAR_ARGUMENTS[name]
        ]
        for name in LINEAR
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors()) + "\n", encoding="utf-8")
