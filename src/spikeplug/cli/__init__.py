"""The command line. Bad input ends with one line on stderr and exit code 2, Ctrl-C with 130, bugs with a traceback."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import spikeplug
from spikeplug.cli.audit import audit_command
from spikeplug.cli.bench import bench_command
from spikeplug.cli.convert import convert_command
from spikeplug.cli.energy import energy_command
from spikeplug.cli.evaluate import evaluate_command
from spikeplug.cli.export import export_command
from spikeplug.cli.fit import fit_command
from spikeplug.cli.generate import generate_command
from spikeplug.cli.lm_eval import lm_eval_command
from spikeplug.cli.ops import ops_command
from spikeplug.cli.output import prepare_streams, printing
from spikeplug.cli.report import report_command
from spikeplug.errors import SpikeplugError
from spikeplug.measurement.processes import is_first_process


class OneLineErrors(TyperGroup):
    """A group of commands that reports bad input in one line on stderr, with exit code 2."""

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command line and exit: 2 for bad input, 130 for Ctrl-C, else the exit code of the command."""
        if not options.pop("standalone_mode", True):
            return super().main(*args, **{**options, "standalone_mode": False})
        try:
            try:
                code = super().main(*args, **{**options, "standalone_mode": False})
            finally:
                with printing():
                    pass  # flush what was printed elsewhere, such as by a parser of lm-eval
        except SpikeplugError as error:
            _refuse(str(error))
        except typer.TyperException as error:
            _refuse(error.format_message())
        if code == 130:  # typer's code for a KeyboardInterrupt
            print("spikeplug: interrupted", file=sys.stderr)
        sys.exit(code if isinstance(code, int) else 0)


def _refuse(message: str) -> NoReturn:
    print("spikeplug:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


app = typer.Typer(
    cls=OneLineErrors,
    help="Spiking operators for the nonlinearities of Transformers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _OnStderr(logging.Handler):
    """A log handler that writes each message to the current sys.stderr: above the progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        print("spikeplug:", record.getMessage(), file=sys.stderr)


def _report_compiling() -> None:
    """Show the log messages of kernels on stderr, such as that one is being compiled; only in the first process."""
    if is_first_process():
        log = logging.getLogger("spikeplug.kernels")
        log.setLevel(logging.INFO)
        log.addHandler(_OnStderr())
        log.propagate = False  # shown once, whatever else a command sets up


def main() -> None:
    """Run the command line with this process's arguments, and exit with its code."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see spikeplug.__main__
            signal.signal(signal.SIGINT, signal.default_int_handler)
        prepare_streams()
        _report_compiling()
        app(prog_name="spikeplug")
    except KeyboardInterrupt:  # outside a command
        print("spikeplug: interrupted", file=sys.stderr)
        sys.exit(130)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Spiking operators for the nonlinearities of Transformers."""
    if version:
        typer.echo(f"spikeplug {spikeplug.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("convert")(convert_command)
app.command("eval")(evaluate_command)
app.command("generate")(generate_command)
app.command("audit")(audit_command)
app.command("ops")(ops_command)
app.command("bench")(bench_command)
app.command("energy")(energy_command)
app.command("report")(report_command)
app.command("export")(export_command)
app.command("fit")(fit_command)
# lm-eval reads everything after "lm-eval", --help included.
app.command("lm-eval", add_help_option=False, context_settings={"ignore_unknown_options": True})(lm_eval_command)
