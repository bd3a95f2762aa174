"""Read what is publicly known of chips: one TOML file a chip, with the source of every limit."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from spikeplug.errors import SpikeplugError, shown
from spikeplug.neurons.needs import THRESHOLDS

#: Kinds of evidence for a limit. document: a paper or data sheet; toolchain: a check in tools for the chip;
#: used: others have used so much; second-hand: read elsewhere than in the source; inferred: concluded from other facts.
EVIDENCE = ("document", "toolchain", "used", "second-hand", "inferred")
#: The words that a limit which is a list may hold.
WORDS: dict[str, tuple[str, ...]] = {
    "reset": ("zero", "subtract"),
    "compare": (">", ">="),
    "threshold": THRESHOLDS[1:],
    "gates": ("constant", "data"),
}
#: Every limit with its name for people and its unit. Numbers are the most that the chip has; see `WORDS` for the rest.
LIMITS: dict[str, tuple[str, str]] = {
    "weight_bits": ("weight, no sign", "bits"),
    "weights": ("weights per neuron", ""),  # that it tells apart
    "gates": ("gated synapses", ""),  # whether data may set, open or close them
    "state_bits": ("state, with sign", "bits"),
    "threshold_bits": ("threshold", "bits"),
    "threshold": ("kind of threshold", ""),
    "leak": ("leak factor", ""),  # of the membrane per step
    "reset": ("reset", ""),
    "compare": ("comparison", ""),
    "spike_bits": ("spike carries", "bits"),
    "fan_in": ("fan-in", ""),
    "core_memory_bits": ("synapse memory", "bits"),  # of a neuron, in one core
    "neurons": ("neurons", ""),  # of the chip, as the synapses
    "synapses": ("synapses", ""),
    "neurons_per_core": ("neurons per core", ""),
    "cores": ("cores", ""),
}


@dataclass(frozen=True)
class Limit:
    """Hold one limit of a chip.

    value     a number; for the leak (least, largest factor); words for what is a choice; None: no public number
    source    who says so
    evidence  one of EVIDENCE; empty without a value
    at_least  whether the chip may offer more than the value: a larger need is then unknown, not refused
    note      what a reader must know
    """

    value: Any = None
    source: str = ""
    evidence: str = ""
    at_least: bool = False
    note: str = ""


@dataclass(frozen=True)
class Chip:
    """Hold the limits of a chip by their names in LIMITS. One that is missing has no public number."""

    name: str
    technology: str
    note: str
    limits: Mapping[str, Limit]

    def limit(self, name: str) -> Limit:
        """Return the limit of that name; one without a value if nothing is known."""
        return self.limits.get(name, Limit())

    def number(self, name: str) -> int | None:
        """Return a limit that is a whole number; None if it is unknown, unlimited, or only a lower bound."""
        limit = self.limit(name)
        known = isinstance(limit.value, (int, float)) and math.isfinite(limit.value) and not limit.at_least
        return int(limit.value) if known else None


def chip_names() -> tuple[str, ...]:
    """Return the names of the chips that come with the package, in alphabetical order."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml")))


def load_chip(chip: str | Path) -> Chip:
    """Return a chip by its name or from a TOML file of one's own.

    Errors: SpikeplugError for an unknown name, a file that cannot be read, and contents that are not a chip.
    """
    if isinstance(chip, str) and chip in chip_names():
        return _parsed((_folder() / f"{chip}.toml").read_text(encoding="utf-8"), f"the chip {chip}")
    path = Path(chip)
    if path.suffix != ".toml":
        raise SpikeplugError(f"no chip {shown(str(chip))}: choose {', '.join(chip_names())}, or give a TOML file.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpikeplugError(f"cannot read the chip {path}: {error}; give a TOML file.") from error
    return _parsed(text, str(path))


def _folder() -> Any:
    return resources.files("spikeplug.hardware") / "chips"


def _parsed(text: str, place: str) -> Chip:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpikeplugError(f"{place} is not valid TOML: {error}.") from error
    _check_fields(values, ("name", "technology", "note", "limits"), place)
    limits = values.get("limits", {})
    if not isinstance(limits, dict):
        raise SpikeplugError(f"{place}: limits is not a table: write [limits.cores].")
    _check_fields(limits, tuple(LIMITS), f"{place}, limits")
    for key in ("name", "technology"):
        _check(isinstance(values.get(key), str) and values[key] != "", place, key, "a text")
    _check(isinstance(values.get("note", ""), str), place, "note", "a text")
    found = {name: _limit(name, limit, f"{place}, {name}") for name, limit in limits.items()}
    return Chip(values["name"], values["technology"], values.get("note", ""), found)


def _limit(name: str, values: Any, place: str) -> Limit:
    if not isinstance(values, dict):
        raise SpikeplugError(f"{place} is not a table: write [limits.{name}].")
    _check_fields(values, ("value", "source", "evidence", "at_least", "note"), place)
    for key in ("source", "note"):
        _check(isinstance(values.get(key, ""), str), place, key, "a text")
    _check(isinstance(values.get("at_least", False), bool), place, "at_least", "true or false")
    if "value" not in values:
        return Limit(note=values.get("note", ""))
    _check(values.get("source", "") != "", place, "source", "the text that says who gives the value")
    _check(values.get("evidence") in EVIDENCE, place, "evidence", f"one of {', '.join(EVIDENCE)}")
    return Limit(_value(name, values["value"], place), **{key: values[key] for key in values if key != "value"})


def _value(name: str, value: Any, place: str) -> Any:
    if name in WORDS:
        words = isinstance(value, list) and value and all(word in WORDS[name] for word in value)
        _check(bool(words), place, "value", f"a list of {', '.join(WORDS[name])}")
        return tuple(value)
    if name == "leak":
        pair = isinstance(value, list) and len(value) == 2 and all(_is_number(each) for each in value)
        _check(pair and 0 <= value[0] <= value[1], place, "value", "[least factor, largest factor]")
        return tuple(map(float, value))
    whole = _is_number(value) and value >= 1 and (value == math.inf or value == int(value))
    _check(whole, place, "value", "a whole number of 1 or more, or inf")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _check_fields(values: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise SpikeplugError(f"{place}: unknown field {shown(unknown[0])}: choose {', '.join(known)}.")


def _check(right: bool, place: str, key: str, wanted: str) -> None:
    if not right:
        raise SpikeplugError(f"{place}: {key} must be {wanted}.")
