"""Run a report: study after study, row after row; each row is on the disk before the next is begun."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from spikeplug.english import english_text
from spikeplug.measurement.comparing import evaluation_mode
from spikeplug.measurement.recipes import as_recipe, saved_numerics, spiking_copy
from spikeplug.measurement.record import finite, origin
from spikeplug.measurement.text import check_context, check_vocabulary, cut_windows, encode
from spikeplug.presets import as_numerics
from spikeplug.progress import Progress, silent
from spikeplug.report import folder
from spikeplug.report.comparison import Comparison
from spikeplug.report.folder import RunFolder
from spikeplug.report.sections import STUDIES, study
from spikeplug.report.settings import Settings, arguments_of, hash_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def run(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings,
    out: Path,
    facts: Mapping[str, Any],
    progress: Progress | None = None,
    spiking: PreTrainedModel | None = None,
) -> RunFolder:
    """Measure all studies of the settings into the folder `out`; rows of an earlier run there are kept.

    With the recipe operators, the model is converted and reverted around each measurement, and afterwards it is as
    before. With the recipe whole, a copy is converted once; it shares the float weights.
    facts      name, type, parameters and dtype of the model, for the header
    progress   receives the rows that this call measures
    spiking    the whole spiking model that was made from the model, such as one loaded from a folder; nothing is
               converted then, and its own numerics and levels count

    Errors: SpikeplugError, before anything is measured, for a text, context, model or folder that does not fit.
    """
    folder.check_folder(out)
    check_context(model, settings.context)
    text = english_text() if settings.text is None else settings.text
    windows = cut_windows(encode(tokenizer, text), settings.context, settings.tokens)
    check_vocabulary(model, windows.flatten().tolist())
    if spiking is not None:
        own = saved_numerics(spiking)
        settings = replace(settings, numerics=own, realisation=None, recipe="whole")
    arguments = arguments_of(settings, facts, text, spiking)
    folder.check_arguments(out, arguments)  # before a conversion that takes minutes
    recipe, progress = as_recipe(settings.recipe), progress or silent
    with evaluation_mode(model):
        if recipe.whole and spiking is None:
            spiking, _ = spiking_copy(model, tokenizer, recipe, as_numerics(settings.numerics), progress=progress)
        comparison = Comparison(model, windows, settings, spiking, progress)
        header = {
            "schema_version": folder.SCHEMA_VERSION,
            **origin(),
            "arguments": arguments,
            "hash": hash_of(arguments),
            "layers": len(comparison.layers),
            "operators": list(comparison.operators),
            "windows": len(windows),
        }
        with folder.opened(out, header) as files, torch.inference_mode():
            _measure(comparison, files, progress)
            return files


def _measure(comparison: Comparison, files: RunFolder, progress: Progress) -> None:
    chosen = [name for name in STUDIES if name in comparison.settings.studies]
    left = {name: study(name).steps(comparison) for name in chosen}
    done = remembered = 0

    def tell(name: str) -> None:
        # Rows of an earlier run took no time, so they would spoil the estimate of the time left.
        progress(name, done - remembered, done + sum(left.values()) - remembered)

    def row(name: str, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        nonlocal done, remembered
        values = files.find(name, key)
        if values is None:
            start = time.perf_counter()
            # Continue with exactly what a later run will read.
            values = json.loads(json.dumps(finite(work()), allow_nan=False))
            files.append(name, key, time.perf_counter() - start, values)
        else:
            remembered += 1
        done += 1
        left[name] = max(0, left[name] - 1)
        tell(name)
        return values

    for name in chosen:
        tell(name)
        study(name).measure(comparison, partial(row, name))
        left[name] = 0  # a search may end early
