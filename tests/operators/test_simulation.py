"""Contract: each operator, simulated neuron by neuron, gives the very floats of its closed form; and between encoding
and decoding no floating-point tensor is touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operators.inputs import CONFIGS, NoFloat, same, vectors
from operators.samples import run
from torch import Tensor

from spikeplug.codes import encode, encode_amplitude, encode_distance, encode_elements, encode_phase, encode_scores
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.operators import RECORDS
from spikeplug.operators.attention.rows import attention_ratio, attention_sums
from spikeplug.operators.curves.mish import mish_integers
from spikeplug.operators.curves.relu_squared import relu_squared_integers
from spikeplug.operators.curves.softplus import softplus_integers
from spikeplug.operators.curves.tanh import fine_fraction_bits, tanh_integers
from spikeplug.operators.elements.divide import quotient_integers
from spikeplug.operators.elements.exp import exponential_integers
from spikeplug.operators.elements.log import log2_integers
from spikeplug.operators.elements.shared import root_integers
from spikeplug.operators.elements.square import square_integers
from spikeplug.operators.gates.gate import encode_gate, gated_integers
from spikeplug.operators.gates.gelu import GATES
from spikeplug.operators.gates.sigmoid import GATE, sigmoid_integers
from spikeplug.operators.norms.layer_norm import layer_norm_integers
from spikeplug.operators.norms.rms_norm import rms_norm_integers
from spikeplug.operators.softmax.log_softmax import Far, log_softmax_integers
from spikeplug.operators.softmax.softmax import softmax_integers
from spikeplug.operators.waves.wave import sine_integers
from spikeplug.presets import Preset
from spikeplug.primitives.arithmetic import Closed, Simulated

configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
#: Rows of several kinds in one call, where none of them changes what happens to the others.
TOGETHER = [("plain", "tiny", "outlier", "zero"), ("huge", "mixed"), ("not finite",), ("deep",)]
RECORDED = [name for name, record in RECORDS.items() if record.family != "attention"]


def inputs(name: str, kinds: tuple[str, ...], config: Preset) -> tuple[Tensor, ...]:
    x = torch.cat([vectors(kind, (4, 7)) for kind in kinds])
    if config.realisation.division == "ordered" and not config.numerics.shift_scaling:
        # The published group has a neuron for every output level: few elements, and small ones.
        x = x[1::2, 2:3].clamp(-4, 4)
    return (x, x.flip(0))[: len(RECORDS[name].inputs)]


@pytest.mark.parametrize("kinds", TOGETHER, ids=lambda kinds: kinds[0])
@configs
@pytest.mark.parametrize("name", RECORDED)
def test_simulated_equals_closed(name: str, config: Preset, kinds: tuple[str, ...]) -> None:
    given = (*inputs(name, kinds, config), *RECORDS[name].settings)
    events = Events(config.realisation)
    simulated = OPERATORS[name](*given, numerics=config.numerics, events=events)
    assert same(OPERATORS[name](*given, numerics=config.numerics), simulated)
    assert events.steps > 0
    assert events.membrane_updates > 0
    assert (events.table_reads > 0) == any(found.kind == "table" for found in events.populations.values())


@configs
@pytest.mark.parametrize("name", ["gelu", "softplus"])
def test_other_settings_simulated_equal_closed(name: str, config: Preset) -> None:
    """The forms of GELU, and softplus beside its threshold."""
    few = config.realisation.division == "ordered"
    simulated = run(name, numerics=config.numerics, events=Events(config.realisation), few=few)
    assert all(same(a, b) for a, b in zip(run(name, numerics=config.numerics, few=few), simulated, strict=True))


@pytest.mark.parametrize("masked", [False, True])
@configs
def test_simulated_attention_equals_closed(config: Preset, masked: bool) -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(1, 4, 5, 8) * 3, torch.randn(1, 2, 7, 8), torch.randn(1, 2, 7, 6)
    value[0, 0, 2] *= 1e6
    value[0, 1, 3] = 0.0
    mask = torch.ones(5, 7, dtype=torch.bool).tril(2) if masked else None
    if mask is not None:
        mask[3] = False
    attention, given = OPERATORS["attention"], (query, key, value, mask, None, None, None)
    simulated = attention(*given, numerics=config.numerics, events=Events(config.realisation))
    assert torch.equal(attention(*given, numerics=config.numerics), simulated)


def arguments(config: Preset) -> dict[str, Any]:
    """Return what the integer cores take, encoded."""
    numerics = config.numerics
    x = vectors("plain", (2, 5)).clamp(-2, 2)
    elements = encode_elements(vectors("mixed", (6, 1)).abs(), numerics)
    few = x[:1, :2] if config.realisation.division == "ordered" else x
    scores = [encode_scores(vectors(kind, (2, 5)), 1.0, numerics) for kind in ("plain", "huge")]
    return {
        "scores": scores,
        "far": [Far(s.integers < 0, s.integers, torch.full_like(s.integers, 120)) for s in scores],
        "amplitude": encode_amplitude(few, "test", numerics),
        "gates": [(gate, encode_gate(few, gate, numerics)) for gate in (GATE, *GATES.values())],
        "negative": few < 0,
        "distance": encode_distance(few, 1.0, numerics.fraction_bits, numerics),
        "fine": encode_distance(few, 2.0, fine_fraction_bits(numerics), numerics),
        "code": encode(few, numerics.working_bits),
        "elements": elements,
        "value": encode(torch.randn(5, 3), numerics.bits),
        "phase": encode_phase(torch.linspace(-9, 9, 50), numerics.working_bits),
    }


@pytest.mark.parametrize(
    ("name", "simulated"),
    [(name, False) for name in CONFIGS]
    + [(name, True) for name in ("default", "paper", "ordered", "cordic, scaled", "piecewise, scaled")],
)
def test_no_float_between_encoding_and_decoding(name: str, simulated: bool) -> None:
    config = CONFIGS[name]
    given, numerics = arguments(config), config.numerics
    on = Simulated(numerics, "test", Events(config.realisation)) if simulated else Closed(numerics, "test")
    code, elements = given["code"], given["elements"]
    extension = torch.ones(code.mantissa.shape[0], 1, dtype=torch.int32)
    with NoFloat():
        for scores, far in zip(given["scores"], given["far"], strict=True):
            softmax_integers(scores, on)
            log_softmax_integers(scores, None, on)
            log_softmax_integers(scores, far, on)
            if numerics.divide_last:
                attention_ratio(attention_sums(scores, given["value"], on), 5, on)
        for gate, opening in given["gates"]:
            gated_integers(given["amplitude"], opening, gate, on)
        sigmoid_integers(given["gates"][0][1], on)
        tanh_integers(-given["negative"].to(torch.int32), given["fine"], on)
        softplus_integers(given["amplitude"], given["distance"], given["negative"], on)
        mish_integers(given["amplitude"], given["distance"], on)
        relu_squared_integers(given["amplitude"], on)
        rms_norm_integers(code.mantissa, extension, on)
        layer_norm_integers(code.mantissa, extension.to(torch.int64), on)
        exponential_integers(elements.mantissa & 0xFFF, on)
        log2_integers(elements, on)
        square_integers(elements, on)
        quotient_integers(elements, root_integers(elements, on), on)
        sine_integers(given["phase"], on)


def test_the_watch_sees_floats() -> None:
    with pytest.raises(AssertionError, match="float32"), NoFloat():
        torch.ones(2) + 1


def test_no_gradient_is_taken_of_a_simulation() -> None:
    x = torch.ones(3, requires_grad=True)
    assert not OPERATORS["silu"](x, events=Events()).requires_grad
