"""The first use of a kernel compiles it and logs that; the next process finds it on disk, unless it is damaged."""

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


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def changed(path):
    """One byte in the middle: of a data file, machine code that would crash."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def replaced_by_text(path):
    path.write_text("not a cache file")


@pytest.mark.parametrize("damaged", [False, True])
def test_a_folder_that_takes_nothing_costs_no_second_compilation(damaged, tmp_path):
    code = USE.format(
        "import numba.core.caching as c; full = lambda *_: open('/nonexistent/file', 'wb'); "
        "c.IndexDataCacheFile.save = c.IndexDataCacheFile.flush = full; "
        "logging.basicConfig(level='INFO', format='%(levelname)s %(message)s'); "
    )
    if damaged:
        stderr_of(USE.format(""), tmp_path)
        for path in tmp_path.rglob("*.nbi"):
            emptied(path)
    lines = [line.split()[0] for line in stderr_of(code, tmp_path).splitlines()]
    assert lines == ["WARNING", "INFO"][1 - damaged :]


@pytest.mark.parametrize(
    ("kind", "damage"),
    [("nbi", cut_short), ("nbi", emptied), ("nbi", replaced_by_text), ("nbc", cut_short), ("nbc", changed)],
)
def test_a_damaged_file_is_compiled_again_and_that_is_logged_once(kind, damage, tmp_path):
    code = USE.format("logging.basicConfig(level='INFO', format='%(levelname)s %(message)s'); ") + "; "
    code += "print(spikeplug.functional.sin(torch.ones(3)).shape)"
    stderr_of(code, tmp_path)
    for path in tmp_path.rglob(f"*.{kind}"):
        damage(path)
    lines = stderr_of(code, tmp_path).splitlines()
    assert [line.split()[0] for line in lines] == ["WARNING", "INFO"]
    assert "is damaged" in lines[0]
    assert stderr_of(code, tmp_path) == ""
