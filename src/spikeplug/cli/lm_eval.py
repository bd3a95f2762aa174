"""`spikeplug lm-eval`: the command line of lm-eval on the spiking model, or on both models and compared."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from spikeplug.cli.output import deliver
from spikeplug.measurement.files import check_outputs
from spikeplug.measurement.processes import is_first_process
from spikeplug.measurement.record import write_record

# `spikeplug --help` must work without lm-eval, so everything that needs it is imported where it is used.
if TYPE_CHECKING:
    from spikeplug.harness.arguments import Request


def lm_eval_command(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="The arguments of lm-eval, and --compare, --json.")
    ] = None,
) -> None:
    """Run lm-eval's tasks on the spiking model; with --compare on the exact one too."""
    from spikeplug.harness.arguments import parse
    from spikeplug.harness.launch import run_lm_eval, run_other_command

    given = arguments or []
    if given[:1] in (["ls"], ["validate"]):
        run_other_command(given)
        return
    request = parse(given)
    if request.compare:
        _compare(request, given)
    else:
        run_lm_eval(request.arguments)


def _compare(request: Request, given: list[str]) -> None:
    start = time.perf_counter()
    if is_first_process():
        check_outputs({"--json": request.json}, [("--config", request.arguments.config)])
    from spikeplug.harness.compare import make_comparison_record
    from spikeplug.harness.launch import run_comparison
    from spikeplug.harness.table import comparison_tables

    found = run_comparison(request.arguments)
    if found is None:  # another process prints
        return
    spiking, exact = found.seconds["spiking"], found.seconds["exact"]
    total = f"Time exact {exact:.0f} s, spiking {spiking:.0f} s, in all {time.perf_counter() - start:.0f} s."
    writes = [partial(write_record, make_comparison_record(found, given), request.json)] if request.json else []
    deliver(writes, [*comparison_tables(found), total])
