"""Time GPU kernels against torch's exact operators and a plain copy: `python benchmarks/gpu.py [RESULTS.csv]`.

Last comes the prefill of a whole spiking SmolLM2 against the exact model in bfloat16 with torch's attention.
Each figure is the median of interleaved runs, in microseconds. "copy" is the time in which the device copies as many
bytes as the operator must read and write. A timing is reported only if a kernel ran and its output equals the closed
form's bit for bit. For the whole model these are the logits, and the operators without a kernel are named.
"""

from __future__ import annotations

import copy
import csv
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import spikeplug
from spikeplug import Numerics, functional, kernels
from spikeplug.english import english_text
from spikeplug.kernels import registry
from spikeplug.library import OPERATORS
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.text import encode

RUNS = 30
#: Rows of an attention output compared with the closed form, which would take long for all.
COMPARED = 96
#: Tokens of which a whole model's logits are compared, and that are timed.
COMPARED_TOKENS, PREFILLS = 128, (512, 2048)
FIELDS = ("operator", "shape", "dtype", "equal", "spiking_us", "exact_us", "copy_us", "times_exact", "times_copy")


class Row(NamedTuple):
    """One measurement: three timed functions of nothing, and whether the contract holds for this very input."""

    operator: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    equal: Callable[[], bool]
    spiking: Callable[[], Tensor]
    exact: Callable[[], Tensor]
    copied: int  # bytes read and written


def is_equal(spiking: Callable[[], Tensor], closed: Callable[[], Tensor]) -> bool:
    """Return whether a kernel runs, and its output equals the closed form's."""
    names: list[str] = []
    with registry.reported_to(lambda call, kernel, reason: names.append(kernel)):
        output = spiking()
    with kernels.closed_forms():
        return all(names) and torch.equal(output, closed())


def over_rows(shape: tuple[int, ...], dtype: torch.dtype) -> list[Row]:
    """Return operators over the last dimension: memory is read once and written once."""
    x = torch.randn(shape, device="cuda").to(dtype)
    weight, bias = (torch.randn(shape[-1], device="cuda").to(dtype) for _ in range(2))
    cases: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "softmax": (lambda: functional.softmax(x), lambda: torch.softmax(x, -1)),
        "sigmoid": (lambda: functional.sigmoid(x), lambda: torch.sigmoid(x)),
        "silu": (lambda: functional.silu(x), lambda: F.silu(x)),
        "gelu": (lambda: functional.gelu(x), lambda: F.gelu(x)),
        "gelu tanh": (lambda: functional.gelu(x, "tanh"), lambda: F.gelu(x, approximate="tanh")),
        "rms_norm": (
            lambda: functional.rms_norm(x, weight),
            lambda: F.rms_norm(x, (shape[-1],), weight, 1e-6),
        ),
        "layer_norm": (
            lambda: functional.layer_norm(x, weight, bias),
            lambda: F.layer_norm(x, (shape[-1],), weight, bias),
        ),
    }
    copied = 2 * x.numel() * x.element_size()
    return [
        Row(name, shape, dtype, lambda s=spiking: is_equal(s, s), spiking, exact, copied)
        for name, (spiking, exact) in cases.items()
    ]


def linear(rows: int, inputs: int, outputs: int, levels: int, rotation: int = 0) -> Row:
    """Return a linear layer of int8 weights, bfloat16, against F.linear in bfloat16."""
    x = torch.randn(rows, inputs, device="cuda").bfloat16()
    weight = torch.randint(-127, 128, (outputs, inputs), device="cuda", dtype=torch.int8)
    threshold = torch.randint(1 << 15, 1 << 16, (outputs,), device="cuda", dtype=torch.int32)
    unit = torch.tensor(-24, device="cuda", dtype=torch.int32)
    dense = torch.ldexp((weight * threshold[:, None]).float(), unit).bfloat16()

    def spiking() -> Tensor:
        return OPERATORS["linear"](x, weight, threshold, unit, None, levels, 0, rotation)

    def equal() -> bool:
        part = torch.linspace(0, rows - 1, min(rows, COMPARED), device="cuda").long()
        return is_equal(
            lambda: spiking()[part],
            lambda: OPERATORS["linear"](x[part], weight, threshold, unit, None, levels, 0, rotation),
        )

    name = f"linear, {levels} levels" + (f", rotated by {rotation}" if rotation else "")
    copied = 2 * (x.numel() + rows * outputs) + weight.numel()
    return Row(name, (rows, inputs, outputs), x.dtype, equal, spiking, lambda: F.linear(x, dense), copied)


def linear_operators(shape: tuple[int, ...], dtype: torch.dtype) -> list[Row]:
    """Return the other linear operators, on a residual stream's shape."""
    a, b = (torch.randn(shape, device="cuda").to(dtype) for _ in range(2))
    cases: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor], int]] = {
        "add": (lambda: OPERATORS["add"](a, b), lambda: a + b, 3),
        "multiply": (lambda: OPERATORS["multiply"](a, b), lambda: a * b, 3),
        "quantise": (lambda: OPERATORS["quantise"](a, 127, 0, 0, False), lambda: a.clone(), 2),
        "quantise, bytes": (lambda: OPERATORS["quantise"](a, 127, 0, 0, True), lambda: a.to(torch.int8), 2),
    }
    return [
        Row(
            name, shape, dtype, lambda s=spiking: is_equal(s, s), spiking, exact, tensors * a.numel() * a.element_size()
        )
        for name, (spiking, exact, tensors) in cases.items()
    ]


def prefills() -> list[Row]:
    """Return the prefill of a whole spiking SmolLM2, weights rounded to nearest, against bfloat16 with sdpa."""
    model, tokenizer = load(find_source(None))
    exact = copy.deepcopy(model).to("cuda", torch.bfloat16)
    exact.set_attn_implementation("sdpa")
    spikeplug.convert(model, recipe="whole", calibration=False, keep=False)
    model.cuda()
    ids = encode(tokenizer, english_text())[: max(PREFILLS)][None].cuda()

    def run(arm: torch.nn.Module, tokens: int) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = arm(ids[:, :tokens], logits_to_keep=1).logits
        return logits

    def equal() -> bool:
        with torch.inference_mode():
            found = model(ids[:, :COMPARED_TOKENS]).logits
            with kernels.closed_forms():
                return torch.equal(found, model(ids[:, :COMPARED_TOKENS]).logits)

    print(spikeplug.explain(model, ids[:, :COMPARED_TOKENS]))
    copied = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    return [
        Row(
            "whole model, prefill",
            (1, tokens),
            torch.float32,
            equal,
            lambda tokens=tokens: run(model, tokens),
            lambda tokens=tokens: run(exact, tokens),
            copied,
        )
        for tokens in PREFILLS
    ]


def attention(keys: int, heads: int = 16, key_heads: int = 4, channels: int = 128, causal: bool = True) -> Row:
    """Return a prefill, bfloat16, all keys queries, against F.scaled_dot_product_attention's flash backend."""
    query = torch.randn(1, heads, keys, channels, device="cuda").bfloat16()
    key, value = (torch.randn(1, key_heads, keys, channels, device="cuda").bfloat16() for _ in range(2))
    mask = torch.ones(keys, keys, dtype=torch.bool, device="cuda").tril() if causal else None

    def spiking() -> Tensor:
        return functional.attention(query, key, value, mask)

    def equal() -> bool:
        rows = torch.linspace(0, keys - 1, COMPARED, device="cuda").long()
        part = None if mask is None else mask[rows]
        return is_equal(
            lambda: spiking()[:, :, rows], lambda: functional.attention(query[:, :, rows], key, value, part)
        )

    repeated = [x.repeat_interleave(heads // key_heads, 1) for x in (key, value)]

    def exact() -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(query, *repeated, is_causal=causal)

    copied = 2 * (2 * query.numel() + key.numel() + value.numel())
    name = "attention, causal" if causal else "attention"
    return Row(name, tuple(query.shape), query.dtype, equal, spiking, exact, copied)


def measured(row: Row) -> dict[str, object]:
    """Return medians of interleaved runs, or a row without figures if the bits are not equal."""
    result: dict[str, object] = dict.fromkeys(FIELDS, "")
    result |= {"operator": row.operator, "shape": "x".join(map(str, row.shape)), "dtype": str(row.dtype).split(".")[1]}
    result["equal"] = row.equal()
    if not result["equal"]:
        return result
    source = torch.empty(row.copied // 2, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    functions: dict[str, Callable[[], object]] = {
        "spiking_us": row.spiking,
        "exact_us": row.exact,
        "copy_us": lambda: target.copy_(source),
    }
    times: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(RUNS + 3):
        for name, function in functions.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            stop.record()
            stop.synchronize()
            if run >= 3:  # the first compile and warm up
                times[name].append(start.elapsed_time(stop) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    result |= {name: f"{value:.1f}" for name, value in medians.items()}
    result["times_exact"] = f"{medians['spiking_us'] / medians['exact_us']:.2f}"
    result["times_copy"] = f"{medians['spiking_us'] / medians['copy_us']:.2f}"
    return result


def main(path: Path) -> int:
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs an NVIDIA GPU: torch.cuda.is_available() is false here.", file=sys.stderr)
        return 1
    import triton

    machine = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "numerics": Numerics().token,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    print(" | ".join(FIELDS))
    rows = []
    for shape in ((4096, 1024), (4096, 4096), (2048, 14336)):
        for dtype in (torch.bfloat16, torch.float32):
            rows += [measured(row) for row in over_rows(shape, dtype)]
    for count, inputs, outputs in ((1, 4096, 4096), (512, 4096, 4096), (4096, 4096, 14336), (4096, 576, 1536)):
        for levels in (127, 256):
            rows.append(measured(linear(count, inputs, outputs, levels)))
    rows.append(measured(linear(4096, 14336, 4096, 256, rotation=64)))
    for dtype in (torch.bfloat16, torch.float32):
        rows += [measured(row) for row in linear_operators((4096, 4096), dtype)]
    for keys in (2048, 4096, 8192):
        for causal in (True, False):
            rows.append(measured(attention(keys, causal=causal)))
    rows += [measured(row) for row in prefills()]
    for row in rows:
        print(" | ".join(str(row[field]) for field in FIELDS))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*FIELDS, *machine])
        writer.writeheader()
        writer.writerows({**row, **machine} for row in rows)
    failed = [row for row in rows if not row["equal"]]
    if failed:
        print(f"{len(failed)} rows are not equal to the closed form and have no figures.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "results/gpu.csv")))
