"""Price one token of SmolLM2-135M: `python benchmarks/costs.py [--contexts 1,64,512] [--folder DIR] [--write]`.

Counts and prices the whole model (int8 weights rounded to nearest) and the recipe operators, by every table of the
package. --write puts the figures into docs/costs.md, as `make costs` does. --folder keeps the records as JSON files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pages
from rich.console import Console

from spikeplug.english import english_text
from spikeplug.hardware.arms import Cost
from spikeplug.hardware.costing import Costing, Settings, make_costing_record, measure
from spikeplug.hardware.pricing import joules
from spikeplug.measurement.loading import find_source, load, model_facts
from spikeplug.measurement.recipes import Recipe
from spikeplug.measurement.record import environment, write_record
from spikeplug.measurement.section import number
from spikeplug.progress import shown_on

PAGE = "docs/costs.md"
DIGITAL = "digital45"


def main(contexts: tuple[int, ...], folder: Path | None, write: bool) -> None:
    source = find_source(None)
    model, tokenizer = load(source)
    ids = list(tokenizer(english_text(), verbose=False)["input_ids"])
    recipes = {"whole": Recipe(name="whole", calibrated=False), "operators": Recipe()}
    found = {}
    with shown_on(Console(stderr=True)) as progress:
        for name, recipe in recipes.items():
            settings = Settings(recipe=recipe, contexts=contexts)
            found[name] = measure(model, tokenizer, ids, settings, progress)
            if folder is not None:
                record = make_costing_record(found[name], {"contexts": list(contexts)}, model_facts(model, source.name))
                write_record(record, folder / f"costs-{name}.json")
    text = f"{whole(found['whole'])}\n\n{operators(found['operators'])}\n\n{machine()}"
    print(text)
    if write:
        pages.write(PAGE, "costs", text)
        pages.write("README.md", "costs", headline(found["whole"]))


def whole(found: Costing) -> str:
    """Return the table of the whole model and what it says in words."""
    contexts = [token.context for token in found.tokens]
    lines = [f"| one token, at a context of | {' | '.join(f'{context:,}' for context in contexts)} |"]
    lines.append("|---|" + "---:|" * len(contexts))

    def row(name: str, cell: Callable[[int], str]) -> None:
        lines.append(f"| {name} | {' | '.join(cell(context) for context in contexts)} |")

    events = {token.context: token.events.total for token in found.tokens}
    for count, name in (
        ("spikes", "spikes"),
        ("synops", "synaptic operations"),
        ("driven_updates", "driven updates"),
        ("idle_updates", "idle updates"),
        ("table_reads", "table reads"),
        ("steps", "time steps, one after the other"),
    ):
        row(name, lambda context, count=count: number(getattr(events[context], count)))
    macs = {token.context: sum(work.macs for work in token.work) for token in found.tokens}
    row("multiply-accumulates without spikes", lambda context: number(macs[context]))
    costs = {(cost.arm, cost.table.name, cost.context): cost for cost in found.costs}
    for arm, name in (("ours", "ours"), ("int8", "int8"), ("float32", "float32")):
        row(f"bytes moved, {name}", lambda context, arm=arm: number(float(costs[arm, DIGITAL, context].moved)))
    for energy in found.energies:
        table = energy.table
        row(
            f"**ours**, {table.title} ({table.evidence}, {table.scope})",
            lambda context, table=table: cell(costs["ours", table.name, context]),
        )
    for arm in ("int8", "qnn", "float32", "off-chip"):
        row(f"{arm}, Digital, 45 nm", lambda context, arm=arm: cell(costs[arm, DIGITAL, context]))
    levels = found.per_value[-1]
    sentences = [sentence for sentence in found.verdicts if not sentence.startswith("No total")]
    codes = "; ".join(f"T·L = {one.levels}: {one.phase:.2f} and {one.count:.1f}" for one in found.per_value)
    breaks = "; ".join(
        f"{line.what}{'' if line.kib is None else f' from {float(line.kib):g} KiB'}: {float(line.spikes):.2f}"
        f" ({levels_text(line.most_levels(found.per_value, 'phase'))})"
        for line in found.lines
    )
    return (
        f"SmolLM2-135M, the whole model spiking ({levels.levels} levels of inputs, weights rounded to nearest):\n\n"
        + "\n".join(lines)
        + "\n\nIn words, by `spikeplug energy`:\n\n"
        + "\n".join(f"- {sentence}" for sentence in sentences)
        + f"\n- Spikes per input of a linear layer, phase and count code: {codes}."
        + "\n- Break-even spikes per value with an int8 multiply-accumulate, and the T·L up to which the phase code "
        f"stays at or below them: {breaks}."
    )


def headline(found: Costing) -> str:
    """Return the line of the README: the whole model at the longest context, against int8."""
    context = found.tokens[-1].context
    costs = {cost.arm: cost for cost in found.costs if (cost.table.name, cost.context) == (DIGITAL, context)}
    ours, dense, exact = (costs[arm] for arm in ("ours", "int8", "float32"))
    loihi = [joules(energy.total) for energy in found.energies if energy.table.chip == "Loihi 1"]
    assert ours.traffic is not None
    times = [number(float(ours.high / other.low)) for other in (dense, exact)]
    return (
        f"- **Costs**, SmolLM2-135M, whole, one token at a context of {context:,}: {times[0]} times the energy of int8 "
        f"and {times[1]} times that of float32 in a digital circuit of 45 nm, {100 * float(ours.traffic):.1f} % of it "
        f"memory traffic; {' or '.join(loihi)} by two tables of Loihi 1 (`make costs`, [all figures, and what must not "
        "be claimed](docs/costs.md))."
    )


def operators(found: Costing) -> str:
    """Return the table of the nonlinear operators alone."""
    context = found.tokens[-1].context
    lines = ["| | ours | paper | off-chip |", "|---|---:|---:|---:|"]
    costs = {(cost.arm, cost.table.name): cost for cost in found.costs if cost.context == context}
    for energy in found.energies:
        cells = (cell(costs[arm, energy.table.name]) for arm in ("ours", "paper", "off-chip"))
        lines.append(f"| {energy.table.title} | {' | '.join(cells)} |")
    return f"The nonlinear operators alone (recipe operators), context {context:,}:\n\n" + "\n".join(lines)


def cell(cost: Cost) -> str:
    if cost.refusal is not None:
        return f"no total; {joules(cost.low)} priced" if cost.low else "not comparable"
    return joules(cost.low) if cost.low == cost.high else f"{joules(cost.low)} – {joules(cost.high)}"


def levels_text(levels: int | None) -> str:
    return "at no T·L measured" if levels is None else f"T·L = {levels}"


def machine() -> str:
    facts = environment()
    return f"{facts['cpu']}, torch {facts['torch']}; `make costs`. No figure depends on time."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Price one token of SmolLM2-135M.")
    parser.add_argument("--contexts", default="1,64,512")
    parser.add_argument("--folder", type=Path, help="keep the records as JSON files in this folder")
    parser.add_argument("--write", action="store_true", help="write docs/costs.md")
    given = parser.parse_args()
    main(tuple(map(int, given.contexts.split(","))), given.folder, given.write)
