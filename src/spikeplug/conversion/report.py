"""What a conversion did: one entry per place, and the tables that fold the layers together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from rich.table import Table

Action = Literal["replaced", "left"]
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One place in the model.

    path         module path, as in `model.get_submodule(path)`
    operator     an operator, or the torch function the module's own code calls, or `product`, `matmul`
    class_name   class of the module that was found there
    action       `replaced` by a spiking operator, or `left` in floating point
    reason       why it was left; empty when it was replaced
    pipeline     linear, so left on purpose: a pipeline that makes the rest of the network spike converts it
    """

    path: str
    operator: str
    class_name: str
    action: Action
    reason: str = ""
    pipeline: bool = False


@dataclass(frozen=True)
class Report:
    """The entries of one conversion, in the order of `model.named_modules()`."""

    model_class: str
    entries: tuple[Entry, ...]

    @property
    def replaced(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.action == "replaced")

    @property
    def left(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.action == "left")

    @property
    def leftovers(self) -> tuple[Entry, ...]:
        """What is left and not linear."""
        return tuple(entry for entry in self.left if not entry.pipeline)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Places per operator: `{"softmax": {"replaced": 30, "left": 0}, ...}`."""
        counts: dict[str, dict[str, int]] = {}
        for entry in self.entries:
            counts.setdefault(entry.operator, {"replaced": 0, "left": 0})[entry.action] += 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "model_class": self.model_class,
            "counts": self.counts,
            "leftovers": len(self.leftovers),
            "entries": [asdict(entry) for entry in self.entries],
        }

    def table(self) -> Table:
        """A Rich table with one row per operator and reason; layer numbers become `*`, and are counted."""
        table = Table("operator", "where", "what", title=f"spikeplug: {self.model_class}")
        for (operator, reason), members in grouped(
            (*self.replaced, *self.left), lambda entry: (entry.operator, entry.reason)
        ).items():
            where = fold_layers(Counter(entry.path for entry in members))
            table.add_row(operator, where, f"left: {reason}" if reason else "replaced")
        return table

    def __str__(self) -> str:
        done = ", ".join(f"{count['replaced']} {name}" for name, count in self.counts.items() if count["replaced"])
        return f"{self.model_class}: {done} replaced, {len(self.leftovers)} nonlinearities left in floating point"


def fold_layers(paths: Mapping[str, int]) -> str:
    """Counted paths, one pattern a line: `model.layers.0.mlp`, `model.layers.1.mlp` -> `model.layers.*.mlp (2)`."""
    patterns: Counter[str] = Counter()
    for path, count in paths.items():
        patterns[re.sub(r"(?<![^.])\d+(?![^.])", "*", path) or "(the model)"] += count
    return "\n".join(pattern if count == 1 else f"{pattern} ({count})" for pattern, count in patterns.items())


def grouped(items: Iterable[T], key: Callable[[T], tuple[str, ...]]) -> dict[tuple[str, ...], list[T]]:
    """Items by key, both in order of first appearance."""
    groups: dict[tuple[str, ...], list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
