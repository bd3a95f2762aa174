"""What a run found, as plain rows, and what is counted from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from spikeplug.bench.timing import Timing


@dataclass(frozen=True)
class Row:
    """One arm of one case. A case whose contract is broken has one row, of the kernel, with no figure.

    section             one of cases.SECTIONS
    name                the operator; "decoder layer", "prefill", "decode"
    model, shape        whose shape it is, and which
    axis, size          of growth: what grows, and how far
    arm                 one of arms.ARMS
    equal               whether the integer arms gave the closed form's output, in this run
    rounds              rounds the arm ran in
    seconds             median time of a call
    times_exact         median over rounds of its time over the exact arm's; _low, _high: quartiles
    times_copy          the same over the copy's, where that is an arm
    tokens_per_second   of models
    peak_mib            how far a run raised the memory of a fresh process
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
        """What all arms of a case have in common."""
        return self.section, self.name, self.model, self.shape, self.axis


COLUMNS = tuple(field.name for field in fields(Row))


def broken(row: Row) -> Row:
    """The row of a case whose contract is not kept: whose it is, and no figure."""
    return Row(row.section, row.name, row.model, row.shape, row.axis, row.size, "kernel", False)


def figures(head: Row, timing: Timing, tokens: int | None = None) -> list[Row]:
    """A row for every arm of a case; `head` says which case. tokens: how many one call handles."""
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
    """Rows without figures, because their contract is not kept."""
    return [row for row in rows if not row.equal]
