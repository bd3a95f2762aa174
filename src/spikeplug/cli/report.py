"""`spikeplug report`: how errors build up through a model, in one HTML file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeplug import report
from spikeplug.cli.options import (
    Bits,
    Calibration,
    CalibrationTokens,
    Dtype,
    Exact,
    Json,
    Model,
    PresetOption,
    RecipeOption,
    Text,
    Threads,
    WeightBits,
    names_in,
    read_conversion,
    set_threads,
)
from spikeplug.cli.output import deliver, status_console
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.files import check_outputs, write_text
from spikeplug.measurement.loading import find_source, first_line, model_facts
from spikeplug.measurement.page import plotly
from spikeplug.measurement.recipes import load_exact
from spikeplug.measurement.record import write_record
from spikeplug.measurement.section import Section, Table, number
from spikeplug.measurement.table import titled
from spikeplug.measurement.text import read_text
from spikeplug.progress import shown_on
from spikeplug.report.folder import HEADER, LOCK, ROWS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from spikeplug.measurement.loading import Source

#: Context and tokens of a full and of a quick run.
_FULL, _QUICK = (2048, 4096), (512, 512)


def report_command(
    model: Model = None,
    preset: PresetOption = "default",
    studies: Annotated[str, typer.Option(help=f"all, or out of {', '.join(report.STUDIES)}; commas between.")] = "all",
    context: Annotated[int | None, typer.Option(help="Window length in tokens. Default: 2048; --quick: 512.")] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens that are read. Default: two windows; --quick: one window.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short context and fewer points: minutes, not hours.")] = False,
    token: Annotated[int, typer.Option(help="The token whose spikes are drawn; negative: from the end.")] = -1,
    text: Text = None,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command resumes it.")] = Path("report"),
    html: Annotated[Path | None, typer.Option(help="The page. Default: report.html in the folder of the run.")] = None,
    json: Json = None,
    csv: Annotated[Path | None, typer.Option(help="Write the page's tables into this folder.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Measure nothing; make the page of this folder, finished or not.")
    ] = None,
    threads: Threads = None,
    dtype: Dtype = "float32",
    recipe: RecipeOption = "operators",
    bits: Bits = None,
    weight_bits: WeightBits = None,
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = None,
    exact: Exact = None,
) -> None:
    """Show how errors build up through a model, what causes them, and how little is enough."""
    plotly()  # refused now, not after hours of measuring
    folder = source or out
    page = html or folder / "report.html"
    wanted = read_conversion(
        recipe, bits, preset, "all", None, calibration, calibration_tokens, dtype, weight_bits=weight_bits
    )
    if source is None:
        windows = _QUICK if quick else _FULL
        context = windows[0] if context is None else context
        tokens = windows[1] // windows[0] * context if tokens is None else tokens
        settings = report.Settings(
            numerics=wanted.preset.numerics,
            recipe=wanted.recipe,
            realisation=wanted.preset.realisation,
            context=context,
            tokens=tokens,
            studies=names_in(studies) or report.STUDIES,
            quick=quick,
            token=token,
            text=None if text is None else read_text(text),
        )
        found, original = find_source(model), None if exact is None else find_source(exact)
        report.check_folder(out)
    else:
        given = {"MODEL": model, "--context": context, "--tokens": tokens, "--text": text, "--threads": threads}
        unused = {name: value is not None for name, value in (given | {"--exact": exact}).items()} | wanted.chosen
        for name, there in unused.items():
            if there:
                raise SpikeplugError(f"--from measures nothing, so {name} has no effect: leave one of them out.")
        files = report.read(source)
    read = [("MODEL", model), ("--exact", exact), ("--text", text), *wanted.files]
    _check_outputs(folder, page, json, csv, read)
    if source is not None or (out / HEADER).is_file():
        _check_rows(report.read(folder))
    if source is None:
        files = _measured(found, original, settings, out, threads, dtype, wanted.chosen)
    writes: list[Callable[[], object]] = [partial(write_text, report.render(files.header, files.rows), page, "--html")]
    if json is not None:
        writes.append(partial(write_record, report.make_record(files.header, files.rows), json))
    if csv is not None:
        writes.append(partial(report.write_tables, files.header, files.rows, csv))
    sections = report.sections_of(files.header, files.rows)
    parts = [part for section in sections for part in _shown(section)]
    deliver(writes, [*parts, f"{len(files.rows)} rows; the page is {page}"])


def _shown(section: Section) -> Iterator[RenderableType]:
    """Yield what the terminal shows of a section: its lead, and the tables that the page shows without a click."""
    yield f"{section.title}: {section.lead}"
    for part in section.parts:
        if isinstance(part, Table) and part.open:
            first, *others = part.columns
            table = titled(part.title, first, numbers=others)
            for row in part.rows:
                table.add_row(*map(_cell, row))
            yield table


def _cell(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else number(value)


def _check_rows(files: report.RunFolder) -> None:
    """Raise SpikeplugError if rows that were read, each right by itself, cannot be drawn together."""
    try:
        report.render(files.header, files.rows)
    except SpikeplugError:
        raise
    except Exception as error:  # rows that somebody changed can raise anything
        raise SpikeplugError(
            f"the rows of {files.path} do not fit together ({first_line(error)}): give another folder."
        ) from error


def _check_outputs(
    folder: Path, page: Path, json: Path | None, csv: Path | None, inputs: list[tuple[str, Path | str | None]]
) -> None:
    for option, path in (("--html", page), ("--json", json), ("--csv", csv)):
        if path is not None and path.resolve() in {(folder / name).resolve() for name in (HEADER, ROWS, LOCK)}:
            raise SpikeplugError(f"{option} is {path}, a file of the run itself: give another {option} path.")
    table = None if csv is None else csv / "tables.csv"  # some file in the folder
    check_outputs({"--html": page, "--json": json, "--csv": table}, inputs)


def _measured(
    source: Source,
    original: Source | None,
    settings: report.Settings,
    out: Path,
    threads: int | None,
    dtype: str,
    chosen: Mapping[str, bool],
) -> report.RunFolder:
    console = status_console()
    with console.status(f"Loading {source.name}"):
        set_threads(threads)
        language_model, tokenizer, spiking = load_exact(source, original, dtype, chosen)
    facts = model_facts(language_model, source.name)
    try:
        with shown_on(console) as progress:
            return report.run(language_model, tokenizer, settings, out, facts, progress, spiking)
    except KeyboardInterrupt:
        print(f"spikeplug: what was measured is in {out}; the same command resumes it", file=sys.stderr)
        raise
