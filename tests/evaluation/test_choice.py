"""Scores of choices against a loop that reads every choice alone, without cache or padding."""

from __future__ import annotations

import math

import pytest
import torch

from spikeplug import conversion
from spikeplug.conversion.plug import plug_of
from spikeplug.evaluation.arms import Arms
from spikeplug.evaluation.choice import answer, answer_item, choice_result, choice_scores
from spikeplug.measurement.items import Item
from spikeplug.numerics import Numerics

ITEMS = {
    "equal lengths": Item((1, 2, 3, 4), ((5, 6, 7), (8, 9, 10), (5, 6, 11)), 0),
    "unequal lengths": Item(tuple(range(40)), ((5,), (8, 9, 10, 11, 12), (200, 100)), 2),
    "one token each": Item((9, 8), ((1,), (2,)), 1),
    "a prompt of one token": Item((3,), ((1, 2, 3, 4), (2,)), 0),
}


def one_by_one(model, item):
    scores = []
    for choice in item.choices:
        ids = torch.tensor([item.prompt + choice])
        log_p = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
        first = len(item.prompt) - 1
        scores.append(sum(log_p[first + i, token] for i, token in enumerate(choice)) / len(choice))
    return torch.stack(scores)


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
@pytest.mark.parametrize("converted", [False, True])
@torch.inference_mode()
def test_scores_are_those_of_a_plain_loop(model, item, converted):
    if converted:
        conversion.convert(model)
    torch.testing.assert_close(choice_scores(model, item), one_by_one(model, item), rtol=1e-3, atol=1e-3)
    if not converted:
        torch.testing.assert_close(choice_scores(model, item), one_by_one(model, item), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_longer_neighbour_changes_no_score(model):
    short, long = (5, 6), tuple(range(30, 60))
    alone = choice_scores(model, Item((1, 2, 3), (short, short), 0))
    beside = choice_scores(model, Item((1, 2, 3), (short, long), 0))
    torch.testing.assert_close(alone[0], beside[0], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_answers(model):
    item = ITEMS["unequal lengths"]
    assert answer(model, item) == int(one_by_one(model, item).argmax())
    model.lm_head.weight.data[100] = math.nan
    assert answer(model, item) == -1


def test_accuracy_agreement_and_standard_error(model, monkeypatch):
    answers = iter([(0, 0), (1, 0), (1, 1), (2, 1)])  # (exact, converted) per item; the right one is always 1
    order = [0]

    def scripted(model, item):
        if order[0] % 2 == 0:
            scripted.now = next(answers)
        spiking = plug_of(model.model.norm) is not None
        order[0] += 1
        return scripted.now[spiking]

    monkeypatch.setattr("spikeplug.evaluation.choice.answer", scripted)
    items = [Item((1,), ((1, 2), (3, 4), (5, 6)), 1)] * 4
    arms = Arms(model, Numerics(), ("silu", "rms_norm"), None)
    result = choice_result("name", [answer_item(arms, item) for item in items])
    assert (result.task, result.items, result.exact_percent, result.converted_percent) == ("name", 4, 50.0, 50.0)
    assert result.agreement_percent == 50.0
    assert result.exact_standard_error == result.converted_standard_error == 25.0
