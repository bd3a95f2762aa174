"""`spikeplug bench`: speed compared with torch's exact operators. Exit code 1 if an output is not the closed form."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikeplug import bench
from spikeplug.bench.cases import ALWAYS
from spikeplug.cli.options import Json, Model, Threads, set_threads
from spikeplug.cli.output import deliver, status_console
from spikeplug.english import english_text
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.files import check_outputs, write_text
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.page import plotly
from spikeplug.measurement.record import environment, write_record
from spikeplug.measurement.text import encode
from spikeplug.progress import shown_on

if TYPE_CHECKING:
    from spikeplug.measurement.loading import Source

#: Rounds of a full and of a quick run.
_FULL, _QUICK = 21, 3
#: Tokens of text that are read: the longest context, and one token to decode.
_TOKENS = 2049


def _names(names: tuple[str, ...], more: str = "") -> str:
    return f"Out of {', '.join(names)}; commas between{more}. Default: all."


def bench_command(
    model: Model = None,
    operators: Annotated[str, typer.Option(help=_names(bench.OPERATORS))] = "all",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small shapes, few rounds, no peak memory: a check, not a measurement.")
    ] = False,
    arms: Annotated[str, typer.Option(help=_names(bench.ARMS, f"; {' and '.join(ALWAYS)} are always timed"))] = "all",
    sections: Annotated[str, typer.Option(help=_names(bench.SECTIONS))] = "all",
    no_model: Annotated[bool, typer.Option("--no-model", help="Without the sections layer and model.")] = False,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Without peak memory.")] = False,
    threads: Threads = None,
    runs: Annotated[
        int | None,
        typer.Option(min=1, max=10000, help=f"Rounds of interleaved runs. Default: {_FULL}; --quick: {_QUICK}."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
    json: Json = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of plots to this file.")] = None,
) -> None:
    """Measure operators, a layer and a whole model compared with torch's exact ops, as ratios of interleaved runs."""
    start = time.perf_counter()
    parts = bench.chosen(sections, bench.SECTIONS, "section")
    settings = bench.Settings(
        bench.chosen(operators),
        quick,
        runs or (_QUICK if quick else _FULL),
        memory=not (quick or no_memory),
        arms=bench.chosen(arms, bench.ARMS, "arm"),
        sections=tuple(part for part in parts if not (no_model and part in bench.OF_MODELS)),
    )
    if model is not None and not settings.of_models:
        raise SpikeplugError(
            f"the model {model!r} and a run without the sections {' and '.join(bench.OF_MODELS)} exclude each "
            "other: give one of them."
        )
    if html is not None:
        plotly()  # refused now, not after all measurements
    source = find_source(model) if settings.of_models else None
    check_outputs({"--csv": csv, "--json": json, "--html": html}, [("MODEL", model)])
    console, subject = status_console(), None
    with console.status("Starting" if source is None else f"Loading {source.name}"):
        set_threads(threads)
        subject = None if source is None else _subject(source, model)
    with shown_on(console) as progress:
        rows = bench.measure(settings, subject, progress)
    arguments = {
        "model": None if source is None else source.name,
        "operators": list(settings.operators),
        "arms": list(settings.timed),
        "sections": list(settings.sections),
        "memory": settings.memory,
        "quick": quick,
        "threads": threads,
        "runs": settings.rounds,
    }
    record = bench.make_bench_record(rows, arguments)
    writes: list[partial[None]] = []
    if csv is not None:
        writes.append(partial(write_text, bench.bench_csv(record), csv, "--csv"))
    if json is not None:
        writes.append(partial(write_record, record, json))
    if html is not None:
        writes.append(partial(write_text, bench.bench_page(record, rows), html, "--html"))
    machine = environment()
    title = f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}"
    deliver(writes, [title, *bench.tables(rows), f"Total time {time.perf_counter() - start:.0f} s."])
    if wrong := bench.failures(rows):
        names = ", ".join(f"{row.name} ({row.shape})" for row in wrong)
        typer.echo(f"spikeplug: not equal to the closed form, so without figures: {names}", err=True)
        raise typer.Exit(1)


def _subject(source: Source, given: str | None) -> bench.Subject:
    import torch

    model, tokenizer = load(source)
    ids = torch.tensor([encode(tokenizer, english_text())[:_TOKENS]])
    return bench.Subject(model, ids, source.name, given)
