"""Compare the neurons of one token of a whole SmolLM2-135M with the published limits of every chip.

--write puts the tables into docs/fit.md, as `make fit` does.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch: as the command line does

import pages
from rich.console import Console
from rich.table import Table

import spikeplug
from spikeplug.hardware.chips import chip_names
from spikeplug.hardware.fit import fit_all, overview
from spikeplug.hardware.token import count_token
from spikeplug.measurement.loading import find_source, load
from spikeplug.measurement.record import environment

#: The chip whose table is shown in full.
DETAILED = "loihi1"


def markdown(table: Table) -> str:
    """Return a Rich table as one of Markdown."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [[str(column.header) for column in table.columns], ["---"] * len(table.columns)]
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    source = find_source(None)
    model, tokenizer = load(source)
    spikeplug.convert(model, recipe="whole", calibration=False)
    start = time.perf_counter()
    counted = count_token(model, tokenizer, arguments.context)
    fits = fit_all(counted, chip_names(), model=model)
    seconds, facts = time.perf_counter() - start, environment()
    found = fits[chip_names().index(DETAILED)]
    text = "\n\n".join(
        [
            f"One token of {source.name}, everything spiking, after {arguments.context - 1} tokens: "
            f"{found.neurons:,} neurons, {found.synapses:,} synapses, {found.spikes:,} spikes; counted and compared "
            f"in {seconds:.0f} s ({facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}; `make fit`). "
            "A cell has the verdict and the chip's limit.",
            markdown(overview(fits)),
            f"{found.chip.name} in full:",
            markdown(found.table()),
        ]
    )
    Console(width=200).print(text, markup=False)
    if arguments.write:
        pages.write("docs/fit.md", "fit", text)


if __name__ == "__main__":
    main()
