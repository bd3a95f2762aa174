"""Run a module of Verilog in Icarus, on many operands, in a plain test bench."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from spikeplug.hardware.verilog import Module, Vector


def words(vectors: Mapping[str, Vector], values: Mapping[str, Tensor]) -> list[str]:
    """Return a hexadecimal word per case: the ports side by side, the first in the highest bits."""
    rows = zip(*([vector.word(row) for row in values[name].tolist()] for name, vector in vectors.items()), strict=True)
    found = []
    for row in rows:
        word = 0
        for port, vector in zip(row, vectors.values(), strict=True):
            word = word << vector.bits | port
        found.append(f"{word:x}")
    return found


def integers(vectors: Mapping[str, Vector], found: list[str]) -> dict[str, Tensor]:
    """Return the integers int64 (case, element) of each port; the inverse of `words`."""
    rows: dict[str, list[list[int]]] = {name: [] for name in vectors}
    for text in found:
        word = int(text, 16)
        for name, vector in reversed(vectors.items()):
            rows[name].append(vector.integers(word & (1 << vector.bits) - 1))
            word >>= vector.bits
    return {name: torch.tensor(rows[name]) for name in rows}


def simulate(module: Module, operands: Mapping[str, Tensor], folder: Path) -> tuple[dict[str, Tensor], set[int]]:
    """Return the outputs by name, int64 (case, element), and the clock edges that the cases took."""
    cases = words(module.inputs, {name: x.flatten(1) for name, x in operands.items()})
    (folder / "cases.hex").write_text("\n".join(cases) + "\n", encoding="ascii")
    (folder / "module.v").write_text(module.text, encoding="utf-8")
    (folder / "bench.v").write_text(_bench(module, len(cases)), encoding="ascii")
    lines = [line.split() for line in run(["bench.v", "module.v"], folder)]
    return integers(module.outputs, [word for word, _ in lines]), {int(edges) for _, edges in lines}


def run(sources: list[str], folder: Path) -> list[str]:
    """Compile the sources in a folder, run them, and return the lines that they print. Warnings are errors."""
    command = ["iverilog", "-g2001", "-Wall", "-Wno-timescale", "-o", "bench.vvp", *sources]
    compiled = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert not compiled.returncode, compiled.stderr
    assert not compiled.stderr, compiled.stderr
    return subprocess.run(
        ["vvp", "-n", "bench.vvp"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def _bench(module: Module, cases: int) -> str:
    given, got = (sum(v.bits for v in vectors.values()) for vectors in (module.inputs, module.outputs))
    ports = [
        (v.name, name)
        for vectors, name in ((module.inputs, "given"), (module.outputs, "got"))
        for v in vectors.values()
    ]
    wires = [f"wire [{v.bits - 1}:0] {v.name};" for v in (*module.inputs.values(), *module.outputs.values())]
    inputs = ", ".join(v.name for v in module.inputs.values())
    outputs = ", ".join(v.name for v in module.outputs.values())
    connected = ", ".join(f".{name}({name})" for name, _ in ports)
    return f"""module bench;
reg clk, rst, start;
wire done;
reg [{given - 1}:0] cases [0:{cases - 1}];
reg [{given - 1}:0] given;
wire [{got - 1}:0] got = {{{outputs}}};
{chr(10).join(wires)}
assign {{{inputs}}} = given;
{module.name} dut(.clk(clk), .rst(rst), .start(start), .done(done), {connected});
integer place, edges;
initial begin
    $readmemh("cases.hex", cases);
    clk = 0; rst = 1; start = 0;
    #1 clk = 1; #1 clk = 0; rst = 0;
    for (place = 0; place < {cases}; place = place + 1) begin
        given = cases[place]; start = 1;
        #1 clk = 1; #1 clk = 0; start = 0;
        edges = 0;
        while (!done) begin
            #1 clk = 1; #1 clk = 0; edges = edges + 1;
        end
        $display("%h %0d", got, edges);
    end
    $finish;
end
endmodule
"""
