"""The side-by-side run: settings in, everything that was found out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from spikeplug import saturation
from spikeplug.config import SpikeConfig
from spikeplug.conversion.check import check_request
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.choice import measure_choices
from spikeplug.evaluation.items import Item, Question, continuation_items, encode_question
from spikeplug.evaluation.perplexity import measure_perplexity, next_token_logits
from spikeplug.evaluation.results import ChoiceResult, Evaluation, PerplexityResult, TextFacts
from spikeplug.evaluation.text import cut_windows, default_text, encode

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

    config: SpikeConfig = field(default_factory=SpikeConfig)
    operators: tuple[str, ...] = ("softmax", "silu", "rms_norm")
    exclude: str | None = None
    contexts: tuple[int, ...] = (512, 2048)
    tokens: int = 4096
    choices: int = 32
    tasks: tuple[tuple[str, tuple[Question, ...]], ...] = ()
    text: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_request(self.config, self.operators, self.exclude)
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

    @property
    def tokens(self) -> int:
        windows = sum(batch.numel() for batch in self.windows)
        return windows + sum(item.tokens for _, items in self.tasks for item in items)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare an exact causal language model with its converted self, side by side on the same tokens.

    The model is converted and reverted around each piece of work, and comes back as it was. The saturation counts of
    the process start anew. Errors: SpikeplugError for a text, context or task that does not fit the model and for a
    model that cannot be converted, both before the model runs; for a model that yields NaN before conversion.
    """
    start = time.perf_counter()
    settings = settings or Settings()
    work = _prepare(model, tokenizer, settings)
    arms = Arms(model, settings.config, settings.operators, settings.exclude)
    stage, done = "warm-up", 0

    def begin(name: str) -> None:
        nonlocal stage
        stage = name
        advance(0)

    def advance(tokens: int) -> None:
        nonlocal done
        done += tokens
        if progress:
            progress(stage, done, work.tokens)

    modes = {module: module.training for module in model.modules()}
    model.train(False)
    try:
        with arms.converted() as report:
            pass  # a model that cannot be converted is refused before anything runs
        begin("warm-up")
        warm_up = min(work.windows, key=lambda windows: windows.shape[1])[:1].to(model.device)
        arms.both(partial(next_token_logits, model, warm_up))
        saturation.reset_saturations()
        perplexity: list[PerplexityResult] = []
        for windows in work.windows:
            begin(f"context {windows.shape[1]}")
            perplexity.append(measure_perplexity(arms, windows, advance))
        choices: list[ChoiceResult] = []
        for name, items in work.tasks:
            begin(name)
            choices.append(measure_choices(arms, name, items, advance))
    finally:
        for module, training in modes.items():
            module.training = training
    return Evaluation(
        text=work.text,
        perplexity=tuple(perplexity),
        choices=tuple(choices),
        conversion=report,
        saturations=saturation.saturations(),
        seconds=time.perf_counter() - start,
    )


def _prepare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Settings) -> _Work:
    longest = _positions(model)
    if max(settings.contexts) > longest:
        raise SpikeplugError(
            f"the context of {max(settings.contexts)} is above the model's {longest} positions: give a smaller "
            "--context."
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
