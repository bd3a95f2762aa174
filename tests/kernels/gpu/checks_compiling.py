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

from spikeplug.kernels.gpu import FUNCTIONS, support

pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="compiles, in a process of its own"),
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning"),
]
_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
_NAMES |= {torch.int8: "i8", torch.int32: "i32", torch.int64: "i64"}


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
                signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
                if isinstance(value, int) and value % 16 == 0:
                    hints[(place,)] = [["tt.divisibility", 16]]
        source = ASTSource(self, signature, constants, hints)
        kernels.append(triton_compile(source, target=GPUTarget("cuda", 90, 32), options=options))

    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setattr(support, "interpreted", lambda: True)
    return kernels


def check(compiled: list[Any]) -> None:
    for kernel in compiled:
        assert len(kernel.asm["cubin"]) > 0
        assert re.findall(r"\bfma\.rn\.f(?:32|64)|\.ftz\b", kernel.asm["ptx"]) == []
    assert compiled


ROWS = torch.zeros(64, 4096, dtype=torch.bfloat16)
WEIGHT = torch.ones(4096, dtype=torch.bfloat16)
CALLS: dict[str, Callable[[], Tensor]] = {
    "softmax": lambda: FUNCTIONS["softmax"](ROWS),
    "softmax, long": lambda: FUNCTIONS["softmax"](torch.zeros(1, 20_000), config=CONFIGS[-1]),
    "gelu": lambda: FUNCTIONS["gelu"](ROWS),
    "rms_norm": lambda: FUNCTIONS["rms_norm"](ROWS, WEIGHT),
    "layer_norm": lambda: FUNCTIONS["layer_norm"](ROWS, WEIGHT, WEIGHT),
}


@pytest.mark.parametrize("name", CALLS)
def test_kernels_over_rows(name: str, compiled: list[Any]) -> None:
    CALLS[name]()
    check(compiled)


def test_attention(compiled: list[Any]) -> None:
    query, key = torch.randn(1, 4, 256, 128).bfloat16(), torch.randn(1, 2, 512, 128).bfloat16()
    FUNCTIONS["attention"](query, key, key, torch.ones(256, 512, dtype=torch.bool))
    check(compiled)
    ptx = compiled[-1].asm["ptx"]
    assert "mma.sync" in ptx or "wgmma" in ptx
    assert ".s32.s8.s8" in ptx  # values are summed by the int8 matrix units
