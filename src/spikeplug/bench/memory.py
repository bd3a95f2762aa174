"""Measure how far one run of an arm raises the memory of a process: a fresh process for every arm.

It runs `python -m spikeplug.bench.memory`: a request as JSON on its standard input, a line of MiB per case on its
output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeplug.bench.cases import Case

if TYPE_CHECKING:
    from torch import Tensor

#: Rows, or queries and keys, of the run that compiles and starts threads before the measurement.
_WARM = 2
#: From this many bytes on, the C library returns freed memory to the system, so that no run reuses memory of the one
#: before.
_LARGE = 1 << 16


def peaks(cases: Sequence[Case], arm: str, threads: int) -> list[float | None]:
    """Return, per case, how much the memory in use rises at most during one run, in MiB.

    The output counts, inputs do not. None where the system does not say (only Linux does, with a writable /proc), and,
    with a RuntimeWarning, where the process had failed by then, for example without memory.
    """
    return _asked({"cases": [asdict(case) for case in cases]}, len(cases), arm, threads)


def model_peaks(model: str | None, lengths: Sequence[int], arm: str, threads: int) -> list[float | None]:
    """Return, per length, the largest memory in use during a prefill beyond that before it, in MiB.

    model    the model as on the command line
    lengths  tokens of each prefill
    arm      "exact" or "kernel"

    Weights do not count. None where it could not be measured, as in `peaks`.
    """
    return _asked({"model": model, "lengths": list(lengths)}, len(lengths), arm, threads)


def _asked(request: dict[str, Any], count: int, arm: str, threads: int) -> list[float | None]:
    if not count:
        return []
    found = subprocess.run(
        [sys.executable, "-m", "spikeplug.bench.memory"],
        input=json.dumps({**request, "arm": arm, "threads": threads}),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "MALLOC_MMAP_THRESHOLD_": str(_LARGE)},
        check=False,
    )
    answers: list[float | None] = [json.loads(line) for line in found.stdout.splitlines()]
    if found.returncode:
        last = (found.stderr.strip().splitlines() or [f"exit code {found.returncode}"])[-1]
        warnings.warn(
            f"the process that measures the memory of {arm} ended early ({last}), {count - len(answers)} figures are "
            "missing; free some memory.",
            RuntimeWarning,
            stacklevel=3,
        )
    return answers + [None] * (count - len(answers))


def small(case: Case) -> Case:
    """Return the case with 2 rows (attention: 2 keys and at most 2 queries), to warm up before a measurement."""
    if case.operator != "attention":
        return replace(case, shape=(_WARM, case.shape[1]))
    heads, groups, queries, _, channels = case.shape
    return replace(case, shape=(heads, groups, min(queries, _WARM), _WARM, channels))


def resident(kind: str, restart: bool = False) -> float | None:
    """Return the memory of this process in MiB: now (kind "VmRSS") or the most so far (kind "VmHWM").

    restart  True: count the most from now on
    None where the system has no such figures.
    """
    try:
        if restart:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def growth(run: Callable[[], Tensor], warm: Callable[[], Tensor]) -> float | None:
    """Run `warm`, then `run`; return by how many MiB `run` raised the memory of this process at its peak.

    None where the system does not say.
    """
    warm()
    before = resident("VmRSS", restart=True)
    output = run()
    most = resident("VmHWM")
    del output
    return None if before is None or most is None else max(0.0, most - before)


def _of_cases(request: dict[str, Any]) -> Iterator[float | None]:
    from spikeplug.bench.arms import arms

    arm = request["arm"]
    for values in request["cases"]:
        case = Case(**{**values, "shape": tuple(values["shape"])})
        yield growth(arms(case, (arm,))[arm], arms(small(case), (arm,))[arm])


def _of_model(request: dict[str, Any]) -> Iterator[float | None]:
    import torch

    from spikeplug import conversion
    from spikeplug.bench.model import SHORT, last_only
    from spikeplug.measurement.loading import find_source, load

    model, _ = load(find_source(request["model"]))
    if request["arm"] == "kernel":
        conversion.convert(model)

    def prefill(tokens: int) -> Tensor:
        logits: Tensor = model(input_ids=torch.arange(tokens)[None] % 97, use_cache=False, **last_only(model)).logits
        return logits

    for length in request["lengths"]:
        yield growth(partial(prefill, length), partial(prefill, SHORT))


def _main() -> None:
    import torch

    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    out, sys.stdout = sys.stdout, sys.stderr  # the output is a line per figure, and nothing else
    with torch.inference_mode():
        for peak in _of_cases(request) if "cases" in request else _of_model(request):
            print(json.dumps(peak), file=out, flush=True)


if __name__ == "__main__":
    _main()
