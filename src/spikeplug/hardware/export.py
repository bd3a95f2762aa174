"""List the formats that a circuit can be exported to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spikeplug.circuit import Circuit
from spikeplug.errors import SpikeplugError, shown
from spikeplug.hardware.verilog import verilog
from spikeplug.measurement.files import write_text


def export(circuit: Circuit, path: Path, form: str) -> str:
    """Write a circuit to a file in one of `FORMATS`, whole or not at all, and return a line that says what it is.

    Errors: SpikeplugError for an unknown format, a circuit that the format cannot hold, and a path that cannot be
    written.
    """
    if form not in FORMATS:
        raise SpikeplugError(f"unknown format {shown(form)}: choose one of {', '.join(FORMATS)}.")
    return FORMATS[form](circuit, path)


def _verilog(circuit: Circuit, path: Path) -> str:
    module = verilog(circuit)
    write_text(module.text, path, "FILE")
    return f"{circuit}, as the Verilog module {module.name}: {module.cycles} clock cycles from start to done."


#: Format -> write a circuit to a file, and return a line that says what it is.
FORMATS: dict[str, Callable[[Circuit, Path], str]] = {"verilog": _verilog}
