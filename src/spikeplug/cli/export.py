"""`spikeplug export`: an operator as a circuit, in a file of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeplug.cli.output import deliver, status_console
from spikeplug.measurement.files import check_outputs
from spikeplug.presets import PRESETS, read_preset


def export_command(
    operator: Annotated[str, typer.Argument(help="Name of an operator, such as softmax.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    elements: Annotated[int, typer.Option(help="Numbers of the vector.")] = 1,
    numerics: Annotated[
        str, typer.Option(metavar="NAME|FILE", help=f"{', '.join(PRESETS)}, or a JSON or TOML file.")
    ] = "default",
    form: Annotated[str, typer.Option("--format", help="verilog.")] = "verilog",
) -> None:
    """Write the circuit of an operator, between its encoder and its decoder, to a file."""
    chosen = read_preset(numerics)
    check_outputs({"FILE": file}, [("--numerics", numerics)])
    with status_console().status("Building"):
        from spikeplug.hardware.export import export
        from spikeplug.operators.recording import circuit_of

        line = export(circuit_of(operator, elements, chosen.numerics, chosen.realisation), file, form)
    deliver([], [line])
