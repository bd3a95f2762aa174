"""`spikeplug fit`: whether the neurons that a token takes fit the published limits of a chip."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikeplug.cli.options import (
    Bits,
    Calibration,
    CalibrationTokens,
    Exclude,
    Json,
    Model,
    Operators,
    PresetOption,
    RecipeOption,
    Threads,
    read_conversion,
    set_threads,
)
from spikeplug.cli.output import deliver, status_console
from spikeplug.errors import SpikeplugError
from spikeplug.hardware.chips import chip_names, load_chip
from spikeplug.measurement.files import check_outputs, write_text
from spikeplug.measurement.loading import find_source, is_whole, load, model_facts
from spikeplug.measurement.page import plotly
from spikeplug.measurement.recipes import check_saved
from spikeplug.measurement.record import origin, write_record
from spikeplug.measurement.table import headline

# torch and transformers take seconds to import: what needs them is imported once the arguments are checked.
if TYPE_CHECKING:
    from rich.console import RenderableType

SCHEMA_VERSION = 1
#: The value of --chip for all chips of the package.
ALL = "all"


def fit_command(
    model: Model = None,
    chip: Annotated[
        str, typer.Option(metavar="NAME|FILE", help=f"{ALL}, {', '.join(chip_names())}, or a TOML file.")
    ] = ALL,
    context: Annotated[
        int, typer.Option(help="Tokens, the last of which is counted, with a cache of the others.")
    ] = 128,
    hops: Annotated[float, typer.Option(help="Mean hops of a spike between cores.")] = 1.0,
    preset: PresetOption = "default",
    operators: Operators = "all",
    exclude: Exclude = None,
    recipe: RecipeOption = "operators",
    bits: Bits = None,
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = None,
    threads: Threads = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of plots and tables to this file.")] = None,
) -> None:
    """Compare the neurons of one token with the published limits of a chip. Nothing runs on the chip."""
    wanted = read_conversion(recipe, bits, preset, operators, exclude, calibration, calibration_tokens, None)
    chips = [load_chip(name) for name in (chip_names() if chip == ALL else (chip,))]
    if context < 1:
        raise SpikeplugError(f"--context is {context}: give 1 token or more.")
    source = find_source(model)
    if html is not None:
        plotly()  # refused now, not after counting
    own = [("--chip", chip)] if chip.endswith(".toml") else []
    check_outputs({"--json": json, "--html": html}, [("MODEL", model), *own, *wanted.files])
    console = status_console()
    with console.status(f"Loading {source.name}"):
        set_threads(threads)
        from spikeplug.conversion.check import check_request

        check_request(wanted.operators, exclude)
        whole = is_whole(source)
        if whole:
            check_saved(source.name, wanted.chosen)
        loaded, tokenizer = load(source, as_saved=whole)
        facts = model_facts(loaded, source.name)
    with console.status("Converting, and counting one token"):
        from spikeplug.hardware.fit import fit_all, overview
        from spikeplug.hardware.fit_page import fit_page
        from spikeplug.hardware.token import count_token
        from spikeplug.realisation import Realisation

        neurons: Realisation | None = None
        if not whole:
            wanted.recipe.convert(
                loaded, tokenizer, wanted.preset.numerics, operators=wanted.operators, exclude=exclude
            )
            neurons = wanted.preset.realisation
        counted = count_token(loaded, tokenizer, context, neurons)
        fits = fit_all(counted, chips, hops=hops, model=loaded)
    arguments = {
        "model": model,
        "chip": chip,
        "context": context,
        "hops": hops,
        **wanted.record(saved_whole=whole),
        "threads": threads,
    }
    record = {
        "schema_version": SCHEMA_VERSION,
        **origin(),
        "arguments": arguments,
        "model": facts,
        "events": counted.total.totals(),
        "fits": [found.to_dict() for found in fits],
    }
    how, first = "whole" if whole else wanted.recipe.name, fits[0]
    parts: list[RenderableType] = [
        f"{headline(facts)}, recipe {how}: the last of {context:,} tokens",
        f"{first.neurons:,} neurons in {len(counted.populations):,} kinds of population, {first.synapses:,} synapses, "
        f"{first.spikes:,} spikes; {first.router_hops:,.0f} hops of packets, at {hops:g} per spike",
    ]
    parts += [overview(fits)] if len(fits) > 1 else [first.table(), first.sources()]
    parts += [*map(str, fits), "Compared with published limits, each by itself. Nothing ran on a chip."]
    parts += [found.chip.note for found in fits if found.chip.note and len(fits) == 1]
    if how == "operators":
        parts.append("Linear layers are in floating point: --recipe whole has their neurons, too.")
    writes = [partial(write_record, record, json)] if json else []
    if html is not None:
        writes.append(partial(write_text, fit_page(record, fits), html, "--html"))
    deliver(writes, parts)
