"""The side-by-side run: settings in, everything that was found out."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from spikeplug import saturation
from spikeplug.conversion.check import check_request
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.choice import answer_item, choice_result
from spikeplug.evaluation.items import Item, Question, continuation_items, encode_question
from spikeplug.evaluation.perplexity import next_token_logits, perplexity_result, read_window
from spikeplug.evaluation.processes import Processes
from spikeplug.evaluation.results import ConversionReport, Evaluation, TextFacts
from spikeplug.evaluation.text import cut_windows, default_text, encode
from spikeplug.numerics import Numerics
from spikeplug.presets import as_numerics

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CONTINUATION_TASK = "continuation"


class Progress(Protocol):
    """Hears how far a run is: what is being done now, and how many of all tokens are done."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to evaluate. Errors: SpikeplugError for a value out of its domain.

    contexts   window lengths in tokens, each at least 2
    tokens     tokens of the text read at each context (at least one window)
    choices    number of "pick the true continuation" items
    tasks      further multiple-choice tasks: (name, questions)
    text       the text; None: the reference text of this Python (`pydoc_data.topics`)
    """

    numerics: Numerics = field(default_factory=Numerics)
    operators: tuple[str, ...] | None = None  # all
    exclude: str | None = None
    contexts: tuple[int, ...] = (512, 2048)
    tokens: int = 4096
    choices: int = 32
    tasks: tuple[tuple[str, tuple[Question, ...]], ...] = ()
    text: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        as_numerics(self.numerics)
        check_request(self.operators, self.exclude)
        if not self.contexts or min(self.contexts) < 2:
            raise SpikeplugError(f"context is {min(self.contexts, default='empty')}; it must be 2 tokens or more.")
        if len(set(self.contexts)) < len(self.contexts):
            raise SpikeplugError("a context is given twice; name each length once.")
        for name, value in (("tokens", self.tokens), ("choices", self.choices)):
            if value < 1:
                raise SpikeplugError(f"{name} is {value}; it must be 1 or more.")


@dataclass(frozen=True)
class _Work:
    """Everything the models will read, in token ids, before the first of them runs."""

    text: TextFacts
    windows: tuple[Tensor, ...]
    tasks: tuple[tuple[str, tuple[Item, ...]], ...]


@dataclass(frozen=True)
class _Piece:
    """What is done in one go: one window or one item."""

    stage: str
    tokens: int
    work: Callable[[], Any]  # a Reading of a window, an Answer to an item


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
    processes: Processes | None = None,
) -> Evaluation:
    """Compare an exact causal language model with its converted self, side by side on the same tokens.

    The model is converted and reverted around each piece of work, and comes back as it was. The saturation counts of
    the process start anew. `processes`: windows and items are dealt out to these, each with a whole model of its own;
    all of them must call this function with the same settings, and all get the same answer, which, on the same number
    of threads, is that of one process but for the seconds. `progress` hears of this process's own share.

    Errors: SpikeplugError for a text, context or task that does not fit the model and for a model that cannot be
    converted, both before the model runs; for a model that yields NaN before conversion.
    """
    start = time.perf_counter()
    settings, processes = settings or Settings(), processes or Processes()
    work = _prepare(model, tokenizer, settings)
    arms = Arms(model, settings.numerics, settings.operators, settings.exclude)
    pieces = _pieces(arms, work)
    modes = {module: module.training for module in model.modules()}
    model.train(False)
    try:
        with arms.converted() as report:
            pass  # a model that cannot be converted is refused before anything runs
        mine = processes.share([piece.tokens for piece in pieces])
        found = _done(arms, work, {index: pieces[index] for index in mine}, progress)
    finally:
        for module, training in modes.items():
            module.training = training
    return _gathered(work, processes.gather(found), report, processes.size, start)


@dataclass(frozen=True)
class _Found:
    """What one process found: results by number of the piece; or why it stopped."""

    results: dict[int, Any]
    saturations: dict[str, int]
    failure: str = ""


def _pieces(arms: Arms, work: _Work) -> list[_Piece]:
    """All pieces in order: windows by context, then items by task."""
    pieces = [
        _Piece(f"context {len(window)}", len(window), partial(read_window, arms, window))
        for windows in work.windows
        for window in windows
    ]
    for name, items in work.tasks:
        pieces += (_Piece(name, item.tokens, partial(answer_item, arms, item)) for item in items)
    return pieces


def _done(arms: Arms, work: _Work, pieces: Mapping[int, _Piece], progress: Progress | None) -> _Found:
    """Do some of the pieces. Bad input does not end this process before it has told the others."""
    total, done = sum(piece.tokens for piece in pieces.values()), 0
    report = progress or (lambda stage, done, total: None)
    report("warm-up", 0, total)
    warm_up = min(work.windows, key=lambda windows: windows.shape[1])[:1].to(arms.model.device)
    arms.both(partial(next_token_logits, arms.model, warm_up))
    saturation.reset_saturations()
    results: dict[int, Any] = {}
    for index, piece in pieces.items():
        report(piece.stage, done, total)
        try:
            results[index] = piece.work()
        except SpikeplugError as error:
            return _Found({}, {}, str(error))
        done += piece.tokens
        report(piece.stage, done, total)
    return _Found(results, saturation.saturations())


def _gathered(
    work: _Work, everyone: Sequence[_Found], report: ConversionReport, processes: int, start: float
) -> Evaluation:
    """What all processes found, put in order and added up. Errors: SpikeplugError if one of them failed."""
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
        seconds=time.perf_counter() - start,
    )


def _prepare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> _Work:
    longest = _positions(model)
    if max(settings.contexts) > longest:
        raise SpikeplugError(
            f"the context of {max(settings.contexts)} is above the model's {longest} positions: give a smaller --context."
        )
    text = default_text() if settings.text is None else settings.text
    ids = encode(tokenizer, text)
    windows = tuple(cut_windows(ids, context, settings.tokens) for context in settings.contexts)
    tasks = [(CONTINUATION_TASK, continuation_items(ids, settings.choices, settings.seed))]
    for name, questions in settings.tasks:
        tasks.append((name, tuple(encode_question(tokenizer, question, longest) for question in questions)))
    _check_vocabulary(model, ids, [item for _, items in tasks for item in items])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _Work(TextFacts(characters=len(text), tokens=len(ids), sha256=digest), windows, tuple(tasks))


def _positions(model: PreTrainedModel) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else 2**31  # a model without a position table has no limit of its own


def _check_vocabulary(model: PreTrainedModel, ids: Sequence[int], items: Sequence[Item]) -> None:
    weight: Tensor = model.get_input_embeddings().get_parameter("weight")
    vocabulary = weight.shape[0]
    highest = max(max(ids), *(max(*item.prompt, *(max(choice) for choice in item.choices)) for item in items))
    if highest >= vocabulary:
        raise SpikeplugError(
            f"the tokenizer yields token {highest}, but the model knows only {vocabulary}: they do not belong together."
        )
