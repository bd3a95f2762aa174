"""Hand over to lm-eval, and report its refusals in one sentence."""

from __future__ import annotations

import argparse
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lm_eval.utils
from huggingface_hub.errors import HfHubHTTPError
from lm_eval._cli import HarnessCLI
from lm_eval._cli.run import Run

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.processes import is_first_process

if TYPE_CHECKING:
    from spikeplug.harness.compare import HarnessComparison


def run_other_command(given: Sequence[str]) -> None:
    """Run lm-eval's commands `ls` or `validate` unchanged. given: the command and its arguments, as words."""
    harness = HarnessCLI()
    harness.execute(harness._parser.parse_args([*given]))


def run_lm_eval(arguments: argparse.Namespace) -> None:
    """Run lm-eval with parsed arguments; it prints its own tables. Errors: SpikeplugError for what lm-eval refuses."""
    _log(logging.INFO)
    with explained():
        Run._execute(arguments)


def run_comparison(arguments: argparse.Namespace) -> HarnessComparison | None:
    """Run lm-eval on the spiking and the exact model, and return the comparison; None if not the first process.

    Errors: SpikeplugError for what lm-eval refuses.
    """
    from spikeplug.harness.compare import compare

    _log(logging.WARNING)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as lm-eval does
    with explained():
        return compare(arguments)


def _log(level: int) -> None:
    lm_eval.utils.setup_logging(level if is_first_process() else logging.ERROR)


@contextmanager
def explained() -> Iterator[None]:
    """Turn refusals of lm-eval, and data that cannot be read, into SpikeplugErrors. Bugs keep their traceback."""
    try:
        yield
    except SpikeplugError:
        raise
    except (KeyError, ValueError, OSError) as error:
        found = re.match(r"Tasks not found: (.*)", str(error))
        if found:
            raise SpikeplugError(
                f"no task {found[1]}: `spikeplug lm-eval ls tasks` lists those of lm-eval, --include_path adds yours."
            ) from error
        if isinstance(error, (ConnectionError, FileNotFoundError, HfHubHTTPError)):
            raise SpikeplugError(
                f"cannot get the data of a task: {_first_line(error)}. Tasks of lm-eval need the network, or their "
                "data in the cache of the package datasets; for tasks from your own files see docs/lm-eval.md."
            ) from error
        if not _raised_by_lm_eval(error):
            raise
        raise SpikeplugError(f"lm-eval: {_first_line(error)}") from error


def _raised_by_lm_eval(error: BaseException) -> bool:
    """Return whether the error was raised in lm-eval itself, which is how it refuses, not in a library below it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return str(name).startswith("lm_eval.")


def _first_line(error: BaseException) -> str:
    """Return the first line of an error's message without its full stop, and for a KeyError without the quotes."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = text.strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
