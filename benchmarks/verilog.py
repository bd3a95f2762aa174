"""Simulate the Verilog of circuits in Icarus, through cocotb, and compare it with the closed form.

`python benchmarks/verilog.py [--only NAME] [--cases 100000] [--seconds 900] [--write]` tries every operand of the
divisions, and random operands of the others. A design that would take longer than --seconds gets as many cases as fit,
by first runs on ten and on a hundredth of them. --write puts the rows into docs/verilog.md; those of other designs stay
there. cocotb lives in an environment of its own: `make verilog`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pages
from designs import DESIGNS, Design
from torch import Tensor

from spikeplug.hardware.verilog import Module, verilog

BENCH = Path(__file__).with_name("cocotb_bench.py")
PYTHON = pages.ROOT / ".venv-cocotb" / "bin" / "python"


def tried(design: Design, cases: int, seconds: float) -> tuple[Module, int]:
    """Return the module of a design, and on how many cases it gave the integers of the closed form.

    Raises SystemExit, with the words of the bench, if one differs.
    """
    module = verilog(design.build())
    if design.every is None and cases > 1000:
        few, more = 10, cases // 100
        started, ran = (_timed(module, design, number) for number in (few, more))
        if (ran - started) / (more - few) * cases > seconds:
            cases = int(seconds * (more - few) / (ran - started))
    return module, _run(module, *design.cases(cases))


def _timed(module: Module, design: Design, cases: int) -> float:
    start = time.perf_counter()
    _run(module, *design.cases(cases))
    return time.perf_counter() - start


def _run(module: Module, operands: dict[str, Tensor], outputs: dict[str, Tensor]) -> int:
    vectors = [*((v, operands[name]) for name, v in module.inputs.items())]
    vectors += [*((v, outputs[name]) for name, v in module.outputs.items())]
    columns = ([f"{vector.word(row):x}" for row in x.tolist()] for vector, x in vectors)
    lines = [" ".join(row) for row in zip(*columns, strict=True)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "module.v").write_text(module.text, encoding="ascii")
        (folder / "cases.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
        ports = {side: [v.name for v in getattr(module, side).values()] for side in ("inputs", "outputs")}
        (folder / "ports.json").write_text(json.dumps(ports), encoding="ascii")
        (folder / "bench.v").write_text(_bench(module), encoding="ascii")
        ran = subprocess.run([PYTHON, BENCH, folder], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"{module.name}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
        found = int((folder / "tried.txt").read_text(encoding="ascii"))
    assert found == len(lines)
    return found


def _bench(module: Module) -> str:
    """Return a module that holds `module` and its clock: a clock that cocotb drives would take most of the time."""
    ports = [*module.inputs.values(), *module.outputs.values()]
    connected = "".join(f", .{port.name}({port.name})" for port in ports)
    registers = [f"reg [{port.bits - 1}:0] {port.name};" for port in module.inputs.values()]
    wires = [f"wire [{port.bits - 1}:0] {port.name};" for port in module.outputs.values()]
    lines = [
        "module bench;",
        "reg clk, rst, start;",
        "wire done;",
        *registers,
        *wires,
        f"{module.name} module_(.clk(clk), .rst(rst), .start(start), .done(done){connected});",
        "initial clk = 0;",
        "always #1 clk = !clk;",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try all designs, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000, help="random cases per design")
    parser.add_argument("--seconds", type=float, default=900, help="most seconds per design with random cases")
    parser.add_argument("--only", nargs="+", help="names of designs")
    parser.add_argument("--write", action="store_true", help="write the table into docs/verilog.md")
    given = parser.parse_args()
    if shutil.which("iverilog") is None:
        raise SystemExit("Icarus is missing: install it by `make logic`.")
    if not PYTHON.exists():
        raise SystemExit("cocotb is missing: install it by `make verilog`.")
    for design in DESIGNS:
        if given.only is None or design.name in given.only:
            module, cases = tried(design, given.cases, given.seconds)
            which = "all " if design.every else "random "
            row = f"| `{design.name}` | {design.words} | {which}{cases:,} | {module.cycles} |"
            print(row, flush=True)
            if given.write:
                heading = [
                    "| circuit | what it computes | cases, all equal | clock cycles each |",
                    "|---|---|---:|---:|",
                ]
                pages.write_row("docs/verilog.md", "simulated", heading, row, [d.name for d in DESIGNS])


if __name__ == "__main__":
    main()
