"""Two processes share the items, and only the first prints."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from spikeplug import cli

HERE = Path(__file__).parent


def processes(given, cache):
    """Two processes, with the environment torchrun would give them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "PYTHONPATH": str(Path(cli.__file__).parents[2]),
        "HF_DATASETS_CACHE": str(cache),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    pipe = subprocess.PIPE
    return [
        subprocess.Popen(
            [sys.executable, HERE / "distributed_run.py", *given],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="meant for processes on CPUs")
def test_two_processes_find_what_one_finds(folder, examples, tmp_path):
    given = ["--include_path", str(examples), "--tasks", "spikeplug_series", "--compare", "--limit", "9"]
    given += ["--model_args", f"pretrained={folder},preset=paper", "--json"]
    running = processes([*given, tmp_path / "two.json"], tmp_path / "two")
    result = CliRunner().invoke(cli.app, ["lm-eval", *given, str(tmp_path / "one.json")])
    first, second = (process.communicate(timeout=300) for process in running)
    assert [process.returncode for process in running] == [0, 0], (first, second)
    assert "Time exact" in first[0]
    assert second[0] == ""
    assert result.exit_code == 0, (result.output, result.exception)
    one, two = (json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert (one["settings"]["processes"], two["settings"]["processes"]) == (1, 2)
    assert one["tasks"]["spikeplug_series"]["items"] == two["tasks"]["spikeplug_series"]["items"] == 9
    assert one["rows"] == two["rows"]
    assert one["saturations"] == two["saturations"]
