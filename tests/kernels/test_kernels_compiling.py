"""The first use of a kernel compiles it, which is logged; the next process finds it on disk and has nothing to tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import spikeplug
from spikeplug.kernels import enabled

LINE = "Compiling the wave kernel, the first time: some seconds.\n"
USE = "import logging, torch, spikeplug.functional; {}spikeplug.functional.cos(torch.ones(3))"

pytestmark = pytest.mark.skipif(not enabled(), reason="kernels are switched off")


def stderr_of(code, folder):
    source = str(Path(spikeplug.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stderr


def test_compiling_is_logged_and_loading_is_not(tmp_path):
    code = USE.format("logging.basicConfig(level='INFO', format='%(name)s %(levelname)s %(message)s'); ")
    assert stderr_of(code, tmp_path) == f"spikeplug.kernels INFO {LINE}"
    assert list(tmp_path.rglob("*.nbi"))
    assert stderr_of(code, tmp_path) == ""


def test_nobody_who_does_not_listen_hears_of_it(tmp_path):
    assert stderr_of(USE.format(""), tmp_path) == ""
    assert list(tmp_path.rglob("*.nbi"))
