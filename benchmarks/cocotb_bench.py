"""Try a module on its cases in Icarus, through cocotb: `python cocotb_bench.py FOLDER`, in an environment with cocotb.

FOLDER holds module.v, ports.json (the name of the module, of its inputs and of its outputs) and cases.txt: a line per
case, with the operands and the outputs that are expected, a hexadecimal number per port.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge


@cocotb.test()
async def every_case(dut: Any) -> None:
    """Start the module on every case, and compare all outputs when it is done."""
    folder = Path(os.environ["SPIKEPLUG_BENCH"])
    ports = json.loads((folder / "ports.json").read_text(encoding="utf-8"))
    inputs, outputs = ([getattr(dut, name) for name in ports[side]] for side in ("inputs", "outputs"))
    dut.rst.value, dut.start.value = 1, 0
    Clock(dut.clk, 2, unit="step").start()
    falls, done, tried = FallingEdge(dut.clk), RisingEdge(dut.done), 0
    await falls
    await falls
    dut.rst.value = 0
    with (folder / "cases.txt").open(encoding="ascii") as lines:
        for line in lines:
            words = [int(word, 16) for word in line.split()]
            for port, word in zip(inputs, words[: len(inputs)], strict=True):
                port.value = word
            dut.start.value = 1
            await falls
            dut.start.value = 0
            await done
            await falls
            found = [int(port.value) for port in outputs]
            assert found == words[len(inputs) :], f"case {tried}: {line.strip()}, not {[f'{x:x}' for x in found]}"
            tried += 1
    (folder / "tried.txt").write_text(str(tried), encoding="ascii")


def main(folder: Path) -> None:
    """Build and run the test bench. Exit with 1 if a case differs."""
    from cocotb_tools.runner import get_results, get_runner

    name = json.loads((folder / "ports.json").read_text(encoding="utf-8"))["module"]
    runner = get_runner("icarus")
    runner.build(sources=[folder / "module.v"], hdl_toplevel=name, build_dir=folder / "build", build_args=["-g2001"])
    found = runner.test(
        test_module=Path(__file__).stem,
        hdl_toplevel=name,
        build_dir=folder / "build",
        test_dir=folder,
        extra_env={"SPIKEPLUG_BENCH": str(folder), "PYTHONPATH": str(Path(__file__).parent)},
    )
    tests, failed = get_results(found)
    sys.exit(1 if failed or not tests else 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
