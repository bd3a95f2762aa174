"""`spikeplug export`: an operator or a verb as a circuit, in a file of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spikeplug.cli.output import deliver, status_console
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.files import check_outputs
from spikeplug.presets import PRESETS, read_preset


def export_command(
    operator: Annotated[str, typer.Argument(help="Name of an operator, such as softmax; with --bits, of a verb.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    elements: Annotated[int, typer.Option(help="Numbers of the vector.")] = 1,
    numerics: Annotated[
        str, typer.Option(metavar="NAME|FILE", help=f"{', '.join(PRESETS)}, or a JSON or TOML file.")
    ] = "default",
    bits: Annotated[int | None, typer.Option(help="Width of a verb's operands.")] = None,
    neurons: Annotated[str, typer.Option(help="Of a verb: restoring or ordered.")] = "restoring",
    form: Annotated[
        str | None, typer.Option("--format", help="verilog or nir. Default: the one that FILE ends with, .v or .nir.")
    ] = None,
    population: Annotated[str | None, typer.Option(help="For nir: the stage to write, if there are several.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPERAND=INTEGER", help="For nir: an operand that is a threshold or a weight."),
    ] = None,
    reset: Annotated[
        str | None,
        typer.Option(
            help="For nir: a reset by subtraction is a synapse (the default), or in the metadata of the neuron."
        ),
    ] = None,
) -> None:
    """Write the circuit of an operator, between its encoder and its decoder, to a file."""
    chosen = read_preset(numerics)
    check_outputs({"FILE": file}, [("--numerics", numerics)])
    given = {
        "population": population,
        "parameters": dict(map(_parameter, parameter)) if parameter else None,
        "reset": reset,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with status_console().status("Building"):
        from spikeplug.hardware.export import export
        from spikeplug.hardware.verbs import circuit_of_verb
        from spikeplug.operators.recording import circuit_of

        circuit = (
            circuit_of(operator, elements, chosen.numerics, chosen.realisation)
            if bits is None
            else circuit_of_verb(operator, bits, neurons)  # type: ignore[arg-type]
        )
        line = export(circuit, file, form, **options)
    deliver([], [line])


def _parameter(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    try:
        if not (name and equals):
            raise ValueError
        return name, int(value)
    except ValueError:
        raise SpikeplugError(f"--set got {text!r}: give an operand and an integer, such as denominator=5.") from None
