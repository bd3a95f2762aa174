"""What each operator is made of, for a numerics: neurons, coding, tables, scale, range, and what it costs in events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spikeplug.evidence.distributions import gaussian
from spikeplug.evidence.subjects import HEAD_DIM, SUBJECTS, Subject
from spikeplug.library import OPERATORS
from spikeplug.neurons import Events
from spikeplug.numerics import Numerics
from spikeplug.operators.gates import FIXED_RANGE_BITS, GELU, curve_table
from spikeplug.operators.scores import (
    SCORE_RANGE_BITS,
    carried_fraction_bits,
    natural_unit,
    piecewise_exponential,
    shift_exponential,
)
from spikeplug.presets import as_realisation
from spikeplug.realisation import Realisation

#: Elements of the vector whose neurons and events are counted.
DIMENSION = 8


@dataclass(frozen=True)
class Part:
    """Neurons a population has for one input, and bytes of its table (shared by all inputs)."""

    neurons: int
    table_bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """An operator over vectors of DIMENSION elements (attention: one query and as many keys, HEAD_DIM channels).

    populations   neurons by primitive, all elements side by side, each primitive with neurons of its own
    table_bytes   of all tables, bit-packed
    code, time_steps, levels, bits   how n = `bits` output bits are sent: T steps of up to L spikes
    scale         of the output; smallest, largest: nonzero magnitudes of the fixed step (None: a scale of its own)
    input_range   beyond which something is lost, in words
    spikes, synops, steps   counted in a simulation on N(0, 1), of the whole vector. A graded spike of value k counts k:
                  the ordered groups take operands of up to 60 bits as such
    """

    operator: str
    populations: Mapping[str, int]
    table_bytes: float
    code: str
    time_steps: int
    levels: int
    bits: int
    scale: str
    smallest: float | None
    largest: float | None
    input_range: str
    spikes: int
    synops: int
    steps: int

    @property
    def neurons(self) -> int:
        return sum(self.populations.values())


def facts(name: str, numerics: Numerics, realisation: Realisation | None = None) -> Facts:
    """Return the facts of one of SUBJECTS. realisation: None for that of the numerics' preset."""
    subject, width = SUBJECTS[name], DIMENSION
    uses = _uses(name, numerics)
    realisation = as_realisation(realisation, numerics)
    events = Events(realisation)
    OPERATORS[name](*subject.arguments(subject.inputs(gaussian(), 1, width)), numerics=numerics, events=events)
    fixed = not (subject.scale == "element" or (subject.scale == "vector" and numerics.shift_scaling))
    return Facts(
        operator=name,
        populations={part: count * _part(part, name, numerics, realisation).neurons for part, count in uses.items()},
        table_bytes=sum(_part(part, name, numerics, realisation).table_bytes for part in uses),
        code=realisation.code,
        time_steps=realisation.time_steps(numerics.bits),
        levels=realisation.levels(numerics.bits),
        bits=numerics.bits,
        scale=_scale(subject, numerics),
        smallest=2.0**-numerics.bits if fixed else None,
        largest=_largest(name, numerics) if fixed else None,
        input_range=_input_range(name, subject, numerics),
        spikes=events.spikes,
        synops=events.synops,
        steps=events.steps,
    )


def _some(**copies: int) -> dict[str, int]:
    return {name: count for name, count in copies.items() if count}


def _uses(name: str, numerics: Numerics) -> dict[str, int]:
    """How often each primitive is there, for DIMENSION elements: primitive -> copies."""
    d = DIMENSION
    norm = {"square": d + 1, "root": 1} if numerics.norm == "root" else {"CORDIC": d}
    weights = {"exponential": d, "sum": 1}
    scores = 0 if numerics.query_key_bits is None else d  # query times key: a neuron a key
    last = {"division": HEAD_DIM} if numerics.divide_last else {"division": d}
    values = HEAD_DIM if numerics.divide_last else 0
    return {
        "softmax": {**weights, "division": d},
        "attention_weights": {**weights, **_some(product=scores), "division": d},
        "attention": {**weights, **_some(product=scores + values), **last},
        "log_softmax": {**weights, "logarithm": 1},
        "silu": {"exponential": d, "product": d, "division": d},
        "gelu": {"curve": d, "exponential": d, "product": d, "division": d},
        "sigmoid": {"exponential": d, "division": d},
        "tanh": {"exponential": d, "division": d},
        "softplus": {"exponential": d, "logarithm": d},
        "mish": {"exponential": d, "product": 2 * d, "division": d},
        "relu_squared": {"product": d},
        "rms_norm": {**norm, "division": d},
        "layer_norm": {"sum": 1, **norm, "division": d},
        "vector_norm": {"square": d, "root": 1} if numerics.norm == "root" else {"CORDIC": d - 1},
        "cos": {"sine": d},
        "sin": {"sine": d},
        "exp": {"exponential": d},
        "log": {"logarithm": d},
        "sqrt": {"root": d},
        "rsqrt": {"root": d, "division": d},
        "square": {"square": d},
        "reciprocal": {"division": d},
        "divide": {"division": d},
    }[name]


def _part(part: str, name: str, numerics: Numerics, realisation: Realisation) -> Part:
    """Of one copy. Ordered populations have a neuron a threshold; gated products and sums are one neuron each."""
    segments = 1 << (numerics.bits + 1) // 2
    if part == "exponential":
        return _exponential(name, numerics)
    if part == "curve":
        table = curve_table(GELU["none"], natural_unit(numerics), numerics.fraction_bits)
        return Part(table.segments, table.table_bytes)
    if part in ("logarithm", "sine"):
        return Part(segments, (segments + 1) * (numerics.working_bits + 2) / 8)
    if part == "division":
        own = numerics.shift_scaling or SUBJECTS[name].scale == "element"
        group = 4 << numerics.bits if own else int(_largest(name, numerics)) << numerics.bits
        return Part(group if realisation.division == "ordered" else 2)  # a restoring neuron and its read-out
    return Part({"root": 2, "CORDIC": 3}.get(part, 1))  # sign, x and y of a merge


def _exponential(name: str, numerics: Numerics) -> Part:
    if numerics.exponential == "shift":
        spec = shift_exponential(numerics)
        factor = min(8, (1 << min(16, numerics.fraction_bits + 4)) // spec.segments) if name == "tanh" else 1
        segments = spec.segments * factor
        # S - 1 neurons find the segment, one climbs it, one halves.
        return Part(segments + 1, (segments + 1) * (numerics.working_bits + 2) / 8)
    scores = name in ("softmax", "log_softmax", "attention", "attention_weights", "exp")
    chords = piecewise_exponential(numerics.softmax_half_range if scores else numerics.half_range, numerics)
    return Part(chords.segments + 3, chords.table_bytes)


def _scale(subject: Subject, numerics: Numerics) -> str:
    if subject.scale == "element":
        return "a power of two an element"
    if subject.scale == "vector" and numerics.shift_scaling:
        return "a power of two a vector"
    octaves = subject.scale == "octaves" and (numerics.exponential == "shift" or subject.name == "log")
    return f"fixed step 2^-{numerics.bits}" + (" octaves" if octaves else "")


def _largest(name: str, numerics: Numerics) -> float:
    """Of the published group's quotient: what 2^n neurons a unit of range are there for."""
    if name in ("rms_norm", "layer_norm"):
        return float(2 << DIMENSION.bit_length() // 2)
    if name in ("silu", "gelu", "mish", "softplus"):
        return float(1 << FIXED_RANGE_BITS)
    if name == "relu_squared":
        return float(1 << 2 * FIXED_RANGE_BITS)
    if name in ("log", "log_softmax"):
        return float(1 << 30 - numerics.fraction_bits) if name == "log_softmax" else 2048.0
    return 1.0


def _input_range(name: str, subject: Subject, numerics: Numerics) -> str:
    places = numerics.fraction_bits
    arriving = None if numerics.input_bits is None else f"{numerics.input_bits} bits and a sign"
    if subject.roles[0] in ("scores", "logits", "query"):
        if arriving:
            places = carried_fraction_bits(numerics)
            unit = "octaves" if numerics.exponential == "shift" else "nats"
            return f"{1 << SCORE_RANGE_BITS} {unit} below the largest, step 2^-{places}"
        reach = f"scores to 2^{28 - places}, step 2^-{places}"
        if numerics.exponential == "shift":
            return f"{reach} octaves; a weight 2^-{numerics.working_bits} of the largest is 0"
        return f"{reach}; 0 below the largest - {numerics.softmax_half_range:g}"
    if arriving and name in ("cos", "sin"):
        return f"phase of 2^{numerics.input_bits} steps; to 2^52 radians"
    if (arriving and subject.scale == "vector") or (arriving and name == "vector_norm"):
        channels = "a vector" if numerics.scale_block is None else f"for {numerics.scale_block} channels"
        return f"{arriving} {channels}"
    if arriving:
        return f"{arriving} an element"
    if subject.roles[0] == "gate" and name != "relu_squared":
        inner = "31 octaves" if numerics.exponential == "shift" else f"±{numerics.half_range:g}"
        wide = f"{numerics.working_bits} bits a vector" if numerics.shift_scaling else f"to 2^{FIXED_RANGE_BITS}"
        return f"x: {wide}; exponent: {inner}, step 2^-{places}"
    if name == "relu_squared" and not numerics.shift_scaling:
        return f"to 2^{FIXED_RANGE_BITS}, step 2^-{places}"
    if name == "exp":
        return "all" if numerics.exponential == "shift" else f"±{numerics.softmax_half_range:g}"
    if name in ("cos", "sin"):
        return f"phase of 2^{numerics.working_bits} steps; to 2^52 radians"
    if name in ("rms_norm", "layer_norm", "vector_norm", "relu_squared"):
        return f"{numerics.working_bits} bits a vector"
    return f"{numerics.working_bits} bits an element"


def mean_events(found: Facts) -> tuple[float, float]:
    """(spikes, synaptic operations) for one output."""
    outputs = {"attention": HEAD_DIM, "vector_norm": 1}.get(found.operator, DIMENSION)
    return found.spikes / outputs, found.synops / outputs


def code_text(found: Facts) -> str:
    """n, T and L in short."""
    return f"{found.code}, n = {found.bits}, T = {found.time_steps}, L = {found.levels}"
