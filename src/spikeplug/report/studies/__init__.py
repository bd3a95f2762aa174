"""What is measured: one file a study. Each is two functions, `steps` and `measure`.

steps(bench) -> int       how many rows there will be; where that depends on what is found, at most
measure(bench, row)       calls row(key, work) for each row, in order. `row` gives the values, from `work` or from an
                          earlier run; so a study that decides by what it finds takes the same way when it goes on
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from spikeplug.report.bench import Bench


class Row(Protocol):
    """Gives the values of a row, measured or remembered."""

    def __call__(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]: ...


class Study(Protocol):
    """A module of this folder."""

    def steps(self, bench: Bench) -> int: ...

    def measure(self, bench: Bench, row: Row) -> None: ...
