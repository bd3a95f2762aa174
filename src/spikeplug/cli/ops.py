"""`spikeplug ops`: every operator and primitive against float64, beside baselines, and the bounds put to the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeplug.errors import SpikeplugError

# torch takes seconds to import: it is imported where it is used, so that --help is quick.
if TYPE_CHECKING:
    from rich.console import Console

    from spikeplug.evidence import Study

#: What --quick takes in place of the defaults.
_QUICK: dict[str, Any] = {"elements": 1 << 12, "candidates": 24, "steps": 30, "grid": 1 << 13}
_QUICK_DIMENSIONS, _QUICK_DISTRIBUTIONS = "8,256", "gaussian,adversarial"


def ops_command(
    operators: Annotated[str, typer.Option(help='Names, or "primitives". Default: all.')] = "all",
    dimensions: Annotated[str | None, typer.Option(help="Vector lengths. Default: 8,64,256,1024,8192.")] = None,
    distributions: Annotated[
        str | None, typer.Option(help="Of gaussian, activations (recorded from SmolLM2), adversarial. Default: all.")
    ] = None,
    preset: Annotated[str, typer.Option(help="default, narrow, paper, or a JSON or TOML file.")] = "default",
    bounds: Annotated[bool, typer.Option("--bounds", help="Search for the worst error; compare with bounds.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer inputs; dimensions 8,256; no recorded activations unless asked for.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of the inputs.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads. Default: torch's choice.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the measurements to this file.")] = None,
) -> None:
    """Measure every spiking operator against float64, beside its baselines."""
    start = time.perf_counter()
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("Starting"):
        import torch

        from spikeplug.evaluation.record import check_writable, write_record, write_text
        from spikeplug.evidence import SUBJECTS, Settings, make_study_record, study
        from spikeplug.evidence.record import measurements_csv
        from spikeplug.evidence.results import PRIMITIVES
        from spikeplug.presets import read_preset

        chosen: dict[str, Any] = dict(_QUICK) if quick else {}
        if dimensions is not None or quick:
            chosen["dimensions"] = _lengths(_QUICK_DIMENSIONS if dimensions is None else dimensions)
        if distributions is not None or quick:
            chosen["distributions"] = _names(_QUICK_DISTRIBUTIONS if distributions is None else distributions)
        names = (*SUBJECTS, PRIMITIVES) if operators == "all" else _names(operators)
        settings = Settings(numerics=read_preset(preset).numerics, operators=names, bounds=bounds, seed=seed, **chosen)
        for path in (json, csv):
            if path is not None:
                check_writable(path, "--json" if path is json else "--csv")
        if threads is not None:
            torch.set_num_threads(threads)
    with _progress(console) as progress:
        found = study(settings, progress=progress)
    _show(preset, found, time.perf_counter() - start)
    if csv is not None:
        write_text(measurements_csv(found), csv, "--csv")
    if json is not None:
        arguments = {
            "operators": list(settings.operators),
            "dimensions": list(settings.dimensions),
            "distributions": list(settings.distributions),
            "preset": preset,
            "bounds": bounds,
            "quick": quick,
            "elements": settings.elements,
            "seed": seed,
            "threads": threads,
        }
        write_record(make_study_record(found, settings.numerics, arguments), json)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SpikeplugError(f"dimensions is {text!r}; give whole numbers with commas between, e.g. 8,256.") from error


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the time left on a terminal; elsewhere a line now and then, with it."""
    if not console.is_terminal:
        start = told = 0.0

        def report(stage: str, done: int, total: int) -> None:
            nonlocal start, told
            now = time.perf_counter()
            if done == 0:
                start = now  # of measuring, or of the recording before it
            elif now - told < 5:
                return
            left = f", about {(now - start) / done * (total - done):.0f} s left" if done else ""
            console.print(f"{stage} ({done} of {total}{left})", highlight=False)
            told = now

        yield report
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, speed_estimate_period=60.0) as bar:
        task = bar.add_task("", total=None)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)


def _show(preset: str, found: Study, seconds: float) -> None:
    from rich.console import Console

    from spikeplug.evidence.table import tables

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(180, console.width))
    console.print(f"Operators of the preset {preset}", markup=False, style="bold")
    for table in tables(found):
        console.print(table)
    console.print(f"Total time {seconds:.0f} s.")
