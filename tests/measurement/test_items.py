"""Items made from a text, and items read from files."""

from __future__ import annotations

import json

import pytest

from spikeplug.errors import SpikeplugError
from spikeplug.measurement.items import (
    CHOICES,
    CONTINUATION,
    PROMPT,
    continuation_items,
    encode_question,
    read_questions,
)
from spikeplug.measurement.text import encode

SPAN = PROMPT + CONTINUATION
GOOD = {"query": "one", "choices": ["two", "three"], "label": 1}


@pytest.mark.parametrize("length", [3 * SPAN, 3 * SPAN + 1, 1000])
def test_true_continuations_and_distractors_from_elsewhere(length):
    # Ids that are their own positions say where each passage was cut.
    count = min(length - SPAN + 1, 200)
    items = continuation_items(range(length), count, seed=3)
    assert len({item.prompt for item in items}) == len(items) == count
    for item in items:
        start = item.prompt[0]
        assert item.prompt == tuple(range(start, start + PROMPT))
        assert len(set(item.choices)) == CHOICES
        for index, choice in enumerate(item.choices):
            assert choice == tuple(range(choice[0], choice[0] + CONTINUATION))
            if index == item.label:
                assert choice[0] == start + PROMPT
            else:
                assert choice[-1] < start or choice[0] >= start + SPAN
        assert item.tokens == PROMPT + CHOICES * CONTINUATION
    assert {item.label for item in items} == set(range(CHOICES))


def test_no_items():
    assert continuation_items([], 0, seed=0) == ()


def test_seeds():
    ids = range(5000)
    assert continuation_items(ids, 20, seed=1) == continuation_items(ids, 20, seed=1)
    assert continuation_items(ids, 20, seed=1) != continuation_items(ids, 20, seed=2)


@pytest.mark.parametrize(("length", "count"), [(0, 1), (3 * SPAN - 1, 1), (1000, 1000)])
def test_texts_that_are_too_short(length, count):
    with pytest.raises(SpikeplugError, match=rf"has {length} tokens; {count} multiple-choice items need \d+: give"):
        continuation_items(range(length), count, seed=0)


def test_a_text_that_repeats_itself():
    with pytest.raises(SpikeplugError, match="repeats itself too much"):
        continuation_items([7] * 1000, 1, seed=0)


def test_a_file_of_questions(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text("\ufeff" + json.dumps(GOOD) + "\n\n" + json.dumps({**GOOD, "more": 1}) + "\n", encoding="utf-8")
    first, second = read_questions(path)
    assert (first.query, first.choices, first.label) == ("one", ("two", "three"), 1)
    assert second.place == f"{path}, line 3"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"label": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("{}", "query must be"),
        (json.dumps({**GOOD, "query": " "}), "query must be"),
        (json.dumps({**GOOD, "query": ["a"]}), "query must be"),
        (json.dumps({**GOOD, "query": "\ud800"}), "query must be"),
        (json.dumps({**GOOD, "choices": "ab"}), "choices must be"),
        (json.dumps({**GOOD, "choices": ["a"]}), "choices must be"),
        (json.dumps({**GOOD, "choices": ["a", ""]}), "choices must be"),
        (json.dumps({**GOOD, "choices": ["a", 1]}), "choices must be"),
        (json.dumps({**GOOD, "choices": ["a", "\udfff"]}), "choices must be"),
        (json.dumps({**GOOD, "label": 2}), "label must be an index of choices, 0 to 1"),
        (json.dumps({**GOOD, "label": -1}), "label must be"),
        (json.dumps({**GOOD, "label": True}), "label must be"),
        (json.dumps({**GOOD, "label": "1"}), "label must be"),
        (json.dumps({**GOOD, "label": 1.0}), "label must be"),
    ],
    ids=lambda value: value[:30],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "task.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n", encoding="utf-8")
    with pytest.raises(SpikeplugError, match=rf"task.jsonl, line 2: {message}"):
        read_questions(path)


def test_a_file_without_questions(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text("\n \n", encoding="utf-8")
    with pytest.raises(SpikeplugError, match="holds no questions"):
        read_questions(path)


def questions(tmp_path, **changes):
    path = tmp_path / "task.jsonl"
    path.write_text(json.dumps({**GOOD, **changes}), encoding="utf-8")
    return read_questions(path)


def test_choices_follow_the_query_after_a_space(tmp_path, tokenizer):
    item = encode_question(tokenizer, questions(tmp_path)[0], 100)
    assert item.prompt == tuple(encode(tokenizer, "one"))
    assert item.choices == (tuple(encode(tokenizer, " two")), tuple(encode(tokenizer, " three")))
    assert item.label == 1


def test_a_question_longer_than_the_model(tmp_path, tokenizer):
    question = questions(tmp_path)[0]
    assert encode_question(tokenizer, question, 9).tokens == 3 + 4 + 6
    with pytest.raises(SpikeplugError, match="line 1: query and choice have 9 tokens, more than the 8 positions"):
        encode_question(tokenizer, question, 8)


class Merging:
    """A tokenizer that joins the query's last letter with the space after it."""

    def __call__(self, text, **options):
        whole = text.replace("e ", "E")
        return {"input_ids": [ord(letter) for letter in whole]}


def test_a_token_across_the_seam_is_not_split(tmp_path):
    item = encode_question(Merging(), questions(tmp_path)[0], 100)
    assert item.prompt == tuple(map(ord, "one"))
    assert item.choices == (tuple(map(ord, " two")), tuple(map(ord, " three")))
