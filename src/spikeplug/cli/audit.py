"""`spikeplug audit`: what a model executes in floating point, before and after conversion."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from spikeplug.cli.options import Exclude, Json, Model, Operators, PresetOption, names_in
from spikeplug.cli.output import deliver, status_console
from spikeplug.measurement.files import check_outputs
from spikeplug.measurement.loading import find_source, load_model, model_facts
from spikeplug.measurement.record import write_record
from spikeplug.presets import read_preset

# torch and transformers take seconds to import: what needs them is imported once the arguments are checked.
if TYPE_CHECKING:
    from rich.console import RenderableType

    from spikeplug.conversion import Audit
    from spikeplug.evaluation import Inspection


def audit_command(
    model: Model = None,
    preset: PresetOption = "default",
    operators: Operators = "all",
    exclude: Exclude = None,
    tokens: Annotated[int, typer.Option(min=1, help="Length of the made-up text, for models that read text.")] = 64,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything was left.")] = False,
    json: Json = None,
) -> None:
    """Name every float nonlinearity a model executes, exact and converted."""
    numerics, names = read_preset(preset).numerics, names_in(operators)
    source = find_source(model)
    check_outputs({"--json": json}, [("MODEL", model), ("--preset", preset)])
    status = status_console()
    with status.status(f"Loading {source.name}"):
        from spikeplug.conversion.check import check_request
        from spikeplug.evaluation import inspect_model

        check_request(names, exclude)
        loaded = load_model(source)
    with status.status("Running it exact and converted"):
        found = inspect_model(loaded, numerics, operators=names, exclude=exclude, tokens=tokens)
    facts = model_facts(loaded, source.name)
    record = {name: facts[name] for name in ("name", "type", "parameters")} | {"class": type(loaded).__name__}
    arguments = {
        "model": model,
        "preset": preset,
        "operators": None if names is None else list(names),
        "exclude": exclude,
        "tokens": tokens,
        "strict": strict,
    }
    writes = [partial(write_record, found.to_record(numerics, arguments, record), json)] if json else []
    title = f"{source.name} ({type(loaded).__name__}, {facts['parameters'] / 1e6:.1f} M parameters)"
    deliver(writes, _parts(title, found))
    if strict and found.converted.entries:
        raise typer.Exit(1)


def _parts(title: str, found: Inspection) -> list[RenderableType]:
    inputs = ", ".join(f"{name} {shape}" for name, shape in found.inputs.items())
    parts: list[RenderableType] = [title, f"One forward of {inputs}"]
    parts += [_audit_part("Before: float nonlinearities executed", found.exact), found.report.table()]
    parts.append(_audit_part("After: float nonlinearities executed", found.converted))
    if found.error is not None:
        parts.append(f"Largest change of the output: {found.error:.1e} of its largest value.")
    return parts


def _audit_part(title: str, audit: Audit) -> RenderableType:
    if not audit.entries:
        return f"{title}: none."
    table = audit.table()
    table.title = title
    return table
