"""Hold the results of a run as plain rows, and tell how times grow with a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from spikeplug.bench.cases import AXES
from spikeplug.bench.timing import Timing, exponent


@dataclass(frozen=True)
class Row:
    """Hold the figures of one arm of one case. A case with wrong outputs has one row, of the kernel, without figures.

    section             one of cases.SECTIONS
    name                the operator; "decoder layer", "prefill", "decode"
    model, shape        the model whose shape it is, and the shape as text
    axis, size          for growth: the axis that grows, and its size
    arm                 one of arms.ARMS
    equal               True if the integer arms equalled the closed form bit for bit in this run
    rounds              rounds in which the arm ran
    seconds             median time of a call
    times_exact         median over rounds of its time divided by the exact arm's; _low, _high: quartiles
    times_copy          the same, divided by the copy's time, where that is an arm
    tokens_per_second   for models
    peak_mib            MiB by which a run raised the memory of a fresh process
    """

    section: str
    name: str
    model: str
    shape: str
    axis: str
    size: int | None
    arm: str
    equal: bool
    rounds: int | None = None
    seconds: float | None = None
    times_exact: float | None = None
    times_exact_low: float | None = None
    times_exact_high: float | None = None
    times_copy: float | None = None
    tokens_per_second: float | None = None
    peak_mib: float | None = None

    @property
    def case(self) -> tuple[str, str, str, str, str]:
        """Return the fields that all arms of a case share: section, name, model, shape and axis."""
        return self.section, self.name, self.model, self.shape, self.axis


COLUMNS = tuple(field.name for field in fields(Row))


def broken(row: Row) -> Row:
    """Return a row without figures, for a case whose integer arms did not equal the closed form.

    row  any row that names the case
    """
    return Row(row.section, row.name, row.model, row.shape, row.axis, row.size, "kernel", False)


def figures(head: Row, timing: Timing, tokens: int | None = None) -> list[Row]:
    """Return one row of figures per timed arm of a case.

    head     a row that names the case
    timing   seconds of each arm by round
    tokens   tokens that one call handles; None for an operator
    """
    rows = []
    for arm in timing.rounds:
        low, middle, high = timing.ratio(arm, "exact")
        seconds = timing.seconds(arm)
        rows.append(
            Row(
                head.section,
                head.name,
                head.model,
                head.shape,
                head.axis,
                head.size,
                arm,
                True,
                timing.count(arm),
                seconds,
                middle,
                low,
                high,
                timing.ratio(arm, "copy")[1] if "copy" in timing.rounds else None,
                None if tokens is None or arm == "copy" else tokens / seconds,
            )
        )
    return rows


def failures(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of cases whose integer arms did not equal the closed form."""
    return [row for row in rows if not row.equal]


@dataclass(frozen=True)
class Growth:
    """Hold the times of one arm of an operator at several sizes of one axis.

    axis, what the axis, "length" or "width", and what it is for this operator, such as "tokens"
    sizes      sizes along the axis
    seconds    median time of a call at each size
    exponent   p of time ~ size^p, by least squares; None for fewer than two sizes
    """

    operator: str
    axis: str
    what: str
    arm: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    exponent: float | None


def growths(rows: Sequence[Row]) -> list[Growth]:
    """Return the times by size of each operator, axis and arm, from the rows of section "growth" that have figures."""
    points: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for row in rows:
        if row.section == "growth" and row.size is not None and row.seconds is not None:
            points.setdefault((row.name, row.axis, row.arm), []).append((row.size, row.seconds))
    found = []
    for (operator, axis, arm), measured in points.items():
        sizes, seconds = zip(*measured, strict=True)
        what = AXES.get((operator, axis), axis)
        found.append(Growth(operator, axis, what, arm, sizes, seconds, exponent(sizes, seconds)))
    return found
