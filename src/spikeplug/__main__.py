"""Run the command line: `python -m spikeplug`."""

from spikeplug.cli import main

if __name__ == "__main__":
    main()
