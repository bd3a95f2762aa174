"""Evaluate: settings in, the results of both models out."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch import Tensor

from spikeplug import saturation
from spikeplug.conversion.swap import report_of
from spikeplug.english import english_text
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.choice import answer_item, choice_result
from spikeplug.evaluation.perplexity import perplexity_result, read_window
from spikeplug.evaluation.results import ConversionReport, Evaluation, TextFacts
from spikeplug.evaluation.settings import Settings
from spikeplug.measurement.comparing import evaluation_mode, next_token_logits
from spikeplug.measurement.items import Item, continuation_items, encode_question
from spikeplug.measurement.memory import peak_memory
from spikeplug.measurement.processes import Processes
from spikeplug.measurement.recipes import as_recipe, spiking_copy
from spikeplug.measurement.text import check_context, check_vocabulary, cut_windows, encode, positions_of
from spikeplug.presets import as_numerics
from spikeplug.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTINUATION_TASK = "continuation"


@dataclass(frozen=True)
class _Work:
    """Everything the models will read, prepared before a model runs.

    windows   per context length: token ids, int64 (windows, context)
    tasks     (name, items) of each multiple-choice task
    """

    text: TextFacts
    windows: tuple[Tensor, ...]
    tasks: tuple[tuple[str, tuple[Item, ...]], ...]


@dataclass(frozen=True)
class _Piece:
    """One piece of work: a window of text or a multiple-choice item.

    stage    what progress shows while the piece is worked on
    tokens   number of tokens to read
    work     does it with both models; returns a Reading for a window, an Answer for an item
    """

    stage: str
    tokens: int
    work: Callable[[], Any]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings | None = None,
    *,
    spiking: PreTrainedModel | None = None,
    progress: Progress | None = None,
    processes: Processes | None = None,
) -> Evaluation:
    """Compare an exact causal language model with its converted self, side by side on the same tokens.

    With the recipe operators, the model is converted and reverted around each window and each item. With the recipe
    whole, a copy is converted once; it shares the float weights, so it costs a byte per weight. Afterwards the model is
    as before. The saturation counts of the result cover this call only; the counts of the whole process are not reset.

    settings    what to evaluate; None: the defaults
    spiking     a spiking model to compare with, such as one loaded from a whole folder; nothing is converted then, and
                numerics, operators, exclude and recipe of the settings have no effect
    processes   processes that divide the windows and items among them, each with a whole model of its own. All of them
                must call this function with the same settings, and all get the same result. With the same number of
                threads, it differs from the result of a single process in the seconds only
    progress    called with (stage, tokens done, tokens in all) of this process

    Errors: SpikeplugError, before the model runs, for a text, context or task that does not fit the model and for a
    model that cannot be converted; later for a model that yields NaN before conversion.
    """
    start = time.perf_counter()
    settings, processes = settings or Settings(), processes or Processes()
    work = _prepare(model, tokenizer, settings)
    numerics, recipe = as_numerics(settings.numerics), as_recipe(settings.recipe, pipelines=True)
    with ExitStack() as modes:
        modes.enter_context(evaluation_mode(model))
        report: ConversionReport | None = None
        if spiking is not None:
            modes.enter_context(evaluation_mode(spiking))
            report = report_of(spiking)
            if report is None:
                raise SpikeplugError("the model given as spiking is not converted: convert it, or leave it out.")
        elif recipe.whole or recipe.pipeline:
            spiking, report = spiking_copy(
                model,
                tokenizer,
                recipe,
                numerics,
                operators=settings.operators,
                exclude=settings.exclude,
                progress=progress or silent,
            )
        arms = Arms(model, numerics, settings.operators, settings.exclude, spiking)
        if report is None:
            with arms.converted() as report:
                pass  # a model that cannot be converted is refused before anything runs
        pieces = _pieces(arms, work)
        mine = processes.share([piece.tokens for piece in pieces])
        found = _done(arms, work, {index: pieces[index] for index in mine}, progress or silent)
    return _gathered(work, processes.gather(found), report, processes.size, start)


@dataclass(frozen=True)
class _Found:
    """What one process found: number of each piece -> its result, and saturations; or `failure`, why it stopped."""

    results: dict[int, Any]
    saturations: dict[str, int]
    failure: str = ""


def _pieces(arms: Arms, work: _Work) -> list[_Piece]:
    """Return all pieces of work in a fixed order: the windows of each context length, then the items of each task."""
    pieces = [
        _Piece(f"context {len(window)}", len(window), partial(read_window, arms, window))
        for windows in work.windows
        for window in windows
    ]
    for name, items in work.tasks:
        pieces += (_Piece(name, item.tokens, partial(answer_item, arms, item)) for item in items)
    return pieces


def _done(arms: Arms, work: _Work, pieces: Mapping[int, _Piece], progress: Progress) -> _Found:
    """Do the given pieces of work after a warm-up. Return a SpikeplugError as text, so that all processes get it."""
    total, done = sum(piece.tokens for piece in pieces.values()), 0
    progress("warm-up", 0, total)
    warm_up = min(work.windows, key=lambda windows: windows.shape[1])[:1].to(arms.model.device)
    arms.both(partial(next_token_logits, ids=warm_up))
    results: dict[int, Any] = {}
    with saturation.counting() as counts:
        for index, piece in pieces.items():
            progress(piece.stage, done, total)
            try:
                results[index] = piece.work()
            except SpikeplugError as error:
                return _Found({}, {}, str(error))
            done += piece.tokens
            progress(piece.stage, done, total)
    return _Found(results, counts.to_dict())


def _gathered(
    work: _Work, everyone: Sequence[_Found], report: ConversionReport, processes: int, start: float
) -> Evaluation:
    """Combine what all processes found into one evaluation. Errors: SpikeplugError if one of the processes failed."""
    for found in everyone:
        if found.failure:
            raise SpikeplugError(found.failure)
    results = {index: result for found in everyone for index, result in found.results.items()}
    ordered = iter([results[index] for index in sorted(results)])
    saturations: Counter[str] = Counter()
    for found in everyone:
        saturations.update(found.saturations)
    return Evaluation(
        text=work.text,
        perplexity=tuple(
            perplexity_result(windows.shape[1], list(islice(ordered, len(windows)))) for windows in work.windows
        ),
        choices=tuple(choice_result(name, list(islice(ordered, len(items)))) for name, items in work.tasks),
        conversion=report,
        saturations=dict(sorted(saturations.items())),
        processes=processes,
        peak_memory=peak_memory(),
        seconds=time.perf_counter() - start,
    )


def _prepare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> _Work:
    check_context(model, max(settings.contexts))
    text = english_text() if settings.text is None else settings.text
    ids = encode(tokenizer, text)
    windows = tuple(cut_windows(ids, context, settings.tokens) for context in settings.contexts)
    tasks = []
    if settings.choices:
        tasks.append((CONTINUATION_TASK, continuation_items(ids, settings.choices, settings.seed)))
    longest = positions_of(model)
    for name, questions in settings.tasks:
        tasks.append((name, tuple(encode_question(tokenizer, question, longest) for question in questions)))
    read = [ids, *(part for _, items in tasks for item in items for part in (item.prompt, *item.choices))]
    check_vocabulary(model, [max(part, default=0) for part in read])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _Work(TextFacts(characters=len(text), tokens=len(ids), sha256=digest), windows, tuple(tasks))
