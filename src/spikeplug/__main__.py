"""Run the command line: `python -m spikeplug`, and the console script `spikeplug`."""

import signal


def main() -> None:
    """Run the command line. Until it is imported, Ctrl-C ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from spikeplug.cli import main as run

    run()


if __name__ == "__main__":
    main()
