"""`spikeplug ops`: every operator and primitive against float64, compared with baselines, and the bounds searched."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeplug.cli.options import Json, PresetOption, Threads, lengths_in, names_in, set_threads
from spikeplug.cli.output import deliver, status_console
from spikeplug.measurement.files import check_outputs, write_text
from spikeplug.measurement.record import write_record
from spikeplug.presets import read_preset
from spikeplug.progress import shown_on

#: What --quick takes in place of the defaults.
_QUICK: dict[str, Any] = {"elements": 1 << 12, "candidates": 24, "steps": 30, "grid": 1 << 13}
_QUICK_DIMENSIONS, _QUICK_DISTRIBUTIONS = "8,256", "gaussian,adversarial"


def ops_command(
    operators: Annotated[str, typer.Option(help='Names, or "primitives". Default: all.')] = "all",
    dimensions: Annotated[str | None, typer.Option(help="Vector lengths. Default: 8,64,256,1024,8192.")] = None,
    distributions: Annotated[
        str | None,
        typer.Option(help="Out of gaussian, activations (recorded from SmolLM2), adversarial. Default: all."),
    ] = None,
    preset: PresetOption = "default",
    bounds: Annotated[bool, typer.Option("--bounds", help="Search for the worst error; compare with bounds.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer inputs; dimensions 8,256; no recorded activations unless named.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Seed of the inputs.")] = 0,
    threads: Threads = None,
    json: Json = None,
    csv: Annotated[Path | None, typer.Option(help="Write the measurements to this file.")] = None,
) -> None:
    """Measure every spiking operator against float64, compared with its baselines."""
    start = time.perf_counter()
    chosen = read_preset(preset)
    options: dict[str, Any] = dict(_QUICK) if quick else {}
    if dimensions is not None or quick:
        given = _QUICK_DIMENSIONS if dimensions is None else dimensions
        options["dimensions"] = lengths_in(given, "dimensions", "8,256")
    if distributions is not None or quick:
        options["distributions"] = names_in(_QUICK_DISTRIBUTIONS if distributions is None else distributions)
    check_outputs({"--json": json, "--csv": csv}, [("--preset", preset)])
    console = status_console()
    with console.status("Starting"):
        from spikeplug.evidence import SUBJECTS, Settings, make_study_record, study
        from spikeplug.evidence.record import measurements_csv
        from spikeplug.evidence.results import PRIMITIVES
        from spikeplug.evidence.table import tables

        names = names_in(operators) or (*SUBJECTS, PRIMITIVES)
        settings = Settings(
            numerics=chosen.numerics,
            realisation=chosen.realisation,
            operators=names,
            bounds=bounds,
            seed=seed,
            **options,
        )
        set_threads(threads)
    with shown_on(console) as progress:
        found = study(settings, progress=progress)
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
    writes: list[partial[None]] = []
    if csv is not None:
        writes.append(partial(write_text, measurements_csv(found), csv, "--csv"))
    if json is not None:
        record = make_study_record(found, chosen.numerics, chosen.realisation, arguments)
        writes.append(partial(write_record, record, json))
    total = f"Total time {time.perf_counter() - start:.0f} s."
    deliver(writes, [f"Operators of the preset {preset}", *tables(found), total])
