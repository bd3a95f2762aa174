"""Multiple-choice items, made from any text or read from a file."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.text import encode, read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPT = 48  # tokens
CONTINUATION = 16  # tokens
CHOICES = 4


@dataclass(frozen=True)
class Question:
    """One line of a task file: a query, the texts that may follow it, and the index of the right one."""

    query: str
    choices: tuple[str, ...]
    label: int
    place: str  # "FILE, line N", for messages


@dataclass(frozen=True)
class Item:
    """One question in token ids: the prompt, the choices that may follow it, and the index of the right one."""

    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    label: int

    @property
    def tokens(self) -> int:
        """Return the number of tokens a model reads to answer: the prompt once, and every choice."""
        return len(self.prompt) + sum(map(len, self.choices))


def continuation_items(ids: Sequence[int], count: int, seed: int) -> tuple[Item, ...]:
    """Return `count` items "pick the true continuation" of a text; the same ids, count and seed give the same items.

    Each has a prompt of 48 tokens and four choices of 16 tokens: the true continuation and three passages from
    elsewhere in the text. These overlap neither the prompt nor the true continuation. No two choices are equal.
    `ids` are the token ids of the text.
    Errors: SpikeplugError if the text is too short or repeats itself too much.
    """
    if count == 0:
        return ()
    span = PROMPT + CONTINUATION
    needed = max(3 * span, count + span - 1)
    if len(ids) < needed:
        raise SpikeplugError(
            f"the text has {len(ids)} tokens; {count} multiple-choice items need {needed}: give a longer --text or "
            "fewer --choices."
        )
    draw = random.Random(seed)
    return tuple(_continuation_item(ids, start, draw) for start in draw.sample(range(len(ids) - span + 1), count))


def _continuation_item(ids: Sequence[int], start: int, draw: random.Random) -> Item:
    def passage(at: int) -> tuple[int, ...]:
        return tuple(ids[at : at + CONTINUATION])

    truth, end = start + PROMPT, start + PROMPT + CONTINUATION
    before = max(0, start - CONTINUATION + 1)  # passages that end where the prompt starts, or earlier
    after = max(0, len(ids) - CONTINUATION + 1 - end)  # passages that start where the truth ends, or later
    choices = [passage(truth)]
    # More draws than choices: a passage that repeats an earlier one is skipped.
    for index in draw.sample(range(before + after), min(before + after, 64)):
        distractor = passage(index if index < before else index - before + end)
        if len(choices) < CHOICES and distractor not in choices:
            choices.append(distractor)
    if len(choices) < CHOICES:
        raise SpikeplugError("the text repeats itself too much for multiple-choice items: give another --text.")
    label = draw.randrange(CHOICES)
    choices[0], choices[label] = choices[label], choices[0]
    return Item(tuple(ids[start:truth]), tuple(choices), label)


def read_questions(path: str | Path) -> tuple[Question, ...]:
    """Return the questions of a file with one JSON object per line: `query`, `choices` (two or more texts) and `label`.

    `label` is the index of the right choice. Blank lines are skipped, further keys are ignored.
    Errors: SpikeplugError with the number of the first bad line.
    """
    questions = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SpikeplugError(f"{place}: not valid JSON ({error}).") from error
        questions.append(_question(record, place))
    if not questions:
        raise SpikeplugError(f"{path} holds no questions: give one JSON object per line with query, choices and label.")
    return tuple(questions)


def _question(record: object, place: str) -> Question:
    if not isinstance(record, dict):
        raise SpikeplugError(f"{place}: must be a JSON object with query, choices and label.")
    query, choices, label = (record.get(name) for name in ("query", "choices", "label"))
    if not isinstance(query, str) or not _is_text(query):
        raise SpikeplugError(f"{place}: query must be a text that is not empty.")
    if not isinstance(choices, list) or len(choices) < 2 or not all(map(_is_text, choices)):
        raise SpikeplugError(f"{place}: choices must be a list of two or more texts that are not empty.")
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
        raise SpikeplugError(f"{place}: label must be an index of choices, 0 to {len(choices) - 1}.")
    return Question(query, tuple(choices), label, place)


def _is_text(value: object) -> bool:
    # JSON can write half of a surrogate pair, which no tokenizer can read.
    return (
        isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    )


def encode_question(tokenizer: PreTrainedTokenizerBase, question: Question, longest: int) -> Item:
    """Return the question in token ids; each choice follows the query after a space.

    longest   most tokens the query and one choice may have together

    Errors: SpikeplugError for more tokens than that, or for a query or choice that has no tokens.
    """
    prompt = encode(tokenizer, question.query)
    choices = tuple(_following(tokenizer, question.query, prompt, " " + choice) for choice in question.choices)
    if not prompt or not all(choices):
        raise SpikeplugError(f"{question.place}: the tokenizer makes no tokens of the query or of a choice.")
    length = len(prompt) + max(map(len, choices))
    if length > longest:
        raise SpikeplugError(
            f"{question.place}: query and choice have {length} tokens, more than the {longest} positions of the model: "
            "shorten or remove it."
        )
    return Item(tuple(prompt), choices, question.label)


def _following(tokenizer: PreTrainedTokenizerBase, query: str, prompt: Sequence[int], choice: str) -> tuple[int, ...]:
    # Query and choice together first: a SentencePiece tokenizer puts a mark before a text that stands alone.
    whole = encode(tokenizer, query + choice)
    if len(whole) > len(prompt) and whole[: len(prompt)] == list(prompt):
        return tuple(whole[len(prompt) :])
    return tuple(encode(tokenizer, choice, special=False))
