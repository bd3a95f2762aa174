"""`spikeplug energy`: what one token costs by tables of published prices, beside the same model without spikes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

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
    Text,
    Threads,
    lengths_in,
    names_in,
    read_conversion,
    set_threads,
)
from spikeplug.cli.output import deliver, status_console
from spikeplug.hardware.tables import load_table, table_names
from spikeplug.measurement.files import check_outputs, write_text
from spikeplug.measurement.loading import find_source, is_whole, load, model_facts
from spikeplug.measurement.page import plotly
from spikeplug.measurement.recipes import check_saved
from spikeplug.measurement.record import write_record
from spikeplug.measurement.table import headline
from spikeplug.measurement.text import encode, read_text
from spikeplug.progress import shown_on


def energy_command(
    model: Model = None,
    recipe: RecipeOption = "operators",
    bits: Bits = None,
    preset: PresetOption = "default",
    operators: Operators = "all",
    exclude: Exclude = None,
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = None,
    table: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"{', '.join(table_names())}, or a TOML file. May be given several times. Default: all of them.",
        ),
    ] = None,
    arms: Annotated[
        str, typer.Option(help="all, or names with commas between: paper, off-chip, int8, qnn, float32.")
    ] = "all",
    context: Annotated[
        str, typer.Option(help="Tokens that the counted token has read, itself included; commas between.")
    ] = "1,64,512",
    hops: Annotated[int, typer.Option(min=0, help="Hops that each packet takes.")] = 0,
    text: Text = None,
    threads: Threads = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of plots to this file.")] = None,
) -> None:
    """Price the events of one token by tables of published prices, beside the same model without spikes."""
    wanted = read_conversion(recipe, bits, preset, operators, exclude, calibration, calibration_tokens, None)
    tables = tuple(load_table(name) for name in table or table_names())
    names, contexts = names_in(arms), lengths_in(context, "context", "1,64,512")
    words = None if text is None else read_text(text)
    if html is not None:
        plotly()  # refused now, not after all measurements
    source = find_source(model)
    files = [("--table", name) for name in table or () if name not in table_names()]
    check_outputs({"--json": json, "--html": html}, [("MODEL", model), ("--text", text), *files, *wanted.files])
    console = status_console()
    with console.status(f"Loading {source.name}"):
        set_threads(threads)
        from spikeplug.conversion.check import check_request
        from spikeplug.english import english_text
        from spikeplug.hardware.costing import Settings, make_costing_record, measure
        from spikeplug.hardware.costing_table import parts

        check_request(wanted.operators, exclude)
        saved = is_whole(source)
        if saved:
            check_saved(source.name, wanted.chosen)
        settings = Settings(
            numerics=wanted.preset.numerics,
            recipe="whole" if saved else wanted.recipe,
            operators=wanted.operators,
            exclude=exclude,
            contexts=contexts,
            tables=tables,
            arms=names,
            hops=hops,
        )
        language_model, tokenizer = load(source, as_saved=saved)
        ids = encode(tokenizer, english_text() if words is None else words)
    with shown_on(console) as progress:
        found = measure(language_model, tokenizer, ids, settings, progress)
    arguments = {
        "model": model,
        **wanted.record(saved),
        "tables": [one.name for one in tables],
        "arms": None if names is None else list(names),
        "context": list(contexts),
        "hops": hops,
        "text": None if text is None else str(text),
        "threads": threads,
    }
    facts = model_facts(language_model, source.name)
    record = make_costing_record(found, arguments, facts)
    writes = [partial(write_record, record, json)] if json else []
    if html is not None:
        from spikeplug.hardware.costing_page import costing_page

        writes.append(partial(write_text, costing_page(record, found), html, "--html"))
    deliver(writes, [headline(facts), *parts(found)])
