"""The runner: study after study, row after row, each on the disk before the next is begun."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.record import origin
from spikeplug.evaluation.results import finite
from spikeplug.evaluation.text import cut_windows, default_text, encode
from spikeplug.numerics import NUMERICS_VERSION
from spikeplug.report import folder
from spikeplug.report.bench import Bench
from spikeplug.report.folder import RunFolder
from spikeplug.report.settings import STUDIES, Settings, arguments_of, hash_of
from spikeplug.report.studies import Study, ablation, effort, location, propagation, rasters, sweeps

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MODULES = cast(
    "dict[str, Study]",
    {
        module.__name__.rpartition(".")[2]: module
        for module in (propagation, ablation, sweeps, location, rasters, effort)
    },
)


class Progress(Protocol):
    """Hears how far a run is: which study, how many rows of how many are done, how many of them before this run."""

    def __call__(self, study: str, done: int, total: int, remembered: int) -> None: ...


def run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    out: Path,
    facts: Mapping[str, Any],
    progress: Progress | None = None,
) -> RunFolder:
    """Measure all studies of the settings into the folder `out`, going on where an earlier run of the same stopped.

    The model is converted and reverted around each measurement and comes back as it was. facts: name, type, parameters
    and dtype of the model, for the header.
    Errors: SpikeplugError, before anything is measured, for a text, context, model or folder that does not fit.
    """
    text = default_text() if settings.text is None else settings.text
    windows = _windows(model, tokenizer, text, settings)
    modes = {module: module.training for module in model.modules()}
    model.train(False)
    try:
        with torch.inference_mode():
            bench = Bench(model, windows, settings)
            digest = hashlib.sha256(text.encode()).hexdigest()
            arguments = arguments_of(settings, facts, digest, NUMERICS_VERSION)
            header = {
                "schema_version": folder.SCHEMA_VERSION,
                **origin(),
                "arguments": arguments,
                "hash": hash_of(arguments),
                "layers": len(bench.layers),
                "operators": list(bench.operators),
                "windows": len(windows),
            }
            with folder.opened(out, header) as files:
                _measure(bench, files, progress or (lambda study, done, total, remembered: None))
                return files
    finally:
        for module, training in modes.items():
            module.training = training


def _measure(bench: Bench, files: RunFolder, progress: Progress) -> None:
    chosen = [name for name in STUDIES if name in bench.settings.studies]
    left = {name: _MODULES[name].steps(bench) for name in chosen}
    done = remembered = 0

    def row(study: str, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        nonlocal done, remembered
        values = files.find(study, key)
        if values is None:
            start = time.perf_counter()
            # What a later run will read is what this one goes on with.
            values = json.loads(json.dumps(finite(work()), allow_nan=False))
            files.append(study, key, time.perf_counter() - start, values)
        else:
            remembered += 1
        done += 1
        left[study] = max(0, left[study] - 1)
        progress(study, done, done + sum(left.values()), remembered)
        return values

    for name in chosen:
        progress(name, done, done + sum(left.values()), remembered)
        _MODULES[name].measure(bench, partial(row, name))
        left[name] = 0  # a search may end early


def _windows(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, settings: Settings) -> Tensor:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions and settings.context > positions:
        raise SpikeplugError(
            f"the context of {settings.context} is above the model's {positions} positions: give a smaller --context."
        )
    windows = cut_windows(encode(tokenizer, text), settings.context, settings.tokens)
    vocabulary = model.get_input_embeddings().get_parameter("weight").shape[0]
    if int(windows.max()) >= vocabulary:
        raise SpikeplugError(
            f"the tokenizer yields token {int(windows.max())}, but the model knows only {vocabulary}: they do not "
            "belong "
            "together."
        )
    return windows
