"""Report what a conversion did: one entry per place, and tables that fold the layers together."""

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
    """Describe one place where the model computes something, and what the conversion did with it.

    path        module path, as in `model.get_submodule(path)`
    operator    an operator, a torch function that the module's own code calls, `product`, `matmul` or `neuron`
    class_name  class of the module at that path
    action      `replaced` by a spiking operator, or `left` in floating point
    reason      why it was left; empty if it was replaced
    pipeline    True if it is linear or a neuron: left on purpose, to the pipeline that converts the rest of the network
    note        what else there is to know of a place that was replaced, such as a function of the user's that no longer
                runs
    """

    path: str
    operator: str
    class_name: str
    action: Action
    reason: str = ""
    pipeline: bool = False
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Hold the entries of one conversion, in the order of `model.named_modules()`."""

    model_class: str
    entries: tuple[Entry, ...]
    #: Sentences on what a whole conversion did to the weights: what did not fold, what calibration did not reach.
    notes: tuple[str, ...] = ()

    @property
    def replaced(self) -> tuple[Entry, ...]:
        """Return the entries that were replaced."""
        return tuple(entry for entry in self.entries if entry.action == "replaced")

    @property
    def left(self) -> tuple[Entry, ...]:
        """Return the entries that were left as they are, linear ones and neurons included."""
        return tuple(entry for entry in self.entries if entry.action == "left")

    @property
    def leftovers(self) -> tuple[Entry, ...]:
        """Return the entries that were left and are neither linear nor neurons."""
        return tuple(entry for entry in self.left if not entry.pipeline)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of places per operator: `{"softmax": {"replaced": 30, "left": 0}, ...}`."""
        counts: dict[str, dict[str, int]] = {}
        for entry in self.entries:
            counts.setdefault(entry.operator, {"replaced": 0, "left": 0})[entry.action] += 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "model_class": self.model_class,
            "counts": self.counts,
            "leftovers": len(self.leftovers),
            "entries": [asdict(entry) for entry in self.entries],
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    def table(self) -> Table:
        """Return a Rich table with one row per operator and reason. Layer numbers become `*`, and are counted."""
        table = Table("operator", "where", "what", title=f"spikeplug: {self.model_class}")
        for (operator, what), members in grouped((*self.replaced, *self.left), _row).items():
            table.add_row(operator, fold_layers(Counter(entry.path for entry in members)), what)
        return table

    def __str__(self) -> str:
        done = ", ".join(f"{count['replaced']} {name}" for name, count in self.counts.items() if count["replaced"])
        notes = "".join(f"; {note}" for note in dict.fromkeys(entry.note for entry in self.entries if entry.note))
        return (
            f"{self.model_class}: {done} replaced, {len(self.leftovers)} nonlinearities left in floating point{notes}"
        )


def _row(entry: Entry) -> tuple[str, str]:
    """Return the operator, and what was done (replaced, or left and why): the entries of a table row share both."""
    done = f"left: {entry.reason}" if entry.reason else "replaced"
    return entry.operator, f"{done}, {entry.note}" if entry.note else done


def fold_layers(paths: Mapping[str, int]) -> str:
    """Return one pattern per line, with its count: two paths `model.layers.N.mlp` give `model.layers.*.mlp (2)`.

    paths  counts by module path
    """
    patterns: Counter[str] = Counter()
    for path, count in paths.items():
        patterns[pattern_of(path) or "(the model)"] += count
    return "\n".join(pattern if count == 1 else f"{pattern} ({count})" for pattern, count in patterns.items())


def pattern_of(path: str) -> str:
    """Return a module path with * in place of each number, such as `model.layers.*.mlp`."""
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", path)


def grouped(items: Iterable[T], key: Callable[[T], tuple[str, ...]]) -> dict[tuple[str, ...], list[T]]:
    """Return lists of the items that have the same `key(item)`, by that key, in order of first appearance."""
    groups: dict[tuple[str, ...], list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
