"""Every kernel compiles for an H100 (sm_90), no float product is fused with a sum, no denormal flushed.

Nothing runs: launches are caught and compiled, which needs no GPU. Not in the interpreter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpu_kernel_cases import CONFIGS
from torch import Tensor
from triton import compile as triton_compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from spikeplug import Numerics, functional
from spikeplug.kernels.gpu.linear_product import choose_tile
from spikeplug.kernels.gpu.self_test import SelfTested
from spikeplug.library import OPERATORS

pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="compiles, in a process of its own"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning"),
]
_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_NAMES |= {torch.float64: "fp64", torch.int8: "i8", torch.int32: "i32", torch.int64: "i64"}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Whatever is launched, compiled as if its tensors were on an H100."""
    kernels: list[Any] = []

    def run(self: Any, *arguments: Any, grid: object, warmup: bool, **options: Any) -> None:
        names = [parameter.name for parameter in self.params]
        given = dict(zip(names, arguments, strict=False))
        given |= {name: options.pop(name) for name in names if name in options}
        signature, constants, hints = {}, {}, {}
        for place, parameter in enumerate(self.params):
            value = given[parameter.name]
            if parameter.is_constexpr or (isinstance(value, int) and value == 1):
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[parameter.name], hints[(place,)] = f"*{_NAMES[value.dtype]}", [["tt.divisibility", 16]]
            else:
                signature[parameter.name] = parameter.annotation_type or ("fp32" if isinstance(value, float) else "i32")
                if isinstance(value, int) and value % 16 == 0:
                    hints[(place,)] = [["tt.divisibility", 16]]
        source = ASTSource(self, signature, constants, hints)
        kernels.append(triton_compile(source, target=GPUTarget("cuda", 90, 32), options=options))

    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setattr(SelfTested, "_failure", lambda self, device: None)  # nothing runs that could be compared
    return kernels


def check(compiled: list[Any]) -> None:
    for kernel in compiled:
        assert len(kernel.asm["cubin"]) > 0
        assert re.findall(r"\bfma\.rn\.f(?:32|64)|\.ftz\b", kernel.asm["ptx"]) == []
    assert compiled


ROWS = torch.zeros(64, 4096, dtype=torch.bfloat16)
WEIGHT = torch.ones(4096, dtype=torch.bfloat16)
LONG, LONG_WEIGHT = torch.zeros(1, 20_000), torch.ones(20_000)
CALLS: dict[str, Callable[[], Tensor]] = {
    "softmax": lambda: functional.softmax(ROWS),
    "softmax, long": lambda: functional.softmax(LONG, numerics=CONFIGS[-1]),
    "silu": lambda: functional.silu(ROWS.float()),
    "sigmoid": lambda: functional.sigmoid(ROWS.half()),
    "gelu": lambda: functional.gelu(ROWS),
    "gelu, long": lambda: functional.gelu(LONG),
    "sigmoid, long": lambda: functional.sigmoid(LONG),
    "swiglu, long": lambda: functional.swiglu(LONG, LONG.half()),
    "rms_norm, long": lambda: functional.rms_norm(LONG, LONG_WEIGHT),
    "layer_norm, long": lambda: functional.layer_norm(LONG, LONG_WEIGHT, LONG_WEIGHT),
    "rms_norm": lambda: functional.rms_norm(ROWS, WEIGHT),
    "layer_norm": lambda: functional.layer_norm(ROWS, WEIGHT, WEIGHT),
    "add": lambda: OPERATORS["add"](ROWS, WEIGHT.float()),
    "multiply": lambda: OPERATORS["multiply"](ROWS.float(), ROWS.float()),
    "quantise": lambda: OPERATORS["quantise"](ROWS, 256, 32),
    "quantise, bytes": lambda: OPERATORS["quantise"](ROWS, 127, 0, 64, True),
}


@pytest.mark.parametrize("name", CALLS)
def test_kernels_over_rows(name: str, compiled: list[Any]) -> None:
    CALLS[name]()
    check(compiled)


@pytest.mark.parametrize(("bits", "channels"), [(16, 128), (20, 64)])
def test_attention(bits: int, channels: int, compiled: list[Any]) -> None:
    query, key = torch.randn(1, 4, 256, channels).bfloat16(), torch.randn(1, 2, 512, channels).bfloat16()
    numerics = Numerics(bits=bits, query_key_bits=bits)
    functional.attention(query, key, key, torch.ones(256, 512, dtype=torch.bool), numerics=numerics)
    check(compiled)
    (attention,) = (kernel for kernel in compiled if kernel.name == "attention_kernel")
    assert "rare_kernel" in {kernel.name for kernel in compiled}
    ptx = attention.asm["ptx"]
    check_units(ptx)
    assert "cvt.rn.f32.f64" in ptx  # scores are rounded once
    # The matrix units clamp: in either pass they add to one shifted sum a byte but the first, whose range is known.
    assert starts(attention.asm["ttir"]).count("arith.shli") == 2 * (1 if bits == 16 else 2)


def check_units(ptx: str) -> None:
    """The int8 matrix units make the products, and no other matrix unit any."""
    units = re.findall(r"(?:\bmma|wgmma\.mma_async)[\w.]*\.sync\.[\w.:]*", ptx)
    assert units
    assert [unit for unit in units if ".s32.s8.s8" not in unit] == []


@pytest.mark.parametrize("rows", [1, 40, 512])
@pytest.mark.parametrize(("levels", "block", "rotation"), [(127, 0, 0), (256, 0, 64), (127, 32, 0)])
def test_linear(rows: int, levels: int, block: int, rotation: int, compiled: list[Any]) -> None:
    weight, threshold = torch.zeros(96, 576, dtype=torch.int8), torch.zeros(96, dtype=torch.int32)
    bias = torch.zeros(96) if rotation else None
    x = torch.zeros(rows, 576, dtype=torch.float32 if block else torch.bfloat16)
    OPERATORS["linear"](x, weight, threshold, torch.tensor(0, dtype=torch.int32), bias, levels, block, rotation)
    check(compiled)
    (product,) = (kernel for kernel in compiled if kernel.name == "product_kernel")
    check_units(product.asm["ptx"])
    # Each digit's product has sums of its own, which begin at 0: the matrix units, which may clamp, see no other.
    ttir = product.asm["ttir"]
    sums = re.findall(r"tt\.dot [^,]*, [^,]*, (%\w+)", ttir)
    assert len(set(sums)) == len(sums) == (1 if levels == 127 and not block else 2)
    assert all(re.search(rf"iter_args\(.*{name} = (%cst\w*).*\)", ttir) for name in sums)
    assert set(re.findall(r"%cst\w* = arith.constant dense<(\S+)> : tensor<\d+x\d+xi32>", ttir)) == {"0"}
    assert product.metadata.shared <= 96 << 10
    assert choose_tile(rows).rows >= min(rows, 128)
    assert [kernel.name for kernel in compiled].count("scale_kernel") == (2 if rotation else 1)


def test_attention_without_a_mask(compiled: list[Any]) -> None:
    query, key = torch.randn(1, 1, 1, 40), torch.randn(1, 1, 1, 40).half()
    functional.attention(query, key, key)
    check(compiled)
    assert {"_encode", "attention_kernel", "rare_kernel"} == {kernel.name for kernel in compiled}


def starts(ttir: str) -> list[str]:
    """By what operation each matrix product's start is made."""
    made, found = {}, []
    for name, operation, operands in re.findall(r"^ *(%\S+) = (\S+) (.*)$", ttir, re.MULTILINE):
        made[name] = operation
        if operation == "tt.dot":
            found.append(made.get(operands.split(", ")[2], ""))
    return found
