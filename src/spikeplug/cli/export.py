"""`spikeplug export`: write a circuit as a file for other people's simulators, whole or not at all."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from spikeplug.cli.options import PresetOption
from spikeplug.cli.output import deliver, status_console
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.files import check_outputs
from spikeplug.presets import read_preset


def export_command(
    name: Annotated[str, typer.Argument(help="An operator, such as softmax; with --bits a verb, such as divide.")],
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    bits: Annotated[int | None, typer.Option(help="Width of a verb's operands.")] = None,
    neurons: Annotated[str, typer.Option(help="Of a verb: restoring or ordered.")] = "restoring",
    elements: Annotated[int, typer.Option(help="Numbers of an operator's vector.")] = 1,
    preset: PresetOption = "default",
    population: Annotated[str | None, typer.Option(help="The stage to write, if there are several.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPERAND=INTEGER", help="An operand that sets a threshold or weight."),
    ] = None,
    reset: Annotated[
        str, typer.Option(help="A reset by subtraction: a synapse, or in the metadata of the neuron.")
    ] = "synapse",
    format: Annotated[str, typer.Option(help="nir.")] = "nir",
) -> None:
    """Write the circuit of an operator or verb for other simulators."""
    if format != "nir":
        raise SpikeplugError(f"unknown format {format!r}: choose nir.")
    chosen = read_preset(preset)
    parameters = dict(_parameter(text) for text in parameter or ())
    check_outputs({"FILE": file}, [("--preset", preset)])
    with status_console().status("Recording"):
        from spikeplug.hardware.nir import to_nir, write
        from spikeplug.hardware.verbs import circuit_of_verb
        from spikeplug.operators.recording import circuit_of

        circuit = (
            circuit_of(name, elements, chosen.numerics, chosen.realisation)
            if bits is None
            else circuit_of_verb(name, bits, neurons)  # type: ignore[arg-type]
        )
        graph = to_nir(circuit, parameters, population=population, reset=reset)  # type: ignore[arg-type]
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    deliver(
        [partial(write, graph, file)],
        [f"{file}: {circuit.name} as a NIR graph of {len(kinds)} nodes ({', '.join(kinds)})"],
    )


def _parameter(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    try:
        if not (name and equals):
            raise ValueError
        return name, int(value)
    except ValueError:
        raise SpikeplugError(f"--set got {text!r}: give an operand and an integer, such as denominator=5.") from None
