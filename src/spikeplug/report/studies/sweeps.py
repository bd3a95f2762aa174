"""What each number of a numerics buys: one parameter at a time, accuracy beside cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from spikeplug.errors import SpikeplugError
from spikeplug.numerics import Numerics
from spikeplug.report.bench import Bench, Change
from spikeplug.report.capture import Call, calls
from spikeplug.report.cost import updates_per_token
from spikeplug.report.studies import Row

# Operators whose piecewise exponential has the range `half_range`.
_GATES = frozenset({"silu", "gelu", "sigmoid", "tanh", "mish", "softplus"})


class Point(NamedTuple):
    """A parameter's value, and the numerics that has it."""

    parameter: str
    value: float
    numerics: Numerics

    @property
    def key(self) -> str:
        return f"{self.parameter}/{self.value:g}"


def steps(bench: Bench) -> int:
    """The numerics itself, and all points."""
    return 1 + len(list(points(bench)))


def measure(bench: Bench, row: Row) -> None:
    """numerics (the run's own), then PARAMETER/VALUE."""
    kinds: list[tuple[Call, ...]] = []

    def work(numerics: Numerics, values: dict[str, Any]) -> dict[str, Any]:
        if not kinds:
            kinds.append(calls(bench))
        cost = updates_per_token(kinds[0], numerics)
        return values | {"changed": changed(bench.numerics, numerics)} | bench.figures(Change(numerics)) | cost

    row("numerics", partial(work, bench.numerics, {}))
    for point in points(bench):
        row(point.key, partial(work, point.numerics, {"parameter": point.parameter, "value": point.value}))


def changed(before: Numerics, after: Numerics) -> dict[str, Any]:
    """The fields in which a numerics differs from the run's."""
    return {name: value for name, value in after.to_dict().items() if value != before.to_dict()[name]}


def points(bench: Bench) -> Iterator[Point]:
    """Every point whose numerics is valid, in order."""
    base, quick = bench.numerics, bench.settings.quick
    piecewise = replace(base, exponential="piecewise", divide_last=False)
    if base.exponential == "shift":
        piecewise = replace(piecewise, segments=64)
    cordic = replace(base, norm="cordic")
    plan: list[tuple[str, Numerics, tuple[float, ...]]] = [
        ("bits", base, (4, 6, 8, 10, 12, 16) if quick else tuple(range(4, 17))),
        ("working_bits", base, tuple(range(base.bits + 1, 25)[:: 3 if quick else 1])),
        ("fraction_bits", base, (4, 6, 8, 10) if quick else tuple(range(4, 17))),
        ("softmax_half_range", piecewise, (5, 10) if quick else (3, 4, 5, 6, 8, 10, 12, 16)),
        ("piecewise_segments", piecewise, (16, 64) if quick else (8, 16, 32, 64, 128, 256)),
    ]
    if base.exponential == "shift":
        plan.insert(2, ("segments", base, (1, 4, 16, 64) if quick else tuple(2**k for k in range(9))))
    if _GATES & set(bench.operators):
        plan.append(("half_range", piecewise, (3, 8) if quick else (2, 3, 4, 5, 6, 8, 10)))
    if {"rms_norm", "layer_norm", "vector_norm"} & set(bench.operators):
        plan.append(("iterations", cordic, (2, 4, 8) if quick else (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)))
    for parameter, start, values in plan:
        for value in values:
            numerics = with_parameter(start, parameter, value)
            if numerics is not None:
                yield Point(parameter, value, numerics)


def with_parameter(start: Numerics, parameter: str, value: float) -> Numerics | None:
    """`start` with one value, and what has to follow it: T at most 2^n, P above n, no more segments than input codes.

    None where no numerics has it.
    """
    fields: dict[str, Any] = {parameter.removeprefix("piecewise_"): value}
    if parameter == "bits":
        fields["working_bits"] = max(start.working_bits, int(value) + 1)
    elif parameter == "fraction_bits" and start.exponential == "shift":
        fields["segments"] = min(start.segments, 1 << int(value))
    try:
        return replace(start, **fields)
    except SpikeplugError:
        return None
