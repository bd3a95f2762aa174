"""A call is a short way: few files from the public function to the kernel."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
import torch

import spikeplug
from spikeplug import functional
from spikeplug.kernels import enabled

ROOT = Path(spikeplug.__file__).parent
X, WEIGHT = torch.linspace(-3, 3, 2048).view(1, 2048), torch.ones(2048)
CALLS: dict[str, Callable[[], torch.Tensor]] = {
    "softmax": lambda: functional.softmax(X),
    "silu": lambda: functional.silu(X),
    "swiglu": lambda: functional.swiglu(X, X),
    "rms_norm": lambda: functional.rms_norm(X, WEIGHT),
    "layer_norm": lambda: functional.layer_norm(X, WEIGHT, WEIGHT),
    "cos": lambda: functional.cos(X),
}


def files_entered(call: Callable[[], object]) -> set[str]:
    """The package's files whose Python functions a call enters."""
    found: set[str] = set()

    def enter(frame: FrameType, event: str, argument: object) -> None:
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(ROOT)):
            found.add(str(Path(path).relative_to(ROOT)))

    before = sys.getprofile()
    sys.setprofile(enter)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.skipif(not enabled(), reason="kernels are switched off")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_crosses_at_most_six_files(name: str) -> None:
    CALLS[name]()  # the first call imports, compiles and makes tables
    files = files_entered(CALLS[name])
    assert {"functional.py", "library/dispatch.py", "kernels/registry.py"} <= files
    assert len(files) <= 6, sorted(files)
