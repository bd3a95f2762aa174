"""Compare the populations of a model with the published limits of a chip: what fits, what exceeds, what nobody knows.

Each limit is compared by itself, so a chip that exceeds none may still not hold the model. Nothing runs on a chip.

Placement: the populations with membranes in the order in which they first ran, each module's its own. A population goes
whole onto the core that is open, or else onto new cores, filled one after the other up to the core's limits of neurons
and of synapse memory (fan-in times the bits of a weight and its sign; addresses and axons are not counted).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table
from torch import Tensor, nn

from spikeplug.conversion.simulation import Simulation, is_spiking
from spikeplug.errors import SpikeplugError
from spikeplug.hardware.chips import LIMITS, Chip, load_chip
from spikeplug.measurement.table import titled
from spikeplug.neurons import Events, Needs, Population
from spikeplug.neurons.needs import LEAKS, THRESHOLDS

Outcome = Literal["fits", "exceeds", "unchecked"]


@dataclass(frozen=True)
class Placed:
    """Hold one population of one module.

    path        module path; empty for the model itself, and for events of no model
    population  its width, neurons and needs
    weights     how many weights a neuron tells apart; None: not known
    """

    path: str
    population: Population
    weights: int | None

    @property
    def needs(self) -> Needs:
        """Return what a neuron needs; a population is only placed if it says so."""
        assert self.population.needs is not None
        return self.population.needs

    @property
    def memory(self) -> int:
        """Return the bits of a neuron's weights and their signs."""
        return self.needs.fan_in * (self.needs.weight_bits + 1)


@dataclass(frozen=True)
class Verdict:
    """Hold the comparison with one limit.

    limit       its name in `chips.LIMITS`
    verdict     fits, exceeds or unchecked
    needed      the largest need, or the most demanding one of those that exceed; None: no population needs any
    allowed     the limit's value; None: no public number
    beyond      the need less the limit, for numbers that exceed it; else None
    path, population  where that need is; None for the chip as a whole
    exceeding, concerned  populations that need more than the limit's value, out of how many that it concerns
    names       the names of those that need more, in any module
    source, evidence, note  of the limit, see `chips.Limit`
    """

    limit: str
    verdict: Outcome
    needed: Any
    allowed: Any
    beyond: int | None
    path: str | None
    population: str | None
    exceeding: int
    concerned: int
    names: tuple[str, ...]
    source: str
    evidence: str
    note: str

    @property
    def where(self) -> str:
        """Return population and module path of the need, for people."""
        if self.population is None:
            return "the whole model"
        return f"{self.population} in {self.path}" if self.path else self.population


@dataclass(frozen=True)
class Fit:
    """Hold how a model compares with a chip.

    chip       the chip
    verdicts   one per limit, in the order of `chips.LIMITS`
    cores      cores of the placement; a lower bound if only one of its two limits is known; None: none is known
    neurons    of all populations
    synapses   of all populations
    spikes     sent in the counted run
    hops       mean hops of a spike's packet that the caller supposes
    silent     populations that do not say what they need; with any, no limit of neurons fits
    """

    chip: Chip
    verdicts: tuple[Verdict, ...]
    cores: int | None
    neurons: int
    synapses: int
    spikes: int
    hops: float
    silent: int

    def __getitem__(self, limit: str) -> Verdict:
        """Return the verdict on the limit of that name."""
        return next(verdict for verdict in self.verdicts if verdict.limit == limit)

    @property
    def router_hops(self) -> float:
        """Return the hops of all spikes, at one packet per spike."""
        return self.spikes * self.hops

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        verdicts = [{"name": LIMITS[verdict.limit][0], **asdict(verdict)} for verdict in self.verdicts]
        for values in verdicts:
            values["allowed"] = _plain(values["allowed"])
        return {
            "chip": self.chip.name,
            "technology": self.chip.technology,
            "note": self.chip.note,
            "cores": self.cores,
            "neurons": self.neurons,
            "synapses": self.synapses,
            "spikes": self.spikes,
            "hops": self.hops,
            "router_hops": self.router_hops,
            "silent": self.silent,
            "verdicts": verdicts,
        }

    def table(self) -> Table:
        """Return a Rich table with a row per limit: verdict, largest need, value, and where the need is."""
        table = titled(f"{self.chip.name} ({self.chip.technology})", "limit", "verdict", "needed", "limit is", "beyond")
        for name in ("exceeding", "largest need"):
            table.add_column(name, overflow="fold")
        for verdict in self.verdicts:
            table.add_row(*row(verdict))
        return table

    def sources(self) -> Table:
        """Return a Rich table of who says so, for each limit with a public number, and of remarks."""
        table = titled("Sources", "limit", "evidence", "source")
        for verdict in self.verdicts:
            if verdict.source or verdict.note:
                text = " ".join(filter(None, (verdict.source, verdict.note)))
                table.add_row(LIMITS[verdict.limit][0], verdict.evidence, text)
        return table

    def __str__(self) -> str:
        counts = {name: sum(verdict.verdict == name for verdict in self.verdicts) for name in _OUTCOMES}
        parts = [f"{count} {_OUTCOMES[name]}" for name, count in counts.items()]
        cores = "unknown" if self.cores is None else f"{self.cores:,}"
        return f"{self.chip.name}: {len(self.verdicts)} limits, {', '.join(parts)}; cores by this placement: {cores}"


_OUTCOMES = {"fits": "fit", "exceeds": "exceeded", "unchecked": "unchecked"}


def row(verdict: Verdict) -> tuple[str, ...]:
    """Return a verdict's cells for people: limit, verdict, needed, allowed, beyond, populations, where."""
    title, unit = LIMITS[verdict.limit]
    unknown = "nothing" if verdict.limit in _CHECKS else "unknown"
    concerned = f"{verdict.concerned:,}" if verdict.concerned else ""
    return (
        title,
        verdict.verdict,
        unknown if verdict.needed is None else _shown(verdict.needed, unit),
        "not public" if verdict.allowed is None else _shown(verdict.allowed, unit),
        "" if verdict.beyond is None else f"+{verdict.beyond:,}",
        f"{verdict.exceeding:,} of {concerned}" if verdict.allowed is not None and concerned else "",
        "" if verdict.needed is None else verdict.where,
    )


def overview(fits: Sequence[Fit]) -> Table:
    """Return a Rich table of several chips: the largest need of each limit, and each chip's verdict with its value."""
    table = titled("Chips", "limit", "needed", *(found.chip.name for found in fits))
    for verdicts in zip(*(found.verdicts for found in fits), strict=True):
        table.add_row(*overview_row(verdicts))
    return table


def overview_row(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the cells of one limit for people: its name, the largest need, and the verdict on each chip."""
    name, unit = verdicts[0].limit, LIMITS[verdicts[0].limit][1]
    needs = [verdict.needed for verdict in verdicts if verdict.needed is not None and name != "cores"]
    rank = _CHECKS[name].rank if name in _CHECKS else float
    needed = _shown(max(needs, key=rank), unit) if needs else ""  # of cores, each chip needs another number
    cells = []
    for verdict in verdicts:
        allowed = "" if verdict.allowed is None else f": {_shown(verdict.allowed, '')}"
        need = f", {verdict.needed:,} needed" if name == "cores" and verdict.needed is not None else ""
        cells.append(f"{verdict.verdict}{allowed}{need}")
    return (LIMITS[name][0], needed, *cells)


def _shown(value: Any, unit: str) -> str:
    value = _plain(value)
    if isinstance(value, list):
        return " to ".join(map(_number, value)) if isinstance(value[0], float) else ", ".join(value)
    return value if isinstance(value, str) else f"{_number(value)} {unit}".strip()


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:,g}" if isinstance(value, float) else f"{value:,}"


def _plain(value: Any) -> Any:
    """Return a limit's value for JSON and for people: a list for a tuple, "any" for infinity."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return "any" if value == math.inf else value


@dataclass(frozen=True)
class _Check:
    """Say how one limit of neurons is compared.

    need    what a population needs; None: the limit does not concern it
    rank    the larger, the more demanding
    within  (need, the limit's value): whether the chip has what is needed
    """

    need: Callable[[Placed], Any]
    rank: Callable[[Any], float] = float
    within: Callable[[Any, Any], bool] = operator.le


def _among(need: Any, value: Any) -> bool:
    return need in value


def _moved_threshold(place: Placed) -> str | None:
    return place.needs.threshold if place.needs.threshold in ("operand", "moving") else None


#: How each limit of a neuron is compared. Every chip takes constants. How it resets and compares matters only to
#: neurons that go on from what a spike leaves, see `Needs`.
_CHECKS: dict[str, _Check] = {
    "weight_bits": _Check(lambda p: p.needs.weight_bits or None),
    "weights": _Check(lambda p: p.weights or None),
    "gates": _Check(lambda p: "data" if p.needs.gated else None, len, _among),
    "state_bits": _Check(lambda p: p.population.width),
    "threshold_bits": _Check(lambda p: p.needs.threshold_bits or None),
    "threshold": _Check(_moved_threshold, THRESHOLDS.index, _among),
    "leak": _Check(lambda p: p.needs.leak, LEAKS.index, lambda need, value: value[0] <= need <= value[1]),
    "reset": _Check(lambda p: "subtract" if p.needs.soft_reset else None, len, _among),
    "compare": _Check(lambda p: ">=" if p.needs.soft_reset else None, len, _among),
    "spike_bits": _Check(lambda p: p.needs.arriving_bits or None),
    "fan_in": _Check(lambda p: p.needs.fan_in or None),
    "core_memory_bits": _Check(lambda p: p.memory or None),
}


def fit(
    counted: Simulation | Events, chip: str | Path | Chip, *, hops: float = 1.0, model: nn.Module | None = None
) -> Fit:
    """Compare what `spikeplug.count` counted with the published limits of a chip.

    counted  the events of a model, or `Events(predicted=True)` of an operator. All neurons that one call has run side
             by side, so count one token, with a cache before it, to have the neurons of a token
    chip     a name of `hardware.chips.chip_names`, a TOML file, or a Chip
    hops     mean hops of a spike's packet between cores
    model    the model that was counted; with it, weights that a neuron tells apart are read from its int8 weights

    Errors: SpikeplugError for anything else than counted events, for events without populations or needs, for an
    unknown chip and for negative hops.
    """
    return fit_all(counted, (chip,), hops=hops, model=model)[0]


def fit_all(
    counted: Simulation | Events,
    chips: Iterable[str | Path | Chip],
    *,
    hops: float = 1.0,
    model: nn.Module | None = None,
) -> tuple[Fit, ...]:
    """Return `fit` for each of several chips; arguments and errors are those of `fit`."""
    found = [chip if isinstance(chip, Chip) else load_chip(chip) for chip in chips]
    if not (isinstance(hops, (int, float)) and 0 <= hops < math.inf):
        raise SpikeplugError(f"hops is {hops!r}: give the mean hops of a spike, 0 or more.")
    placed, silent, spikes = _populations(counted, {} if model is None else dict(model.named_modules()))
    return tuple(_fit(chip, placed, silent, spikes, float(hops)) for chip in found)


def _fit(chip: Chip, placed: Sequence[Placed], silent: int, spikes: int, hops: float) -> Fit:
    neurons = sum(place.population.neurons for place in placed)
    synapses = sum(place.population.neurons * place.needs.fan_in for place in placed)
    cores = place_on_cores(placed, chip)
    of_a_core = [chip.number(name) is not None for name in ("neurons_per_core", "core_memory_bits")]
    verdicts = (
        *(_compared(name, chip, placed, silent) for name in _CHECKS),
        _total("neurons", neurons, chip, silent),
        _total("synapses", synapses, chip, silent),
        _total("cores", cores, chip, silent, exact=all(of_a_core)),
    )
    return Fit(chip, verdicts, cores, neurons, synapses, spikes, hops, silent)


def _populations(counted: Simulation | Events, modules: Mapping[str, nn.Module]) -> tuple[list[Placed], int, int]:
    """Return the populations with membranes, how many of them do not say what they need, and the spikes of all."""
    if isinstance(counted, nn.Module):
        if not any(is_spiking(module) for module in counted.modules()):
            raise SpikeplugError(f"{type(counted).__name__} is not converted: call spikeplug.convert(model) first.")
        raise SpikeplugError("fit takes what spikeplug.count(model) counted, not the model: count a run of it first.")
    if isinstance(counted, Simulation):
        runs = [(entry.path, entry.events) for entry in counted.entries]
    elif isinstance(counted, Events):
        runs = [("", counted)]
    else:
        raise SpikeplugError(f"fit takes what spikeplug.count counted, not a {type(counted).__name__}.")
    every = [(path, each) for path, events in runs for each in events.populations.values()]
    members = [(path, each) for path, each in every if each.kind in ("threshold", "accumulator")]
    if not members:
        raise SpikeplugError("the events hold no population: run the model within spikeplug.count(model).")
    saying = [(path, each) for path, each in members if each.needs is not None]
    if not saying:
        raise SpikeplugError("a simulation does not say what its neurons need: use spikeplug.count, which does.")
    placed = [Placed(path, each, _weights(each, modules.get(path))) for path, each in saying]
    return placed, len(members) - len(saying), sum(each.spikes for _, each in every)


def _weights(population: Population, module: nn.Module | None) -> int | None:
    """Return how many weights a neuron tells apart: what the population says, or else what an int8 weight holds."""
    needs, weight = population.needs, getattr(module, "weight", None)
    assert needs is not None
    if needs.weights is not None or needs.gated or not isinstance(weight, Tensor) or weight.dtype != torch.int8:
        return needs.weights
    return 2 * distinct_magnitudes(weight.flatten(1))  # each for the positive and the negative numbers that arrive


@torch.no_grad()
def distinct_magnitudes(weight: Tensor) -> int:
    """Return the most different magnitudes above 0 that a row of an int8 weight (rows, columns) holds."""
    most = 0
    for rows in weight.split(1024):
        seen = torch.zeros(len(rows), 129, dtype=torch.bool, device=rows.device)
        seen.scatter_(1, rows.to(torch.int64).abs(), True)
        most = max(most, int(seen[:, 1:].sum(1).max()))
    return most


def place_on_cores(placed: Iterable[Placed], chip: Chip) -> int | None:
    """Return the cores that the placement of this module's docstring takes; None if the chip states neither limit.

    A neuron whose synapses exceed a core's memory takes as many cores as hold them.
    """
    most, memory = chip.number("neurons_per_core"), chip.number("core_memory_bits")
    if most is None and memory is None:
        return None
    cores, free, left = 0, 0.0, 0.0
    for place in placed:
        neurons, bits = place.population.neurons, place.memory
        if neurons <= free and neurons * bits <= left:
            free, left = free - neurons, left - neurons * bits
            continue
        rooms = [math.inf if most is None else most, math.inf if memory is None or not bits else memory // bits]
        room = min(rooms)
        if room < 1:
            assert memory is not None
            cores, free, left = cores + neurons * -(-bits // memory), 0.0, 0.0
            continue
        full = 1 if math.isinf(room) else max(1, -(-neurons // int(room)))
        last = neurons - (full - 1) * int(room) if full > 1 else neurons
        cores += full
        free = math.inf if most is None else most - last
        left = math.inf if memory is None else memory - last * bits
    return cores


def _compared(name: str, chip: Chip, placed: Sequence[Placed], silent: int) -> Verdict:
    """Return the verdict on a limit of single neurons."""
    check, limit = _CHECKS[name], chip.limit(name)
    needs = [(check.need(place), place) for place in placed]
    concerned = [(need, place) for need, place in needs if need is not None]
    # How many constants its neurons have as weights, a population may not know.
    unknown = silent + sum(name == "weights" and place.weights is None and not place.needs.gated for place in placed)
    exceeding: list[tuple[Any, Placed]] = []
    if limit.value is not None:
        exceeding = [(need, place) for need, place in concerned if not check.within(need, limit.value)]
    need, where = max(exceeding or concerned, key=lambda each: check.rank(each[0]), default=(None, None))
    outcome: Outcome
    if limit.value is None or (exceeding and limit.at_least) or (unknown and not exceeding):
        outcome = "unchecked"
    else:
        outcome = "exceeds" if exceeding else "fits"
    return Verdict(
        limit=name,
        verdict=outcome,
        needed=need,
        allowed=limit.value,
        beyond=need - limit.value if exceeding and isinstance(need, int) else None,
        path=None if where is None else where.path,
        population=None if where is None else where.population.name,
        exceeding=len(exceeding),
        concerned=len(concerned),
        names=tuple(sorted({place.population.name for _, place in exceeding})),
        source=limit.source,
        evidence=limit.evidence,
        note=_note(limit.note, 0 if exceeding else unknown, limit.at_least),
    )


def _note(note: str, unknown: int, at_least: bool) -> str:
    parts = [note] if note else []
    if unknown:
        parts.append(f"{unknown} populations do not say what they need.")
    if at_least:
        parts.append("The chip may offer more than this.")
    return " ".join(parts)


def _total(name: str, needed: int | None, chip: Chip, silent: int, *, exact: bool = True) -> Verdict:
    """Return the verdict on a limit of the chip. exact: whether `needed` is no lower bound."""
    limit = chip.limit(name)
    beyond = None if limit.value is None or needed is None else needed - limit.value
    outcome: Outcome = "unchecked"
    if beyond is not None and beyond > 0:
        outcome = "exceeds"
    elif beyond is not None and exact and not silent:
        outcome = "fits"
    bound = "" if exact or needed is None else "The need is a lower bound: not all limits of a core are public."
    return Verdict(
        limit=name,
        verdict=outcome,
        needed=needed,
        allowed=limit.value,
        beyond=beyond if outcome == "exceeds" else None,
        path=None,
        population=None,
        exceeding=0,
        concerned=0,
        names=(),
        source=limit.source,
        evidence=limit.evidence,
        note=" ".join(filter(None, (_note(limit.note, silent, limit.at_least), bound))),
    )
