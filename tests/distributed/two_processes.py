"""Runs a script in two processes that torchrun starts, on the CPU, and gives back what each of them saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def torchrun(arguments: Sequence[str], timeout: float = 120.0, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc-per-node 2 ARGUMENTS`, one thread each; an error shows the output. Leaves no process behind."""
    # --standalone takes a free port; the loopback device needs no name server and no network.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Not the launching test's own.
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    command = [*launcher, "--nproc-per-node", str(processes), *arguments]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the launcher and what it started
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def run_worker(script: str, folder: Path) -> list[dict[str, Any]]:
    """Run tests/distributed/SCRIPT with `folder` as argument; what `save` was given in each process, by rank."""
    done = torchrun([str(HERE / script), str(folder)])
    assert done.returncode == 0, done.stderr[-6000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def save(values: dict[str, Any], folder: str) -> None:
    """In a worker: hand values (tensors, numbers, texts, lists and dicts of them) back to the test."""
    torch.save(values, Path(folder) / f"rank{torch.distributed.get_rank()}.pt")
