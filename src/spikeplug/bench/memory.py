"""How far one run of an arm raises the memory of a process: a fresh process for every arm, with nothing else in it.

`python -m spikeplug.bench.memory` is what runs there: a request as JSON on its standard input, MiB on its output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeplug.bench.cases import Case
from spikeplug.errors import SpikeplugError

if TYPE_CHECKING:
    from torch import Tensor

#: Rows, or queries and keys, of the run that compiles and starts threads before anything is measured.
_WARM = 2


def peak(case: Case, arm: str, threads: int) -> float | None:
    """MiB at most in use during one run beyond what was in use before it, output included and inputs not; None where
    the system does not tell (only Linux does, with a /proc that can be written).

    Errors: SpikeplugError if the process fails, such as for want of memory.
    """
    return _asked({"case": asdict(case), "arm": arm, "threads": threads}, f"{case.operator} {case.shown}, {arm}")


def model_peak(model: str | None, tokens: int, arm: str, threads: int) -> float | None:
    """The same of a prefill; model as the command line takes it, arm "exact" or "kernel". Weights are not counted."""
    request = {"model": model, "tokens": tokens, "arm": arm, "threads": threads}
    return _asked(request, f"prefill of {tokens} tokens, {arm}")


def _asked(request: dict[str, Any], what: str) -> float | None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(request["threads"])}
    found = subprocess.run(
        [sys.executable, "-m", "spikeplug.bench.memory"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if found.returncode:
        last = (found.stderr.strip().splitlines() or [f"exit code {found.returncode}"])[-1]
        raise SpikeplugError(f"{what}: the process that measures its memory ended early ({last}); free some memory.")
    answer: float | None = json.loads(found.stdout.splitlines()[-1])
    return answer


def small(case: Case) -> Case:
    """The case with few rows, or few queries and keys."""
    if case.operator != "attention":
        return replace(case, shape=(_WARM, case.shape[1]))
    heads, groups, queries, _, channels = case.shape
    return replace(case, shape=(heads, groups, min(queries, _WARM), _WARM, channels))


def resident(kind: str, restart: bool = False) -> float | None:
    """MiB resident now (VmRSS) or at most (VmHWM), from here on if restarted; None where there is no such thing."""
    try:
        if restart:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def growth(run: Callable[[], Tensor], warm: Callable[[], Tensor]) -> float | None:
    """`peak`, of this process, after `warm`."""
    warm()
    before = resident("VmRSS", restart=True)
    output = run()
    most = resident("VmHWM")
    del output
    return None if before is None or most is None else max(0.0, most - before)


def _of_case(request: dict[str, Any]) -> float | None:
    from spikeplug.bench.arms import arms

    case = Case(**{**request["case"], "shape": tuple(request["case"]["shape"])})
    return growth(arms(case)[request["arm"]], arms(small(case))[request["arm"]])


def _of_model(request: dict[str, Any]) -> float | None:
    import torch

    from spikeplug import conversion
    from spikeplug.bench.model import SHORT, last_only
    from spikeplug.evaluation.loading import find_source, load

    model, _ = load(find_source(request["model"]))
    if request["arm"] == "kernel":
        conversion.convert(model)

    def prefill(tokens: int) -> Tensor:
        logits: Tensor = model(input_ids=torch.arange(tokens)[None] % 97, use_cache=False, **last_only(model)).logits
        return logits

    return growth(lambda: prefill(request["tokens"]), lambda: prefill(SHORT))


def _main() -> None:
    import torch

    request = json.load(sys.stdin)
    torch.set_num_threads(request["threads"])
    with torch.inference_mode():
        print(json.dumps(_of_case(request) if "case" in request else _of_model(request)))


if __name__ == "__main__":
    _main()
