"""Simulate the Verilog of circuits in Icarus, through cocotb, and compare it with the closed form.

`python benchmarks/verilog.py [--only NAME] [--cases 100000] [--seconds 900] [--write]` tries every operand of the
divisions, and random operands of the others. A design that would take longer than --seconds gets as many cases as fit,
by a first run on a hundredth of them. --write puts the rows into docs/verilog.md; those of other designs stay there.
cocotb lives in an environment of its own: `make verilog`.
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
        start = time.perf_counter()
        _run(module, *design.cases(cases // 100))
        cases = min(cases, int(cases / 100 * seconds / (time.perf_counter() - start)))
    return module, _run(module, *design.cases(cases))


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
        (folder / "ports.json").write_text(json.dumps({"module": module.name, **ports}), encoding="ascii")
        ran = subprocess.run([PYTHON, BENCH, folder], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"{module.name}: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
        found = int((folder / "tried.txt").read_text(encoding="ascii"))
    assert found == len(lines)
    return found


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
                _write(design.name, row)


def _write(name: str, row: str) -> None:
    """Put the row of a design into the table of the page."""
    found = [line for line in pages.read("docs/verilog.md", "simulated").splitlines() if line.startswith("| `")]
    rows = {line.split("`")[1]: line for line in found} | {name: row}
    heading = ["| circuit | what it computes | cases, all equal | clock cycles each |", "|---|---|---:|---:|"]
    table = [*heading, *(rows[design.name] for design in DESIGNS if design.name in rows)]
    pages.write("docs/verilog.md", "simulated", "\n".join(table))


if __name__ == "__main__":
    main()
