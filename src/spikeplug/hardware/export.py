"""List the formats that a circuit can be exported to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spikeplug.circuit import Circuit
from spikeplug.errors import SpikeplugError, shown
from spikeplug.hardware import nir
from spikeplug.hardware.verilog import verilog
from spikeplug.measurement.files import write_text


def export(circuit: Circuit, path: Path, form: str | None = None, **options: Any) -> str:
    """Write a circuit to a file in one of `FORMATS`, whole or not at all, and return a line that says what it is.

    form     the format; None: the one that the name of the file ends with
    options  those of `nir.to_nir`

    Errors: SpikeplugError for an unknown format, a circuit that the format cannot hold, options that it does not have,
    and a path that cannot be written.
    """
    if form is None:
        form = ENDINGS.get(path.suffix)
        if form is None:
            endings = " or ".join(ENDINGS)
            raise SpikeplugError(f"{path} does not end with {endings}: say which format it is to have.")
    if form not in FORMATS:
        raise SpikeplugError(f"unknown format {shown(form)}: choose one of {', '.join(FORMATS)}.")
    if options and form != "nir":
        raise SpikeplugError(f"the format {form} takes no {' or '.join(options)}: leave it out, or choose nir.")
    return FORMATS[form](circuit, path, **options)


def _verilog(circuit: Circuit, path: Path) -> str:
    module = verilog(circuit)
    write_text(module.text, path, "FILE")
    return f"{circuit}, as the Verilog module {module.name}: {module.cycles} clock cycles from start to done."


def _nir(circuit: Circuit, path: Path, **options: Any) -> str:
    graph = nir.to_nir(circuit, **options)
    nir.write(graph, path)
    kinds = ", ".join(type(node).__name__ for node in graph.nodes.values())
    return f"{circuit}, as a NIR graph of {len(graph.nodes)} nodes: {kinds}."


#: Format -> write a circuit to a file, and return a line that says what it is.
FORMATS: dict[str, Callable[..., str]] = {"verilog": _verilog, "nir": _nir}
ENDINGS = {".v": "verilog", ".nir": "nir"}
