"""`spikeplug eval`: exact and converted side by side, on text and multiple choice."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from spikeplug import evaluation
from spikeplug.cli.options import (
    AnyRecipeOption,
    Bits,
    Calibration,
    CalibrationTokens,
    Dtype,
    Exact,
    Exclude,
    Json,
    Model,
    Operators,
    PresetOption,
    Text,
    Threads,
    WeightBits,
    lengths_in,
    read_conversion,
    set_threads,
)
from spikeplug.cli.output import deliver, status_console
from spikeplug.measurement.files import check_outputs
from spikeplug.measurement.items import read_questions
from spikeplug.measurement.loading import find_source, model_facts
from spikeplug.measurement.processes import is_first_process, joined, threads_each
from spikeplug.measurement.recipes import load_exact, saved_numerics
from spikeplug.measurement.record import write_record
from spikeplug.measurement.table import headline
from spikeplug.measurement.text import read_text
from spikeplug.progress import shown_on


def evaluate_command(
    model: Model = None,
    preset: PresetOption = "default",
    operators: Operators = "all",
    exclude: Exclude = None,
    context: Annotated[str, typer.Option(help="Window lengths in tokens.")] = "512,2048",
    tokens: Annotated[int, typer.Option(help="Tokens of the text read at each context.")] = 4096,
    text: Text = None,
    choices: Annotated[int, typer.Option(help='Number of "pick the true continuation" items; 0: none.')] = 32,
    tasks: Annotated[
        list[Path] | None, typer.Option(help="JSON lines of query, choices, label. May be given several times.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the items.")] = 0,
    threads: Threads = None,
    dtype: Dtype = "float32",
    recipe: AnyRecipeOption = "operators",
    bits: Bits = None,
    weight_bits: WeightBits = None,
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = None,
    exact: Exact = None,
    json: Json = None,
) -> None:
    """Compare a language model with its spiking self, side by side on the same tokens."""
    start = time.perf_counter()
    leads = is_first_process()  # under torchrun one process prints and writes
    wanted = read_conversion(
        recipe,
        bits,
        preset,
        operators,
        exclude,
        calibration,
        calibration_tokens,
        dtype,
        weight_bits=weight_bits,
        pipelines=True,
    )
    numerics = wanted.preset.numerics
    settings = evaluation.Settings(
        numerics=numerics,
        recipe=wanted.recipe,
        operators=wanted.operators,
        exclude=exclude,
        contexts=lengths_in(context, "context", "512,2048"),
        tokens=tokens,
        choices=choices,
        tasks=tuple((path.stem, read_questions(path)) for path in tasks or ()),
        text=None if text is None else read_text(text),
        seed=seed,
    )
    source, original = find_source(model), None if exact is None else find_source(exact)
    if leads:
        read = [("MODEL", model), ("--exact", exact), ("--text", text), *(("--tasks", path) for path in tasks or ())]
        check_outputs({"--json": json}, [*read, *wanted.files])
    console = status_console(quiet=not leads)
    with console.status(f"Loading {source.name}"):
        set_threads(threads or threads_each())
        language_model, tokenizer, spiking = load_exact(source, original, dtype, wanted.chosen)
    if spiking is not None:
        numerics = saved_numerics(spiking)
    facts = model_facts(language_model, source.name)
    with joined() as processes, shown_on(console) as progress:
        found = evaluation.evaluate(
            language_model, tokenizer, settings, spiking=spiking, progress=progress, processes=processes
        )
    if not leads:
        return
    arguments = {
        "model": model,
        "exact": exact,
        **wanted.record(saved_whole=spiking is not None),
        "context": list(settings.contexts),
        "tokens": tokens,
        "text": None if text is None else str(text),
        "choices": choices,
        "tasks": [str(path) for path in tasks or ()],
        "seed": seed,
        "threads": threads,
        "dtype": dtype,
    }
    record = evaluation.make_record(found, numerics, arguments, facts)
    seconds = time.perf_counter() - start
    total = f"Total time {seconds:.0f} s, of which loading {seconds - found.seconds:.0f} s."
    from spikeplug.evaluation.table import tables

    title = f"{headline(facts)}, recipe {record['arguments']['recipe']}"
    if record["arguments"]["bits"] is not None:
        title += f", {record['arguments']['bits']} bits, weights {record['arguments']['weight_bits']} bits"
    peak = found.peak_memory
    memory = [] if peak is None else [f"Peak memory {peak / 1e6:.0f} MB, of both models together."]
    deliver([partial(write_record, record, json)] if json else [], [title, *tables(found), *memory, total])
