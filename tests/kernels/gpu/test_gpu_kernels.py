"""Contract: every GPU kernel equals the closed form by `torch.equal`, on any input, at any block size.

Each file of checks runs in a process of its own. Without a GPU that is Triton's interpreter, which must be chosen
before Triton is imported: so it reaches no other test. On a machine with CUDA they run on the device.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
COMPILING = "checks_compiling.py"
CHECKS = sorted(path.name for path in FOLDER.glob("checks_*.py") if path.name != COMPILING)

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
@pytest.mark.parametrize("name", CHECKS)
def test_kernels_equal_the_closed_form(name: str) -> None:
    run(name, {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})


@needs_triton
def test_kernels_compile() -> None:
    run(COMPILING, {})


def run(name: str, settings: dict[str, str]) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TRITON_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(FOLDER / name)]
    result = subprocess.run(
        command, env=environment | settings, cwd=FOLDER.parents[2], capture_output=True, text=True, timeout=1200
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def test_every_kernel_is_checked() -> None:
    from spikeplug.kernels.gpu import KERNELS

    text = "".join((FOLDER / name).read_text(encoding="utf-8") for name in CHECKS)
    assert [name for name in KERNELS if f"functional.{name}" not in text and f'OPERATORS["{name}"]' not in text] == []
