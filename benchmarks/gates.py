"""Count the gates of circuits, and of floating-point units beside them, with yosys on an open cell library.

`python benchmarks/gates.py [--only NAME] [--write]`; --write puts the table into docs/verilog.md. Needs yosys and the
cells of osu018 (180 nm): `make logic`. A gate equivalent (GE) is the area of a NAND of two inputs, NAND2X1.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import floats
import pages
from designs import DESIGNS

from spikeplug.hardware.verilog import verilog

LIBRARY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")


@dataclass(frozen=True)
class Gates:
    """Hold what yosys counts.

    area  in the units of the library
    unit  area of a NAND of two inputs
    """

    cells: int
    flip_flops: int
    area: float
    unit: float

    @property
    def equivalents(self) -> float:
        """Return the gate equivalents."""
        return self.area / self.unit


def counted(text: str, name: str) -> Gates:
    """Return the gates of a module. Raises SystemExit if a tool is missing, or does not take the module."""
    if shutil.which("yosys") is None or not LIBRARY.exists():
        raise SystemExit("yosys or the cells of osu018 are missing: install them by `make logic`.")
    with tempfile.TemporaryDirectory() as folder:
        source, found = Path(folder) / "module.v", Path(folder) / "stat.txt"
        source.write_text(text, encoding="ascii")
        script = (
            f"read_verilog {source}; synth -flatten -top {name}; dfflibmap -liberty {LIBRARY}; abc -liberty {LIBRARY}; "
            f"opt_clean; tee -o {found} stat -liberty {LIBRARY}"
        )
        ran = subprocess.run(["yosys", "-q", "-p", script], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"{name}: {ran.stderr[-2000:]}")
        stat = found.read_text(encoding="utf-8")
    used = {cell: int(count) for cell, count in re.findall(r"^ +([A-Z]+\w*X\d+) +(\d+)$", stat, re.MULTILINE)}
    total = int(_only(r"Number of cells: +(\d+)", stat))
    assert total == sum(used.values()), "a cell that the library does not have"
    unit = _only(r"cell \(NAND2X1\) \{.*?area : ([\d.]+)", LIBRARY.read_text(encoding="utf-8"))
    flip_flops = sum(count for cell, count in used.items() if cell.startswith("DFF"))
    return Gates(total, flip_flops, float(_only(r"Chip area for module .*: ([\d.]+)", stat)), float(unit))


def _only(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    assert found is not None, pattern
    return found[1]


#: Floating-point units: name, words, text, cycles.
FLOATS: tuple[tuple[str, str, str, int], ...] = (
    ("float16_divide", "float16 divider, correctly rounded", floats.divider(5, 10, "float16_divide"), 13),
    ("float32_divide", "float32 divider, correctly rounded", floats.divider(8, 23, "float32_divide"), 26),
    ("float16_exp", "float16 exp, less than one ULP, combinational", floats.exponential("float16_exp"), 1),
)


def main() -> None:
    """Count all, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="the name of one module")
    parser.add_argument("--write", action="store_true", help="write the table into docs/verilog.md")
    given = parser.parse_args()
    rows = ["| module | | cycles | cells | flip-flops | area | GE |", "|---|---|---:|---:|---:|---:|---:|"]
    wanted = [d for d in DESIGNS if given.only in (None, d.name)]
    circuits = ((d.name, d.words, module.text, module.cycles) for d in wanted for module in [verilog(d.build())])
    units = (unit for unit in FLOATS if given.only in (None, unit[0]))
    for name, words, text, cycles in (*circuits, *units):
        found = counted(text, name)
        rows.append(
            f"| `{name}` | {words} | {cycles} | {found.cells:,} | {found.flip_flops:,} | {found.area:,.0f} | "
            f"{found.equivalents:,.0f} |"
        )
        print(rows[-1], flush=True)
    if given.write:
        version = subprocess.run(["yosys", "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
        pages.write("docs/verilog.md", "gates", "\n".join([f"yosys {version}, osu018:", "", *rows]))


if __name__ == "__main__":
    main()
