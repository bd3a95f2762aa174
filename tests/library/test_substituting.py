"""Results given in the operators' place: who is asked, for what, and until when."""

from __future__ import annotations

import threading

import pytest
import torch

from spikeplug import Events, functional
from spikeplug.library import OPERATORS
from spikeplug.library.dispatch import substituted_by

X = torch.linspace(-3, 3, 24).view(2, 12)


def test_a_result_takes_the_operators_place_with_its_weight_and_bias() -> None:
    asked = []

    def substitute(call, part):
        asked.append((call.operator, part, call.weight is not None))
        return torch.full_like(call.arguments[0], 7.0) if call.operator == "silu" else None

    own = functional.softmax(X)
    with substituted_by(substitute):
        assert (functional.silu(X) == 7).all()
        assert torch.equal(functional.softmax(X), own)
        OPERATORS["rms_norm"](X, 1e-6, weight=torch.ones(12), part="any")
    assert asked == [("silu", "", False), ("softmax", "", False), ("rms_norm", "any", True)]
    assert not (functional.silu(X) == 7).any()


def test_operators_that_the_substitute_calls_run_as_usual() -> None:
    own = functional.silu(X)
    with substituted_by(lambda call, part: OPERATORS["silu"](*call.arguments) + 1):
        assert torch.equal(functional.softmax(X), own + 1)


def test_the_innermost_substitute_is_asked_and_the_outer_one_comes_back() -> None:
    with substituted_by(lambda call, part: torch.zeros(2, 12)):
        with substituted_by(lambda call, part: torch.ones(2, 12)):
            assert (functional.silu(X) == 1).all()
        assert (functional.silu(X) == 0).all()


def test_an_error_in_a_substitute_leaves_it_in_place_until_its_block_ends() -> None:
    def substitute(call, part):
        raise ZeroDivisionError

    with substituted_by(substitute):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                functional.silu(X)
    functional.silu(X)


def test_other_threads_are_not_asked() -> None:
    found = []
    with substituted_by(lambda call, part: torch.zeros(2, 12)):
        thread = threading.Thread(target=lambda: found.append(functional.silu(X)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], functional.silu(X))


def test_the_torch_op_asks_too_without_a_part() -> None:
    """As with a gradient. What is simulated by hand asks nobody."""
    parts = []

    def substitute(call, part):
        parts.append(part)
        return torch.zeros_like(call.arguments[0])

    with substituted_by(substitute):
        y = OPERATORS["silu"](X.clone().requires_grad_(), part="any")
        assert y.requires_grad
        assert (y == 0).all()
        assert (functional.silu(X, events=Events()) != 0).any()
    assert parts == [""]
