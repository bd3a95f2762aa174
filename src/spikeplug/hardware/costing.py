"""Measure what a token costs: convert a model, count one token at each context, and price it in every arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spikeplug.conversion import revert
from spikeplug.conversion.swap import report_of
from spikeplug.errors import SpikeplugError
from spikeplug.hardware.arms import OURS, Cost, arms_of, check_arms, costs, not_of_recipe, verdicts
from spikeplug.hardware.break_even import Growth, Line, context_sentences, growths, lines
from spikeplug.hardware.pricing import Energy, energy
from spikeplug.hardware.tables import CostTable, load_table, table_names, with_companions
from spikeplug.hardware.workload import SpikesPerValue, Token, one_token, spikes_per_value
from spikeplug.measurement.recipes import Recipe, as_recipe, saved_levels
from spikeplug.measurement.record import origin, read_schema
from spikeplug.measurement.text import check_context, check_vocabulary
from spikeplug.numerics import Fields, Numerics
from spikeplug.presets import PRESETS, as_numerics
from spikeplug.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Raised by every change that a reader of the JSON file could notice.
SCHEMA_VERSION = 1
#: T·L of the codes whose spikes per value are measured, besides the model's own.
_LEVELS = (4, 16, 64, 128)
#: Tokens that a model reads while it counts one.
_COUNTING = 200
#: Tokens over which they are measured.
_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Settings(Fields):
    """Choose what is counted and how it is priced.

    numerics   Numerics, or the name of a preset
    recipe     Recipe(...) or its name: how the model is made spiking
    operators  names of the operators to replace; None: all
    exclude    regular expression of module paths that stay exact
    contexts   tokens that the counted token has read, itself included
    tables     tables of prices, by name, file or value; None: all of the package
    arms       names of arms; None: all that can be compared with what the recipe converts
    hops       hops per packet; 0: placement is not looked at

    Errors: SpikeplugError for a value out of its domain.
    """

    numerics: Numerics | str = "default"
    recipe: Recipe | str = "operators"
    operators: tuple[str, ...] | None = None
    exclude: str | None = None
    contexts: tuple[int, ...] = (1, 64)
    tables: tuple[CostTable | str, ...] | None = None
    arms: tuple[str, ...] | None = None
    hops: int = 0

    def __post_init__(self) -> None:
        recipe = as_recipe(self.recipe)
        names = table_names() if self.tables is None else self.tables
        object.__setattr__(self, "numerics", as_numerics(self.numerics))
        object.__setattr__(self, "recipe", recipe)
        object.__setattr__(self, "tables", tuple(with_companions([load_table(name) for name in names])))
        if self.arms is not None:
            object.__setattr__(self, "arms", check_arms(self.arms, recipe.whole))
        if not self.contexts or min(self.contexts) < 1:
            raise SpikeplugError(f"context is {min(self.contexts, default='empty')}; it must be 1 token or more.")
        if len(set(self.contexts)) < len(self.contexts):
            raise SpikeplugError("a context is given twice; name each length once.")
        if self.hops < 0:
            raise SpikeplugError(f"hops is {self.hops}: give a whole number of 0 or more.")


@dataclass(frozen=True)
class Costing:
    """Hold what was counted and what it costs.

    whole       whether the whole model spikes; else its nonlinear operators do
    tokens      the counted token of ours, one per context
    energies    its energy by every table, at the longest context
    costs       of every arm, by every table, at every context
    verdicts    what these say, in sentences
    per_value   spikes per input of linear layers, by the levels of the code; empty unless the whole model spikes
    lines       spikes per value at which a spiking layer costs as much as one in int8
    growths     how the arms grow with the context
    """

    whole: bool
    tokens: tuple[Token, ...]
    energies: tuple[Energy, ...]
    costs: tuple[Cost, ...]
    verdicts: tuple[str, ...]
    per_value: tuple[SpikesPerValue, ...]
    lines: tuple[Line, ...]
    growths: tuple[Growth, ...]

    @property
    def leading(self) -> int:
        """Return the place of the first table by which there is a total; 0 if there is none."""
        return next((place for place, energy in enumerate(self.energies) if not energy.unpriced), 0)

    def dearest(self, key: Literal["operator", "path", "population"]) -> list[str]:
        """Return the operators, module paths or populations, the dearest first by the leading table."""
        costs = self.energies[self.leading].by(key)
        return sorted(costs, key=lambda name: -costs[name])


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    ids: Sequence[int],
    settings: Settings | None = None,
    progress: Progress = silent,
) -> Costing:
    """Convert a model, unless it was saved whole, and price one token of it; afterwards it is as before.

    ids   token ids of a text, at least as many as the longest context

    Errors: SpikeplugError for a text, context or arm that does not fit the model, and for one that cannot be converted.
    """
    settings = settings or Settings()
    contexts = sorted(settings.contexts)
    check_context(model, contexts[-1])
    check_vocabulary(model, ids[: contexts[-1]])
    if len(ids) < contexts[-1]:
        raise SpikeplugError(
            f"the text has {len(ids)} tokens, fewer than the context of {contexts[-1]}: give a longer --text or a "
            "smaller --context."
        )
    recipe, numerics = as_recipe(settings.recipe), as_numerics(settings.numerics)
    saved = report_of(model) is not None
    whole = saved or recipe.whole
    names = settings.arms or arms_of(whole)
    for name in names:
        if (reason := not_of_recipe(name, whole)) is not None:
            raise SpikeplugError(reason)
    runs = {OURS: numerics} | ({"paper": PRESETS["paper"].numerics} if "paper" in names else {})
    work = len(runs) * sum(context + _COUNTING for context in contexts)
    found: dict[str, list[Token]] = {name: [] for name in runs}
    done, per_value, levels = 0, [], 1
    for name, wanted in runs.items():
        if not saved:
            progress("converting", done, work)
            recipe.convert(
                model,
                tokenizer,
                wanted,
                operators=settings.operators,
                exclude=settings.exclude,
                progress=progress if whole else None,
            )
        try:
            for context in contexts:
                progress(f"counting {name}, context {context:,}", done, work)
                found[name].append(one_token(model, ids[:context]))
                done += context + _COUNTING
            if whole:
                own = saved_levels(model).inputs
                levels = own
                wanted_levels = sorted({*_LEVELS, own})
                progress("spikes per value", done, work)
                per_value = spikes_per_value(model, ids[: min(_TOKENS, contexts[-1])], wanted_levels)
        finally:
            if not saved:
                revert(model)
    tables = [load_table(table) for table in settings.tables or ()]
    priced = [
        cost
        for place, _ in enumerate(contexts)
        for cost in costs({name: run[place] for name, run in found.items()}, tables, names, levels, settings.hops)
    ]
    found_growths = growths(priced)
    return Costing(
        whole=whole,
        tokens=tuple(found[OURS]),
        energies=tuple(energy(found[OURS][-1].events, table, hops=settings.hops) for table in tables),
        costs=tuple(priced),
        verdicts=(*verdicts(priced), *context_sentences(found_growths)),
        per_value=tuple(per_value),
        lines=tuple(line for table in tables for line in lines(table)) if whole else (),
        growths=tuple(found_growths),
    )


def make_costing_record(found: Costing, arguments: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Return a costing as JSON values; energies in pJ. model: facts of the model."""
    return {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": arguments,
        "model": model,
        "whole": found.whole,
        "tokens": [
            {"context": token.context, **token.events.total.totals(), "work": [vars(work) for work in token.work]}
            for token in found.tokens
        ],
        "energies": [{**one.to_dict(), "beside": []} for one in found.energies],
        "costs": [cost.to_dict() for cost in found.costs],
        "verdicts": list(found.verdicts),
        "spikes_per_value": [vars(one) for one in found.per_value],
        "break_even": [
            {
                "table": line.table,
                "what": line.what,
                "kib": None if line.kib is None else float(line.kib),
                "spikes": float(line.spikes),
            }
            for line in found.lines
        ],
        "growths": [
            {
                "arm": growth.arm,
                "table": growth.table.name,
                "start": float(growth.start),
                "slope": float(growth.slope),
                "crossing": None if growth.crossing is None else float(growth.crossing),
            }
            for growth in found.growths
        ],
    }


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what `make_costing_record` returns."""
    return read_schema("spikeplug.hardware", "energy.schema.json")
