"""Regenerate the golden vectors: `python tests/golden/make.py`. They pin every output bit of every operator.

Inputs are integers made by a linear congruential generator, so that no library's random stream is part of them; the
expected integers are what the operators' integer cores answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeplug.coding import Coded
from spikeplug.config import NUMERICS_VERSION, SpikeConfig
from spikeplug.operators.attention import attention_ratio, attention_sums
from spikeplug.operators.rms_norm import rms_norm_integers
from spikeplug.operators.scores import Scores
from spikeplug.operators.silu import silu_integers
from spikeplug.operators.softmax import softmax_integers
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
    for name, config in (("default", SpikeConfig()), ("paper", SpikeConfig.paper())):
        scores = Scores(stream(1, 60, 15).view(3, 20), None, None)
        exponent = torch.tensor([[-18], [-20], [3]], dtype=torch.int32)
        code = Coded(stream(2, 60, 21).view(3, 20), exponent, None)
        inputs = stream(3, 60, 16).view(3, 20)
        answers = {
            "softmax": softmax_integers(scores, config, on),
            "silu": silu_integers(code, inputs.abs() if config.exponential == "shift" else inputs, config, on),
            "rms_norm": rms_norm_integers(code.mantissa, stream(4, 3, 20).abs().view(3, 1), config, on),
        }
        if config.divide_last:
            value = Coded(stream(5, 80, 15).view(20, 4), stream(6, 20, 3).view(20, 1), None)
            answers["attention"] = attention_ratio(attention_sums(scores, value, config, on), 20, config, on)
        expected[name] = {
            operator: {"quotient": quotient.tolist(), "exponent": exponent.tolist()}
            for operator, (quotient, exponent) in answers.items()
        }
    return expected


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors()) + "\n", encoding="utf-8")
