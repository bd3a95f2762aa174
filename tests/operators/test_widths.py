"""Operands keep within the bits an operator states, membranes and thresholds within those of their population.

In closed form on inputs that are nasty, by an `Arithmetic` that checks; neuron by neuron on small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from operators.inputs import CONFIGS, KINDS, NUMERICS, vectors
from operators.samples import SAMPLES, run, samples
from torch import Tensor
from watching import Watching, thresholds_fit  # noqa: F401

from spikeplug.numerics import Numerics
from spikeplug.operators import RECORDS
from spikeplug.operators.attention import scores
from spikeplug.presets import Preset
from spikeplug.primitives.arithmetic import Arithmetic, Closed, Simulated


def _within(x: Tensor | int, bits: int, *, closed: bool = False) -> None:
    """Check |x| < 2^bits (closed: <=)."""
    most = (1 << bits) - (not closed)
    lowest, highest = (x, x) if isinstance(x, int) else _ends(x)
    assert -most <= lowest <= highest <= most, f"{lowest} to {highest} does not fit {bits} bits"


def _natural(x: Tensor, bits: int, *, closed: bool = False) -> None:
    """Check 0 <= x < 2^bits (closed: <=)."""
    _within(x, bits, closed=closed)
    assert _ends(x)[0] >= 0, "it is negative"


def _ends(x: Tensor) -> tuple[int, int]:
    low, high = torch.aminmax(x) if x.numel() else (0, 0)
    return int(low), int(high)


def _interpolate(x: Tensor, spec: Any) -> None:
    _natural(x, 62)
    assert _ends(x)[1] <= spec.domain


def _shift(x: Tensor, places: Tensor, bits: int, left: int) -> None:
    _natural(x, bits)
    assert _ends(places)[1] <= left
    far = places.clamp(min=0)
    assert bool(((x << far) >> far == x).all()), "a left shift loses bits"


#: verb -> the check of its operands, with the verb's arguments but the name.
CHECKS: dict[str, Callable[..., Any]] = {
    "divide": lambda a, b, spec: spec.check(a, b),
    "interpolate": _interpolate,
    "mantissa": lambda x, spec: _natural(x, 31),
    "decay": lambda x, octaves: _natural(octaves, 31),
    "piecewise": lambda x, spec: _within(x, 31),
    "square_sum": lambda x, bits: _within(x, bits),
    "root": lambda x, spec: _natural(x, 2 * spec.root_bits),
    "cordic": lambda x, spec: _natural(x, spec.value_bits),
    "quantise": lambda x, threshold, spec: spec.operands(x, threshold),
    "gate": lambda a, b, bits: _natural(a, bits),
    "accumulate": lambda x, bits: _natural(x, bits),
    "dot": lambda a, b, a_bits, b_bits: (_natural(a, a_bits, closed=True), _within(b, b_bits, closed=True)),
    "signed_dot": lambda a, b, a_bits, b_bits: (_within(a, a_bits), _within(b, b_bits, closed=True)),
    "maximum": lambda x, bits: _within(x, bits, closed=bits < 62),
    "leading_one": lambda x, bits: _natural(x, bits),
    "reaches": lambda x, threshold, bits: (_within(x, bits, closed=True), _within(threshold, bits, closed=True)),
    "add": lambda a, b, bits: (_within(a, bits), _within(b, bits)),
    "scale": lambda x, factor, bits: _within(x, bits),
    "select": lambda condition, a, b, bits: (_within(a, bits), _within(b, bits)),
    "magnitude": lambda x, bits: _within(x, bits),
    "signed": lambda x, sign_of, bits: _within(x, bits),
    "shift": _shift,
    "round_half": lambda x, bits: _within(x, bits),
    "clamp": lambda x, low, high, bits: _within(x, bits, closed=True),
}


class Checked:
    """Run verbs in closed form, and check their operands against the stated widths first."""

    def __init__(self, numerics: Numerics, operator: str) -> None:
        self.numerics, self.operator, self._closed = numerics, operator, Closed(numerics, operator)

    def __getattr__(self, verb: str) -> Any:
        def checked(*arguments: Any, **named: Any) -> Tensor:
            count = CHECKS[verb].__code__.co_argcount  # without the name
            try:
                CHECKS[verb](*arguments[:count])
            except AssertionError as error:
                raise AssertionError(f"{verb} {arguments[count:]} of {self.operator}: {error}") from error
            return getattr(self._closed, verb)(*arguments, **named)

        return checked


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SAMPLES)
def test_operands_keep_within_their_bits(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "inside", lambda on, part: Checked(on.numerics, part))
    record = RECORDS[name]
    for numerics in NUMERICS.values():
        on: Any = Checked(numerics, name)
        for given in samples(name):
            record.spiking(*given, on=on)
        if record.family == "attention":
            tensors = [vectors(kind, (1, 2, rows, 8)) for rows in (3, 5, 5)][: len(record.inputs)]
        else:
            tensors = [vectors(kind), vectors(kind).flip(0)][: len(record.inputs)]
            full = torch.full((2, 700), 0.9999)
            long = [full, -full][: len(record.inputs)]  # long, and as large everywhere as codes can be
            record.spiking(*long, *record.settings, on=on)
        for dtype in (torch.float32, torch.float64):
            record.spiking(*(x.to(dtype) for x in tensors), *record.settings, on=on)


def test_every_verb_is_checked() -> None:
    assert set(CHECKS) == {name for name, member in vars(Arithmetic).items() if callable(member) and name[0] != "_"}
    with pytest.raises(AssertionError, match="does not fit 4 bits"):
        Checked(Numerics(), "x").add(torch.tensor([16]), torch.tensor([0]), 4)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", SAMPLES)
def test_membranes_and_thresholds_fit_and_populations_are_the_operators(name: str, config: Preset) -> None:
    events = Watching(config.realisation)
    run(name, numerics=config.numerics, events=events)
    events.check()
    assert events.populations
    assert all(population.startswith(f"{name}/") for population in events.populations)


@pytest.mark.usefixtures("thresholds_fit")
@pytest.mark.parametrize("name", [name for name in SAMPLES if RECORDS[name].family != "attention"])
def test_membranes_fit_on_nasty_inputs(name: str) -> None:
    record = RECORDS[name]
    for norm in ("root", "cordic"):
        for kind in KINDS:
            x, events = vectors(kind, (4, 7)), Watching()
            on = Simulated(Numerics(norm=norm), name, events)  # type: ignore[arg-type]
            record.spiking(*(x, x.flip(0))[: len(record.inputs)], *record.settings, on=on)
            events.check()
