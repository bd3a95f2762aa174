"""`spikeplug lm-eval`: lm-eval's command line on the spiking model, or on both models and compared."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

# Even lm-eval's parser is imported where it is used: `spikeplug --help` must work without lm-eval.
if TYPE_CHECKING:
    from spikeplug.harness.arguments import Request


def lm_eval_command(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="lm-eval's own arguments, and --compare, --json.")
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
    from rich.console import Console

    from spikeplug.evaluation.record import check_writable, write_record
    from spikeplug.harness.launch import is_first_process, run_comparison
    from spikeplug.harness.record import make_comparison_record
    from spikeplug.harness.table import comparison_tables

    if request.json is not None and is_first_process():
        check_writable(request.json)
    found = run_comparison(request.arguments)
    if found is None:  # another process prints
        return
    console: Any = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(140, console.width))
    for table in comparison_tables(found):
        console.print(table)
    seconds = time.perf_counter() - start
    spiking, exact = found.seconds["spiking"], found.seconds["exact"]
    console.print(f"Time exact {exact:.0f} s, spiking {spiking:.0f} s, in all {seconds:.0f} s.")
    if request.json is not None:
        write_record(make_comparison_record(found, given), request.json)
