"""Two arms on one model: who goes first, and that the model is always exact again."""

from __future__ import annotations

import pytest
import torch
from tiny_model import tiny_model

from spikeplug import conversion
from spikeplug.conversion.plug import plug_of
from spikeplug.errors import SpikeplugError
from spikeplug.evaluation.arms import Arms
from spikeplug.presets import PRESETS

IDS = torch.arange(32)[None]


def is_converted(model) -> bool:
    try:
        conversion.revert(model)
    except SpikeplugError:
        return False
    return True


def make_arms(model, operators=None):
    return Arms(model, PRESETS["paper"].numerics, operators, None)


def test_arms_take_turns(model):
    arms, order = make_arms(model), []

    def work(model):
        order.append(plug_of(model.model.norm) is not None)

    for _ in range(4):
        arms.both(work)
    assert order == [False, True, True, False, False, True, True, False]


def test_each_result_lands_in_its_own_arm(model):
    arms = make_arms(model)
    with torch.inference_mode():
        plain = model(IDS).logits
    conversion.convert(model, PRESETS["paper"].numerics)
    with torch.inference_mode():
        spiking = model(IDS).logits
    conversion.revert(model)
    for _ in range(3):
        pair = arms.both(lambda model: model(IDS).logits)
        assert torch.equal(pair.exact, plain)
        assert torch.equal(pair.converted, spiking)
        assert pair.exact_seconds > 0
        assert pair.converted_seconds > 0
    assert not torch.equal(plain, spiking)


@pytest.mark.parametrize("failing_call", [0, 1, 2, 3])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_exact_again_after_a_failure(model, failing_call, error):
    arms, calls = make_arms(model), []

    def work(model):
        calls.append(None)
        if len(calls) > failing_call:
            raise error

    def twice():
        arms.both(work)
        arms.both(work)

    with pytest.raises(error):
        twice()
    assert not is_converted(model)


def test_a_model_that_is_converted_already_is_refused_and_left_so(model):
    conversion.convert(model)
    with pytest.raises(SpikeplugError, match="converted already"), make_arms(model).converted():
        pass
    assert is_converted(model)


def test_two_models_take_turns_and_neither_is_converted(model):
    spiking = tiny_model()
    conversion.convert(spiking, PRESETS["paper"].numerics)
    arms, order = Arms(model, PRESETS["paper"].numerics, None, None, spiking), []
    pairs = [arms.both(lambda one: order.append(one is spiking) or one(IDS).logits) for _ in range(3)]
    assert order == [False, True, True, False, False, True]
    with torch.inference_mode():
        assert torch.equal(pairs[1].exact, model(IDS).logits)
        assert torch.equal(pairs[1].converted, spiking(IDS).logits)
    assert not is_converted(model)
    assert is_converted(spiking)
