"""`spikeplug eval`: exact and converted side by side, on text and multiple choice."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from spikeplug import evaluation
from spikeplug.cli.options import (
    Bits,
    Calibration,
    CalibrationTokens,
    Dtype,
    Exclude,
    Json,
    Model,
    Operators,
    PresetOption,
    RecipeOption,
    Text,
    Threads,
    chosen_of,
    lengths_in,
    names_in,
    set_threads,
)
from spikeplug.cli.output import deliver, status_console
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.files import check_outputs
from spikeplug.measurement.items import read_questions
from spikeplug.measurement.loading import check_dtype, find_source, is_whole, load, model_facts
from spikeplug.measurement.processes import is_first_process, joined, threads_each
from spikeplug.measurement.recipes import check_saved, load_pair, read_recipe, saved_numerics
from spikeplug.measurement.record import write_record
from spikeplug.measurement.table import headline
from spikeplug.measurement.text import read_text
from spikeplug.presets import read_preset
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
    recipe: RecipeOption = "operators",
    bits: Bits = None,
    calibration: Calibration = None,
    calibration_tokens: CalibrationTokens = None,
    exact: Annotated[
        str | None, typer.Option(metavar="ORIGINAL", help="The float model that a whole spiking MODEL was made from.")
    ] = None,
    json: Json = None,
) -> None:
    """Compare a language model with its spiking self, side by side on the same tokens."""
    start = time.perf_counter()
    leads = is_first_process()  # under torchrun one process prints and writes
    numerics = read_preset(preset).numerics
    check_dtype(dtype)
    wanted = read_recipe(recipe, bits, calibration, calibration_tokens)
    wanted.check(dtype, names_in(operators))
    settings = evaluation.Settings(
        numerics=numerics,
        recipe=wanted,
        operators=names_in(operators),
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
        read = [("MODEL", model), ("--preset", preset), ("--text", text), *(("--tasks", path) for path in tasks or ())]
        read += [("--exact", exact), ("--calibration", None if wanted.text is None else calibration)]
        check_outputs({"--json": json}, read)
    console = status_console(quiet=not leads)
    with console.status(f"Loading {source.name}"):
        set_threads(threads or threads_each())
        spiking, saved_whole = None, is_whole(source)
        if saved_whole:
            check_saved(
                source.name, chosen_of(recipe, bits, preset, operators, exclude, calibration, calibration_tokens)
            )
        if saved_whole and original is None:
            raise SpikeplugError(
                f"{source.name} is a whole spiking model without float weights: add --exact with the float model that "
                "it was made from."
            )
        if saved_whole and original is not None:
            spiking, language_model, tokenizer = load_pair(source, original, dtype)
            numerics = saved_numerics(spiking)
        elif original is not None:
            raise SpikeplugError(
                f"{source.name} has float weights of its own: leave --exact out; it goes with a folder that `spikeplug "
                "convert --recipe whole` wrote."
            )
        else:
            language_model, tokenizer = load(source, dtype)
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
        **({"recipe": "whole", "bits": None} if saved_whole else wanted.arguments()),
        "calibration": calibration,
        "calibration_tokens": calibration_tokens,
        "preset": preset,
        "operators": None if settings.operators is None else list(settings.operators),
        "exclude": exclude,
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
        title += f", {record['arguments']['bits']} bits"
    peak = found.peak_memory
    memory = [] if peak is None else [f"Peak memory {peak / 1e6:.0f} MB, of both models together."]
    deliver([partial(write_record, record, json)] if json else [], [title, *tables(found), *memory, total])
