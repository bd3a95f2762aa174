"""Time SpikingJelly's temporal-difference operators: `python benchmarks/spikingjelly_operators.py [FILE]`.

Runs in an environment of its own, without spikeplug (`make bench-spikingjelly`). The inputs of T = 32 time steps add up
to x. The ratio is the time of all steps over the time of torch's op on x once: both give one output. SpikingJelly runs
an operator in two ways: the whole sequence at once ("m", which holds all T steps in memory) and step by step ("s").
Shapes, rounds and medians are those of `spikeplug bench` (src/spikeplug/bench/timing.py). A ratio is reported only if
the steps' outputs add up to torch's output within 1e-4 of its largest magnitude.

Options: --quick (a few rows), --runs N, --threads N.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F  # noqa: N812
from spikingjelly.activation_based.ann2snn import operators as td
from torch import Tensor, nn

STEPS = 32
TOLERANCE = 1e-4
#: (rows, width), as in src/spikeplug/bench/cases.py.
SHAPES = {
    "softmax": ((9 * 512, 2048), (32 * 128, 2048)),
    "silu": ((2048, 1536), (512, 14336)),
    "gelu": ((2048, 1536), (512, 14336)),
    "rms_norm": ((2048, 576), (512, 4096)),
    "layer_norm": ((2048, 576), (512, 4096)),
}


def timing() -> ModuleType:
    """Return the module that `spikeplug bench` times with, which imports nothing of spikeplug."""
    path = Path(__file__).parents[1] / "src" / "spikeplug" / "bench" / "timing.py"
    spec = importlib.util.spec_from_file_location("timing", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["timing"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def operator(name: str, width: int) -> tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]:
    """Return a function that makes SpikingJelly's module, and torch's op."""
    weight, bias = torch.ones(width), torch.zeros(width)
    ways: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
        "softmax": (lambda: td.TDSoftmax(dim=-1), lambda x: torch.softmax(x, -1)),
        "silu": (td.TDSiLU, F.silu),
        "gelu": (td.TDGELU, F.gelu),
        "rms_norm": (
            lambda: td.TDRMSNorm(width, eps=1e-5),
            lambda x: F.rms_norm(x, (width,), weight, 1e-5),
        ),
        "layer_norm": (
            lambda: td.TDLayerNorm(width, eps=1e-5),
            lambda x: F.layer_norm(x, (width,), weight, bias, 1e-5),
        ),
    }
    return ways[name]


def measured(name: str, shape: tuple[int, int], runs: int) -> list[dict[str, object]]:
    """Return a record for each way to run the operator; it has a ratio if the steps add up to torch's output."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * (3 if name == "softmax" else 1)
    sequence = (x / STEPS).expand(STEPS, *shape).contiguous()
    make, exact = operator(name, shape[1])
    module = make().eval()

    def whole() -> Tensor:
        module.reset()
        module.step_mode = "m"
        output: Tensor = module(sequence)
        return output

    def steps() -> Tensor:
        module.reset()
        module.step_mode = "s"
        total = torch.zeros_like(x)
        for current in sequence:
            total += module(current)
        return total

    wanted = exact(x)
    sums = {"m": whole().sum(0), "s": steps()}
    agree = {
        mode: float((found - wanted).abs().max() / wanted.abs().max()) <= TOLERANCE for mode, found in sums.items()
    }
    del sums
    arms = {"exact": lambda: exact(x), "copy": x.clone, "m": whole, "s": steps}
    found = timing().interleaved(arms, runs, bases=tuple(arms))
    rows = []
    for mode, right in agree.items():
        row: dict[str, object] = {"operator": name, "shape": list(shape), "steps": STEPS, "mode": mode, "agrees": right}
        if right:
            low, middle, high = found.ratio(mode, "exact")
            row |= {
                "rounds": found.count(mode),
                "seconds": found.seconds(mode),
                "times_exact": middle,
                "times_exact_low": low,
                "times_exact_high": high,
                "times_copy": found.ratio(mode, "copy")[1],
            }
        rows.append(row)
    return rows


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(description="Time SpikingJelly's temporal-difference operators.")
    parser.add_argument("file", type=Path, nargs="?", default=Path("results/bench-spikingjelly.json"))
    parser.add_argument("--quick", action="store_true", help="64 rows of each")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    rows = []
    for name, shapes in SHAPES.items():
        for height, width in shapes:
            print(f"{name} {height}x{width}", file=sys.stderr)
            rows += measured(name, (64 if given.quick else height, width), given.runs)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "spikingjelly")}
    machine = {**versions, "python": platform.python_version(), "platform": platform.platform()}
    record = {"environment": {**machine, "threads": torch.get_num_threads()}, "quick": given.quick, "rows": rows}
    given.file.parent.mkdir(parents=True, exist_ok=True)
    given.file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        ratio = f"{row['times_exact']:.1f} times torch's op" if row["agrees"] else "DOES NOT AGREE, no figure"
        print(f"{row['operator']:<10} {row['shape']} mode {row['mode']}: {ratio}")
    return 0 if all(row["agrees"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
