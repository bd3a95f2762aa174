"""What each number of a config buys: one parameter at a time, accuracy beside cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from spikeplug.config import SpikeConfig
from spikeplug.errors import SpikeplugError
from spikeplug.report.bench import Bench, Change
from spikeplug.report.capture import Call, calls
from spikeplug.report.cost import updates_per_token
from spikeplug.report.studies import Row

# Operators whose piecewise exponential has the range `half_range`.
_GATES = frozenset({"silu", "gelu", "sigmoid", "tanh", "mish", "softplus"})


class Point(NamedTuple):
    """A parameter's value, and the config that has it."""

    parameter: str
    value: float
    config: SpikeConfig

    @property
    def key(self) -> str:
        return f"{self.parameter}/{self.value:g}"


def steps(bench: Bench) -> int:
    """The config itself, and all points."""
    return 1 + len(list(points(bench)))


def measure(bench: Bench, row: Row) -> None:
    """config (the run's own), then PARAMETER/VALUE."""
    kinds: list[tuple[Call, ...]] = []

    def work(config: SpikeConfig, values: dict[str, Any]) -> dict[str, Any]:
        if not kinds:
            kinds.append(calls(bench))
        cost = updates_per_token(kinds[0], config)
        return values | {"changed": changed(bench.config, config)} | bench.figures(Change(config)) | cost

    row("config", partial(work, bench.config, {}))
    for point in points(bench):
        row(point.key, partial(work, point.config, {"parameter": point.parameter, "value": point.value}))


def changed(before: SpikeConfig, after: SpikeConfig) -> dict[str, Any]:
    """The fields in which a config differs from the run's."""
    return {name: value for name, value in after.to_dict().items() if value != before.to_dict()[name]}


def points(bench: Bench) -> Iterator[Point]:
    """Every point whose config is valid, in order."""
    base, quick = bench.config, bench.settings.quick
    piecewise = replace(base, exponential="piecewise", divide_last=False)
    if base.exponential == "shift":
        piecewise = replace(piecewise, segments=64)
    cordic = replace(base, norm="cordic")
    plan: list[tuple[str, SpikeConfig, tuple[float, ...]]] = [
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
            config = with_parameter(start, parameter, value)
            if config is not None:
                yield Point(parameter, value, config)


def with_parameter(start: SpikeConfig, parameter: str, value: float) -> SpikeConfig | None:
    """`start` with one value, and what has to follow it: T at most 2^n, P above n, no more segments than input codes.

    None where no config has it.
    """
    fields: dict[str, Any] = {parameter.removeprefix("piecewise_"): value}
    if parameter == "bits":
        fields["working_bits"] = max(start.working_bits, int(value) + 1)
        fields["steps"] = None if start.steps is None else min(start.steps, 1 << int(value))
    elif parameter == "fraction_bits" and start.exponential == "shift":
        fields["segments"] = min(start.segments, 1 << int(value))
    try:
        return replace(start, **fields)
    except SpikeplugError:
        return None
